"""The figures about providers are counted as they are told: spans, shares, what waits."""

from __future__ import annotations

import pytest

from bench.rig.latency import Sample
from bench.rig.limited_provider import Event
from bench.rig.limited_terms import Bucket
from bench.standing.failover import Course, share
from bench.standing.rotation import first_accepted_s
from bench.standing.throttle import Use, least_waiting, use


def sample(bench_id: str, answered_s: float, code: int = 250) -> Sample:
    return Sample(bench_id, answered_s - 0.01, answered_s - 0.005, answered_s, code)


def accepted(bench_id: str, at_s: float) -> list[Event]:
    return [Event(at_s, "taken", 1, bench_id), Event(at_s, "accepted", 1, bench_id)]


@pytest.mark.parametrize("rate_per_s", [0.5, 14, 200])
def test_a_bucket_lets_through_its_rate_and_one_burst(rate_per_s: float) -> None:
    bucket = Bucket(rate_per_s, 0.15, 0.0)
    taken = sum(bucket.may_take(step / 1000) for step in range(100_000))
    assert taken == pytest.approx(100 * rate_per_s + max(1, 0.15 * rate_per_s), abs=1.5)


def test_a_bucket_that_was_not_used_holds_no_more_than_a_burst() -> None:
    bucket = Bucket(100, 0.15, 0.0)
    assert sum(bucket.may_take(1000.0) for _ in range(100)) == 15


def test_refusals_of_both_kinds_count_against_what_was_accepted() -> None:
    events = [
        *(Event(at_s, "accepted", 1) for at_s in (0.9, 1.0, 2.0, 3.0)),
        Event(1.5, "refused", 1),
        Event(1.6, "turned-away", 2),
        Event(3.0, "refused", 1),
    ]
    found = use(events, 1.0, 3.0)
    assert found == Use(accepted=2, refused=1, turned_away=1)
    assert found.refused_share == 100


def test_nothing_accepted_is_no_division_by_zero() -> None:
    assert Use(0, 3, 0).refused_share == 300


def test_the_least_that_waited_is_counted_in_the_span_only() -> None:
    samples = [sample(str(n), 1.0) for n in range(5)] + [sample("x", 1.0, code=451)]
    events = [event for n in range(5) for event in accepted(str(n), 2.0 + n)]
    assert least_waiting(samples, events, 1.5, 4.5) == 2
    assert least_waiting(samples, events, 1.5, 9.0) == 0


def test_the_share_is_of_the_mail_of_that_time() -> None:
    samples = [sample("a", 1.0), sample("b", 2.0), sample("c", 3.0, code=0), sample("d", 9.0)]
    course = Course(0.5, 8.0, samples, at_a=accepted("d", 9.5), at_b=accepted("b", 2.5))
    between = course.accepted_between(0.5, 8.0)
    assert [each.bench_id for each in between] == ["a", "b"]
    assert share(between, course.at_b) == 50
    assert share([], course.at_b) == 0


def test_the_first_is_back_with_mail_that_came_after_its_return() -> None:
    samples = [sample("old", 1.0), sample("new", 9.0)]
    at_a = [*accepted("old", 8.5), *accepted("new", 9.5)]
    assert Course(0.5, 8.0, samples, at_a, []).first_back_s == 9.5
    assert Course(0.5, 8.0, samples, at_a[:2], []).first_back_s == float("inf")


def test_resuming_is_the_first_message_accepted_after_the_change() -> None:
    events = [*accepted("a", 1.0), Event(3.0, "login-refused", 2), *accepted("b", 4.0)]
    assert first_accepted_s(events, 2.0) == 4.0
    assert first_accepted_s(events, 5.0) == float("inf")
