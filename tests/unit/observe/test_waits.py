"""Times in the queue, as few numbers as keep p50 and p95 near what they are."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relaygw.observe.waits import WAIT_BOUNDS_MS, wait_bound, waits_of


def counted(times_ms: list[int], provider: str = "main") -> list[tuple[str, int]]:
    return list(Counter(f"{provider} {wait_bound(each)}" for each in times_ms).items())


def test_bounds_are_few_and_reach_from_10_ms_to_a_week() -> None:
    assert len(WAIT_BOUNDS_MS) == 48
    assert WAIT_BOUNDS_MS[0] == 10
    assert WAIT_BOUNDS_MS[-1] > 7 * 86_400_000
    assert list(WAIT_BOUNDS_MS) == sorted(set(WAIT_BOUNDS_MS))
    assert wait_bound(-5) == wait_bound(10) == 10
    assert wait_bound(11) == 15
    assert wait_bound(10**12) == WAIT_BOUNDS_MS[-1]


@given(st.lists(st.integers(1, 600_000_000), min_size=1, max_size=200))
def test_quantiles_are_within_a_step_of_what_they_are(times_ms: list[int]) -> None:
    found = waits_of(counted(times_ms))
    assert found is not None
    assert found.mails == len(times_ms)
    in_order = sorted(times_ms)
    for share, told_s in ((0.5, found.p50_s), (0.95, found.p95_s)):
        exact = in_order[max(0, -int(-share * len(in_order) // 1) - 1)]
        assert told_s * 1000 <= wait_bound(exact)
        assert exact <= max(10, 1.7 * told_s * 1000)


def test_providers_are_told_apart_and_other_labels_left_out() -> None:
    counts = [*counted([100] * 9), *counted([5000], "spare"), ("no number", 7), ("", 7)]
    of_main, of_all = waits_of(counts, "main"), waits_of(counts)
    assert of_main is not None
    assert of_all is not None
    assert (of_main.mails, of_all.mails) == (9, 10)
    assert of_main.p95_s <= 0.1 < 3 < of_all.p95_s
    assert waits_of(counts, "nobody") is waits_of([]) is None


@pytest.mark.parametrize("bound_ms", [12, 499])
def test_steps_of_another_version_add_up(bound_ms: int) -> None:
    found = waits_of([(f"main {bound_ms}", 2), ("main 500", 2)])
    assert found is not None
    assert found.p50_s <= bound_ms / 1000 <= found.p95_s <= 0.5
