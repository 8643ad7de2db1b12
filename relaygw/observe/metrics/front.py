"""What a front counts."""

from __future__ import annotations

from collections.abc import Sequence

from prometheus_client import Counter, Gauge

from relaygw.mail.envelope import AcceptedMessage
from relaygw.mail.state import RecipientState
from relaygw.observe.metrics.batches import batch_tally
from relaygw.observe.metrics.reasons import CAPTURED, capture_reason
from relaygw.observe.metrics.tally import CounterTally

MAILDROP = "maildrop"
"""The listener of mail that came by no listener."""
_TROUBLE = ("451", "452")
"""Replies that rules look for, counted from zero on: see `reasons`."""


class FrontCounters:
    """Counts in one front process; `own_files.count_in` comes first."""

    def __init__(self) -> None:
        received = Counter(
            "relaygw_messages_received_total",
            "Messages taken, by listener.",
            ["listener"],
            registry=None,
        )
        captured = Counter(
            "relaygw_sandbox_captured_total",
            "Recipients captured instead of sent.",
            ["reason"],
            registry=None,
        )
        self._replies = Counter(
            "relaygw_smtp_replies_total",
            "Replies to clients, by code.",
            ["listener", "code"],
            registry=None,
        )
        self._sessions = Gauge(
            "relaygw_smtp_sessions",
            "Open SMTP sessions.",
            ["listener"],
            multiprocess_mode="livesum",
            registry=None,
        )
        self._received = CounterTally(received, from_zero=[MAILDROP])
        self._captured = CounterTally(captured, from_zero=CAPTURED)
        self._batches = batch_tally("front")
        self.wrote = self._batches.add

    def listener(self, name: str) -> ListenerCounters:
        """Return what counts at the listener of that name."""
        self._received.add(name, 0)
        return ListenerCounters(self._replies, self._sessions, name)

    def accepted(self, messages: Sequence[AcceptedMessage]) -> None:
        """Count messages that are durable, and their recipients that are captured."""
        for message in messages:
            self._received.add(message.source.listener or MAILDROP)
            for delivery in message.deliveries:
                for recipient in delivery.recipients:
                    if recipient.state is RecipientState.CAPTURED:
                        self._captured.add(capture_reason(recipient))

    def sample(self) -> None:
        """Write the counts since the last time."""
        self._received.write()
        self._captured.write()
        self._batches.write()


class ListenerCounters:
    """Counts at one listener."""

    def __init__(self, replies: Counter, sessions: Gauge, name: str) -> None:
        self._replies = CounterTally(replies, name, from_zero=_TROUBLE)
        self._sessions = sessions.labels(name)

    def replied(self, reply: str) -> None:
        """Count a reply by its code."""
        self._replies.add(reply[:3])

    def sample(self, sessions: int) -> None:
        """Write how many sessions are open, and the replies since the last time."""
        self._sessions.set(sessions)
        self._replies.write()
