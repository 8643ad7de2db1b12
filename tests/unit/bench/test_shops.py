"""The simulation of shops, in a small form: one month of a shop with office hours."""

from __future__ import annotations

import random
from dataclasses import replace

from bench.shops.guarding import GuardJudge, caught
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
