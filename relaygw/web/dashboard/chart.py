"""What was delivered, deferred and bounced over time: numbers, and bars on top of each other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from relaygw.mail.clock import rfc3339
from relaygw.store.watch import HISTORY_SLICE_MS

HEIGHT = 100  # of the greatest column, in units of the drawing; each is a unit of its own wide
_LEAST = 1.5  # of what is not nothing: it is seen
SPANS = {3: ("3 h", 1), 24: ("24 h", 6), 72: ("3 d", 12), 168: ("7 d", 36), 336: ("14 d", 72)}
"""Hours that may be looked at: their name, and how many slices of history a step has."""
ENDED = {"result": ("refused", "expired")}  # what was reported later has its own numbers
SERIES: Mapping[str, tuple[str, str, Mapping[str, Any]]] = {
    "delivered": ("Delivered", "green", {"result": ("delivered",)}),
    "deferred": ("Deferred", "amber", {"attempt": ("all",)}),
    "bounced": ("Bounced", "red", ENDED),
}
"""From the bottom up: label, colour, and the selectors of what is counted."""


def queue_path(**conditions: Any) -> str:
    """Return the path of the list of what these selectors select; those without a value are not."""
    given = {name: value for name, value in conditions.items() if value not in (None, "")}
    return "/queue?" + urlencode(given, doseq=True)


def moment(at_ms: int) -> str:
    """Return a time as a selector reads it, as short as it is exact."""
    return rfc3339(at_ms).replace(".000Z", "Z").replace(":00Z", "Z")


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """The time that is looked at, in steps of several slices of history."""

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

    @property
    def middle_ms(self) -> int:
        """The time in the middle."""
        return (self.start_ms + self.end_ms) // 2

    @property
    def step(self) -> str:
        """How long a step is, in words."""
        minutes = self.step_ms // 60_000
        return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h"


def span_of(hours: int, *, now: int) -> Span:
    """Return the last `hours`, one of SPANS, up to the step of now."""
    slices = SPANS[hours][1]
    step_ms = slices * HISTORY_SLICE_MS
    steps = hours * 3_600_000 // step_ms
    end_ms = now - now % step_ms + step_ms
    return Span(start_ms=end_ms - steps * step_ms, steps=steps, slices=slices)


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """The part of a column that is of one series."""

    name: str
    amount: int
    y: float
    height: float
    path: str  # of its list; "" where mail so old is deleted


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One step of time in which there was something."""

    x: int
    start_ms: int
    end_ms: int
    parts: tuple[Part, ...]  # of all series, from the bottom up

    @property
    def amount(self) -> int:
        """How much there was in all."""
        return sum(part.amount for part in self.parts)

    @property
    def words(self) -> str:
        """It in words, for who looks at the drawing."""
        told = [f"{part.amount:,} {part.name}" for part in self.parts if part.amount]
        return ", ".join(told)


Amounts = Mapping[str, Counter[int]]
"""By name of a series: how much there was, by step."""


def columns_of(amounts: Amounts, span: Span, *, kept_ms: int, provider: str) -> list[Column]:
    """Return the columns that are not empty; mail that ended before `kept_ms` is deleted."""
    sums: Counter[int] = Counter()
    for counted in amounts.values():
        sums.update(counted)
    most = max(sums.values(), default=0)
    found = []
    for x in sorted(+sums):
        start_ms = span.start_ms + x * span.step_ms
        end_ms = start_ms + span.step_ms
        within = {"since": moment(start_ms), "until": moment(end_ms - 1), "provider": provider}
        if start_ms < kept_ms:
            within = {}
        numbers = {name: amounts[name][x] for name in SERIES}
        parts = tuple(_stacked(numbers, most, within))
        found.append(Column(x=x, start_ms=start_ms, end_ms=end_ms, parts=parts))
    return found


def _stacked(numbers: Mapping[str, int], most: int, within: Mapping[str, str]) -> Iterator[Part]:
    heights = {
        name: max(_LEAST, HEIGHT * number / most) if number else 0.0
        for name, number in numbers.items()
    }
    shrunk = min(1.0, HEIGHT / sum(heights.values()))
    top = float(HEIGHT)
    for name, number in numbers.items():
        height = heights[name] * shrunk
        top -= height
        path = queue_path(**SERIES[name][2], **within) if number and within else ""
        yield Part(name=name, amount=number, y=round(top, 2), height=round(height, 2), path=path)
