"""Counts of the last days, which outlive restarts and need nobody who scrapes."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from enum import StrEnum
from functools import lru_cache

from relaygw.mail.state import DeliveryState, RecipientState, capture_code
from relaygw.mail.verdict import Kind
from relaygw.observe.events import Accepted, Attempted, Event, Judged
from relaygw.observe.labels import (
    MAILDROP,
    bounce_reason,
    deferral_reason,
    label_of_few,
    suppressed_of,
)
from relaygw.observe.waits import WAITS_SLICE_S, wait_bound

SLICE_S = 300
MAX_DOMAINS = 500  # of senders
MAX_NETWORKS = 100  # with wrong passwords, between two slices
MAX_COUNTS = 10_000  # so many different counts wait at most, some days of a queue that is away
Counts = dict[tuple[str, str], int]


class Series(StrEnum):
    """What is counted, by label: recipients, where it does not say otherwise."""

    MESSAGES = "messages"  # taken or sent again, by listener ("maildrop": of none)
    ACCEPTED = "accepted"  # to be sent, by route
    CAPTURED = "captured"  # by reason, see labels
    BLOCKED = "blocked"  # at acceptance, by route
    DELIVERED = "delivered"  # by provider
    DEFERRED = "deferred"  # put off by an attempt, by provider
    BOUNCED = "bounced"  # refused for good or expired, by provider
    DEFERRED_FOR = "deferred_for"  # by reason, see labels
    BOUNCED_FOR = "bounced_for"  # by reason, see labels
    SUPPRESSED = "suppressed"  # by what was done, stream and cause: see suppressed_of
    SENT = "sent"  # delivered, by sender's domain, where providers report; half-hourly as well
    VERDICTS = "verdicts"  # last words that were reported since, by provider and kind
    COMPLAINTS = "complaints"  # of these spam complaints, by sender's domain
    # mail that came to its end, by provider and greatest ms of its time in the queue, see
    # events; in slices of half an hour
    IN_QUEUE = "in_queue"
    FOUND = "found"  # messages, by what the content check did and found: "held card_number"
    REFUSED = "refused"  # replies to clients from 400 on, by code and status: "554 5.7.1"
    LOGIN_FAILURES = "login_failures"  # by kind (smtp, web) and network
    # the greatest number within a slice
    QUEUE = "queue"  # open deliveries, by state
    OLDEST_S = "oldest_s"  # age of the oldest mail that waits and is not held, by route


class History:
    """Counts of one process, by slices of five minutes, written each few seconds; for one thread.

    Unlike metrics they need nobody who scrapes, and outlive restarts.
    """

    def __init__(self, *, counts_senders: bool = False) -> None:
        self._counts_senders = counts_senders
        self._domains: set[str] = set()
        self._networks: set[str] = set()
        self._begun_s = 0  # the latest slice
        self._slices: dict[int, Counter[tuple[str, str]]] = {}

    def read(self, events: Sequence[Event]) -> None:
        """Count messages that are durable and what attempts came to, recipient by recipient."""
        for event in events:
            if isinstance(event, Accepted):
                self._accepted(event, self._counts())
            elif isinstance(event, Judged):
                self._judged(event)
            elif isinstance(event, Attempted):
                for labels in suppressed_of(event):
                    self.add(Series.SUPPRESSED, " ".join(labels))
                if event.report.provider:  # else nobody was asked
                    self._attempted(event)

    def _accepted(self, event: Accepted, counts: Counter[tuple[str, str]]) -> None:
        counts[Series.MESSAGES, event.message.source.listener or MAILDROP] += 1
        for delivery in event.message.deliveries:
            for recipient in delivery.recipients:
                if recipient.state is RecipientState.CAPTURED:
                    counts[Series.CAPTURED, capture_code(recipient.reason).value] += 1
                elif recipient.state is RecipientState.BLOCKED:
                    counts[Series.BLOCKED, delivery.route] += 1
                else:
                    counts[Series.ACCEPTED, delivery.route] += 1

    def _attempted(self, event: Attempted) -> None:
        provider = event.report.provider
        counts, slower = self._counts(), self._counts(WAITS_SLICE_S)
        if event.update.state is DeliveryState.FINISHED:
            bound_ms = wait_bound(event.at_ms - event.claimed.accepted_at_ms)
            slower[Series.IN_QUEUE, f"{provider} {bound_ms}"] += 1
        outcomes = {outcome.rcpt_no: outcome for outcome in event.report.outcomes}
        sent = 0
        for change in event.update.recipients:
            outcome = outcomes.get(change.rcpt_no)
            if change.state is RecipientState.DELIVERED:
                sent += 1
            elif change.state in (RecipientState.BOUNCED, RecipientState.EXPIRED):
                counts[Series.BOUNCED, provider] += 1
                counts[Series.BOUNCED_FOR, bounce_reason(change.state, outcome)] += 1
            elif change.state is RecipientState.PENDING:
                counts[Series.DEFERRED, provider] += 1
                counts[Series.DEFERRED_FOR, deferral_reason(outcome)] += 1
        if sent:
            counts[Series.DELIVERED, provider] += sent
            if self._counts_senders:
                slower[Series.SENT, self._domain_of(event.claimed.sender)] += sent

    def _judged(self, event: Judged) -> None:
        self.add(Series.VERDICTS, f"{event.provider} {event.kind}")
        if event.kind is Kind.COMPLAINED:
            domain = self._domain_of(event.sender)
            self.add(Series.COMPLAINTS, domain, slice_s=WAITS_SLICE_S)

    def _domain_of(self, sender: str) -> str:
        """Return a label; of very many domains a process tells some apart."""
        domain = _domain_of(sender)
        return (
            domain if domain in self._domains else label_of_few(self._domains, domain, MAX_DOMAINS)
        )

    def login_failed(self, kind: str, network: str) -> None:
        """Count a wrong password or token, by who tries: of very many networks some."""
        network = label_of_few(self._networks, network, MAX_NETWORKS)
        self.add(Series.LOGIN_FAILURES, f"{kind} {network}")

    def refused(self, reply: str) -> None:
        """Count a refusal by its code and enhanced status; few, whatever the text tells."""
        code, status = reply[:3], reply[4:].partition(" ")[0]
        has_status = status.count(".") == 2 and status.replace(".", "").isdigit()
        self.add(Series.REFUSED, f"{code} {status}" if has_status else code)

    def add(self, series: Series, label: str, count: int = 1, *, slice_s: int = SLICE_S) -> None:
        """Count in the slice of now."""
        self._counts(slice_s)[series, label] += count

    def _counts(self, slice_s: int = SLICE_S) -> Counter[tuple[str, str]]:
        """Return the counts of the slice of now, to count in."""
        slice_at_s = int(time.time()) // slice_s * slice_s
        counts = self._slices.get(slice_at_s)
        if counts is None:
            if slice_at_s != self._begun_s:
                self._begun_s = slice_at_s
                self._networks.clear()
            counts = self._slices[slice_at_s] = Counter()
        return counts

    def take(self) -> list[tuple[int, Counts]]:
        """Return the counts since the last call, by slices, whose begin is in ms."""
        slices, self._slices = self._slices, {}
        return [
            (at_s * 1000, {(str(series), label): n for (series, label), n in counts.items()})
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


@lru_cache(maxsize=256)  # a shop has few
def _domain_of(sender: str) -> str:
    return sender.rpartition("@")[2].lower()
