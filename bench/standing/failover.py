"""How soon the second provider of a route takes over, and how soon the first is used again."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from bench.rig.gateway import Gateway, provider
from bench.rig.latency import Load, Sample, percentile, told
from bench.rig.limited_provider import Event, LimitedProvider
from bench.rig.queue_fates import read_fates, wait_until_drained
from bench.standing.books import check_load, figures, first_at_s, killed, notes
from bench.standing.figure import Figure, Result
from bench.standing.setting import Setting

RATE_PER_S = 200.0
SIZE_BYTES = 4096
CONNECTIONS = 10
TAKEN_OVER_S = 5.0  # from then on all new mail must go to the second
_STEADY_S = 10.0
_SETTLED_S = 1.0  # from the first message at the first provider until all of them are there
_DRAIN_S = 60.0


@dataclass(frozen=True)
class Course:
    """When the first provider went away and came back, and what everybody saw."""

    gone_s: float
    back_s: float
    samples: list[Sample]
    at_a: list[Event]
    at_b: list[Event]

    def accepted_between(self, from_s: float, to_s: float) -> list[Sample]:
        """Return the mail that the gateway answered 250 in a span."""
        return [
            each for each in self.samples if each.code == 250 and from_s <= each.answered_s < to_s
        ]

    @property
    def first_back_s(self) -> float:
        """When the first provider took mail again that was accepted after its return."""
        fresh = {each.bench_id for each in self.accepted_between(self.back_s, float("inf"))}
        times = [e.at_s for e in self.at_a if e.kind == "taken" and e.bench_id in fresh]
        return min(times, default=float("inf"))


def failover(setting: Setting) -> Result:
    """200 msg/s; the first provider is killed, and is back half a minute later."""
    return _run(setting, is_silent=False)


def failover_silent(setting: Setting) -> Result:
    """The same, but it falls silent (SIGSTOP), and its port stays open."""
    return _run(setting, is_silent=True)


def _run(setting: Setting, *, is_silent: bool) -> Result:
    size = setting.size
    whole_s = _STEADY_S + size.outage_s + size.return_s
    with (
        setting.directory() as directory,
        LimitedProvider(directory, "a") as a,
        LimitedProvider(directory, "b") as b,
    ):
        upstream = {"a": a.port, "b": b.port}
        gateway = Gateway(
            directory / "gateway",
            providers={n: provider(p, max_connections=CONNECTIONS) for n, p in upstream.items()},
            routes=[{"name": "default", "providers": ["a", "b"]}],
        )
        with (
            gateway,
            Load(
                gateway.smtp_port,
                rate_per_s=RATE_PER_S,
                messages=int(RATE_PER_S * whole_s),
                size_bytes=SIZE_BYTES,
            ) as load,
        ):
            time.sleep(_STEADY_S)
            setting.say(f"the first provider is {'silent' if is_silent else 'dead'}")
            gone_s = a.freeze() if is_silent else a.kill()
            time.sleep(size.outage_s)
            if is_silent:
                a.thaw()
            else:
                a.start()
            back_s = time.monotonic()
            setting.say(f"it is back; {size.return_s:.0f} s to go")
            samples = load.samples()
            wait_until_drained(gateway.database, patience_s=_DRAIN_S)
            fates = read_fates(gateway.database)
            dead = [] if is_silent else killed(gone_s, provider="a")
            books = check_load(directory, samples, [a, b], fates, *dead)
            course = Course(gone_s, back_s, samples, a.events(), b.events())
            setting.keep(directory, "failover-silent" if is_silent else "failover")
    found = _figures(course, has_targets=not is_silent)
    return Result([*found, *figures(books)], [*_notes(course), *notes(books)])


def _figures(course: Course, *, has_targets: bool) -> list[Figure]:
    taken_over = course.accepted_between(course.gone_s + TAKEN_OVER_S, course.back_s)
    first_back_s = course.first_back_s
    settled = course.accepted_between(first_back_s + _SETTLED_S, float("inf"))
    all_of_it, soon = (100.0, 60.0) if has_targets else (None, None)
    return [
        Figure(
            "at the second, accepted from 5 s on",
            share(taken_over, course.at_b),
            "%",
            all_of_it,
            all_of_it,
            is_more_better=True,
        ),
        Figure("back at the first after", first_back_s - course.back_s, "s", soon, soon),
        Figure(
            "at the first, from 1 s later on",
            share(settled, course.at_a),
            "%",
            all_of_it,
            all_of_it,
            is_more_better=True,
        ),
    ]


def share(samples: Sequence[Sample], events: Sequence[Event]) -> float:
    """Return how many of a hundred messages a provider accepted; 0 of none."""
    there = first_at_s(events, "accepted")
    return 100 * sum(each.bench_id in there for each in samples) / max(1, len(samples))


def _notes(course: Course) -> list[str]:
    gone_s, back_s, end_s = course.gone_s, course.back_s, float("inf")
    over_s = gone_s + TAKEN_OVER_S
    first_b_s = min((e.at_s for e in course.at_b if e.at_s > gone_s), default=end_s)
    last_b_s = max((e.at_s for e in course.at_b if e.kind == "taken"), default=back_s)
    return [
        f"before:            {_delays(course, 0.0, gone_s)}",
        f"first 5 s without: {_delays(course, gone_s, over_s)}",
        f"from then on:      {_delays(course, over_s, back_s)}",
        f"after its return:  {_delays(course, back_s, end_s)}",
        f"first mail at the second {first_b_s - gone_s:.2f} s after the end of the first,",
        f"    last {last_b_s - back_s:.2f} s after its return",
        f"replies: {told(course.samples)}",
    ]


def _delays(course: Course, from_s: float, to_s: float) -> str:
    there = first_at_s(sorted(course.at_a + course.at_b, key=lambda e: e.at_s), "accepted")
    accepted = course.accepted_between(from_s, to_s)
    delays_s = [
        there[each.bench_id] - each.answered_s for each in accepted if each.bench_id in there
    ]
    if not delays_s:
        return "nothing"
    p50, p99, most = (percentile(delays_s, part) for part in (0.5, 0.99, 1.0))
    return f"{len(accepted)}, p50 {p50:.3f}, p99 {p99:.3f}, max {most:.2f} s to the 250"
