from __future__ import annotations

from collections import Counter
from datetime import UTC

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relaygw.mail.clock import rfc3339
from relaygw.mail.search_values import read_time_ms
from relaygw.web.dashboard.figures import (
    HEIGHT,
    SERIES,
    SPANS,
    columns_of,
    moment,
    part_of,
    span_of,
)

NOW = 1_795_600_123_456


@pytest.mark.parametrize("hours", SPANS)
def test_a_span_ends_with_the_step_of_now(hours: int) -> None:
    span = span_of(hours, now=NOW)
    assert 36 <= span.steps <= 72
    assert span.end_ms - span.step_ms <= NOW < span.end_ms
    assert span.end_ms - span.start_ms == hours * 3_600_000
    assert span.start_ms % span.step_ms == 0


_AMOUNTS = st.dictionaries(st.integers(0, 35), st.integers(0, 10**9), max_size=9)


@given(st.tuples(_AMOUNTS, _AMOUNTS, _AMOUNTS))
def test_every_part_is_inside_and_nothing_is_lost(given: tuple[dict[int, int], ...]) -> None:
    amounts = {name: Counter(one) for name, one in zip(SERIES, given, strict=True)}
    columns = columns_of(amounts, span_of(3, now=NOW), kept_ms=0, provider="")
    for number, name in enumerate(SERIES):
        drawn = sum(column.parts[number].amount for column in columns)
        assert drawn == amounts[name].total()
    tops = []
    for column in columns:
        floor = float(HEIGHT)
        for part in column.parts:
            assert (part.height > 0) == (part.amount > 0) == bool(part.path)
            assert part.y + part.height == pytest.approx(floor, abs=0.02)
            floor = part.y
        assert floor >= -0.02
        tops.append(floor)
    if tops:
        assert min(tops) == pytest.approx(0, abs=5)


def test_a_part_leads_to_its_list() -> None:
    amounts = {name: Counter({35: 3}) for name in SERIES}
    (column,) = columns_of(amounts, span_of(3, now=NOW), kept_ms=0, provider="main")
    within = "&since=2026-11-25T09%3A45Z&until=2026-11-25T09%3A49%3A59.999Z&provider=main"
    assert [part.path for part in column.parts] == [
        f"/queue?result=delivered{within}",
        f"/queue?attempt=all{within}",
        f"/queue?result=refused&result=expired{within}",
    ]
    assert column.words == "3 delivered, 3 deferred, 3 bounced"
    (old,) = columns_of(amounts, span_of(3, now=NOW), kept_ms=NOW, provider="")
    assert {part.path for part in old.parts} == {""}


@pytest.mark.parametrize("at_ms", [NOW, NOW - NOW % 1000, NOW - NOW % 60_000])
def test_a_moment_is_read_as_it_was(at_ms: int) -> None:
    assert read_time_ms(moment(at_ms), UTC) == at_ms
    assert len(moment(at_ms)) <= len(rfc3339(at_ms))


@pytest.mark.parametrize(
    ("reply", "part"),
    [
        (
            "550 5.1.1 <a@b.test>: Recipient rejected: User unknown",
            "Recipient rejected: User unknown",
        ),
        ("451 4.7.1 Greylisted, try again in 300 seconds (ab12)", "Greylisted, try again in"),
        ("550 no", "550 no"),
        ("552 a@b.test is full", "552 a@b.test is full"),
        ("550-first line\r\n550 the second line", "the second line"),
        ("", ""),
    ],
)
def test_replies_for_one_reason_have_a_part_in_common(reply: str, part: str) -> None:
    assert part_of(reply) == part
    assert part in reply
