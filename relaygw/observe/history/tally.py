"""Counts kept in memory until they are written to the history."""

from __future__ import annotations

import time
from collections import Counter

from relaygw.observe.history.series import Series

SLICE_S = 300
MAX_COUNTS = 10_000
"""So many different counts wait at most, some days of a queue that is away."""

Counts = dict[tuple[str, str], int]


class HistoryTally:
    """Counts of one process, by slices of five minutes; belongs to one thread."""

    def __init__(self) -> None:
        self._slices: dict[int, Counter[tuple[str, str]]] = {}

    def add(self, series: Series, label: str, count: int = 1) -> None:
        """Count."""
        slice_at_s = int(time.time()) // SLICE_S * SLICE_S
        counts = self._slices.get(slice_at_s)
        if counts is None:
            counts = self._slices[slice_at_s] = Counter()
        counts[series.value, label] += count

    def take(self) -> list[tuple[int, Counts]]:
        """Return what was counted since the last time, by slices, whose begin is in ms."""
        slices, self._slices = self._slices, {}
        return [(at_s * 1000, dict(counts)) for at_s, counts in sorted(slices.items())]

    def put_back(self, slices: list[tuple[int, Counts]]) -> None:
        """Take back what could not be written; what is too much goes, the oldest first."""
        for at_ms, counts in slices:
            self._slices.setdefault(at_ms // 1000, Counter()).update(counts)
        waiting = sum(map(len, self._slices.values()))
        for at_s in sorted(self._slices):
            if waiting <= MAX_COUNTS or len(self._slices) == 1:
                return
            waiting -= len(self._slices.pop(at_s))
