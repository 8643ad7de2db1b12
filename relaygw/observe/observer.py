"""Where a front or a worker tells what happens, once: the log, the history and metrics read it.

Counts stay in memory: `sample` writes them for metrics, `alerting.history` to the queue.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from functools import lru_cache
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from relaygw.mail.outcome import BEFORE_MAIL, RecipientOutcome, Scope, Stage, Verdict
from relaygw.mail.state import CaptureCode, DeliveryState, RecipientState, capture_code
from relaygw.mail.suppression import Action
from relaygw.mail.verdict import Kind
from relaygw.observe.events import WAITS_SLICE_S, Accepted, Attempted, Event, Judged, wait_bound
from relaygw.observe.maillog import MailLog

if TYPE_CHECKING:
    from relaygw.observe.counters import DeliveryMetrics, FeedbackMetrics, FrontMetrics

SLICE_S = 300
MAX_DOMAINS = 500  # of senders
MAX_NETWORKS = 100  # with wrong passwords, between two slices
MAX_COUNTS = 10_000  # so many different counts wait at most, some days of a queue that is away

Counts = dict[tuple[str, str], int]
Metrics = TypeVar("Metrics", bound="FrontMetrics | DeliveryMetrics")


class Observer(Generic[Metrics]):
    """What both roles tell; `wrote` may be called by any thread, the rest by the event loop."""

    def __init__(
        self, log: MailLog, history: History | None = None, metrics: Metrics | None = None
    ) -> None:
        self.log = log
        self._history = history
        self._metrics = metrics
        self._readers = [reader for reader in (history, metrics) if reader is not None]
        self.told = 0  # events so far

    def tell(self, events: Sequence[Event]) -> None:
        """Tell of what is durable, in order; it counts even where the log has a defect."""
        self.told += len(events)
        _tell(self.log, self._readers, events)

    def wrote(self, seconds: float) -> None:
        """Tell how long the transaction of a batch took."""
        if self._metrics is not None:
            self._metrics.batches.add(seconds)


def _tell(log: MailLog, readers: Sequence[_Reader], events: Sequence[Event]) -> None:
    try:
        log.write(events)
    finally:
        for reader in readers:
            reader.read(events)


class _Reader(Protocol):
    def read(self, events: Sequence[Event]) -> None: ...


class FrontObserver(Observer["FrontMetrics"]):
    """What a front tells."""

    def repeated(self, what: str) -> None:
        """Tell of a message that came before: see REPEATED."""
        if self._metrics is not None:
            self._metrics.repeated.add(what)

    def listener(self, name: str) -> ListenerObserver:
        """Return what is told at the listener of that name."""
        return ListenerObserver(name, self._history, self._metrics)

    def found(self, kinds: Iterable[str], *, is_held: bool) -> None:
        """Tell what the content check found in a mail."""
        for kind in kinds:
            if self._metrics is not None:
                self._metrics.found.add(kind, FOUND[is_held])
            if self._history is not None:
                self._history.add(Series.FOUND, f"{FOUND[is_held]} {kind}")

    def sample(self) -> None:
        """Write the counts since the last time."""
        if self._metrics is not None:
            self._metrics.write()


class ListenerObserver:
    """What the sessions of one listener tell."""

    def __init__(self, name: str, history: History | None, metrics: FrontMetrics | None) -> None:
        self._name = name
        self._history = history
        self._metrics = metrics
        self._replies: Counter[str] = Counter()  # by code, since the last sample
        if metrics is not None:
            metrics.begin(name)

    def replied(self, reply: str) -> None:
        """Tell of a reply to a client."""
        self._replies[reply[:3]] += 1
        if self._history is not None and reply[0] in "45":
            self._history.refused(reply)

    def login_failed(self, network: str) -> None:
        """Tell of a wrong password of somebody in a network."""
        if self._history is not None:
            self._history.login_failed("smtp", network)

    def sample(self, sessions: int) -> None:
        """Count what was replied, and write how many sessions are open."""
        replies, self._replies = self._replies, Counter()
        if self._metrics is not None:
            for code, count in replies.items():
                self._metrics.replies.add(self._name, code, count=count)
            self._metrics.sessions.labels(self._name).set(sessions)


class DeliveryObserver(Observer["DeliveryMetrics"]):
    """What a delivery worker tells."""

    def sample(self, connections: Mapping[str, tuple[int, int]]) -> None:
        """Write the busy and idle connections of providers, and the counts since the last time."""
        if self._metrics is not None:
            self._metrics.write(connections)

    def noticed(self, kind: str, result: str) -> None:
        """Tell of a notice to a sender, and what came of it: see NOTICE_RESULTS."""
        if self._metrics is not None:
            self._metrics.notices.add(kind, result)


class FeedbackObserver:
    """What the web role tells of what providers report."""

    def __init__(self, log: MailLog, history: History, metrics: FeedbackMetrics | None) -> None:
        self._log = log
        self._readers = [reader for reader in (history, metrics) if reader is not None]

    def tell(self, events: Sequence[Event]) -> None:
        """Tell of what is durable, in order; it counts even where the log has a defect."""
        _tell(self._log, self._readers, events)


# --- counts of the last days ----------------------------------------------------------------


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
        return domain if domain in self._domains else _one_of(self._domains, domain, MAX_DOMAINS)

    def login_failed(self, kind: str, network: str) -> None:
        """Count a wrong password or token, by who tries: of very many networks some."""
        network = _one_of(self._networks, network, MAX_NETWORKS)
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
        """Return what was counted in the slice of now, to count in."""
        slice_at_s = int(time.time()) // slice_s * slice_s
        counts = self._slices.get(slice_at_s)
        if counts is None:
            if slice_at_s != self._begun_s:
                self._begun_s = slice_at_s
                self._networks.clear()
            counts = self._slices[slice_at_s] = Counter()
        return counts

    def take(self) -> list[tuple[int, Counts]]:
        """Return what was counted since the last time, by slices, whose begin is in ms."""
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


# --- labels: few words that are always the same, for metrics and history ---------------------
# they tell neither addresses nor replies

MAILDROP = "maildrop"  # the listener of mail that came by no listener
OTHER = CaptureCode.OTHER.value
_REFUSED = {scope: f"refused_{scope.value.replace(' ', '_')}" for scope in Scope}
_NOT_NOW = {Verdict.THROTTLE: "throttled", Verdict.HOLD: "held", Verdict.DOUBT: "in_doubt"}

FOUND = ("warned", "held")  # what the content check did
_NEVER_CAPTURED = (CaptureCode.OTHER, CaptureCode.SUPPRESSED)
CAPTURED = tuple(code.value for code in CaptureCode if code not in _NEVER_CAPTURED)
DEFERRED = (*_NOT_NOW.values(), "local", "unreachable", "no_answer", *_REFUSED.values())
BOUNCED = ("expired", "local", *_REFUSED.values())
DUPLICATE = "duplicate"  # of one that was taken, and not taken itself
REPEATED = ("same", "message_id", "held", DUPLICATE)
NOTICES = ("failed", "delayed", "relayed")
NOTICE_RESULTS = ("made", "none", "error", "null_sender")  # null_sender: failed, and never told
"""What is counted from zero on: a count that begins with 1 is no increase to Prometheus."""


@lru_cache(maxsize=256)  # a shop has few
def _domain_of(sender: str) -> str:
    return sender.rpartition("@")[2].lower()


def _one_of(known: set[str], name: str, most: int) -> str:
    """Return a label; of more names than `most` only the first are told apart."""
    if name not in known:
        if len(known) >= most:
            return OTHER
        known.add(name)
    return name


def suppressed_of(event: Attempted) -> list[tuple[str, str, str]]:
    """Return what was done for each suppressed recipient, its stream, and why it is suppressed."""
    claimed, update = event.claimed, event.update
    listed = {one.rcpt_no: one.listed for one in claimed.recipients if one.listed is not None}
    if not listed:
        return []
    blocked = [
        listed[change.rcpt_no]
        for change in update.recipients
        if change.state is RecipientState.BLOCKED and change.rcpt_no in listed
    ]
    told = [
        *(("blocked", one) for one in blocked if one.action is Action.BLOCK),
        *(("warned", one.listed) for one in update.warned),
    ]
    return [(what, claimed.stream, one.entry.cause.value) for what, one in told]


def deferral_reason(outcome: RecipientOutcome | None) -> str:
    """Return why a recipient waits."""
    if outcome is None:
        return OTHER
    if outcome.verdict in _NOT_NOW:
        return _NOT_NOW[outcome.verdict]
    if outcome.stage is Stage.LOCAL:
        return "local"
    if outcome.reply is not None:
        return _REFUSED[outcome.scope]
    return "unreachable" if outcome.stage in BEFORE_MAIL else "no_answer"


def bounce_reason(state: RecipientState, outcome: RecipientOutcome | None) -> str:
    """Return why a recipient will not be tried again."""
    if state is RecipientState.EXPIRED:
        return "expired"
    if outcome is None:
        return OTHER
    return "local" if outcome.stage is Stage.LOCAL else _REFUSED[outcome.scope]
