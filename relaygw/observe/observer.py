"""Where a front or a worker tells what happens, once: the log, the history and metrics read it.

Counts stay in memory: `sample` writes them for metrics, `alerting.history` to the queue.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from relaygw.observe.events import Event
from relaygw.observe.maillog import MailLog

if TYPE_CHECKING:
    from relaygw.observe.counters import DeliveryMetrics, FeedbackMetrics, FrontMetrics
from relaygw.observe.history import History, Series
from relaygw.observe.labels import FOUND

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
        """Return the observer of the listener of that name."""
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
            self._metrics.sessions.set_number(sessions, self._name)


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
