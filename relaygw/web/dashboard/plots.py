"""Counts over time as bars, for drawing in the page: no script, no picture from elsewhere."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from relaygw.mail.clock import local_time
from relaygw.store.watch import HISTORY_SLICE_MS, HistoryPoint

HEIGHT = 100
"""Of the greatest bar, in units of the drawing; each bar is a unit of its own wide."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """One step of time."""

    x: int
    y: float
    height: float
    title: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Plot:
    """One series."""

    label: str
    tone: str
    total: int
    most: int  # within a step
    steps: int
    step: str  # how long one is, in words
    bars: tuple[Bar, ...]  # those that are not empty

    @property
    def summary(self) -> str:
        """The drawing in a sentence."""
        return f"{self.label}: {self.total:,} in all, at most {self.most:,} in {self.step}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """The time that is drawn: slices of history, several in a step."""

    start_ms: int
    steps: int
    slices: int  # in a step

    @property
    def step_ms(self) -> int:
        """How long a step is."""
        return self.slices * HISTORY_SLICE_MS

    @property
    def end_ms(self) -> int:
        """The end of the last step, which may not be over."""
        return self.start_ms + self.steps * self.step_ms


def span_of(hours: int, *, now: int, max_steps: int = 96) -> Span:
    """Return the last `hours`, up to the slice of now, in at most `max_steps` steps."""
    slices = hours * 3_600_000 // HISTORY_SLICE_MS
    per_step = -(-slices // max_steps)
    steps = -(-slices // per_step)
    step_ms = per_step * HISTORY_SLICE_MS
    end_ms = now - now % step_ms + step_ms
    return Span(start_ms=end_ms - steps * step_ms, steps=steps, slices=per_step)


def plot(
    label: str, tone: str, series: Sequence[str], points: Iterable[HistoryPoint], span: Span
) -> Plot:
    """Return the counts of `series`, all labels together."""
    amounts: Counter[int] = Counter()
    for point in points:
        at = (point.slice_at_ms - span.start_ms) // span.step_ms
        if point.series in series and 0 <= at < span.steps:
            amounts[at] += point.amount
    most = max(amounts.values(), default=0)
    return Plot(
        label=label,
        tone=tone,
        total=amounts.total(),
        most=most,
        steps=span.steps,
        step=f"{span.step_ms // 60_000} min",
        bars=tuple(_bar(at, amounts[at], most, span) for at in sorted(amounts) if amounts[at]),
    )


def _bar(at: int, amount: int, most: int, span: Span) -> Bar:
    height = max(2.0, round(HEIGHT * amount / most, 1))
    start_ms = span.start_ms + at * span.step_ms
    times = (local_time(each) for each in (start_ms, start_ms + span.step_ms))
    title = "–".join(f"{each:%H:%M}" for each in times)
    return Bar(x=at, y=HEIGHT - height, height=height, title=f"{title}: {amount:,}")


def sums_by_label(
    series: str, points: Iterable[HistoryPoint], *, since_ms: int = 0
) -> Counter[str]:
    """Return how much there was of each label of a series."""
    sums: Counter[str] = Counter()
    for point in points:
        if point.series == series and point.slice_at_ms >= since_ms:
            sums[point.label] += point.amount
    return sums
