"""Silence: what a rhythm is, and when it is broken."""

from __future__ import annotations

import random
from collections.abc import Iterable
from itertools import pairwise

import pytest

from relaygw.mail.clock import HOUR_MS
from relaygw.mail.mail_class import OTHER_SUBJECTS, MailClass
from relaygw.policy.expected_mail import Expect, unmet
from relaygw.policy.rhythm import MailHour, MailKind, Pause, Rhythm, rhythms_of
from relaygw.policy.silence import LastMail, Silent, silent_kinds

MINUTE_MS = 60_000
DAY_MS = 24 * HOUR_MS
MONDAY = 4 * 24  # an hour since the epoch at which a week begins
KIND = MailKind("shop.test", "transactional", "Order #")


def hours_of(times_ms: Iterable[int]) -> list[MailHour]:
    hours: dict[int, MailHour] = {}
    before = None
    for at_ms in sorted(times_ms):
        gap_ms = 0 if before is None else at_ms - before
        one = hours.get(at_ms // HOUR_MS, MailHour(at_ms // HOUR_MS, 0, 0))
        hours[one.hour] = MailHour(one.hour, one.messages + 1, max(one.gap_ms, gap_ms))
        before = at_ms
    return list(hours.values())


def office(weeks: int, each_min: int = 10, *, without: Iterable[int] = ()) -> list[int]:
    """Mail each so many minutes from 8 to 18 on five days a week."""
    days = [day for day in range(weeks * 7) if day % 7 < 5 and day not in without]
    return [
        (MONDAY + day * 24 + 8) * HOUR_MS + minute * MINUTE_MS
        for day in days
        for minute in range(0, 600, each_min)
    ]


def at(week: int, day: int, hour: float) -> int:
    return MONDAY * HOUR_MS + (week * 7 + day) * DAY_MS + int(hour * HOUR_MS)


def told_after_ms(rhythm: Rhythm, last_ms: int) -> int:
    for minutes in range(60 * 24 * 30):
        if rhythm.broken(last_ms, last_ms + minutes * MINUTE_MS) is not None:
            return minutes * MINUTE_MS
    raise AssertionError("never")


@pytest.mark.parametrize(
    ("last", "told_hours"),
    [
        ((4, 2, 11), (0.6, 0.7)),  # busy: 4 x 10 minutes
        ((4, 2, 17.8), (15.8, 15.9)),  # at night nothing comes; the next morning counts
        ((4, 4, 17.8), (63.8, 63.9)),  # nor at the weekend
    ],
    ids=["busy", "night", "weekend"],
)
def test_silence_is_told_by_the_hour_of_the_week(
    last: tuple[int, int, float], told_hours: tuple[float, float]
) -> None:
    rhythm = Rhythm.of(hours_of(office(4)))
    assert rhythm is not None
    least, most = told_hours
    assert least * HOUR_MS <= told_after_ms(rhythm, at(*last)) <= most * HOUR_MS


@pytest.mark.parametrize("each_min", [1, 30, 300, 1440])
def test_it_is_told_in_time_whatever_the_rhythm(each_min: int) -> None:
    rng = random.Random(each_min)
    at_ms, times = MONDAY * HOUR_MS, []
    while at_ms < at(9, 0, 0):
        at_ms += int(rng.expovariate(1 / (each_min * MINUTE_MS))) + 1
        times.append(at_ms)
    rhythm = Rhythm.of(hours_of(times))
    assert rhythm is not None
    longest_ms = max(b - a for a, b in pairwise(times))
    most_ms = max(30 * MINUTE_MS, 4 * longest_ms)
    assert each_min * MINUTE_MS < told_after_ms(rhythm, times[-1]) <= most_ms


def weekly(weeks: Iterable[int]) -> list[int]:
    """A newsletter on Tuesdays that takes three hours to send."""
    return [at(week, 1, 9) + n * MINUTE_MS for week in weeks for n in range(180)]


def test_a_rhythm_is_not_learnt_from_too_little() -> None:
    assert Rhythm.of([]) is None
    assert Rhythm.of(hours_of(office(1))) is None, "one week"
    seldom = [at(0, 0, 9) + day * DAY_MS for day in range(0, 24)]
    assert Rhythm.of(hours_of(seldom)) is None, "less than four a day for less than four weeks"
    newsletters = [at(week, 1, 9) + n * MINUTE_MS for week in (0, 1, 5) for n in range(300)]
    assert Rhythm.of(hours_of(newsletters)) is None, "sent when somebody likes to"
    assert Rhythm.of(hours_of(weekly(range(5)))) is None, "a subject may return by chance"


def test_a_newsletter_of_each_week_is_missed_the_next_week() -> None:
    rhythm = Rhythm.of(hours_of(weekly(range(7))))
    assert rhythm is not None
    assert told_after_ms(rhythm, max(weekly(range(7)))) <= 8 * DAY_MS


def test_a_pause_that_was_told_of_is_not_usual() -> None:
    """A stop of a day, and the next one is found as soon as the first."""
    whole, stopped = (Rhythm.of(hours_of(office(8, without=days))) for days in ((), {23}))
    assert whole is not None
    assert stopped is not None
    last_ms = at(9, 2, 11)
    assert told_after_ms(stopped, last_ms) == told_after_ms(whole, last_ms)


def test_a_report_that_comes_each_day_is_missed_the_next_day() -> None:
    rhythm = Rhythm.of(hours_of(at(0, 0, 6) + day * DAY_MS for day in range(40)))
    assert rhythm is not None
    assert told_after_ms(rhythm, at(6, 0, 6)) <= 36 * HOUR_MS


def test_all_of_a_domain_is_told_of_once() -> None:
    rhythm = Rhythm.of(hours_of(office(4)))
    assert rhythm is not None
    rhythms = dict.fromkeys((KIND, KIND.whole), rhythm)
    last_ms, now_ms = at(4, 2, 11), at(4, 2, 12)

    def silent(
        last: dict[MailKind, int],
        told: dict[str, Silent | None] | None = None,
        *,
        up_ms: int = 0,
        now_ms: int = now_ms,
    ) -> set[MailKind]:
        seen = {kind: LastMail(0, at_ms, 500) for kind, at_ms in last.items()}
        found = silent_kinds(rhythms, seen, now_ms=now_ms, up_since_ms=up_ms, told=told or {})
        return {one.kind for one in found}

    assert silent({KIND: last_ms, KIND.whole: last_ms}) == {KIND.whole}
    assert silent({KIND: last_ms, KIND.whole: now_ms}) == {KIND}, "other mail still comes"
    assert silent({KIND: now_ms, KIND.whole: now_ms}) == set()
    both = silent({KIND: last_ms, KIND.whole: last_ms}, {KIND.key: None})
    assert both == {KIND, KIND.whole}, "what is told of already stays"
    assert silent({KIND: last_ms, KIND.whole: last_ms}, up_ms=now_ms - MINUTE_MS) == set()
    assert silent({}) == set()
    ahead = {KIND: now_ms + 3 * HOUR_MS, KIND.whole: now_ms + 3 * HOUR_MS}
    assert silent(ahead) == set(), "the clock was set back"
    late_ms = now_ms + 15 * DAY_MS
    assert silent({KIND: last_ms, KIND.whole: late_ms}, now_ms=late_ms) == set(), "ended"


def test_one_message_does_not_end_the_silence_of_what_comes_often() -> None:
    rhythm = Rhythm.of(hours_of(office(4)))
    assert rhythm is not None
    now_ms = at(4, 2, 12)
    told: dict[str, Silent | None] = {}
    for messages, last_ms, is_told in [
        (500, at(4, 2, 11), True),
        (501, now_ms, True),
        (502, now_ms, True),
        (503, now_ms, False),
    ]:
        seen = {KIND: LastMail(0, last_ms, messages)}
        found = silent_kinds({KIND: rhythm}, seen, now_ms=now_ms, up_since_ms=0, told=told)
        told = {one.kind.key: one for one in found}
        assert bool(found) == is_told, messages


def test_hosts_do_not_make_a_kind() -> None:
    def kinds(host: str, domain: str, template: str = "Order #") -> tuple[MailKind, ...]:
        one = (host, "", "", 33, f"{host}.php")
        mail_class = MailClass.of(
            one, sender_domain=domain, template=template, stream="transactional"
        )
        return MailKind.kinds_of(mail_class)

    assert kinds("10.0.0.5", "web17.shop.test") == kinds("10.0.0.6", "web4.shop.test")
    assert kinds("10.0.0.5", "shop.test") == (KIND, KIND.whole)
    assert kinds("10.0.0.5", "") == kinds("10.0.0.5", "shop.test", OTHER_SUBJECTS) == ()
    empty = MailKind("shop.test", "transactional", "")
    assert len({one.kind_id for one in (KIND, KIND.whole, empty)}) == 3


@pytest.mark.parametrize(
    ("subject", "template", "is_meant"),
    [
        ("*order*", "Your Order # is here", True),
        ("*order*", "Invoice #", False),
        ("Your order #", "Your order #", True),
        ("Your order #", "Your order # is here", False),
        ("your*#", "Your order #", True),
        ("*", "", True),
        ("a*a", "a", False),
        ("*a*b*a*", "xaxxbxxa", True),
        ("[x]*", "[x] y", True),
        ("*" * 200, "x" * 120, True),
    ],
)
def test_a_pattern_means_templates(subject: str, template: str, is_meant: bool) -> None:
    assert Expect(subject, 1).matches(template) is is_meant


def test_what_has_to_come_is_counted_over_templates() -> None:
    came = {"Your order #": 3, "New order": 1, "Login": 9}
    expects = [Expect("*order*", 4), Expect("*order*", 5), Expect("*invoice*", 1)]
    assert list(unmet(expects, came)) == [(expects[1], 4), (expects[2], 0)]


@pytest.mark.parametrize("seed", range(6))
def test_a_stop_that_was_told_is_no_usual_pause(seed: int) -> None:
    """The stop lasts longer than a week, so that it touches some hours twice."""
    rng = random.Random(seed)
    times = [at(0, 0, 0)]
    while times[-1] < at(9, 0, 0):
        times.append(times[-1] + int(rng.triangular(1, 33, 3) * HOUR_MS))
    stopped = [one for one in times if not at(6, 0, 0) < one < at(7, 1, 0)]
    before = Rhythm.of(hours_of(one for one in times if one < at(6, 0, 0)))
    after = Rhythm.of(hours_of(stopped))
    assert before is not None
    assert after is not None
    last_ms = max(one for one in stopped if one < at(6, 0, 0))
    assert told_after_ms(before, last_ms) < 8 * DAY_MS
    longest_ms = max(b - a for a, b in pairwise(times))
    assert told_after_ms(after, times[-1]) <= 4 * longest_ms + MINUTE_MS


def seldom(rng: random.Random, weeks: int, *, most_h: float = 20, begin: int = 0) -> list[int]:
    times = [at(begin, 0, 0)]
    while times[-1] < at(begin + weeks, 0, 0):
        times.append(times[-1] + int(rng.triangular(1, most_h, most_h / 2) * HOUR_MS))
    return times


@pytest.mark.parametrize("seed", range(4))
def test_a_stop_is_judged_by_what_was_usual_before_it(seed: int) -> None:
    """Later there is less mail, and after such pauses the stop would not have been told."""
    rng = random.Random(seed)
    often = [one for one in seldom(rng, 5) if not at(4, 0, 0) < one < at(4, 5, 0)]
    times = [*often, *seldom(rng, 3, most_h=50, begin=5)]
    rhythm = Rhythm.of(hours_of(times))
    assert rhythm is not None
    assert told_after_ms(rhythm, times[-1]) <= 4 * 50 * HOUR_MS


def test_when_all_of_a_domain_stopped_none_of_its_kinds_paused_as_usual() -> None:
    rng = random.Random(1)
    rare = seldom(rng, 8)
    often = [at(0, 0, 0) + n * HOUR_MS for n in range(8 * 168)]
    hours = {
        kind: hours_of(one for one in times if not at(4, 0, 0) < one < at(4, 2, 0))
        for kind, times in ((KIND, rare), (KIND.whole, sorted([*often, *rare])))
    }
    alone, together = Rhythm.of(hours[KIND]), rhythms_of(hours)[KIND]
    assert alone is not None
    most_ms = 4 * 21 * HOUR_MS
    assert told_after_ms(together, max(rare)) <= most_ms < told_after_ms(alone, max(rare))


def test_an_hour_of_which_no_week_tells_may_be_silent() -> None:
    friday, monday = MONDAY + 4 * 24 + 18, MONDAY + 7 * 24 + 7
    weekends = [Pause(friday + week * 168, monday + week * 168, 0) for week in range(3)]
    rhythm = Rhythm.of(hours_of(office(4)), weekends)
    assert rhythm is not None
    assert rhythm.broken(at(4, 4, 17.8), at(4, 6, 12)) is None
    assert rhythm.broken(at(4, 4, 17.8), at(5, 0, 9)) is not None, "the next morning tells"
