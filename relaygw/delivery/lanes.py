"""Lanes and gates: what may be sent next. Pure bookkeeping, no I/O.

A lane is a route with its own window of claimed deliveries; a gate is a provider with the
lanes that lead to it. A gate decides which lane goes next, how many transactions may run
at once, and how long a provider in trouble is left alone.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from relaygw.mail.envelope import ClaimedDelivery
from relaygw.mail.outcome import Verdict
from relaygw.settings.model import Stream

WINDOW_PER_CONNECTION = 8
MIN_WINDOW = 20
MAX_WINDOW = 200
UNREACHABLE_LADDER_S = (1.0, 2.0, 4.0, 8.0, 15.0, 30.0)
"""Waits after a provider could not be reached or closed the service, then the last again."""
THROTTLE_LADDER_S = (5.0, 10.0, 30.0, 1200.0)
"""Waits after a provider asked to slow down, as Amazon SES documents for its own."""


@dataclass(slots=True)
class Lane:
    """The claimed deliveries of one route."""

    route: str
    stream: Stream
    window_size: int
    window: deque[ClaimedDelivery] = field(default_factory=deque)
    is_claiming: bool = False
    may_have_more: bool = True  # False until a hint, a due retry or the next poll

    @property
    def wants_claim(self) -> bool:
        """True when the window runs low and the store may have something."""
        return (
            self.may_have_more and not self.is_claiming and len(self.window) * 2 <= self.window_size
        )

    @property
    def room(self) -> int:
        """How many more deliveries the window takes."""
        return self.window_size - len(self.window)


@dataclass(slots=True)
class Gate:
    """One provider: its lanes, what is under way, and its health."""

    provider: str
    max_connections: int
    lanes: list[Lane]
    in_flight: int = 0
    promotional_in_flight: int = 0
    permits: int = 0
    failures: int = 0  # in a row; resets with the first success
    throttles: int = 0
    blocked_until_s: float = 0.0
    is_asking: bool = False  # for permits
    is_held: bool = False
    probe_at_s: float | None = None  # of a hold: one delivery may try then

    def __post_init__(self) -> None:
        # transactional mail first, in the order of the routes
        self.lanes.sort(key=lambda lane: lane.stream is not Stream.TRANSACTIONAL)

    def is_open(self, now_s: float) -> bool:
        """True when the provider may be tried now."""
        if self.is_held and (self.probe_at_s is None or now_s < self.probe_at_s):
            return False
        return now_s >= self.blocked_until_s

    def limit(self) -> int:
        """How many transactions may run at once: one while the provider must prove itself."""
        is_probing = self.failures or self.throttles or self.is_held
        return 1 if is_probing else self.max_connections

    def next_lane(self, now_s: float) -> Lane | None:
        """Return the lane whose turn it is, or None when nothing may be sent now.

        On a provider that both streams share, one connection is kept for transactional mail,
        so that a promotion in flight cannot fill them all.
        """
        if not self.is_open(now_s) or self.in_flight >= self.limit():
            return None
        for lane in self.lanes:
            if not lane.window:
                continue
            if lane.stream is Stream.PROMOTIONAL and not self._has_promotional_room():
                continue
            return lane
        return None

    def _has_promotional_room(self) -> bool:
        is_shared = any(lane.stream is Stream.TRANSACTIONAL for lane in self.lanes)
        reserved = 1 if is_shared and self.max_connections > 1 else 0
        return self.promotional_in_flight < self.max_connections - reserved

    def start(self, stream: Stream) -> None:
        """Count a transaction that begins."""
        self.in_flight += 1
        self.promotional_in_flight += stream is Stream.PROMOTIONAL

    def finish(self, stream: Stream) -> None:
        """Count a transaction that ended."""
        self.in_flight -= 1
        self.promotional_in_flight -= stream is Stream.PROMOTIONAL

    def pass_on(self, stream: Stream, now_s: float) -> Lane | None:
        """Hand the place of a transaction that is about to end to the lane whose turn it is."""
        self.finish(stream)
        lane = self.next_lane(now_s)
        self.start(stream if lane is None else lane.stream)
        return lane

    def note(self, verdict: Verdict | None, now_s: float) -> float:
        """Learn from what the provider said of itself; return the wait in seconds.

        None: nothing of the provider's own, it works. RETRY: it could not be reached or
        closed the service. THROTTLE: it asked to slow down.
        """
        if verdict is Verdict.RETRY:
            return self._block(UNREACHABLE_LADDER_S, self.failures, now_s, is_failure=True)
        if verdict is Verdict.THROTTLE:
            return self._block(THROTTLE_LADDER_S, self.throttles, now_s, is_failure=False)
        if verdict is None:
            self.failures = self.throttles = 0
        return 0.0

    def _block(
        self, ladder: tuple[float, ...], step: int, now_s: float, *, is_failure: bool
    ) -> float:
        if now_s < self.blocked_until_s:
            return self.blocked_until_s - now_s  # several in flight met the same trouble
        wait_s = ladder[min(step, len(ladder) - 1)]
        self.blocked_until_s = now_s + wait_s
        if is_failure:
            self.failures += 1
        else:
            self.throttles += 1
        return wait_s


def window_size(max_connections: int) -> int:
    """Return how many claimed deliveries of a route are kept at hand."""
    return max(MIN_WINDOW, min(MAX_WINDOW, max_connections * WINDOW_PER_CONNECTION))
