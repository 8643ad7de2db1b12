"""Whether the limits of a provider hold for all instances while they come and go."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from bench.checking.report import Report
from bench.rig.fleet import Fleet, running_fleet
from bench.rig.latency import Load, Sample, told
from bench.rig.limited_provider import Event
from bench.rig.limited_terms import Terms
from bench.rig.queue_fates import read_fates, wait_until_drained
from bench.standing.books import allowed, check_load, figures, killed, notes
from bench.standing.figure import Figure, Result
from bench.standing.setting import Setting
from bench.standing.throttle import least_waiting

RATE_PER_S, CONNECTIONS = 50, 10
REPLY_S = 0.15  # so that the rate takes eight of the connections
SETTLED_S = 20.0  # one lease: so long after a change the use does not count
WINDOW_S = 10.0
SIZE_BYTES = 4096
_BACKLOG, _BACKLOG_PER_S = 500, 250
_BESIDE_PER_S = 4  # what comes in at each of the others
_STARTS_S = 15.0  # at most, of two instances
_DRAIN_S = 180.0


@dataclass(frozen=True)
class Phase:
    """A number of instances from one change to the next."""

    instances: int
    begun_s: float
    ended_s: float

    def settled(self, events: Sequence[Event]) -> float:
        """Return the use of the rate once it has settled, in per cent."""
        return self._use(events, self.begun_s + SETTLED_S, self.ended_s)

    def at_first(self, events: Sequence[Event]) -> float:
        """Return the use of the rate right after the change, in per cent."""
        return self._use(events, self.begun_s, self.begun_s + SETTLED_S)

    def _use(self, events: Sequence[Event], from_s: float, to_s: float) -> float:
        return count(events, "accepted", from_s, to_s) / (to_s - from_s) / RATE_PER_S * 100


@dataclass(frozen=True)
class Course:
    """What happened; the end of the second phase is when an instance was killed."""

    phases: list[Phase]
    samples: list[Sample]
    events: list[Event]

    @property
    def killed_s(self) -> float:
        """When the third instance died."""
        return self.phases[1].ended_s


def count(events: Iterable[Event], kind: str, from_s: float, to_s: float) -> int:
    """Count the events of one kind in a span, its end excluded."""
    return sum(event.kind == kind and from_s <= event.at_s < to_s for event in events)


def fleet_limit(setting: Setting) -> Result:
    """50 msg/s and 10 connections for all, while there are one, three, and two instances."""
    with (
        setting.directory() as directory,
        running_fleet(
            directory,
            Terms(reply_delay_s=REPLY_S),
            rate=f"{RATE_PER_S}/s",
            max_connections=CONNECTIONS,
        ) as fleet,
    ):
        phases, samples, leased = _run(setting, fleet)
        setting.say("waiting for the rest of the queue")
        wait_until_drained(fleet.server.url, patience_s=_DRAIN_S)
        course = Course(phases, samples, fleet.provider.events())
        books = check_load(
            directory,
            samples,
            [fleet.provider],
            read_fates(fleet.server.url),
            allowed("provider", rate_per_s=RATE_PER_S, connections=CONNECTIONS),
            *killed(course.killed_s, open=sorted(leased)),
        )
        setting.keep(directory, "fleet-limit")
    return Result(
        [*_figures(course, books), *figures(books)],
        [
            *_notes(course),
            f"leased at the kill: {len(leased)}",
            *notes(books),
        ],
    )


def _run(setting: Setting, fleet: Fleet) -> tuple[list[Phase], list[Sample], set[str]]:
    """Return the phases, all mail, and what the dead one held leases of."""
    phase_s = setting.size.phase_s
    first = fleet.start("gw1")
    with ExitStack() as running:
        loads: list[Load] = []

        def offer(port: int, prefix: str, rate_per_s: float, load_s: float) -> None:
            load = Load(
                port,
                rate_per_s=rate_per_s,
                messages=int(rate_per_s * load_s),
                size_bytes=SIZE_BYTES,
                prefix=prefix,
            )
            loads.append(running.enter_context(load))

        setting.say(f"one instance for {phase_s:.0f} s")
        offer(first.smtp_port, "backlog", _BACKLOG_PER_S, _BACKLOG / _BACKLOG_PER_S)
        offer(first.smtp_port, "gw1", RATE_PER_S, 3 * phase_s + _STARTS_S)
        begun_s = time.monotonic()
        time.sleep(phase_s)
        alone = Phase(1, begun_s, time.monotonic())
        second, third = fleet.start("gw2"), fleet.start("gw3")
        joined_s = time.monotonic()
        setting.say(f"three instances for {phase_s:.0f} s")
        offer(second.smtp_port, "gw2", _BESIDE_PER_S, 2 * phase_s)
        offer(third.smtp_port, "gw3", _BESIDE_PER_S, phase_s + 1)
        time.sleep(phase_s)
        three = Phase(3, joined_s, time.monotonic())
        third.kill_all()
        leased = fleet.leased_by("gw3")
        setting.say(f"one is killed; two instances for {phase_s:.0f} s")
        time.sleep(phase_s)
        two = Phase(2, three.ended_s, time.monotonic())
        samples = [sample for load in loads for sample in load.samples()]
        return [alone, three, two], samples, leased


def _figures(course: Course, books: Report) -> list[Figure]:
    overshoot = books.overshoots["provider"] * 100
    least_used = min(phase.settled(course.events) for phase in course.phases)
    open_at_most = books.most_open["provider"]
    return [
        Figure(f"overshoot over any {WINDOW_S:.0f} s", overshoot, "%", 5, 2),
        Figure("most connections at once", open_at_most, "", CONNECTIONS, CONNECTIONS),
        Figure("use of the rate, least phase", least_used, "%", 90, 95, is_more_better=True),
    ]


def _notes(course: Course) -> list[str]:
    begun_s, ended_s = course.phases[0].begun_s, course.phases[-1].ended_s
    least = least_waiting(course.samples, course.events, begun_s + 5, ended_s)
    return [
        *(
            f"{phase.instances} instances: {phase.settled(course.events):.1f} % used from "
            f"{SETTLED_S:.0f} s on, {phase.at_first(course.events):.1f} % before"
            for phase in course.phases
        ),
        f"least waiting after the first 5 s: {least} messages",
        f"replies: {told(course.samples)}",
    ]
