"""What the log tells of: one record for each event, whatever it looks like in the end."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import IntEnum

from relaygw.mail.envelope import (
    AcceptedMessage,
    ClaimedDelivery,
    NewRecipient,
    Recipient,
    RecipientUpdate,
)
from relaygw.mail.outcome import AttemptReport


class Level(IntEnum):
    """How much an event matters; the numbers are syslog's severities (RFC 5424)."""

    FATAL = 2
    ERROR = 3
    WARNING = 4
    INFO = 6


@dataclass(slots=True)
class Accepted:
    """A message is durable."""

    message: AcceptedMessage


@dataclass(slots=True)
class Settled:
    """A recipient has its final state from the start: captured or blocked at the door."""

    message: AcceptedMessage
    route: str
    recipient: NewRecipient


@dataclass(slots=True)
class Outcome:
    """What one attempt came to for one recipient; `at_ms` is when."""

    claimed: ClaimedDelivery
    recipient: Recipient
    change: RecipientUpdate
    report: AttemptReport
    at_ms: int


@dataclass(slots=True)
class Removed:
    """A delivery is finished: its last recipient has a final state."""

    queue_id: str


@dataclass(slots=True)
class Held:
    """A delivery waits without a timer, and why."""

    claimed: ClaimedDelivery
    reason: str


@dataclass(slots=True, kw_only=True)
class Rejected:
    """The front refused a command of a client.

    `stage` is its verb, `peer` the client as host[address], `command` what it sent.
    """

    stage: str
    peer: str
    reply: str
    sender: str
    protocol: str
    helo: str
    command: str


@dataclass(slots=True)
class Note:
    """Anything else, in words; `daemon` is the part of the gateway that says it.

    The text begins as Postfix's do: with a queue id where it is about one message, with
    `warning:`, `error:` or `fatal:` where it is no good news.
    """

    daemon: str
    text: str

    def parts(self) -> tuple[str | None, Level, str]:
        """Return queue id, level and what is left of the text."""
        match = _NOTE.match(self.text)
        assert match is not None  # all of it is optional
        level = Level[match[2].upper()] if match[2] else Level.INFO
        return match[1], level, self.text[match.end() :]


Event = Accepted | Settled | Outcome | Removed | Held | Rejected | Note

_NOTE = re.compile(r"(?:([A-Z0-9]{10,20}): )?(?:(warning|error|fatal): )?")
