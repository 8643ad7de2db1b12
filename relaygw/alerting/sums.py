"""Sums over the history. A window takes in the whole slice that it begins in."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence

from relaygw.mail.state import DeliveryState
from relaygw.observe.history.series import Series
from relaygw.store.watch import HISTORY_SLICE_MS, HistoryPoint

HOUR_MS = 3_600_000
DAY_MS = 86_400_000
_SLICES_AN_HOUR = HOUR_MS // HISTORY_SLICE_MS


def totals(points: Sequence[HistoryPoint], series: Series, *, since_ms: int) -> dict[str, int]:
    """Add up a series by label."""
    first_ms = since_ms - since_ms % HISTORY_SLICE_MS
    found: Counter[str] = Counter()
    for point in points:
        if point.series == series and point.slice_at_ms >= first_ms:
            found[point.label] += point.amount
    return dict(found)


def total(points: Sequence[HistoryPoint], series: Series, *, since_ms: int) -> int:
    """Add up a series."""
    return sum(totals(points, series, since_ms=since_ms).values())


def waiting_then(points: Sequence[HistoryPoint], *, from_ms: int, until_ms: int) -> int | None:
    """Return how many mails waited, without those held, in the emptiest slice of a time.

    None: nobody looked.
    """
    first_ms = from_ms - from_ms % HISTORY_SLICE_MS
    waited: defaultdict[int, int] = defaultdict(int)
    for point in points:
        if point.series == Series.QUEUE and first_ms <= point.slice_at_ms <= until_ms:
            is_held = point.label == DeliveryState.HELD
            waited[point.slice_at_ms] += 0 if is_held else point.amount
    return min(waited.values(), default=None)


def busiest_hour(points: Sequence[HistoryPoint], *, until_ms: int) -> dict[str, int]:
    """Return the greatest sum of twelve slices in a row before a time, by label."""
    slices: defaultdict[str, dict[int, int]] = defaultdict(dict)
    for point in points:
        if point.slice_at_ms + HISTORY_SLICE_MS <= until_ms:
            slices[point.label][point.slice_at_ms] = point.amount
    return {label: _greatest_hour(amounts) for label, amounts in slices.items()}


def _greatest_hour(amounts: dict[int, int]) -> int:
    greatest = running = 0
    times = sorted(amounts)
    first = 0
    for at_ms in times:
        running += amounts[at_ms]
        while times[first] <= at_ms - _SLICES_AN_HOUR * HISTORY_SLICE_MS:
            running -= amounts[times[first]]
            first += 1
        greatest = max(greatest, running)
    return greatest
