"""Counts kept in memory between two writes.

A write to a file that is mapped costs ten times a count, and a message is counted six times: what
happens within a second is written at once.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Sequence

from prometheus_client import Counter, Histogram


class CounterTally:
    """Counts of one counter by its last label; the others are `labels`. For one thread."""

    def __init__(self, counter: Counter, *labels: str, from_zero: Sequence[str] = ()) -> None:
        self._counter = counter
        self._labels = labels
        self._unwritten = dict.fromkeys(from_zero, 0)

    def add(self, label: str, count: int = 1) -> None:
        """Count."""
        self._unwritten[label] = self._unwritten.get(label, 0) + count

    def write(self) -> None:
        """Write what was counted since the last time."""
        unwritten, self._unwritten = self._unwritten, {}
        for label, count in unwritten.items():
            self._counter.labels(*self._labels, label).inc(count)


class HistogramTally:
    """Observations of one histogram; any thread may add."""

    def __init__(self, histogram: Histogram, bounds: Sequence[float]) -> None:
        """`bounds` are those it was made with."""
        self._histogram = histogram
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0
        self._lock = threading.Lock()

    def add(self, number: float) -> None:
        """Observe."""
        with self._lock:
            self._counts[bisect_left(self._bounds, number)] += 1
            self._sum += number

    def write(self) -> None:
        """Write what was observed since the last time."""
        with self._lock:
            counts, self._counts = self._counts, [0] * len(self._counts)
            total, self._sum = self._sum, 0.0
        # the library itself observes one number at a time
        for bucket, count in zip(self._histogram._buckets, counts, strict=True):
            if count:
                bucket.inc(count)
        if total:
            self._histogram._sum.inc(total)
