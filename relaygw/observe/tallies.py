"""What a process counts for Prometheus: rows of numbers by labels, added up over processes.

A row of a counter or gauge is one number. A row of a histogram has the observations up to each
bound and beyond the last one, not cumulated, and then the sum of what was observed.
"""

from __future__ import annotations

import json
import threading
from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum


class TallyKind(StrEnum):
    """How numbers of several processes make one."""

    COUNTER = "counter"
    HISTOGRAM = "histogram"
    LIVE = "live"
    """A gauge: the sum over the processes that run."""
    LATEST = "latest"
    """A gauge: the largest number of any process, running or not."""


@dataclass(slots=True)
class Tally:
    """The rows of one metric; for one thread."""

    name: str
    meaning: str
    kind: TallyKind
    labels: tuple[str, ...] = ()
    bounds: tuple[float, ...] = ()
    rows: dict[tuple[str, ...], list[float]] = field(default_factory=dict)

    def row(self, labels: tuple[str, ...]) -> list[float]:
        """The row of these values of the labels, from zero on if it is new."""
        size = len(self.bounds) + 2 if self.kind is TallyKind.HISTOGRAM else 1
        return self.rows.setdefault(labels, [0.0] * size)

    def add(self, *labels: str, count: float = 1) -> None:
        """Count."""
        row = self.rows.get(labels)  # a message is counted six times: without a call
        if row is None:
            row = self.row(labels)
        row[0] += count

    def set_number(self, number: float, *labels: str) -> None:
        """Set a gauge."""
        self.row(labels)[0] = number

    def merge_rows(self, other: Tally) -> None:
        """Add the rows of another process; a metric of another shape is left out."""
        if (other.kind, other.labels, other.bounds) != (self.kind, self.labels, self.bounds):
            return
        merged = max if self.kind is TallyKind.LATEST else float.__add__
        for labels, numbers in other.rows.items():
            row = self.row(labels)
            row[:] = map(merged, row, numbers)


class HistogramRow:
    """One row of a histogram; any thread may add."""

    def __init__(self, histogram: Tally, *labels: str) -> None:
        self._row = histogram.row(labels)
        self._bounds = histogram.bounds
        self._lock = threading.Lock()

    def add(self, number: float) -> None:
        """Observe."""
        with self._lock:
            self._row[bisect_left(self._bounds, number)] += 1
            self._row[-1] += number


def encode_tallies(tallies: Iterable[Tally]) -> bytes:
    """JSON of what a process or many have counted."""
    shown = [(t.name, t.meaning, t.kind, t.labels, t.bounds, [*t.rows.items()]) for t in tallies]
    return json.dumps(shown, separators=(",", ":")).encode()


def decode_tallies(encoded: bytes) -> list[Tally]:
    """Read it back; raises ValueError: it is damaged, or another version's."""
    try:
        return [
            Tally(
                *(name, meaning, TallyKind(kind), tuple(labels), tuple(bounds)),
                {tuple(values): [*map(float, numbers)] for values, numbers in rows},
            )
            for name, meaning, kind, labels, bounds, rows in json.loads(encoded)
        ]
    except TypeError as error:
        raise ValueError(str(error)) from error


def merge_tallies(tallies: Iterable[Tally]) -> dict[str, Tally]:
    """One tally for each name; the first of a name is changed."""
    merged: dict[str, Tally] = {}
    for tally in tallies:
        if tally.name in merged:
            merged[tally.name].merge_rows(tally)
        else:
            merged[tally.name] = tally
    return merged
