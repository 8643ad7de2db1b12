"""How soon another instance sends the mail of one that died, and what is sent twice for it."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from dataclasses import dataclass

from bench.checking.report import Report
from bench.rig.fleet import Fleet, running_fleet, wait_until
from bench.rig.latency import Load, Sample
from bench.rig.limited_provider import Event
from bench.rig.limited_terms import Terms
from bench.rig.queue_fates import read_fates, wait_until_drained
from bench.standing.books import check_load, killed
from bench.standing.figure import Figure, Result
from bench.standing.setting import Setting

LEASES = 50  # at least, in the hands of what is killed
CONNECTIONS = 20
REPLY_S = 0.5  # so that all connections have a message in flight
SIZE_BYTES = 4096
MESSAGES, LOAD_PER_S = 800, 300
_HEARTBEAT_S = 5.0
_DRAIN_S = 120.0


@dataclass(frozen=True)
class Round:
    """One kill."""

    leased: int
    first_s: float  # from the kill to the first of these at the provider again
    last_s: float
    books: Report


def fleet_takeover(setting: Setting) -> Result:
    """kill -9 of all processes of an instance with 50 leases or more; the worst of the rounds."""
    rounds = []
    for number in range(setting.size.takeovers):
        setting.say(f"kill {number + 1} of {setting.size.takeovers}")
        rounds.append(_round(setting))
    lost = sum(each.books.counts()["lost"] + each.books.given_up for each in rounds)
    return Result(
        [
            Figure("first of its mail again after", max(r.first_s for r in rounds), "s", 30, 25),
            Figure("extra and recorded", sum(r.books.counts()["twice"] for r in rounds), "", 0, 0),
            Figure("lost or bounced", lost, "", 0, 0),
        ],
        [
            f"{each.leased} leases: first after {each.first_s:.1f} s, last after "
            f"{each.last_s:.1f} s; {each.books.duplicated.total()} extra"
            for each in rounds
        ],
    )


def _round(setting: Setting) -> Round:
    terms = Terms(reply_delay_s=REPLY_S)
    with (
        setting.directory() as directory,
        running_fleet(directory, terms, max_connections=CONNECTIONS) as fleet,
    ):
        samples, leased, killed_s = _kill(fleet)
        wait_until_drained(fleet.server.url, patience_s=_DRAIN_S)
        dead = killed(killed_s, open=sorted(leased))
        fates = read_fates(fleet.server.url)
        books = check_load(directory, samples, [fleet.provider], fates, *dead)
        events = fleet.provider.events()
        setting.keep(directory, "fleet-takeover")
    return judge(events, books, leased=leased, killed_s=killed_s)


def _kill(fleet: Fleet) -> tuple[list[Sample], set[str], float]:
    """Return all mail, what the dead one held leases of, and when it died."""
    doomed = fleet.start("gw1")
    with Load(
        doomed.smtp_port, rate_per_s=LOAD_PER_S, messages=MESSAGES, size_bytes=SIZE_BYTES
    ) as load:
        samples = load.samples()
    fleet.start("gw2")
    fleet.wait_for_workers(2)
    time.sleep(random.uniform(0, _HEARTBEAT_S))  # a kill falls anywhere between two heartbeats
    wait_until(lambda: len(fleet.leased_by("gw1")) >= LEASES, f"{LEASES} leases")
    killed_s = time.monotonic()
    doomed.kill_all()
    leased = fleet.leased_by("gw1")
    if len(leased) < LEASES:
        raise RuntimeError(f"only {len(leased)} leases at the kill")
    return samples, leased, killed_s


def judge(events: Sequence[Event], books: Report, *, leased: set[str], killed_s: float) -> Round:
    """Return what a kill came to."""
    again_s = [
        event.at_s - killed_s
        for event in events
        if event.kind == "taken" and event.bench_id in leased and event.at_s > killed_s
    ]
    return Round(
        leased=len(leased),
        first_s=min(again_s, default=float("inf")),
        last_s=max(again_s, default=float("inf")),
        books=books,
    )
