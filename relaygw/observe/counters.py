"""The metrics of a front and of a delivery worker: names, labels, buckets, and what counts.

A message is counted six times, in memory: the file of the process is written once a second.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from itertools import product

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
from relaygw.observe.metrics import MetricsFile
from relaygw.observe.tallies import HistogramRow, TallyKind

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


class FrontMetrics:
    """Metrics of one front process."""

    def __init__(self, file: MetricsFile) -> None:
        self._file = file
        self._received = file.tally(
            "relaygw_messages_received_total",
            *("Messages accepted, by listener.", "listener"),
            from_zero=[(MAILDROP,)],
        )
        self._captured = file.tally(
            "relaygw_sandbox_captured_total",
            *("Recipients captured instead of sent.", "reason"),
            from_zero=product(CAPTURED),
        )
        self.replies = file.tally(
            "relaygw_smtp_replies_total", "Replies to clients, by code.", "listener", "code"
        )
        self.found = file.tally(
            "relaygw_content_found_total",
            *("Messages in which the content check found something.", "kind", "result"),
            from_zero=product(Finding, FOUND),
        )
        self.repeated = file.tally(
            "relaygw_repeated_messages_total",
            *("Messages that a recipient had before, by what they had in common.", "what"),
            from_zero=product(REPEATED),
        )
        self.sessions = file.tally(
            "relaygw_smtp_sessions", "Open SMTP sessions.", "listener", kind=TallyKind.LIVE
        )
        self.batches = _batches(file, "front")

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
        self._file.write()


# name, meaning, labels
_CONNECTIONS = ("relaygw_provider_connections", "Open connections.", "provider", "state")
_IN_QUEUE = ("relaygw_time_in_queue_seconds", "From acceptance to delivery.")
_DELIVERED = (
    *("relaygw_recipients_delivered_total", "Recipients that the provider accepted."),
    "provider",
)
_DEFERRED = (
    *("relaygw_recipients_deferred_total", "Recipients deferred by an attempt."),
    *("provider", "reason"),
)
_BOUNCED = (
    *("relaygw_recipients_bounced_total", "Recipients refused for good or expired."),
    *("provider", "reason"),
)
_SUPPRESSED = (
    *("relaygw_recipients_suppressed_total", "Recipients that are suppressed, by what was done."),
    *("action", "stream", "cause"),
)
_NOTICES = (
    *("relaygw_notices_total", "Notices to senders, by what came of them."),
    *("kind", "result"),
)
_DURATION = ("relaygw_delivery_duration_seconds", "From connection to reply.", "provider")
_SUCCESS = (
    *("relaygw_last_success_timestamp_seconds", "When the provider last accepted a message."),
    "provider",
)


class DeliveryMetrics:
    """Metrics of one delivery worker."""

    def __init__(self, file: MetricsFile, providers: Collection[str]) -> None:
        self._file = file
        self._connections = file.tally(*_CONNECTIONS, kind=TallyKind.LIVE)
        in_queue = file.tally(*_IN_QUEUE, kind=TallyKind.HISTOGRAM, bounds=QUEUE_BUCKETS_S)
        self._in_queue = HistogramRow(in_queue)
        self.batches = _batches(file, "delivery")
        self._delivered = file.tally(*_DELIVERED, from_zero=product(providers))
        self._deferred = file.tally(*_DEFERRED, from_zero=product(providers, DEFERRED))
        self._bounced = file.tally(*_BOUNCED, from_zero=product(providers, BOUNCED))
        actions, causes = ("blocked", "warned"), [cause.value for cause in Cause]
        self._suppressed = file.tally(*_SUPPRESSED, from_zero=product(actions, STREAMS, causes))
        self.notices = file.tally(*_NOTICES, from_zero=product(NOTICES, NOTICE_RESULTS))
        duration = file.tally(*_DURATION, kind=TallyKind.HISTOGRAM, bounds=DURATION_BUCKETS_S)
        self._durations = {name: HistogramRow(duration, name) for name in providers}
        self._success = file.tally(*_SUCCESS, kind=TallyKind.LATEST)

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
            self._success.set_number(event.at_ms // 1000, provider)
            self._in_queue.add((event.at_ms - event.claimed.accepted_at_ms) / 1000)
        if [outcome for outcome in report.outcomes if outcome.reply is not None]:
            self._durations[provider].add(report.delays.connect_s + report.delays.transmit_s)

    def write(self, connections: Mapping[str, tuple[int, int]]) -> None:
        """Write the busy and idle connections of providers, and counts since the last time."""
        for name, (busy, idle) in connections.items():
            self._connections.set_number(busy, name, "busy")
            self._connections.set_number(idle, name, "idle")
        self._file.write()


class FeedbackMetrics:
    """What providers report, counted by the web role."""

    def __init__(self, file: MetricsFile, providers: Collection[str]) -> None:
        self._file = file
        self.events = file.tally(
            "relaygw_provider_events_total",
            *("Things that providers told of mail, each once.", "provider", "kind"),
            from_zero=product(providers, map(str, Kind)),
        )
        self.unmatched = file.tally(
            "relaygw_provider_events_unmatched_total",
            *("Of these, those about no mail of this queue.", "provider"),
            from_zero=product(providers),
        )
        self._verdicts = file.tally(
            "relaygw_verdicts_total",
            *("Recipients, by what became of them after a provider's 250.", "provider", "kind"),
            from_zero=product(providers, map(str, LAST_WORDS)),
        )
        self.refused = file.tally(
            "relaygw_provider_posts_refused_total",
            *("Posts that were not taken, by reason.", "provider", "reason"),
            from_zero=product(providers, REFUSALS),
        )
        self.closed = file.tally(
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
        self._file.write()


def _batches(file: MetricsFile, role: str) -> HistogramRow:
    """The histogram of seconds per transaction of a role; all roles have one metric."""
    tally = file.tally(
        "relaygw_db_write_seconds",
        *("Duration of a batch's transaction, synced.", "role"),
        kind=TallyKind.HISTOGRAM,
        bounds=_BATCH_BUCKETS_S,
    )
    return HistogramRow(tally, role)
