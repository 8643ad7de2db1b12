"""Where a front or a worker tells what happens, once: the log, the history and metrics read it.

What is counted stays in memory: `sample`, each second, writes it for metrics, `alerting.history`
writes it to the queue. A process that has no files for its metrics counts for the history alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from relaygw.observe.events import Event
from relaygw.observe.history import History
from relaygw.observe.maillog import MailLog

if TYPE_CHECKING:
    from relaygw.observe.metrics.counters import DeliveryMetrics, FrontMetrics, ListenerMetrics


class Observer:
    """What both roles tell; `wrote` may be called by any thread, the rest by the event loop."""

    def __init__(
        self,
        log: MailLog,
        history: History | None = None,
        metrics: FrontMetrics | DeliveryMetrics | None = None,
    ) -> None:
        self.log = log
        self._readers = [reader for reader in (history, metrics) if reader is not None]
        self._batches = None if metrics is None else metrics.batches

    def tell(self, events: Sequence[Event]) -> None:
        """Tell of what is durable, in order; it counts even where the log has a defect."""
        try:
            self.log.write(events)
        finally:
            for reader in self._readers:
                reader.read(events)

    def wrote(self, seconds: float) -> None:
        """Tell how long the transaction of a batch took."""
        if self._batches is not None:
            self._batches.add(seconds)


class FrontObserver(Observer):
    """What a front tells."""

    def __init__(
        self, log: MailLog, history: History | None = None, metrics: FrontMetrics | None = None
    ) -> None:
        super().__init__(log, history, metrics)
        self._history = history
        self._metrics = metrics

    def listener(self, name: str) -> ListenerObserver:
        """Return what is told at the listener of that name."""
        metrics = None if self._metrics is None else self._metrics.listener(name)
        return ListenerObserver(self._history, metrics)

    def sample(self) -> None:
        """Write the counts since the last time."""
        if self._metrics is not None:
            self._metrics.write()


class ListenerObserver:
    """What the sessions of one listener tell."""

    def __init__(self, history: History | None, metrics: ListenerMetrics | None) -> None:
        self._history = history
        self._metrics = metrics

    def replied(self, reply: str) -> None:
        """Tell of a reply to a client."""
        if self._metrics is not None:
            self._metrics.replies.add(reply[:3])
        if self._history is not None and reply[0] in "45":
            self._history.refused(reply)

    def sample(self, sessions: int) -> None:
        """Write how many sessions are open, and the replies since the last time."""
        if self._metrics is not None:
            self._metrics.write(sessions)


class DeliveryObserver(Observer):
    """What a delivery worker tells."""

    def __init__(
        self, log: MailLog, history: History | None = None, metrics: DeliveryMetrics | None = None
    ) -> None:
        super().__init__(log, history, metrics)
        self._metrics = metrics

    def sample(self, connections: Mapping[str, tuple[int, int]]) -> None:
        """Write the busy and idle connections of providers, and the counts since the last time."""
        if self._metrics is not None:
            self._metrics.write(connections)
