"""`bench/alarms`: ten shops through 90 days of a moved clock; prints seeds, alarms and figures."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from statistics import median

from bench.shops.guarding import Caught, GuardJudge, caught, held_in_sales, plan_compromises
from bench.shops.profiles import SHOPS, Shop
from bench.shops.simulation import Alarm, Missed, Simulation, missed, plan_stops
from bench.shops.traffic import BEGIN_MS, DAY_MS
from bench.standing.figure import Figure, Result

_QUIET_LOOK_MS = 10 * 60_000
_PLANTED = 2  # stops, and compromises, in each shop
_DAYS = 90


@dataclass(frozen=True)
class Outcome:
    """What became of one shop."""

    shop: str
    mails: int
    alarms: Sequence[Alarm]  # nothing was planted
    stops: Sequence[Missed]
    compromises: Sequence[Caught]
    held: Sequence[str]  # on sale days
    took_s: float

    @property
    def false_alarms(self) -> list[Alarm]:
        """All but what `expect` told: too little had come."""
        return [one for one in self.alarms if not one.key.startswith("expect ")]


def simulate(shop: Shop, seed: int, days: int = _DAYS) -> Outcome:
    """Let a shop's days pass: as they are, with stops, with compromises, with sales held."""
    begun_s = time.monotonic()
    quiet = Simulation(shop, seed, days, judges=[GuardJudge(shop)], look_ms=_QUIET_LOOK_MS)
    stopped = Simulation(shop, seed, days, stops=plan_stops(shop, seed, _PLANTED, days))
    planted = plan_compromises(shop, seed, _PLANTED, days)
    mails = sorted((mail for one in planted for mail in one.mails), key=lambda one: one.at_ms)
    judge = GuardJudge(shop, behind_ms=[one.at_ms for one in planted])
    misused = Simulation(
        shop, seed, days, planted=mails, judges=[judge], look_ms=60_000, is_silence_told=False
    )
    for one in (quiet, stopped, misused):
        one.run()
    return Outcome(
        shop.name,
        quiet.mails,
        quiet.alarms,
        missed(stopped),
        caught(misused, planted),
        sorted(held_in_sales(shop, seed, days)),
        time.monotonic() - begun_s,
    )


def result_of(outcomes: Sequence[Outcome], days: int) -> Result:
    """Return the figures of all shops."""
    stops = [one for outcome in outcomes for one in outcome.stops]
    compromises = [one for outcome in outcomes for one in outcome.compromises]
    months = len(outcomes) * days / 30
    alarms = [one for outcome in outcomes for one in outcome.false_alarms]
    later = [one for one in alarms if one.at_ms >= BEGIN_MS + 2 * DAY_MS]
    found = sum(one.is_found for one in stops)
    told = sum(one.is_found for one in compromises)
    waits = [(one.told_ms - one.last_ms) / 3.6e6 for one in stops if one.told_ms is not None]
    sent = [one.sent for one in compromises if one.told_ms is not None]
    figures = [
        Figure("false alarms a shop and month", len(alarms) / months, "", 1.0, 0.3),
        Figure("the same without the first two days", len(later) / months, "", 1.0, 0.3),
        Figure("planted stops found", found, f"of {len(stops)}", len(stops), len(stops), True),
        Figure(
            "planted compromises found",
            told,
            f"of {len(compromises)}",
            len(compromises),
            len(compromises),
            True,
        ),
        Figure("held on sale days", sum(len(one.held) for one in outcomes), "", 0, 0),
        Figure("hours until a stop is told, median", median(waits or [0]), "h"),
        Figure("mails of a compromise until it is told, median", median(sent or [0]), ""),
    ]
    return Result(figures)


def main() -> int:
    """Run it; return 1 if a figure misses what it must at least be."""
    options = _parse()
    shops = [one for one in SHOPS if not options.shop or one.name in options.shop]
    print(f"seed {options.seed}, {_DAYS} days, shops {' '.join(one.name for one in shops)}")
    outcomes = []
    with ProcessPoolExecutor(max_workers=options.processes) as pool:
        for outcome in pool.map(simulate, shops, [options.seed] * len(shops)):
            _print_outcome(outcome)
            outcomes.append(outcome)
    result = result_of(outcomes, _DAYS)
    print(f"\n{'figure':48} {'value':>10} {'at least':>9} {'aim':>6}  reached")
    for one in result.figures:
        value = f"{one.value:.3g} {one.unit}".strip()
        least = "" if one.at_least is None else f"{one.at_least:g}"
        aim = "" if one.aim is None else f"{one.aim:g}"
        print(f"{one.name:48} {value:>10} {least:>9} {aim:>6}  {one.verdict}")
    return 0 if result.is_good else 1


def _print_outcome(outcome: Outcome) -> None:
    print(f"\n{outcome.shop}: {outcome.mails} messages, {outcome.took_s:.0f} s")
    for alarm in outcome.alarms:
        is_false = alarm in outcome.false_alarms
        print(f"  {'false alarm' if is_false else 'told':11}  {alarm}"[:150])
    for stop in outcome.stops:
        day = (stop.stop.from_ms - BEGIN_MS) / DAY_MS
        after = "never told" if stop.told_ms is None else f"told after {_hours(stop, stop.told_ms)}"
        limit = f"at the latest {stop.limit_ms / 3.6e6:.1f} h"
        what = "all mail" if stop.stop.flow is None else f"“{stop.stop.flow}”"
        word = "" if stop.is_found else "  MISSED"
        print(f"  stop         day {day:5.2f}  {what}: {after}, {limit}{word}")
    for held in outcome.held:
        print(f"  held         {held}")
    for one in outcome.compromises:
        day = (one.planted.at_ms - BEGIN_MS) / DAY_MS
        after = "never told"
        if one.told_ms is not None:
            after = f"told after {(one.told_ms - one.planted.at_ms) / 60_000:.0f} min"
        word = "" if one.is_found else "  MISSED"
        print(f"  compromise   day {day:5.2f}  {one.planted.name}: {after}, {one.sent} mails{word}")
    sys.stdout.flush()


def _hours(stop: Missed, told_ms: int) -> str:
    return f"{(told_ms - stop.last_ms) / 3.6e6:.1f} h"


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="bench/alarms",
        description="Simulates ten shops (night, weekend, office hours, sale, tiny, newsletters, "
        "marketplace, scaled hosts, batches) for 90 days each, by a clock that is moved, and has "
        "guard and silence judge their mail: as it is, with planted stops, with planted "
        "compromises. Needs nothing but the processor, for some minutes.",
    )
    parser.add_argument("--seed", type=int, default=1, help="of all that is random; 1")
    parser.add_argument(
        "--shop",
        action="append",
        choices=[one.name for one in SHOPS],
        help="only this one; may be given several times",
    )
    parser.add_argument(
        "--processes", type=int, default=os.cpu_count() or 1, metavar="N", help="at a time"
    )
    return parser.parse_args()
