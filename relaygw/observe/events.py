"""What happens in a front or a worker, each thing once, held as it is: making one is cheap."""

from __future__ import annotations

import re
from enum import IntEnum
from typing import NamedTuple

from relaygw.mail.envelope import AcceptedMessage, ClaimedDelivery, DeliveryUpdate
from relaygw.mail.outcome import AttemptReport


class Level(IntEnum):
    """How much an event matters; the numbers are syslog's severities (RFC 5424)."""

    FATAL = 2
    ERROR = 3
    WARNING = 4
    INFO = 6


Line = tuple[str, Level, str]
"""What a form makes of events: daemon, level, and the text: printable, without a line end."""


class Accepted(NamedTuple):
    """A message is durable; some of its recipients may be settled by that."""

    message: AcceptedMessage


class Attempted(NamedTuple):
    """An attempt ended, or a part of it, and `update` was recorded at `at_ms`."""

    claimed: ClaimedDelivery
    update: DeliveryUpdate
    report: AttemptReport
    at_ms: int


class Rejected(NamedTuple):
    """The front refused `command`, whose verb is `stage`, of a client, `peer`: host[address]."""

    stage: str
    peer: str
    reply: str
    sender: str
    protocol: str
    helo: str
    command: str


class Note(NamedTuple):
    """Anything else, in words; `daemon` is the part of the gateway that says it.

    As Postfix's do the text begins with a queue id, and `warning:`, `error:` or `fatal:`, if any.
    """

    daemon: str
    text: str

    def parts(self) -> tuple[str | None, Level, str]:
        """Return queue id, level and what is left of the text."""
        match = _NOTE.match(self.text)
        assert match is not None  # all of it is optional
        level = Level[match[2].upper()] if match[2] else Level.INFO
        return match[1], level, self.text[match.end() :]


Event = Accepted | Attempted | Rejected | Note

_NOTE = re.compile(r"(?:([A-Z0-9]{10,20}): )?(?:(warning|error|fatal): )?")
