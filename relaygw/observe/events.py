"""What happens in a front or a worker, each thing once, held as it is: making one is cheap.

`log.redact` says what of it the log does not show; it is taken out before any form is made, and a
`*` is left. `local_part` is what stands before the @, or all of an address without one. It and
`addresses` hold for the fields of an event and whatever looks like an address in replies, reasons,
refused commands and notes; `subject` also where a reply quotes it.
"""

from __future__ import annotations

import re
from enum import IntEnum
from typing import NamedTuple

from relaygw.mail.envelope import (
    AcceptedMessage,
    ClaimedDelivery,
    DeliveryUpdate,
    NewDelivery,
    NewRecipient,
    RecipientUpdate,
    Released,
)
from relaygw.mail.outcome import NOBODY_ASKED, AttemptReport
from relaygw.mail.verdict import Kind


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

    def report_on(self, change: RecipientUpdate) -> AttemptReport:
        """Return the outcome of a recipient: nothing where nobody was asked for it."""
        return self.report if change.provider is not None else NOBODY_ASKED


def accepted_copy(event: Attempted) -> Accepted | None:
    """Return the acceptance of mail that was sent again, at its first attempt.

    Whoever sends it again may have no log: the worker tells. Its Message-ID is not known there.
    """
    claimed, update = event.claimed, event.update
    if claimed.released != Released.RESENT or not update.is_first_try:
        return None
    first = claimed.recipients[0].rcpt_no
    if all(recipient.rcpt_no != first for recipient in update.recipients):
        return None  # a later part of it
    people = (
        NewRecipient(address=recipient.address, original=recipient.original)
        for recipient in claimed.recipients
    )
    part = NewDelivery(route=claimed.route, stream=claimed.stream, recipients=tuple(people))
    return Accepted(
        AcceptedMessage(
            queue_id=claimed.queue_id,
            accepted_at_ms=claimed.accepted_at_ms,
            sender=claimed.sender,
            deliveries=(part,),
            content=(),
            size_bytes=claimed.size_bytes,
            subject=claimed.subject,
            message_id="",
            is_8bit=claimed.is_8bit,
            has_long_line=claimed.has_long_line,
            smtputf8=claimed.smtputf8,
            mode=claimed.mode,
            source=claimed.source,
            client_key=claimed.client_key,
            given_sender=claimed.sender,
        )
    )


class Judged(NamedTuple):
    """A provider or a bounce mail reported what became of a recipient: the last word until now."""

    queue_id: str
    address: str
    provider: str  # that took it, whoever reports
    kind: Kind
    at_ms: int  # by the provider's clock
    dsn: str | None
    detail: str  # in the provider's words
    sender: str
    subject: str
    accepted_at_ms: int


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


Event = Accepted | Attempted | Judged | Rejected | Note

_NOTE = re.compile(r"(?:([A-Z0-9]{10,20}): )?(?:(warning|error|fatal): )?")
