"""What a provider that said "slower" showed: its ceiling, learnt from what was offered and taken.

Pure. What follows from a ceiling is `policy.pacing`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

GUARD_S = 1.0
"""Refusals within this time of one another are one: they were on their way together."""
_WINDOW_S = 2.0
_MIN_SPAN_S = 0.05
_MIN_PER_S = 0.2


def new_ceiling(offered_per_s: float, accepted_per_s: float) -> float:
    """Return the ceiling that a refusal shows, from what was offered and accepted lately.

    If nearly all was accepted, the rate was right at the limit. Else the limit lies below; it is
    halved at most, because too low an estimate is made good slowly, and others may send, too.
    """
    if accepted_per_s >= 0.9 * offered_per_s:
        return max(_MIN_PER_S, offered_per_s)
    return max(_MIN_PER_S, accepted_per_s, offered_per_s / 2)


class Throughput:
    """How much there was in the last two seconds."""

    def __init__(self) -> None:
        self._counts: deque[tuple[float, int]] = deque()
        self._since_s = 0.0

    def note(self, count: int, now_s: float) -> None:
        """Count what happens just now."""
        self._forget(now_s)
        if not self._counts:
            self._since_s = now_s
        self._counts.append((now_s, count))

    def count(self, now_s: float) -> int:
        """Return how many times there was something."""
        self._forget(now_s)
        return len(self._counts)

    def per_s(self, now_s: float) -> float:
        """Return the rate of it."""
        self._forget(now_s)
        total = sum(count for _, count in self._counts)
        return total / min(_WINDOW_S, max(_MIN_SPAN_S, now_s - self._since_s))

    def _forget(self, now_s: float) -> None:
        while self._counts and self._counts[0][0] < now_s - _WINDOW_S:
            self._counts.popleft()


def step(ladder_s: Sequence[float], number: int) -> float:
    """Return the wait of a ladder at a step; the last one again and again."""
    return ladder_s[min(number, len(ladder_s) - 1)]
