"""What restarts of the database under load cost: mail, and seconds of service."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from bench.rig.fleet import Fleet, load_each, running_fleet
from bench.rig.latency import Sample, told
from bench.rig.limited_provider import Event
from bench.rig.limited_terms import Terms
from bench.rig.queue_fates import read_fates, wait_until_drained
from bench.standing.books import check_load, figures, first_at_s, notes
from bench.standing.figure import Figure, Result
from bench.standing.setting import Setting

RATE_PER_S = 50.0
INSTANCES = ("gw1", "gw2")
CONNECTIONS = 10
SIZE_BYTES = 4096
EVERY_S = 7.017  # not in step with the load, so that a stop falls anywhere between two messages
_BEFORE_S = 3.0
_DRAIN_S = 120.0


@dataclass(frozen=True)
class Restart:
    """One restart; the rest is from when the server answers again."""

    immediately: bool
    away_s: float  # from the signal until then
    accepting_s: float  # to the first 250, at the instance where that took longest
    delivering_s: float  # to the first delivery of mail that was accepted since


def fleet_restarts(setting: Setting) -> Result:
    """PostgreSQL is restarted again and again, cleanly and as by a crash, at 50 msg/s."""
    with (
        setting.directory() as directory,
        running_fleet(directory, Terms(), max_connections=CONNECTIONS) as fleet,
    ):
        times, samples = _run(setting, fleet)
        wait_until_drained(fleet.server.url, patience_s=_DRAIN_S)
        events, fates = fleet.provider.events(), read_fates(fleet.server.url)
        books = check_load(directory, samples, [fleet.provider], fates)
        setting.keep(directory, "fleet-restarts")
    restarts = [
        judge(samples, events, stopped_s, back_s, immediately=bool(number % 2))
        for number, (stopped_s, back_s) in enumerate(times)
    ]
    odd = [each for each in samples if each.code != 250 and not 400 <= each.code < 500]
    return Result(
        [
            Figure("first 250, worst", max(r.accepting_s for r in restarts), "s", 5, 5),
            Figure("first delivery, worst", max(r.delivering_s for r in restarts), "s", 5, 5),
            *figures(books),
            Figure("still queued", books.waiting, "", 0, 0),
            Figure("neither 250 nor refused for a time", len(odd), "", 0, 0),
        ],
        [
            _told("fast", [each for each in restarts if not each.immediately]),
            _told("immediate", [each for each in restarts if each.immediately]),
            f"replies: {told(samples)}",
            f"slowest 250: {max(each.latency_ms for each in samples) / 1000:.1f} s",
            *notes(books),
        ],
    )


def _run(setting: Setting, fleet: Fleet) -> tuple[list[tuple[float, float]], list[Sample]]:
    """Return when each restart began and the server answered again, and all mail."""
    count = setting.size.database_restarts
    load_s = _BEFORE_S + (count + 1) * EVERY_S
    gateways = {name: fleet.start(name) for name in INSTANCES}
    with ExitStack() as running:
        loads = load_each(
            running, gateways, rate_per_s=RATE_PER_S, length_s=load_s, size_bytes=SIZE_BYTES
        )
        begun_s = time.monotonic() + _BEFORE_S
        times = []
        setting.say(f"{count} restarts, {load_s:.0f} s at {RATE_PER_S:.0f} msg/s")
        for number in range(count):
            time.sleep(max(0.0, begun_s + number * EVERY_S - time.monotonic()))
            times.append(fleet.server.restart(immediately=bool(number % 2)))
        return times, [sample for load in loads for sample in load.samples()]


def judge(
    samples: Sequence[Sample],
    events: Sequence[Event],
    stopped_s: float,
    back_s: float,
    *,
    immediately: bool,
) -> Restart:
    """Return what a restart came to; infinite is what never came."""
    since = [each for each in samples if each.code == 250 and each.answered_s > back_s]
    firsts_s = [
        min(
            (each.answered_s for each in since if each.bench_id.startswith(name)),
            default=float("inf"),
        )
        for name in INSTANCES
    ]
    accepted_s = first_at_s(events, "accepted")
    delivered_s = [accepted_s[each.bench_id] for each in since if each.bench_id in accepted_s]
    return Restart(
        immediately,
        back_s - stopped_s,
        max(firsts_s) - back_s,
        min(delivered_s, default=float("inf")) - back_s,
    )


def _told(kind: str, restarts: Sequence[Restart]) -> str:
    if not restarts:
        return f"{kind}: none"
    away_s = statistics.median(each.away_s for each in restarts)
    accepting_s = statistics.median(each.accepting_s for each in restarts)
    delivering_s = statistics.median(each.delivering_s for each in restarts)
    return (
        f"{kind}: {len(restarts)}, away {away_s:.2f} s, then 250 after {accepting_s:.2f} s, "
        f"delivery {delivering_s:.2f} s (medians)"
    )
