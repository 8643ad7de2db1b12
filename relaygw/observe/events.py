"""What happens in a front or a worker, each thing once, held as it is: making one is cheap.

`log.redact` says what of it the log does not show; it is taken out before any form is made, and a
`*` is left. `local_part` is what stands before the @, or all of an address without one. It and
`addresses` hold for the fields of an event and whatever looks like an address in replies, reasons,
refused commands and notes; `subject` also where a reply quotes it.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Any, NamedTuple, TypeVar

from relaygw.mail.envelope import (
    AcceptedMessage,
    ClaimedDelivery,
    DeliveryUpdate,
    NewDelivery,
    NewRecipient,
    Recipient,
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
        """Return what was found out for a recipient: nothing where nobody was asked for it."""
        return self.report if change.provider is not None else NOBODY_ASKED


def accepted_copy(event: Attempted) -> Accepted | None:
    """Return what tells of the acceptance of mail that was sent again, at its first attempt.

    Whoever sends it again may have no log: the worker tells. Its Message-ID is not known there.
    """
    claimed, update = event.claimed, event.update
    if claimed.released != Released.RESENT or not update.is_first_try:
        return None
    first = claimed.recipients[0].rcpt_no
    if all(one.rcpt_no != first for one in update.recipients):
        return None  # a later part of it
    people = (
        NewRecipient(address=one.address, original=one.original) for one in claimed.recipients
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


# --- how long mail was in the queue ---------------------------------------------------------
# Counted in few steps. A count has the greatest time of its step, so that other steps of another
# version add up with these.


WAITS_SLICE_S = 1800
"""Longer slices than those of other counts: there are many steps."""
_WAIT_STEPS = (1.0, 1.5, 2.0, 3.0, 5.0, 7.0)  # of each power of ten
WAIT_BOUNDS_MS = tuple(int(step * 10**power) for power in range(1, 9) for step in _WAIT_STEPS)
"""From 10 ms to 8 days; what takes longer counts as that."""
_LAST_BOUND = len(WAIT_BOUNDS_MS) - 1


def wait_bound(took_ms: int) -> int:
    """Return the greatest time of the step in which a time lies."""
    return WAIT_BOUNDS_MS[min(bisect_left(WAIT_BOUNDS_MS, took_ms), _LAST_BOUND)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Waits:
    """How long mail was in the queue."""

    mails: int
    p50_s: float
    p95_s: float


def waits_of(counts: Iterable[tuple[str, int]], provider: str | None = None) -> Waits | None:
    """Return the times of counts by label, of one provider or all; None for no mail."""
    numbers: Counter[int] = Counter()
    for label, number in counts:
        name, _, bound_ms = label.rpartition(" ")
        if bound_ms.isdigit() and provider in (None, name):
            numbers[int(bound_ms)] += number
    if not numbers:
        return None
    found = sorted(numbers.items())
    return Waits(mails=numbers.total(), p50_s=_quantile(found, 0.5), p95_s=_quantile(found, 0.95))


def _quantile(found: list[tuple[int, int]], share: float) -> float:
    """Return the time within which a share of them was done; within a step they are spread."""
    left, before_ms = share * sum(number for _, number in found), 0
    for bound_ms, number in found:
        if number >= left:
            at = bisect_left(WAIT_BOUNDS_MS, bound_ms)
            begin_ms = max(before_ms, WAIT_BOUNDS_MS[at - 1] if at else 0)
            return (begin_ms + (bound_ms - begin_ms) * left / number) / 1000
        left, before_ms = left - number, bound_ms
    raise AssertionError("unreachable")


_Entry = TypeVar("_Entry", NewRecipient, Recipient)

_HIDDEN = "*"
_MIN_QUOTED_CHARACTERS = 4  # shorter subjects stand in a reply by chance
# a run begins only where no other does, and no local part of 64 bytes (RFC 5321 section 4.5.3.1.1)
# has more than 32 escapes: so the time grows with the size alone
_ADDRESS = re.compile(
    r'(?:"[^"\\]*+(?:\\.[^"\\]*+){0,32}+"'  # the local part, quoted
    r'|(?<![^\s<>()\[\],;:"@])[^\s<>()\[\],;:"@]+)'  # or not
    r"(?:@|%40)"
    r'(\[[^\[\]\s]*\]|[^\s<>()\[\],;:"@]+)'
)


class Redaction:
    """Takes out of events what a configuration does not want to see."""

    def __init__(self, words: Collection[str]) -> None:
        self._hides_subject = "subject" in words
        self._hides_domain = "addresses" in words
        self._hides_addresses = self._hides_domain or "local_part" in words

    def __bool__(self) -> bool:
        """True when there is anything to take out."""
        return self._hides_subject or self._hides_addresses

    def apply(self, event: Event) -> Event:
        """Return `event` as the log may show it."""
        return _REDACT[type(event)](self, event)

    def _subject(self, subject: str) -> str:
        return _HIDDEN if self._hides_subject else subject

    def _address(self, address: str) -> str:
        """Return an envelope address as it may be shown; the null sender hides nothing."""
        if not self._hides_addresses or not address:
            return address
        _, at, domain = address.rpartition("@")
        return _HIDDEN if self._hides_domain or not at else f"{_HIDDEN}@{domain}"

    def _text(self, text: str, subject: str = "") -> str:
        if self._hides_subject and len(subject) >= _MIN_QUOTED_CHARACTERS:
            text = text.replace(subject, _HIDDEN)
        if self._hides_addresses:
            text = _ADDRESS.sub(_HIDDEN if self._hides_domain else rf"{_HIDDEN}@\1", text)
        return text

    # --- the kinds of events -------------------------------------------------------------

    def _accepted(self, event: Accepted) -> Event:
        message = event.message
        return Accepted(
            replace(
                message,
                sender=self._address(message.sender),
                given_sender=self._address(message.given_sender),
                subject=self._subject(message.subject),
                deliveries=tuple(self._part(part, message.subject) for part in message.deliveries),
            )
        )

    def _part(self, part: NewDelivery, subject: str) -> NewDelivery:
        shown = (
            replace(self._recipient(entry), reason=self._text(entry.reason or "", subject))
            for entry in part.recipients
        )
        return replace(part, recipients=tuple(shown))

    def _recipient(self, entry: _Entry) -> _Entry:
        original = None if entry.original is None else self._address(entry.original)
        return replace(entry, address=self._address(entry.address), original=original)

    def _attempted(self, event: Attempted) -> Event:
        claimed, update = event.claimed, event.update
        subject = claimed.subject
        return event._replace(
            claimed=replace(
                claimed,
                sender=self._address(claimed.sender),
                subject=self._subject(subject),
                recipients=tuple(map(self._recipient, claimed.recipients)),
            ),
            update=replace(
                update,
                reason=self._text(update.reason or "", subject),
                recipients=tuple(
                    replace(change, reply=self._text(change.reply or "", subject))
                    for change in update.recipients
                ),
            ),
        )

    def _judged(self, event: Judged) -> Event:
        return event._replace(
            address=self._address(event.address),
            sender=self._address(event.sender),
            subject=self._subject(event.subject),
            detail=self._text(event.detail, event.subject),
        )

    def _rejected(self, event: Rejected) -> Event:
        return event._replace(
            reply=self._text(event.reply),
            sender=self._address(event.sender),
            helo=self._text(event.helo),
            command=self._text(event.command),
        )

    def _note(self, event: Note) -> Event:
        return Note(event.daemon, self._text(event.text))


_REDACT: dict[type[Event], Callable[[Redaction, Any], Event]] = {
    Accepted: Redaction._accepted,
    Attempted: Redaction._attempted,
    Judged: Redaction._judged,
    Rejected: Redaction._rejected,
    Note: Redaction._note,
}
