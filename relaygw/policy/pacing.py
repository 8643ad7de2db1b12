"""How fast a provider that said "slower" is sent to, and over how many connections: decision 10.

Pure: the same *ceiling*, which one worker teaches all, gives the same pace in each.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

GUARD_S = 1.0  # refusals within this time of one another are one: they were on their way together
_WINDOW_S = 2.0
_MIN_SPAN_S = 0.05
_MIN_PER_S = 0.2
_LOW, _HIGH = 0.85, 0.97  # shares of the ceiling: right after a refusal, and once recovered
_RECOVERY_S = 2.0
_LINEAR, _CUBIC = 0.006, 0.00003  # growth past the ceiling, by seconds since the recovery
_CONNECTION_EVERY_S = 60.0
_SLOW_PER_S = 10.0


def pace(ceiling_per_s: float, since_s: float) -> float:
    """Return the rate to send at, so long after the ceiling was met.

    Below ten a second everything takes longer, so that a refusal stays rare among the messages.
    """
    since_s *= min(1.0, ceiling_per_s / _SLOW_PER_S)
    if since_s < _RECOVERY_S:
        return ceiling_per_s * (_LOW + (_HIGH - _LOW) * max(0.0, since_s) / _RECOVERY_S)
    grown_s = since_s - _RECOVERY_S
    return ceiling_per_s * _HIGH * (1 + _LINEAR * grown_s + _CUBIC * grown_s**3)


def connections(ceiling: int, since_s: float, configured: int) -> int:
    """Return how many connections to use, so long after more than `ceiling` were refused."""
    return max(1, min(configured, ceiling + int(max(0.0, since_s) // _CONNECTION_EVERY_S)))


def allowed_per_s(
    configured_per_s: float | None, ceiling_per_s: float | None, since_s: float
) -> float | None:
    """Return how much may be sent a second so long after a ceiling; None: as fast as it answers."""
    rates = [] if configured_per_s is None else [configured_per_s]
    if ceiling_per_s is not None:
        rates.append(pace(ceiling_per_s, since_s))
    return min(rates, default=None)


def new_ceiling(offered_per_s: float, accepted_per_s: float) -> float:
    """Return the ceiling that a refusal shows, from what was offered and accepted lately.

    If nearly all was accepted, the rate was right at the limit. Else it is halved at most: too low
    an estimate is made good slowly, and others may send, too.
    """
    if accepted_per_s >= 0.9 * offered_per_s:
        return max(_MIN_PER_S, offered_per_s)
    return max(_MIN_PER_S, accepted_per_s, offered_per_s / 2)


class Throughput:
    """How much there was in the last two seconds."""

    def __init__(self) -> None:
        self._counts: deque[tuple[float, int]] = deque()
        self._total = 0
        self._since_s = 0.0

    def note(self, count: int, now_s: float) -> None:
        """Count what happens just now."""
        self._forget(now_s)
        if not self._counts:
            self._since_s = now_s
        self._counts.append((now_s, count))
        self._total += count

    def count(self, now_s: float) -> int:
        """Return how many times there was something."""
        self._forget(now_s)
        return len(self._counts)

    def per_s(self, now_s: float) -> float:
        """Return the rate of it."""
        self._forget(now_s)
        return self._total / min(_WINDOW_S, max(_MIN_SPAN_S, now_s - self._since_s))

    def _forget(self, now_s: float) -> None:
        while self._counts and self._counts[0][0] < now_s - _WINDOW_S:
            self._total -= self._counts.popleft()[1]


def ladder_step(ladder_s: Sequence[float], number: int) -> float:
    """Return the wait of a ladder at a step; the last one again and again."""
    return ladder_s[min(number, len(ladder_s) - 1)]
