"""The guard's judgement: time is an argument, histories are made up."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import date
from typing import Any

from relaygw.mail.clock import DAY_MS, HOUR_MS
from relaygw.mail.mail_class import MailClass
from relaygw.policy.guard import Held, Known, Suspect, Trouble, judge
from relaygw.policy.mail_counts import Counted, HourCount, Past, moments, new_by_hour
from relaygw.policy.new_sources import by_sender, judge_together
from relaygw.settings.guard import Days, Guard
from tests.tables import each_of

NOW_MS = 1_800_000_000_000 // DAY_MS * DAY_MS + 15 * HOUR_MS + HOUR_MS // 2
HOUR = NOW_MS // HOUR_MS
SHOP = ("10.0.0.5", "", "", 33, "checkout.php")
OLD = Known(counting_since_ms=NOW_MS - 50 * DAY_MS)


def counted(
    template: str,
    hours: Mapping[int, int | HourCount],
    *,
    first_ms: int | None = None,
    stream: str = "transactional",
    **more: Any,
) -> Counted:
    """Return a class that came so often, by hours before this one."""
    source = more.get("source", SHOP)
    counts = {
        HOUR - ago: one if isinstance(one, HourCount) else HourCount(one, one)
        for ago, one in hours.items()
    }
    return Counted(
        mail_class=MailClass.of(source, sender_domain="s.test", template=template, stream=stream),
        first_seen_ms=first_ms if first_ms is not None else (HOUR - max(hours)) * HOUR_MS,
        hours=counts,
    )


def orders(now: int, *, usual: int = 20, days: int = 20) -> Counted:
    """Return order mail with a history: by day, none at night."""
    hours = {ago: usual for ago in range(1, days * 24) if 8 <= (HOUR - ago) % 24 <= 21}
    return counted("Order #", {**hours, 0: now})


def of_fleet(hours: Mapping[int, int], others: Mapping[int, int] | None = None) -> Counted:
    """Return order mail of a host, and what its fleet sent: 20 by day."""
    all_hours = orders(0).hours if others is None else counted("Order #", others).hours
    return replace(counted("Order #", hours), is_moved=True, elsewhere=all_hours)


def found(*classes: Counted, known: Known = OLD, now_ms: int = NOW_MS, **guard: Any) -> list[Any]:
    """Return what is wrong, as trouble and whether something of it is held."""
    return [
        (one.trouble.value, one.held is not None)
        for one in judge(classes, Guard(**guard), known, now_ms=now_ms)
    ]


MINUTE_MS = 60_000
FRESH_MS = NOW_MS - MINUTE_MS

CASES: dict[str, tuple[Callable[[], list[Any]], list[Any]]] = {
    "usual orders": (lambda: found(orders(25)), []),
    "a new script": (
        lambda: found(counted("Win #", {0: 31}, first_ms=FRESH_MS)),
        [("new", True)],
    ),
    "no more than the limit": (lambda: found(counted("Win #", {0: 30}, first_ms=FRESH_MS)), []),
    "random subjects of a known script": (
        lambda: found(
            orders(10), *(counted(f"x{n}", {0: 1}, first_ms=FRESH_MS) for n in range(31))
        ),
        [("new", True)],
    ),
    "on both sides of a full hour": (
        lambda: found(
            counted("Win #", {1: 20, 0: 15}, first_ms=NOW_MS - 30 * MINUTE_MS),
            now_ms=HOUR * HOUR_MS + MINUTE_MS,
        ),
        [("new", True)],
    ),
    "told of for a day": (lambda: found(counted("Win #", {20: 40})), [("new", False)]),
    "and then over": (lambda: found(counted("Win #", {25: 40}), known=OLD), []),
    "a newsletter is no new template": (
        lambda: found(orders(10), counted("News", {0: 400}, stream="promotional")),
        [],
    ),
    "any new source": (
        lambda: found(counted("News", {0: 501}, stream="promotional", first_ms=FRESH_MS)),
        [("flood", True)],
    ),
    "a known source": (
        lambda: found(orders(10), counted("News", {0: 2000}, stream="promotional")),
        [("flood", False)],
    ),
    "more than is usual": (lambda: found(orders(81)), [("burst", False)]),
    "a sale day": (lambda: found(orders(200)), [("burst", False)]),
    "a sale day that was told": (
        lambda: found(orders(200), quiet=(Days(date(2027, 1, 15), date(2027, 1, 15)),)),
        [],
    ),
    "beyond any sale": (lambda: found(orders(501)), [("burst", True)]),
    "known subject, new flood": (
        lambda: found(counted("Contact", {0: 60, **{24 * d: 1 for d in range(1, 15)}})),
        [("burst", False)],
    ),
    "each subject anew, as ever": (
        lambda: found(
            orders(10),
            *(
                counted(f"Re {day}", {day * 24: 60}, first_ms=(HOUR - 24 * day) * HOUR_MS)
                for day in range(10)
            ),
        ),
        [],
    ),
    "an attack makes nothing usual": (
        lambda: found(
            orders(10),
            counted("Spam", {48: 300}, first_ms=(HOUR - 48) * HOUR_MS),
            counted("Spam 2", {0: 60}, first_ms=FRESH_MS),
        ),
        [("new", True)],
    ),
    "refused recipients": (
        lambda: found(orders(10), counted("List", {0: HourCount(20, 20, 12), 40: 3})),
        [("refused", False)],
    ),
    "refused by providers": (
        lambda: found(orders(20), known=Known(counting_since_ms=0, bounced=11)),
        [("refused", False)],
    ),
    "as many as ever": (
        lambda: found(counted("List", {0: HourCount(30, 30, 12), 72: HourCount(100, 100, 40)})),
        [],
    ),
    "more than twice as many as ever": (
        lambda: found(counted("List", {0: HourCount(30, 30, 21), 72: HourCount(100, 100, 30)})),
        [("refused", False)],
    ),
    "allowed up to": (
        lambda: found(
            counted("Win #", {0: 90}, first_ms=FRESH_MS),
            known=Known(
                counting_since_ms=0,
                allowed={
                    MailClass.of(SHOP, sender_domain="", template="", stream="").source_id: 100
                },
            ),
        ),
        [],
    ),
    "first day: what came all the time": (
        lambda: found(
            counted("Order #", {0: 1900}, first_ms=NOW_MS - 9 * MINUTE_MS),
            known=Known(counting_since_ms=NOW_MS - 10 * MINUTE_MS),
        ),
        [],
    ),
    "first day: a flood from the begin": (
        lambda: found(
            counted("Order #", {0: 2001}, first_ms=NOW_MS - 9 * MINUTE_MS),
            known=Known(counting_since_ms=NOW_MS - 10 * MINUTE_MS),
        ),
        [("flood", False)],
    ),
    "first day: a flood that came later": (
        lambda: found(
            counted("News", {0: 2001}, stream="promotional", first_ms=FRESH_MS),
            known=Known(counting_since_ms=NOW_MS - 10 * MINUTE_MS),
        ),
        [("flood", True)],
    ),
    "first day: refused recipients": (
        lambda: found(
            counted("List", {0: HourCount(20, 20, 12)}, first_ms=NOW_MS - 9 * MINUTE_MS),
            known=Known(counting_since_ms=NOW_MS - 10 * MINUTE_MS),
        ),
        [("refused", False)],
    ),
    "second day: what was learnt": (
        lambda: found(
            counted("Invoice #", {0: 90, 16: 5}, first_ms=NOW_MS - 16 * HOUR_MS),
            known=Known(counting_since_ms=NOW_MS - 26 * HOUR_MS),
        ),
        [],
    ),
    "second day: what came late on the first": (
        lambda: found(
            counted("Win #", {0: 121, 4: 5}, first_ms=NOW_MS - 4 * HOUR_MS),
            known=Known(counting_since_ms=NOW_MS - 26 * HOUR_MS),
        ),
        [("new", True)],
    ),
    "second day: a break-in": (
        lambda: found(
            counted("Order #", {0: 20, 25: 20}, first_ms=NOW_MS - 25 * HOUR_MS),
            counted("Win #", {0: 31}, first_ms=FRESH_MS),
            known=Known(counting_since_ms=NOW_MS - 26 * HOUR_MS),
        ),
        [("new", True)],
    ),
    "third day: what was learnt is known by then": (
        lambda: found(
            counted("Order #", {0: 200, 24: 20, 48: 20}),
            known=Known(counting_since_ms=(HOUR - 48) * HOUR_MS),
        ),
        [("burst", False)],
    ),
    "first day: what came later": (
        lambda: found(
            counted("Order #", {0: 20}, first_ms=NOW_MS - 10 * MINUTE_MS),
            counted("Win #", {0: 121}, first_ms=FRESH_MS),
            known=Known(counting_since_ms=NOW_MS - 10 * MINUTE_MS),
        ),
        [("new", True)],
    ),
    "first day: after a test mail": (
        lambda: found(
            counted("Order #", {0: 300}, first_ms=FRESH_MS),
            known=Known(
                counting_since_ms=NOW_MS - 10 * MINUTE_MS, learnt_until_ms=(HOUR + 1) * HOUR_MS
            ),
        ),
        [],
    ),
    "first day: little came later": (
        lambda: found(
            counted("Order #", {0: 20}, first_ms=NOW_MS - 10 * MINUTE_MS),
            counted("Win #", {0: 120}, first_ms=FRESH_MS),
            known=Known(counting_since_ms=NOW_MS - 10 * MINUTE_MS),
        ),
        [],
    ),
    "few mails to many strangers": (
        lambda: found(
            orders(10),
            *(counted(f"x{n}", {0: HourCount(1, 1000)}, first_ms=FRESH_MS) for n in range(29)),
        ),
        [("new", True)],
    ),
    "copies of orders for archives": (
        lambda: found(counted("Order #", {0: HourCount(30, 150)}, first_ms=FRESH_MS)),
        [],
    ),
    "a newsletter with many recipients each": (
        lambda: found(
            orders(10),
            counted("News", {0: HourCount(40, 40_000)}, stream="promotional", first_ms=FRESH_MS),
        ),
        [],
    ),
    "what waited in an outage": (
        lambda: found(counted("Order #", {0: 1440, **dict.fromkeys(range(49, 400), 30)})),
        [("burst", False)],
    ),
    "and comes for hours": (
        lambda: found(counted("Order #", {0: 1000, 1: 900, **dict.fromkeys(range(50, 400), 30)})),
        [("burst", False)],
    ),
    "more than an outage explains": (
        lambda: found(counted("Order #", {0: 2400, **dict.fromkeys(range(49, 400), 30)})),
        [("burst", True)],
    ),
    "a form that each host of a fleet has": (
        lambda: found(
            replace(
                counted("Memo", {0: 60, **{24 * day: 1 for day in range(1, 15)}}), is_moved=True
            )
        ),
        [("burst", False)],
    ),
    "a host that is back after a while": (lambda: found(of_fleet({0: 60, 72: 5, 120: 5})), []),
    "a host that is new": (lambda: found(of_fleet({0: 60})), []),
    "one that sends more than all did": (lambda: found(of_fleet({0: 90})), [("burst", False)]),
    "one of a fleet that sends little": (
        lambda: found(of_fleet({0: 60}, {24 * day: 2 for day in range(1, 15)})),
        [("burst", False)],
    ),
    "one of a fleet with a history of its own": (
        lambda: found(of_fleet({0: 60, **{24 * day: 1 for day in range(1, 15)}})),
        [("burst", False)],
    ),
    "much more than a fleet ever sent": (
        lambda: found(of_fleet({0: 900}, {24 * day: 2 for day in range(1, 15)})),
        [("burst", True)],
    ),
    "more than a source may of a busy fleet": (
        lambda: found(of_fleet({0: 510}, dict.fromkeys(range(400), 900))),
        [("burst", False)],
    ),
    "other sources are never held": (
        lambda: found(
            counted("x", {0: 90}, first_ms=FRESH_MS, source=("(other sources)", "", "", None, ""))
        ),
        [("new", False)],
    ),
}


@each_of("case", CASES)
def test_what_is_wrong_with_a_source(case: str) -> None:
    look, expected = CASES[case]
    assert look() == expected


def test_usual_is_what_came_at_that_hour_or_next_to_it() -> None:
    (moment, *_) = moments(NOW_MS)
    around = {24 + hours: count for hours, count in ((2, 9), (1, 3), (0, 1), (-1, 4), (-2, 9))}
    past = Past.of(counted("Order #", around), moment, HOUR - 48, HOUR)
    assert (past.usual, past.most, past.days) == (4, 9, 2)


def test_mail_is_new_for_a_day() -> None:
    one = counted("Win #", {30: 1, 7: 2, 6: 4})
    assert {HOUR - hour: count for hour, count in new_by_hour([one]).items() if count} == {
        30: 1,
        7: 2,
    }


def suspects(*classes: Counted, known: Known = OLD, now_ms: int = NOW_MS) -> list[Suspect]:
    return judge(classes, Guard(), known, now_ms=now_ms)


def test_held_is_what_is_new_and_nothing_of_what_is_known() -> None:
    spam = [counted(f"x{n}", {0: 1}, first_ms=FRESH_MS + n) for n in range(40)]
    (one,) = suspects(orders(25), *spam)
    assert (one.trouble, one.per_hour, one.limit) == (Trouble.NEW, 40, 30)
    assert one.held == Held(new_since_ms=FRESH_MS)
    assert set(one.class_ids) == {each.class_id for each in spam}


def test_what_a_release_brought_before_an_attack_is_not_held() -> None:
    release = counted("Order # confirmed", {4: 8, 2: 8, 0: 4})
    spam = [counted(f"x{n}", {0: 1}, first_ms=FRESH_MS + n) for n in range(40)]
    (one,) = suspects(orders(25), release, *spam)
    assert one.held == Held(new_since_ms=FRESH_MS)
    # a template that was tried hours before is held once it is much
    tried = counted("Win #", {2: 1, 0: 40})
    (one,) = suspects(orders(25), release, tried)
    assert one.held == Held(new_since_ms=tried.first_seen_ms)


def test_an_attack_that_goes_on_has_one_incident_until_it_is_over() -> None:
    begun = 100
    spam = counted("Win #", dict.fromkeys(range(begun), 60))
    (first,) = suspects(spam, now_ms=(HOUR - begun + 2) * HOUR_MS)
    known = Known(counting_since_ms=0, alarmed={first.key: (HOUR - begun + 2) * HOUR_MS})
    (now,) = suspects(spam, known=known)
    assert now.key == first.key
    assert now.trouble is Trouble.NEW


def test_what_was_told_of_on_a_first_day_lasts_while_more_of_it_is_counted() -> None:
    begun_ms = NOW_MS - 8 * HOUR_MS
    spam = counted("Win #", {0: 200, 3: 200}, first_ms=begun_ms + 4 * HOUR_MS)
    then_ms = begun_ms + 5 * HOUR_MS
    (first,) = suspects(spam, known=Known(counting_since_ms=begun_ms), now_ms=then_ms)
    alarmed = {first.key: first.since_ms}
    for later_ms in (NOW_MS, begun_ms + 30 * HOUR_MS):
        known = Known(counting_since_ms=begun_ms, alarmed=alarmed)
        assert [one.key for one in suspects(spam, known=known, now_ms=later_ms)] == [first.key]


def test_new_scripts_of_a_user_are_judged_together() -> None:
    def script(name: str, number: int, first_ms: int = FRESH_MS, uid: int = 33) -> Counted:
        source = ("local", "", "", uid, name)
        return counted(f"x {name}", {0: number}, first_ms=first_ms, source=source)

    several = [script(f"{name}.php", 12) for name in "abc"]
    found = judge_together(several, Guard(), OLD, now_ms=NOW_MS)
    assert [(one.trouble, one.per_hour, one.sources) for one in found] == [(Trouble.NEW, 36, 3)] * 3
    assert {one.source_id for one in found} == {one.mail_class.source_id for one in several}
    assert len({one.key for one in found}) == 1
    assert all(one.held == Held(new_since_ms=FRESH_MS) for one in found)
    assert by_sender([*several, script("d.php", 12, uid=34)]) == [several]
    # told of for a day; one that does it alone has an alert of its own, what is known is not new
    later = judge_together(several, Guard(), OLD, now_ms=NOW_MS + 20 * HOUR_MS)
    assert [one.held for one in later] == [None] * 3
    alone = [*several[:2], script("c.php", 40)]
    moved = [*several[:2], replace(several[2], is_moved=True)]
    old = [*several[:2], script("c.php", 12, first_ms=NOW_MS - 2 * DAY_MS)]
    allowed = replace(OLD, allowed={several[0].mail_class.source_id: 9})
    for classes, known in ((alone, OLD), (moved, OLD), (old, OLD), (several, allowed)):
        assert judge_together(classes, Guard(), known, now_ms=NOW_MS) == []
