"""Throughput with a million old messages in the database against an empty one."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from pathlib import Path

from bench.rig.filling import Mail
from bench.rig.gateway import Gateway, provider
from bench.rig.latency import Load
from bench.rig.sink import Sink
from bench.rig.source import send
from bench.standing.figure import Figure, Result
from bench.standing.latency import summary
from bench.standing.setting import Setting
from bench.standing.template import install, make_template

BODY_BYTES = 4096
PROBE_PER_S = 20.0
CONNECTIONS = 10
WARM_UP = 200
QUIET_S = 5.0  # what a start itself does is over by then
PATIENCE_S = 60.0


@dataclass(frozen=True)
class Run:
    """Messages a second: until the last 250, and until the last one was at the provider."""

    accept_per_s: float
    through_per_s: float


def big_database(setting: Setting) -> Result:
    """Throughput with a full database against an empty one."""
    size = setting.size
    with setting.directory() as directory:
        full = make_template(
            setting,
            Gateway(directory / "full", providers={"sink": provider(1)}),
            Mail(size.finished, "finished", "default", provider="sink"),
            Mail(
                size.deferred,
                "deferred",
                "default",
                provider="sink",
                oldest_s=86400.0,
                due_in_s=20 * 86400.0,
            ),
        )
        empty = make_template(
            setting, Gateway(directory / "empty", providers={"sink": provider(1)})
        )
        minute = _latency(setting, full)
        pairs = [_pair(setting, number, empty, full) for number in range(size.rounds)]
    title = f"small mail for {size.housekeeping_s:.0f} s, full"
    return Result(_figures(pairs), [*_notes(pairs), f"{title}: {summary(minute)}"])


def _pair(setting: Setting, number: int, empty: Path, full: Path) -> tuple[Run, Run]:
    """Run both, the one that begins taking turns."""
    order = [("empty", empty), ("full", full)]
    runs = {}
    for name, template in order if number % 2 == 0 else reversed(order):
        run = _run(setting, template)
        setting.say(
            f"round {number + 1}, {name}: {run.accept_per_s:.0f} accepted, "
            f"{run.through_per_s:.0f} end to end a second"
        )
        runs[name] = run
    return runs["empty"], runs["full"]


def _run(setting: Setting, template: Path) -> Run:
    burst = setting.size.burst
    with setting.directory() as root, Sink() as sink:
        upstream = provider(sink.port, max_connections=CONNECTIONS)
        gateway = Gateway(root / "gateway", providers={"sink": upstream})
        install(template, gateway)
        with gateway:
            send(gateway.smtp_port, messages=WARM_UP, size_bytes=BODY_BYTES)
            sink.wait_for(WARM_UP, patience_s=PATIENCE_S)
            time.sleep(QUIET_S)
            begun_s = time.monotonic()
            sent_s = send(gateway.smtp_port, messages=burst, size_bytes=BODY_BYTES)
            ended_s = sink.wait_for(WARM_UP + burst, patience_s=PATIENCE_S)
    return Run(burst / sent_s, burst / (ended_s - begun_s))


def _latency(setting: Setting, template: Path) -> list[float]:
    """Return latencies of a light load for longer than a minute: housekeeping is in it."""
    seconds = setting.size.housekeeping_s
    setting.say(f"{PROBE_PER_S:.0f} msg/s into the full database for {seconds:.0f} s")
    with setting.directory() as root, Sink() as sink:
        upstream = provider(sink.port, max_connections=CONNECTIONS)
        gateway = Gateway(root / "gateway", providers={"sink": upstream})
        install(template, gateway)
        messages = int(seconds * PROBE_PER_S)
        with (
            gateway,
            Load(
                gateway.smtp_port,
                rate_per_s=PROBE_PER_S,
                messages=messages,
                size_bytes=BODY_BYTES,
            ) as load,
        ):
            return [each.latency_ms for each in load.samples()]


def _figures(pairs: list[tuple[Run, Run]]) -> list[Figure]:
    accept = statistics.median(full.accept_per_s / empty.accept_per_s for empty, full in pairs)
    through = statistics.median(full.through_per_s / empty.through_per_s for empty, full in pairs)
    return [
        Figure("accept, full / empty", accept, "", 0.85, 0.95, is_more_better=True),
        Figure("end to end, full / empty", through, "", 0.85, 0.95, is_more_better=True),
    ]


def _notes(pairs: list[tuple[Run, Run]]) -> list[str]:
    return ["messages a second:   accept empty   full    end to end empty   full"] + [
        f"  round {number}            {empty.accept_per_s:12.0f} {full.accept_per_s:6.0f}"
        f"       {empty.through_per_s:12.0f} {full.through_per_s:6.0f}"
        for number, (empty, full) in enumerate(pairs, 1)
    ]
