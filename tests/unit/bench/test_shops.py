"""The simulation of shops, in a small form: one month of a shop with office hours."""

from __future__ import annotations

import random
from dataclasses import replace

from bench.shops.guarding import GuardJudge, caught, plan_compromises
from bench.shops.profiles import SHOPS
from bench.shops.simulation import Simulation, missed
from bench.shops.traffic import BEGIN_MS, DAY_MS, HOUR_MS, Stop, Traffic, compromise

OFFICE = replace(next(one for one in SHOPS if one.name == "office"), closed_days=())
SEED = 5
DAYS = 31
WEDNESDAY_MS = BEGIN_MS + 30 * DAY_MS + 11 * HOUR_MS


def test_the_same_seed_draws_the_same_mail() -> None:
    days = [[Traffic(OFFICE, seed).of_day(day) for day in range(2)] for seed in (1, 1, 2)]
    assert days[0] == days[1] != days[2]


def test_a_month_without_a_stop_has_no_alarm_and_a_stop_is_told_within_an_hour() -> None:
    print(f"seed {SEED}")
    quiet = Simulation(OFFICE, SEED, DAYS, look_ms=10 * 60_000)
    quiet.run()
    assert quiet.alarms == []
    stop = Stop(None, WEDNESDAY_MS, WEDNESDAY_MS + DAY_MS)
    stopped = Simulation(OFFICE, SEED, DAYS, stops=[stop])
    stopped.run()
    (found,) = missed(stopped)
    assert found.is_found
    assert found.told_ms is not None
    assert found.told_ms - found.last_ms < 2 * HOUR_MS


def test_a_stop_lasts_until_somebody_has_to_be_told() -> None:
    """Mail that pauses for weekends may stop for ten days."""
    stop = Stop("Order # received", WEDNESDAY_MS, WEDNESDAY_MS + DAY_MS)
    sim = Simulation(OFFICE, SEED, DAYS, stops=[stop], is_silence_told=False)
    sim.run()
    (found,) = missed(sim)
    assert not found.is_found
    assert found.limit_ms > 9 * DAY_MS
    assert found.until_ms - found.last_ms > found.limit_ms


def test_nothing_is_planted_that_cannot_be_told_from_usual_mail() -> None:
    """No form that no visitor fills in, and none on a day for which the guard was told so."""
    for shop in (one for one in SHOPS if one.name in ("newsletters", "sale")):
        for seed in range(20):
            planned = plan_compromises(shop, seed, 2, 90)
            mails = [mail for one in planned for mail in one.mails]
            assert {mail.mail_class.stream for mail in mails} == {"transactional"}
            days = {(one.at_ms - BEGIN_MS) // DAY_MS for one in planned}
            assert not shop.quiet_told or days.isdisjoint(shop.sale_days)


def test_a_script_that_is_new_is_told_of_and_the_shop_is_not() -> None:
    planted = compromise(OFFICE, 0, BEGIN_MS + 9 * DAY_MS + 10 * HOUR_MS, random.Random(SEED))
    sim = Simulation(
        OFFICE,
        SEED,
        11,
        planted=planted.mails,
        judges=[GuardJudge(OFFICE, behind_ms=[planted.at_ms])],
        is_silence_told=False,
    )
    sim.run()
    (found,) = caught(sim, [planted])
    assert found.is_found
    assert {one.source_id for one in sim.alarms} == {planted.mails[0].mail_class.source_id}
