"""What is queued, in the form of Postfix's mailq with long queue ids; pure.

Monitoring reads this form, so it is kept. A message begins with its id, `*` behind it while it
is being sent and `!` while it is held; what the provider said stands in parentheses above the
recipients it is about; those that have it are not named any more.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

from relaygw.mail.queue_socket import CLOSING
from relaygw.mail.state import DeliveryState
from relaygw.store.queue_entry import Waiting

HEADINGS = b"----Queue ID----- --Size-- ---Arrival Time---- --Sender/Recipient------\n"
NULL_SENDER = "MAILER-DAEMON"
"""What Postfix prints for the null sender."""
_HELD = frozenset({DeliveryState.HELD.value})
_RECIPIENT_INDENT = " " * 47  # below the sender
_REASON_END = 76  # reasons are set against the right
_REASON_CHARACTERS = 1000


def compose_rows(one: Waiting) -> bytes:
    """Return the lines of a message, an empty one last; times are local."""
    arrival = time.asctime(time.localtime(one.accepted_at_ms / 1000))[:19]
    sender = _printable(one.sender) or NULL_SENDER
    # a mark needs a place of its own, so that no size runs into it
    name = f"{one.queue_id}{_mark(one.states)}"
    lines = [f"{name:<18} {one.size_bytes:>7} {arrival} {sender}", *_recipient_lines(one)]
    return ("\n".join(lines) + "\n\n").encode("utf-8", "replace")


def compose_closing(*, messages: int, size_bytes: int) -> bytes:
    """Return the last line."""
    plural = "" if messages == 1 else "s"
    text = b"%d Kbytes in %d Request%s.\n" % (size_bytes // 1024, messages, plural.encode())
    return CLOSING + text


def _mark(states: frozenset[str]) -> str:
    if DeliveryState.ACTIVE in states:
        return "*"
    return "!" if states == _HELD else ""


def _recipient_lines(one: Waiting) -> Iterator[str]:
    said = ""
    for address, why in one.recipients:
        reason = _printable(why[:_REASON_CHARACTERS])
        if reason and reason != said:
            yield f"({reason})".rjust(_REASON_END + 2)
        said = reason
        yield f"{_RECIPIENT_INDENT} {_printable(address)}"


def _printable(text: str) -> str:
    """Return `text` with everything spelled out that a terminal might obey."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
