"""What is queued, in the form of Postfix's mailq with long queue ids; pure.

Monitoring reads this form, so it is kept. A message begins with its id, `*` behind it while it
is being sent and `!` while it is held; what the provider said stands in parentheses above the
recipients it is about; those that have it are not named any more.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

from relaygw.mail.queue_socket import CLOSING
from relaygw.mail.state import OPEN, DeliveryState, RecipientState
from relaygw.store.protocol import DeliveryEntry, QueueEntry, RecipientEntry

HEADINGS = b"----Queue ID----- --Size-- ---Arrival Time---- --Sender/Recipient------\n"
_RECIPIENT_INDENT = " " * 47  # below the sender
_REASON_END = 76  # reasons are set against the right
_REASON_CHARACTERS = 1000


def compose_rows(entry: QueueEntry) -> bytes:
    """Return the lines of a message, an empty one last; times are local."""
    arrival = time.asctime(time.localtime(entry.accepted_at_ms / 1000))[:19]
    sender = _printable(entry.sender) or "MAILER-DAEMON"
    # a mark needs a place of its own, so that no size runs into it
    name = f"{entry.queue_id}{_mark(entry)}"
    lines = [f"{name:<18} {entry.size_bytes:>7} {arrival} {sender}", *_recipient_lines(entry)]
    return ("\n".join(lines) + "\n\n").encode("utf-8", "replace")


def compose_closing(*, messages: int, size_bytes: int) -> bytes:
    """Return the last line."""
    plural = "" if messages == 1 else "s"
    text = b"%d Kbytes in %d Request%s.\n" % (size_bytes // 1024, messages, plural.encode())
    return CLOSING + text


def _mark(entry: QueueEntry) -> str:
    states = {part.state for part in entry.deliveries} & OPEN
    if DeliveryState.ACTIVE in states:
        return "*"
    return "!" if states == {DeliveryState.HELD} else ""


def _recipient_lines(entry: QueueEntry) -> Iterator[str]:
    parts = {part.delivery_no: part for part in entry.deliveries}
    said = ""
    for one in entry.recipients:
        if one.state is not RecipientState.PENDING:
            continue
        reason = _reason(one, parts[one.delivery_no])
        if reason and reason != said:
            yield f"({reason})".rjust(_REASON_END + 2)
        said = reason
        yield f"{_RECIPIENT_INDENT} {_printable(one.address)}"


def _reason(one: RecipientEntry, part: DeliveryEntry) -> str:
    """Return why a recipient still waits; nothing for one that was never tried."""
    is_held = part.state is DeliveryState.HELD
    words = (part.reason if is_held else one.reply) or part.reason or ""
    return _printable(words[:_REASON_CHARACTERS])


def _printable(text: str) -> str:
    """Return `text` with everything spelled out that a terminal might obey."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
