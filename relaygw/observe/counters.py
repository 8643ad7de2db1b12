"""The metrics of a front and of a delivery worker: names, labels, buckets, and what counts.

Counts are kept in memory between two writes. A write to a file that is mapped costs ten times a
count, and a message is counted six times: what happens within a second is written at once.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import product

from prometheus_client import Counter, Gauge, Histogram

from relaygw.mail.finding import Kind as Finding
from relaygw.mail.state import RecipientState, capture_code
from relaygw.mail.suppression import STREAMS, Cause
from relaygw.mail.verdict import PASSING, Kind
from relaygw.observe.events import Accepted, Attempted, Event, Judged
from relaygw.observe.labels import (
    BOUNCED,
    CAPTURED,
    DEFERRED,
    FOUND,
    MAILDROP,
    NOTICE_RESULTS,
    NOTICES,
    REPEATED,
    bounce_reason,
    deferral_reason,
    suppressed_of,
)

DURATION_BUCKETS_S = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
QUEUE_BUCKETS_S = (
    *(0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0),
    *(300.0, 900.0, 3600.0, 14400.0, 86400.0),
)
_BATCH_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0)
REFUSALS = ("not_believed", "too_large", "too_slow", "too_many", "unreadable", "store", "used")
"""Why posts of providers are not taken; `used`: their token was used before."""
LAST_WORDS = tuple(kind for kind in Kind if kind not in PASSING)
_TROUBLE = ("451", "452")  # replies that rules look for, counted from zero on: see `observer`


class CounterTally:
    """Counts of one counter by its labels; for one thread."""

    def __init__(
        self, name: str, meaning: str, *labels: str, from_zero: Iterable[tuple[str, ...]] = ()
    ) -> None:
        self._counter = Counter(name, meaning, labels, registry=None)
        self._unwritten = dict.fromkeys(from_zero, 0)

    def add(self, *labels: str, count: int = 1) -> None:
        """Count."""
        self._unwritten[labels] = self._unwritten.get(labels, 0) + count

    def write(self) -> None:
        """Write what was counted since the last time."""
        unwritten, self._unwritten = self._unwritten, {}
        for labels, count in unwritten.items():
            self._counter.labels(*labels).inc(count)


class HistogramTally:
    """Observations of one histogram; any thread may add."""

    def __init__(self, histogram: Histogram) -> None:
        self._histogram = histogram
        self._bounds = histogram._upper_bounds  # the last one is infinite
        self._counts = [0] * len(self._bounds)
        self._sum = 0.0
        self._lock = threading.Lock()

    def add(self, number: float) -> None:
        """Observe."""
        with self._lock:
            self._counts[bisect_left(self._bounds, number)] += 1
            self._sum += number

    def write(self) -> None:
        """Write what was observed since the last time."""
        with self._lock:
            counts, self._counts = self._counts, [0] * len(self._counts)
            total, self._sum = self._sum, 0.0
        # the library itself observes one number at a time
        for bucket, count in zip(self._histogram._buckets, counts, strict=True):
            if count:
                bucket.inc(count)
        if total:
            self._histogram._sum.inc(total)


class FrontMetrics:
    """Metrics of one front process; `metrics.count_in` comes first."""

    def __init__(self) -> None:
        self._received = CounterTally(
            "relaygw_messages_received_total",
            *("Messages accepted, by listener.", "listener"),
            from_zero=[(MAILDROP,)],
        )
        self._captured = CounterTally(
            "relaygw_sandbox_captured_total",
            *("Recipients captured instead of sent.", "reason"),
            from_zero=product(CAPTURED),
        )
        self.replies = CounterTally(
            "relaygw_smtp_replies_total", "Replies to clients, by code.", "listener", "code"
        )
        self.found = CounterTally(
            "relaygw_content_found_total",
            *("Messages in which the content check found something.", "kind", "result"),
            from_zero=product(Finding, FOUND),
        )
        self.repeated = CounterTally(
            "relaygw_repeated_messages_total",
            *("Messages that a recipient had before, by what they had in common.", "what"),
            from_zero=product(REPEATED),
        )
        self.sessions = _gauge(
            "relaygw_smtp_sessions", "Open SMTP sessions.", "livesum", "listener"
        )
        self.batches = _batches("front")

    def begin(self, listener: str) -> None:
        """Count from zero on at the listener of that name what rules look for."""
        self._received.add(listener, count=0)
        for code in _TROUBLE:
            self.replies.add(listener, code, count=0)

    def read(self, events: Sequence[Event]) -> None:
        """Count messages that are durable, and their recipients that are captured."""
        for event in events:
            if isinstance(event, Accepted):
                self._received.add(event.message.source.listener or MAILDROP)
                for delivery in event.message.deliveries:
                    for recipient in delivery.recipients:
                        if recipient.state is RecipientState.CAPTURED:
                            self._captured.add(capture_code(recipient.reason).value)

    def write(self) -> None:
        """Write the counts since the last time."""
        counted = (self._received, self._captured, self.replies, self.found, self.repeated)
        for tally in counted:
            tally.write()
        self.batches.write()


class DeliveryMetrics:
    """Metrics of one delivery worker; `metrics.count_in` comes first."""

    def __init__(self, providers: Collection[str]) -> None:
        self._connections = _gauge(
            "relaygw_provider_connections", "Open connections.", "livesum", "provider", "state"
        )
        in_queue = ("relaygw_time_in_queue_seconds", "From acceptance to delivery.")
        self._in_queue = HistogramTally(_histogram(*in_queue, QUEUE_BUCKETS_S))
        self.batches = _batches("delivery")
        self._delivered = CounterTally(
            "relaygw_recipients_delivered_total",
            *("Recipients that the provider accepted.", "provider"),
            from_zero=product(providers),
        )
        self._deferred = CounterTally(
            "relaygw_recipients_deferred_total",
            *("Recipients deferred by an attempt.", "provider", "reason"),
            from_zero=product(providers, DEFERRED),
        )
        self._bounced = CounterTally(
            "relaygw_recipients_bounced_total",
            *("Recipients refused for good or expired.", "provider", "reason"),
            from_zero=product(providers, BOUNCED),
        )
        self._suppressed = CounterTally(
            "relaygw_recipients_suppressed_total",
            *("Recipients that are suppressed, by what was done.", "action", "stream", "cause"),
            from_zero=product(("blocked", "warned"), STREAMS, (cause.value for cause in Cause)),
        )
        self.notices = CounterTally(
            "relaygw_notices_total",
            *("Notices to senders, by what came of them.", "kind", "result"),
            from_zero=product(NOTICES, NOTICE_RESULTS),
        )
        duration = _histogram(
            "relaygw_delivery_duration_seconds",
            *("From connection to reply.", DURATION_BUCKETS_S, "provider"),
        )
        self._durations = {name: HistogramTally(duration.labels(name)) for name in providers}
        self._success = _gauge(
            "relaygw_last_success_timestamp_seconds",
            *("When the provider last accepted a message.", "max", "provider"),
        )
        self._success_at_s: dict[str, int] = {}  # since the last time
        self._written: dict[str, tuple[int, int]] = {}
        self.write({})

    def read(self, events: Sequence[Event]) -> None:
        """Count what attempts came to, recipient by recipient."""
        for event in events:
            if isinstance(event, Attempted):
                for labels in suppressed_of(event):
                    self._suppressed.add(*labels)
                if event.report.provider in self._durations:  # else nobody was asked
                    self._attempted(event, event.report.provider)

    def _attempted(self, event: Attempted, provider: str) -> None:
        report = event.report
        outcomes = {outcome.rcpt_no: outcome for outcome in report.outcomes}
        delivered = 0
        for change in event.update.recipients:
            if change.state is RecipientState.DELIVERED:
                delivered += 1
            elif change.state in (RecipientState.BOUNCED, RecipientState.EXPIRED):
                reason = bounce_reason(change.state, outcomes.get(change.rcpt_no))
                self._bounced.add(provider, reason)
                if not event.claimed.sender:
                    self.notices.add("failed", "null_sender")
            elif change.state is RecipientState.PENDING:
                self._deferred.add(provider, deferral_reason(outcomes.get(change.rcpt_no)))
        if delivered:
            self._delivered.add(provider, count=delivered)
            self._success_at_s[provider] = event.at_ms // 1000
            self._in_queue.add((event.at_ms - event.claimed.accepted_at_ms) / 1000)
        if [outcome for outcome in report.outcomes if outcome.reply is not None]:
            self._durations[provider].add(report.delays.connect_s + report.delays.transmit_s)

    def write(self, connections: Mapping[str, tuple[int, int]]) -> None:
        """Write the busy and idle connections of providers, and counts since the last time."""
        for name, (busy, idle) in connections.items():
            if self._written.get(name) != (busy, idle):
                self._connections.labels(name, "busy").set(busy)
                self._connections.labels(name, "idle").set(idle)
                self._written[name] = busy, idle
        for name, at_s in self._success_at_s.items():
            self._success.labels(name).set(at_s)
        self._success_at_s.clear()
        tallies = (self._delivered, self._deferred, self._bounced, self._suppressed)
        for counted in (*tallies, self.notices):
            counted.write()
        for observed in (self._in_queue, self.batches, *self._durations.values()):
            observed.write()


class FeedbackMetrics:
    """What providers report, counted by the web role; `metrics.count_in` comes first."""

    def __init__(self, providers: Collection[str]) -> None:
        self.events = CounterTally(
            "relaygw_provider_events_total",
            *("Things that providers told of mail, each once.", "provider", "kind"),
            from_zero=product(providers, map(str, Kind)),
        )
        self.unmatched = CounterTally(
            "relaygw_provider_events_unmatched_total",
            *("Of these, those about no mail of this queue.", "provider"),
            from_zero=product(providers),
        )
        self._verdicts = CounterTally(
            "relaygw_verdicts_total",
            *("Recipients, by what became of them after a provider's 250.", "provider", "kind"),
            from_zero=product(providers, map(str, LAST_WORDS)),
        )
        self.refused = CounterTally(
            "relaygw_provider_posts_refused_total",
            *("Posts that were not taken, by reason.", "provider", "reason"),
            from_zero=product(providers, REFUSALS),
        )
        self.closed = CounterTally(
            "relaygw_event_connections_closed_total",
            *("Connections to events.bind closed at once, by what they were beyond.", "limit"),
            from_zero=product(("of_one", "of_all")),
        )

    def read(self, events: Sequence[Event]) -> None:
        """Count last words on recipients."""
        for event in events:
            if isinstance(event, Judged):
                self._verdicts.add(event.provider, event.kind.value)

    def write(self) -> None:
        """Write the counts since the last time."""
        for tally in (self.events, self.unmatched, self._verdicts, self.refused, self.closed):
            tally.write()


def _batches(role: str) -> HistogramTally:
    """Return the histogram of seconds per transaction of a role; all roles have one metric."""
    histogram = _histogram(
        "relaygw_db_write_seconds",
        *("Duration of a batch's transaction, synced.", _BATCH_BUCKETS_S, "role"),
    )
    return HistogramTally(histogram.labels(role))


def _gauge(name: str, meaning: str, mode: str, *labels: str) -> Gauge:
    return Gauge(name, meaning, labels, multiprocess_mode=mode, registry=None)  # type: ignore[arg-type]


def _histogram(name: str, meaning: str, bounds: Sequence[float], *labels: str) -> Histogram:
    return Histogram(name, meaning, labels, buckets=bounds, registry=None)
