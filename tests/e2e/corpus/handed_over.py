"""Cases of the corpus that come by the maildrop, many at once, and what came of each.

Each case has an envelope sender of its own, by which it is found at the provider, in the queue
and in the log. What is left behind by one would meet all others: they are judged together.
"""

from __future__ import annotations

import secrets
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from relaygw.mail.drop import escape
from relaygw.mail.state import DeliveryState, RecipientState
from relaygw.store.queue_entry import QueueEntry
from tests.e2e.corpus.rig import Case, Rig, added_removed, running_rig
from tests.fakes.scripted_provider import ReceivedMessage
from tests.unit.inbound.test_drop_file import drop_bytes

_MAX_LINE = 998
_EVERY_STATE = frozenset(DeliveryState)
_DIALOGUE_START = 4  # EHLO, MAIL, RCPT, DATA


@dataclass
class Outcome:
    """What came of all cases: messages at the provider and in the queue, by sender."""

    received: Mapping[str, list[ReceivedMessage]]
    entries: Mapping[str, list[QueueEntry]]

    def recipients(self, sender: str) -> tuple[str, ...]:
        """Return whom the provider was told of."""
        messages = self.received.get(sender, ())
        return tuple(one for message in messages for one in message.recipients)

    def message(self, sender: str) -> ReceivedMessage:
        """Return the only message of a sender at the provider."""
        (message,) = self.received[sender]
        return message

    def reason(self, sender: str) -> str:
        """Return why the only message of a sender was captured, which all of it must be."""
        assert sender not in self.received
        (entry,) = self.entries[sender]
        (recipient,) = entry.recipients
        assert recipient.state is RecipientState.CAPTURED
        return recipient.reply or ""


@dataclass
class MaildropRig:
    """A gateway, its provider and its maildrop."""

    rig: Rig
    maildrop: Path

    def leave(self, content: bytes, *, sender: bytes, to: tuple[bytes, ...]) -> None:
        """Put a file there as any local user may; nobody is woken for it."""
        lines = [b"from " + escape(sender), *(b"to " + escape(one) for one in to)]
        self.leave_lines(content, *lines)

    def leave_lines(self, content: bytes, *lines: bytes) -> None:
        """Put a file there whose head has these lines, byte for byte."""
        name = secrets.token_hex(16)
        unfinished = self.maildrop / f".w-{name}"
        unfinished.write_bytes(drop_bytes(content, *lines))
        unfinished.rename(self.maildrop / f"{name}.drop")

    def settle(self, start: int = 1) -> Outcome:
        """Wait until all is taken and delivered; prove that the next message goes through.

        `start` is the number of messages that the provider had before.
        """
        gateway = self.rig.gateway
        gateway.wait_until(lambda: not list(self.maildrop.glob("*.drop")), "an empty maildrop")
        received = defaultdict(list)
        for message in self.rig.settle(start):
            received[message.sender].append(message)
        entries = defaultdict(list)
        for entry in gateway.queue(_EVERY_STATE):
            entries[entry.sender].append(entry)
        return Outcome(dict(received), dict(entries))

    def check_records(self) -> None:
        """Assert that the log has one record for each message taken and each recipient's fate."""
        gateway = self.rig.gateway
        for entry in gateway.queue(_EVERY_STATE):
            if entry.source.uid is None:
                continue
            gateway.wait_for_log(f"{entry.queue_id}: to=", count=len(entry.recipients))
            mine = [line for line in gateway.lines if f" {entry.queue_id}: " in line]
            assert sum(": uid=" in line for line in mine) == 1, mine
            assert sum(": to=<" in line for line in mine) == len(entry.recipients), mine


@contextmanager
def running_maildrop(directory: Path, maildrop: Path, **settings: Any) -> Iterator[MaildropRig]:
    """Start a gateway with a maildrop; look at the log when all is done."""
    section = {"path": str(maildrop)}
    with running_rig(directory, maildrop=section, **settings) as rig:
        rig.gateway.wait_until((maildrop / "wake").exists, "a maildrop")
        running = MaildropRig(rig, maildrop)
        yield running
        running.check_records()


def content_of(case: Case) -> bytes:
    """Return the content of a case whose dialogue is one ordinary message."""
    step = case.dialogue[_DIALOGUE_START]
    assert not callable(step)
    assert isinstance(step[0], bytes)
    return step[0].removesuffix(b".\r\n")


def check_arrived(message: ReceivedMessage, content: bytes) -> None:
    """Assert that `content` arrived: byte for byte, or folded where its lines are too long."""
    if max(map(len, content.split(b"\r\n"))) <= _MAX_LINE:
        assert added_removed(message, content) == content
        return
    assert max(map(len, message.content.split(b"\r\n"))) <= _MAX_LINE
    unfolded = message.content.replace(b"\r\n ", b"")
    assert unfolded.endswith(content.replace(b"\r\n ", b""))
