"""Counts of the last days, kept in the queue's database: added up by all instances.

Unlike metrics they need nobody who scrapes, and outlive restarts. What is counted here is written
each few seconds; a queue that is away costs nothing but the memory for what was counted meanwhile.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from enum import StrEnum

from relaygw.mail.state import RecipientState
from relaygw.observe.events import Accepted, Attempted, Event
from relaygw.observe.labels import MAILDROP, bounce_reason, capture_reason, deferral_reason

SLICE_S = 300
MAX_COUNTS = 10_000
"""So many different counts wait at most, some days of a queue that is away."""

Counts = dict[tuple[str, str], int]


class Series(StrEnum):
    """What is counted, by label; recipients but for the first and those of the last group."""

    MESSAGES = "messages"  # taken, by listener ("maildrop": of none)
    ACCEPTED = "accepted"  # to be sent, by route
    CAPTURED = "captured"  # by reason, see labels
    BLOCKED = "blocked"  # at acceptance, by route
    DELIVERED = "delivered"  # by provider
    DEFERRED = "deferred"  # put off by an attempt, by provider
    BOUNCED = "bounced"  # refused for good or expired, by provider
    DEFERRED_FOR = "deferred_for"  # by reason, see labels
    BOUNCED_FOR = "bounced_for"  # by reason, see labels
    REFUSED = "refused"  # replies to clients from 400 on, by code and status: "554 5.7.1"
    # the greatest number within a slice
    QUEUE = "queue"  # open deliveries, by state
    OLDEST_S = "oldest_s"  # age of the oldest mail that waits and is not held, by route


class History:
    """Counts of one process, by slices of five minutes; belongs to one thread."""

    def __init__(self) -> None:
        self._slices: dict[int, Counter[tuple[str, str]]] = {}

    def read(self, events: Sequence[Event]) -> None:
        """Count messages that are durable and what attempts came to, recipient by recipient."""
        for event in events:
            if isinstance(event, Accepted):
                self._accepted(event)
            elif isinstance(event, Attempted) and event.report.provider:  # else nobody was asked
                self._attempted(event)

    def _accepted(self, event: Accepted) -> None:
        add = self.add
        add(Series.MESSAGES, event.message.source.listener or MAILDROP)
        for delivery in event.message.deliveries:
            for recipient in delivery.recipients:
                if recipient.state is RecipientState.CAPTURED:
                    add(Series.CAPTURED, capture_reason(recipient))
                elif recipient.state is RecipientState.BLOCKED:
                    add(Series.BLOCKED, delivery.route)
                else:
                    add(Series.ACCEPTED, delivery.route)

    def _attempted(self, event: Attempted) -> None:
        add, provider = self.add, event.report.provider
        outcomes = {outcome.rcpt_no: outcome for outcome in event.report.outcomes}
        for change in event.update.recipients:
            outcome = outcomes.get(change.rcpt_no)
            if change.state is RecipientState.DELIVERED:
                add(Series.DELIVERED, provider)
            elif change.state in (RecipientState.BOUNCED, RecipientState.EXPIRED):
                add(Series.BOUNCED, provider)
                add(Series.BOUNCED_FOR, bounce_reason(change.state, outcome))
            elif change.state is RecipientState.PENDING:
                add(Series.DEFERRED, provider)
                add(Series.DEFERRED_FOR, deferral_reason(outcome))

    def refused(self, reply: str) -> None:
        """Count a refusal by its code and enhanced status; few, whatever the text tells."""
        code, status = reply[:3], reply[4:].partition(" ")[0]
        has_status = status.count(".") == 2 and status.replace(".", "").isdigit()
        self.add(Series.REFUSED, f"{code} {status}" if has_status else code)

    def add(self, series: Series, label: str, count: int = 1) -> None:
        """Count in the slice of now."""
        slice_at_s = int(time.time()) // SLICE_S * SLICE_S
        counts = self._slices.get(slice_at_s)
        if counts is None:
            counts = self._slices[slice_at_s] = Counter()
        counts[series, label] += count

    def take(self) -> list[tuple[int, Counts]]:
        """Return what was counted since the last time, by slices, whose begin is in ms."""
        slices, self._slices = self._slices, {}
        return [
            (
                at_s * 1000,
                {(str(series), label): count for (series, label), count in counts.items()},
            )
            for at_s, counts in sorted(slices.items())
        ]

    def put_back(self, slices: list[tuple[int, Counts]]) -> None:
        """Take back what could not be written; what is too much goes, the oldest first."""
        for at_ms, counts in slices:
            self._slices.setdefault(at_ms // 1000, Counter()).update(counts)
        waiting = sum(map(len, self._slices.values()))
        for at_s in sorted(self._slices):
            if waiting <= MAX_COUNTS or len(self._slices) == 1:
                return
            waiting -= len(self._slices.pop(at_s))
