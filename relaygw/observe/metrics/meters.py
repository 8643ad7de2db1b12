"""What the front and the delivery worker tell of their work, and those who do not listen.

The names of metrics, their labels and their buckets stand beside the counters, in `front.py` and
`delivery.py`. `wrote` may be called by any thread, the others belong to the event loop. What was
counted shows once it is written, which `sample` does each second.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from relaygw.mail.envelope import AcceptedMessage, ClaimedDelivery, DeliveryUpdate
from relaygw.mail.outcome import AttemptReport


class ListenerMeter(Protocol):
    """Counts at one listener."""

    def replied(self, reply: str) -> None:
        """Count a reply to a client by its code."""

    def sample(self, sessions: int) -> None:
        """Write how many sessions are open, and the replies since the last time."""


class FrontMeter(Protocol):
    """Counts in a front."""

    def listener(self, name: str) -> ListenerMeter:
        """Return what counts at the listener of that name."""

    def accepted(self, messages: Sequence[AcceptedMessage]) -> None:
        """Count messages that are durable."""

    def wrote(self, seconds: float) -> None:
        """Count a batch by how long its transaction took."""

    def sample(self) -> None:
        """Write the counts since the last time."""


class DeliveryMeter(Protocol):
    """Counts in a delivery worker."""

    def settled(
        self,
        claimed: ClaimedDelivery,
        update: DeliveryUpdate,
        report: AttemptReport,
        *,
        now_ms: int,
    ) -> None:
        """Count what an attempt came to, once that is durable."""

    def wrote(self, seconds: float) -> None:
        """Count a batch of outcomes by how long its transaction took."""

    def sample(self, connections: Mapping[str, tuple[int, int]]) -> None:
        """Write the busy and idle connections of providers, and counts since the last time."""


class Silent:
    """A meter of every kind that counts nothing."""

    def listener(self, name: str) -> ListenerMeter:
        """Return itself."""
        return self

    def replied(self, reply: str) -> None:
        """Do nothing."""

    def sample(self, _: object = None) -> None:
        """Do nothing."""

    def accepted(self, messages: Sequence[AcceptedMessage]) -> None:
        """Do nothing."""

    def settled(
        self,
        claimed: ClaimedDelivery,
        update: DeliveryUpdate,
        report: AttemptReport,
        *,
        now_ms: int,
    ) -> None:
        """Do nothing."""

    def wrote(self, seconds: float) -> None:
        """Do nothing."""


SILENT = Silent()
