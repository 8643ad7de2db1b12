"""The metrics of a front and of a delivery worker: names, labels, buckets, and what counts.

Counts are kept in memory between two writes. A write to a file that is mapped costs ten times a
count, and a message is counted six times: what happens within a second is written at once.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Collection, Mapping, Sequence

from prometheus_client import Counter, Gauge, Histogram

from relaygw.mail.state import RecipientState
from relaygw.observe.events import Accepted, Attempted, Event
from relaygw.observe.observer import (
    BOUNCED,
    CAPTURED,
    DEFERRED,
    MAILDROP,
    bounce_reason,
    capture_reason,
    deferral_reason,
)

DURATION_BUCKETS_S = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
QUEUE_BUCKETS_S = (
    *(0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0),
    *(300.0, 900.0, 3600.0, 14400.0, 86400.0),
)
_BATCH_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0)
_TROUBLE = ("451", "452")
"""Replies that rules look for, counted from zero on: see `observer`."""


class CounterTally:
    """Counts of one counter by its last label; the others are `labels`. For one thread."""

    def __init__(self, counter: Counter, *labels: str, from_zero: Sequence[str] = ()) -> None:
        self._counter = counter
        self._labels = labels
        self._unwritten = dict.fromkeys(from_zero, 0)

    def add(self, label: str, count: int = 1) -> None:
        """Count."""
        self._unwritten[label] = self._unwritten.get(label, 0) + count

    def write(self) -> None:
        """Write what was counted since the last time."""
        unwritten, self._unwritten = self._unwritten, {}
        for label, count in unwritten.items():
            self._counter.labels(*self._labels, label).inc(count)


class HistogramTally:
    """Observations of one histogram; any thread may add."""

    def __init__(self, histogram: Histogram, bounds: Sequence[float]) -> None:
        """`bounds` are those it was made with."""
        self._histogram = histogram
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
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
    """Metrics of one front process; `files.count_in` comes first."""

    def __init__(self) -> None:
        received = _counter(
            "relaygw_messages_received_total", "Messages taken, by listener.", "listener"
        )
        captured = _counter(
            "relaygw_sandbox_captured_total", "Recipients captured instead of sent.", "reason"
        )
        self._replies = _counter(
            "relaygw_smtp_replies_total", "Replies to clients, by code.", "listener", "code"
        )
        self._sessions = _gauge(
            "relaygw_smtp_sessions", "Open SMTP sessions.", "livesum", "listener"
        )
        self._received = CounterTally(received, from_zero=[MAILDROP])
        self._captured = CounterTally(captured, from_zero=CAPTURED)
        self.batches = _batches("front")

    def listener(self, name: str) -> ListenerMetrics:
        """Return the metrics of the listener of that name."""
        self._received.add(name, 0)
        return ListenerMetrics(self._replies, self._sessions, name)

    def read(self, events: Sequence[Event]) -> None:
        """Count messages that are durable, and their recipients that are captured."""
        for event in events:
            if isinstance(event, Accepted):
                self._received.add(event.message.source.listener or MAILDROP)
                for delivery in event.message.deliveries:
                    for recipient in delivery.recipients:
                        if recipient.state is RecipientState.CAPTURED:
                            self._captured.add(capture_reason(recipient))

    def write(self) -> None:
        """Write the counts since the last time."""
        self._received.write()
        self._captured.write()
        self.batches.write()


class ListenerMetrics:
    """Metrics of one listener; `replies` counts by code."""

    def __init__(self, replies: Counter, sessions: Gauge, name: str) -> None:
        self.replies = CounterTally(replies, name, from_zero=_TROUBLE)
        self._sessions = sessions.labels(name)

    def write(self, sessions: int) -> None:
        """Write how many sessions are open, and the replies since the last time."""
        self._sessions.set(sessions)
        self.replies.write()


class DeliveryMetrics:
    """Metrics of one delivery worker; `files.count_in` comes first."""

    def __init__(self, providers: Collection[str]) -> None:
        self._connections = _gauge(
            "relaygw_provider_connections", "Open connections.", "livesum", "provider", "state"
        )
        in_queue = _histogram(
            "relaygw_time_in_queue_seconds", "From acceptance to delivery.", QUEUE_BUCKETS_S
        )
        self._in_queue = HistogramTally(in_queue, QUEUE_BUCKETS_S)
        self.batches = _batches("delivery")
        metrics = _ProviderMetrics()
        self._providers = {name: _ProviderTallies(metrics, name) for name in providers}
        self._write_counts()

    def read(self, events: Sequence[Event]) -> None:
        """Count what attempts came to, recipient by recipient."""
        for event in events:
            if isinstance(event, Attempted):
                provider = self._providers.get(event.report.provider)
                if provider is not None:  # else nobody was asked
                    self._attempted(event, provider)

    def _attempted(self, event: Attempted, provider: _ProviderTallies) -> None:
        report = event.report
        outcomes = {outcome.rcpt_no: outcome for outcome in report.outcomes}
        delivered = 0
        for change in event.update.recipients:
            if change.state is RecipientState.DELIVERED:
                delivered += 1
            elif change.state in (RecipientState.BOUNCED, RecipientState.EXPIRED):
                provider.bounced.add(bounce_reason(change.state, outcomes.get(change.rcpt_no)))
            elif change.state is RecipientState.PENDING:
                provider.deferred.add(deferral_reason(outcomes.get(change.rcpt_no)))
        if delivered:
            provider.delivered.add(report.provider, delivered)
            provider.success_at_s = event.at_ms // 1000
            self._in_queue.add((event.at_ms - event.claimed.accepted_at_ms) / 1000)
        if any(outcome.reply is not None for outcome in report.outcomes):
            provider.duration.add(report.delays.connect_s + report.delays.transmit_s)

    def write(self, connections: Mapping[str, tuple[int, int]]) -> None:
        """Write the busy and idle connections of providers, and counts since the last time."""
        for name, (busy, idle) in connections.items():
            self._connections.labels(name, "busy").set(busy)
            self._connections.labels(name, "idle").set(idle)
        self._write_counts()

    def _write_counts(self) -> None:
        self._in_queue.write()
        self.batches.write()
        for provider in self._providers.values():
            provider.write()


class _ProviderMetrics:
    """The metrics that each provider has."""

    def __init__(self) -> None:
        name, reasons = "provider", ("provider", "reason")
        self.delivered = _counter(
            "relaygw_recipients_delivered_total", "Recipients that the provider took.", name
        )
        self.deferred = _counter(
            "relaygw_recipients_deferred_total", "Recipients put off by an attempt.", *reasons
        )
        self.bounced = _counter(
            "relaygw_recipients_bounced_total", "Recipients refused for good or expired.", *reasons
        )
        self.duration = _histogram(
            "relaygw_delivery_duration_seconds",
            *("From connection to reply.", DURATION_BUCKETS_S, name),
        )
        self.success = _gauge(
            "relaygw_last_success_timestamp_seconds",
            *("When the provider last took a message.", "max", name),
        )


class _ProviderTallies:
    """What was counted of one provider since the last write."""

    def __init__(self, metrics: _ProviderMetrics, name: str) -> None:
        self.delivered = CounterTally(metrics.delivered, from_zero=[name])
        self.deferred = CounterTally(metrics.deferred, name, from_zero=DEFERRED)
        self.bounced = CounterTally(metrics.bounced, name, from_zero=BOUNCED)
        self.duration = HistogramTally(metrics.duration.labels(name), DURATION_BUCKETS_S)
        self.success_at_s = 0
        self._success = metrics.success
        self._name = name

    def write(self) -> None:
        self.delivered.write()
        self.deferred.write()
        self.bounced.write()
        self.duration.write()
        if self.success_at_s:
            self._success.labels(self._name).set(self.success_at_s)


def _batches(role: str) -> HistogramTally:
    """Return what takes the seconds of each transaction of a role; all roles have one metric."""
    histogram = _histogram(
        "relaygw_db_write_seconds",
        "Duration of a batch's transaction, synced.",
        _BATCH_BUCKETS_S,
        "role",
    )
    return HistogramTally(histogram.labels(role), _BATCH_BUCKETS_S)


def _counter(name: str, meaning: str, *labels: str) -> Counter:
    return Counter(name, meaning, labels, registry=None)


def _gauge(name: str, meaning: str, mode: str, *labels: str) -> Gauge:
    return Gauge(name, meaning, labels, multiprocess_mode=mode, registry=None)  # type: ignore[arg-type]


def _histogram(name: str, meaning: str, bounds: Sequence[float], *labels: str) -> Histogram:
    return Histogram(name, meaning, labels, buckets=bounds, registry=None)
