"""What happens in a front or a worker, each thing once, held as it is: making one is cheap."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
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
