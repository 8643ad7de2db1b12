"""How long mail was in the queue, counted in few steps."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

WAITS_SLICE_S = 1800
"""Longer slices than those of other counts: there are many steps."""


_WAIT_STEPS = (1.0, 1.5, 2.0, 3.0, 5.0, 7.0)  # of each power of ten
WAIT_BOUNDS_MS = tuple(int(step * 10**power) for power in range(1, 9) for step in _WAIT_STEPS)
"""From 10 ms to 8 days; what takes longer counts as that."""


_LAST_BOUND = len(WAIT_BOUNDS_MS) - 1


def wait_bound(took_ms: int) -> int:
    """Return the greatest time of the step in which a time lies."""
    return WAIT_BOUNDS_MS[min(bisect_left(WAIT_BOUNDS_MS, took_ms), _LAST_BOUND)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Waits:
    """How long mail was in the queue."""

    mails: int
    p50_s: float
    p95_s: float


def waits_of(counts: Iterable[tuple[str, int]], provider: str | None = None) -> Waits | None:
    """Return the times of counts by label, of one provider or all; None for no mail."""
    numbers: Counter[int] = Counter()
    for label, number in counts:
        name, _, bound_ms = label.rpartition(" ")
        if bound_ms.isdigit() and provider in (None, name):
            numbers[int(bound_ms)] += number
    if not numbers:
        return None
    found = sorted(numbers.items())
    return Waits(mails=numbers.total(), p50_s=_quantile(found, 0.5), p95_s=_quantile(found, 0.95))


def _quantile(found: list[tuple[int, int]], share: float) -> float:
    """Return the time within which a share of them was done; within a step they are spread."""
    left, before_ms = share * sum(number for _, number in found), 0
    for bound_ms, number in found:
        if number >= left:
            at = bisect_left(WAIT_BOUNDS_MS, bound_ms)
            begin_ms = max(before_ms, WAIT_BOUNDS_MS[at - 1] if at else 0)
            return (begin_ms + (bound_ms - begin_ms) * left / number) / 1000
        left, before_ms = left - number, bound_ms
    raise AssertionError("unreachable")
