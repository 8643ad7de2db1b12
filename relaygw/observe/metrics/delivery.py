"""What a delivery worker counts."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from prometheus_client import Counter, Gauge, Histogram

from relaygw.mail.envelope import ClaimedDelivery, DeliveryUpdate
from relaygw.mail.outcome import AttemptReport
from relaygw.mail.state import RecipientState
from relaygw.observe.metrics.batches import batch_tally
from relaygw.observe.metrics.reasons import BOUNCED, DEFERRED, bounce_reason, deferral_reason
from relaygw.observe.metrics.tally import CounterTally, HistogramTally

DURATION_BUCKETS_S = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
QUEUE_BUCKETS_S = (
    *(0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0),
    *(300.0, 900.0, 3600.0, 14400.0, 86400.0),
)


class DeliveryCounters:
    """Counts in one delivery worker; `own_files.count_in` comes first."""

    def __init__(self, providers: Collection[str]) -> None:
        self._connections = Gauge(
            "relaygw_provider_connections",
            "Open connections.",
            ["provider", "state"],
            multiprocess_mode="livesum",
            registry=None,
        )
        in_queue = Histogram(
            "relaygw_time_in_queue_seconds",
            "From acceptance to delivery.",
            buckets=QUEUE_BUCKETS_S,
            registry=None,
        )
        self._in_queue = HistogramTally(in_queue, QUEUE_BUCKETS_S)
        self._batches = batch_tally("delivery")
        self.wrote = self._batches.add
        metrics = _ProviderMetrics()
        self._providers = {name: _ProviderTallies(metrics, name) for name in providers}
        self._write()

    def settled(
        self,
        claimed: ClaimedDelivery,
        update: DeliveryUpdate,
        report: AttemptReport,
        *,
        now_ms: int,
    ) -> None:
        """Count what an attempt came to, recipient by recipient."""
        provider = self._providers.get(report.provider)
        if provider is None:
            return  # nobody was asked
        outcomes = {outcome.rcpt_no: outcome for outcome in report.outcomes}
        delivered = 0
        for change in update.recipients:
            if change.state is RecipientState.DELIVERED:
                delivered += 1
            elif change.state in (RecipientState.BOUNCED, RecipientState.EXPIRED):
                reason = bounce_reason(change.state, outcomes.get(change.rcpt_no))
                provider.bounced.add(reason)
            elif change.state is RecipientState.PENDING:
                provider.deferred.add(deferral_reason(outcomes.get(change.rcpt_no)))
        if delivered:
            provider.delivered.add(report.provider, delivered)
            provider.success_at_s = now_ms // 1000
            self._in_queue.add((now_ms - claimed.accepted_at_ms) / 1000)
        if any(outcome.reply is not None for outcome in report.outcomes):
            provider.duration.add(report.delays.connect_s + report.delays.transmit_s)

    def sample(self, connections: Mapping[str, tuple[int, int]]) -> None:
        """Write the busy and idle connections of providers, and counts since the last time."""
        for name, (busy, idle) in connections.items():
            self._connections.labels(name, "busy").set(busy)
            self._connections.labels(name, "idle").set(idle)
        self._write()

    def _write(self) -> None:
        self._in_queue.write()
        self._batches.write()
        for provider in self._providers.values():
            provider.write()


class _ProviderMetrics:
    """The metrics that each provider has."""

    def __init__(self) -> None:
        self.delivered = Counter(
            "relaygw_recipients_delivered_total",
            "Recipients that the provider took.",
            ["provider"],
            registry=None,
        )
        self.deferred = Counter(
            "relaygw_recipients_deferred_total",
            "Recipients put off by an attempt.",
            ["provider", "reason"],
            registry=None,
        )
        self.bounced = Counter(
            "relaygw_recipients_bounced_total",
            "Recipients refused for good or expired.",
            ["provider", "reason"],
            registry=None,
        )
        self.duration = Histogram(
            "relaygw_delivery_duration_seconds",
            "From connection to reply.",
            ["provider"],
            buckets=DURATION_BUCKETS_S,
            registry=None,
        )
        self.success = Gauge(
            "relaygw_last_success_timestamp_seconds",
            "When the provider last took a message.",
            ["provider"],
            multiprocess_mode="max",
            registry=None,
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
