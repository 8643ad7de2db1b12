from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relaygw.store.watch import HISTORY_SLICE_MS, HistoryPoint
from relaygw.web.dashboard.overview import HEIGHT, plot, span_of

NOW = 1_795_600_123_456


def point(ago_slices: int, amount: int, series: str = "delivered") -> HistoryPoint:
    at_ms = NOW - NOW % HISTORY_SLICE_MS - ago_slices * HISTORY_SLICE_MS
    return HistoryPoint(slice_at_ms=at_ms, series=series, label="main", amount=amount)


@pytest.mark.parametrize(("hours", "steps", "slices"), [(3, 36, 1), (12, 72, 2), (48, 96, 6)])
def test_a_span_ends_with_the_step_of_now(hours: int, steps: int, slices: int) -> None:
    span = span_of(hours, now=NOW)
    assert (span.steps, span.slices) == (steps, slices)
    assert span.end_ms - span.step_ms <= NOW < span.end_ms
    assert span.end_ms - span.start_ms == hours * 3_600_000


@given(st.lists(st.tuples(st.integers(-50, 700), st.integers(0, 10**9)), max_size=30))
def test_every_bar_is_inside_and_nothing_is_lost(given: list[tuple[int, int]]) -> None:
    span = span_of(48, now=NOW)
    points = [point(ago, amount) for ago, amount in given] + [point(1, 7, "bounced")]
    drawn = plot("Delivered", "green", ["delivered"], points, span)
    inside = [
        one.amount
        for one in points
        if one.series == "delivered" and span.start_ms <= one.slice_at_ms < span.end_ms
    ]
    assert drawn.total == sum(inside)
    assert len({bar.x for bar in drawn.bars}) == len(drawn.bars)
    for bar in drawn.bars:
        assert 0 <= bar.x < span.steps
        assert 0 < bar.height <= HEIGHT
        assert bar.y + bar.height == pytest.approx(HEIGHT)
    if drawn.most:
        assert max(bar.height for bar in drawn.bars) == HEIGHT


def test_slices_of_one_step_are_added_up() -> None:
    span = span_of(48, now=NOW)
    last = span.end_ms - span.step_ms
    points = [
        HistoryPoint(slice_at_ms=last + n * HISTORY_SLICE_MS, series="s", label="", amount=2)
        for n in range(span.slices)
    ]
    drawn = plot("S", "ink", ["s"], points, span)
    assert [bar.x for bar in drawn.bars] == [span.steps - 1]
    assert drawn.summary == "S: 12 in all, at most 12 in 30 min"
