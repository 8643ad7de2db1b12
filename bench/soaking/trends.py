"""How a series grows: a slope that outliers do not bend, over what is left after the first third.

The slope is the median of the slopes between all pairs of samples of one life (Theil and Sen), so
that a burst, a hung provider or the end of a process is no trend; a process that is started anew
is compared with itself only, and from its `SETTLE_S` on. `growth` is that slope over the time that
is judged. Bounds are a share of the series' median, and at least an amount. Pure.
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from bench.soaking.samples import DATABASE, Sample

SETTLE_S = 120.0
FIRST_SHARE = 1 / 3
_MOST_SAMPLES = 250  # of a life: pairs grow by the square
_LEAST_SAMPLES = 6
_MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Bound:
    """What a series may grow by: a share of its median, and at least so much."""

    share: float
    least: float

    def of(self, median: float) -> float:
        """Return it for a series."""
        return max(self.least, self.share * median)


BOUNDS: Mapping[tuple[bool, str], Bound] = {
    (False, "pss_bytes"): Bound(0.10, 8 * _MIB),
    (False, "descriptors"): Bound(0.10, 6),
    # pools fill one thread after the other, and stay full: a worker has one of 8 and two of 6
    (False, "threads"): Bound(0.10, 8),
    (True, "bytes"): Bound(0.25, 4 * _MIB),
    (True, "wal_bytes"): Bound(0.25, 32 * _MIB),  # two files of PostgreSQL's
    (True, "rows"): Bound(0.25, 1000),
}
"""By whether it is the database, and measure; others are shown, and not judged."""


@dataclass(frozen=True, slots=True)
class Trend:
    """What became of one series."""

    of: str
    measure: str
    median: float
    growth: float  # over what was judged
    bound: float
    samples: int

    @property
    def is_flat(self) -> bool:
        """True when it grew by no more than it may, and enough was seen of it."""
        return self.samples >= _LEAST_SAMPLES and self.growth <= self.bound

    def to_text(self) -> str:
        """Return a line."""
        unit, scale = ("MiB", _MIB) if self.measure.endswith("bytes") else ("", 1)
        state = "flat" if self.is_flat else "GROWS" if self.samples >= _LEAST_SAMPLES else "UNSEEN"
        return (
            f"{self.of:<11}{self.measure:<13}{self.median / scale:>9.1f}"
            f"{self.growth / scale:>+9.2f}{self.bound / scale:>8.1f} {unit:<4}{state}"
        )


HEADING = f"{'of':<11}{'measure':<13}{'median':>9}{'growth':>9}{'at most':>8}"


def find_trends(samples: Sequence[Sample]) -> list[Trend]:
    """Return the trend of each series that has a bound."""
    last_s = max((one.at_s for one in samples), default=0.0)
    from_s = last_s * FIRST_SHARE
    series: dict[tuple[str, str], dict[int, list[Sample]]] = defaultdict(lambda: defaultdict(list))
    for one in samples:
        if (one.of == DATABASE, one.measure) in BOUNDS:
            series[one.of, one.measure][one.life].append(one)
    return [
        _trend(of, measure, lives.values(), from_s, last_s - from_s)
        for (of, measure), lives in sorted(series.items())
    ]


def _trend(
    of: str, measure: str, lives: Iterable[Sequence[Sample]], from_s: float, judged_s: float
) -> Trend:
    judged = [_judged(life, from_s, is_database=of == DATABASE) for life in lives]
    values = [one.value for life in judged for one in life]
    median = statistics.median(values) if values else 0.0
    slopes = [
        (later.value - sooner.value) / (later.at_s - sooner.at_s)
        for life in judged
        for sooner, later in combinations(_thinned(life), 2)
        if later.at_s > sooner.at_s
    ]
    growth = statistics.median(slopes) * judged_s if slopes else 0.0
    bound = BOUNDS[of == DATABASE, measure].of(median)
    return Trend(of, measure, median, growth, bound, len(values) if slopes else 0)


def _judged(life: Sequence[Sample], from_s: float, *, is_database: bool) -> list[Sample]:
    settled_s = 0.0 if is_database else life[0].at_s + SETTLE_S
    return [one for one in life if one.at_s >= max(from_s, settled_s)]


def _thinned(life: Sequence[Sample]) -> Sequence[Sample]:
    return life[:: -(-len(life) // _MOST_SAMPLES) or 1]
