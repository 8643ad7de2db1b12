"""What it costs when the database is away for longer than a lease lasts: mail, and seconds.

All heartbeats are old when it is back, and every worker has outcomes to write: whoever looks first
must not take the others for dead, or their mail is sent again.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from bench.rig.fleet import Fleet, load_each, running_fleet
from bench.rig.latency import Sample, told
from bench.rig.limited_provider import Event
from bench.rig.limited_terms import Terms
from bench.rig.queue_fates import read_fates, wait_until_drained
from bench.standing.books import check_load, figures, notes
from bench.standing.figure import Figure, Result
from bench.standing.setting import Setting

AWAY_S = 31.7  # a lease, and more than the longest wait between two tries to reach it
REPLY_S = 0.5  # so that much is in flight when it goes
RATE_PER_S = 20.0
INSTANCES = ("gw1", "gw2")
CONNECTIONS = 20
SIZE_BYTES = 4096
_BEFORE_S = 6.0
_DRAIN_S = 180.0


@dataclass(frozen=True)
class Outage:
    """One outage; the rest is from when the server answers again."""

    immediately: bool
    away_s: float  # from the signal until then
    accepting_s: float  # to the first 250, at the instance where that took longest
    delivering_s: float  # to the first delivery


def fleet_outage(setting: Setting) -> Result:
    """PostgreSQL goes away for 32 s under load, again and again, two instances holding leases."""
    with (
        setting.directory() as directory,
        running_fleet(
            directory, Terms(reply_delay_s=REPLY_S), max_connections=CONNECTIONS
        ) as fleet,
    ):
        times, samples = _run(setting, fleet)
        wait_until_drained(fleet.server.url, patience_s=_DRAIN_S)
        events, fates = fleet.provider.events(), read_fates(fleet.server.url)
        books = check_load(directory, samples, [fleet.provider], fates)
        setting.keep(directory, "fleet-outage")
    outages = [
        judge_outage(samples, events, stopped_s, back_s, immediately=bool(number % 2))
        for number, (stopped_s, back_s) in enumerate(times)
    ]
    odd = [each for each in samples if each.code != 250 and not 400 <= each.code < 500]
    return Result(
        [
            Figure("first 250, worst", max(o.accepting_s for o in outages), "s", 5, 5),
            Figure("first delivery, worst", max(o.delivering_s for o in outages), "s", 5, 5),
            *figures(books),
            Figure("still queued", books.waiting, "", 0, 0),
            Figure("neither 250 nor refused for a time", len(odd), "", 0, 0),
        ],
        [*map(_told, outages), f"replies: {told(samples)}", *notes(books)],
    )


def _run(setting: Setting, fleet: Fleet) -> tuple[list[tuple[float, float]], list[Sample]]:
    """Return when each outage began and the server answered again, and all mail."""
    count = setting.size.database_outages
    every_s = AWAY_S + 25.0
    gateways = {name: fleet.start(name) for name in INSTANCES}
    with ExitStack() as running:
        load_s = _BEFORE_S + count * every_s
        loads = load_each(
            running, gateways, rate_per_s=RATE_PER_S, length_s=load_s, size_bytes=SIZE_BYTES
        )
        begun_s = time.monotonic() + _BEFORE_S
        times = []
        for number in range(count):
            setting.say(f"outage {number + 1} of {count}")
            time.sleep(max(0.0, begun_s + number * every_s - time.monotonic()))
            times.append(fleet.server.restart(immediately=bool(number % 2), away_s=AWAY_S))
        return times, [sample for load in loads for sample in load.samples()]


def judge_outage(
    samples: Sequence[Sample],
    events: Sequence[Event],
    stopped_s: float,
    back_s: float,
    *,
    immediately: bool,
) -> Outage:
    """Return what an outage came to; infinite is what never came."""
    never_s = float("inf")
    since = [each for each in samples if each.code == 250 and each.answered_s > back_s]
    firsts_s = [
        min((each.answered_s for each in since if each.bench_id.startswith(name)), default=never_s)
        for name in INSTANCES
    ]
    delivered_s = (event.at_s for event in events if event.kind == "accepted")
    return Outage(
        immediately,
        back_s - stopped_s,
        max(firsts_s) - back_s,
        min((at_s for at_s in delivered_s if at_s > back_s), default=never_s) - back_s,
    )


def _told(outage: Outage) -> str:
    kind = "immediate" if outage.immediately else "fast"
    return (
        f"{kind}: away {outage.away_s:.1f} s, then 250 after {outage.accepting_s:.2f} s, "
        f"delivery {outage.delivering_s:.2f} s"
    )
