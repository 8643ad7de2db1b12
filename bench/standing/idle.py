"""What a gateway without mail costs: memory and processor time."""

from __future__ import annotations

import time

from bench.rig.gateway import Gateway, provider
from bench.rig.sink import Sink
from bench.standing.figure import Figure, Result
from bench.standing.setting import Setting

MB = 1_000_000


class _Unvisited(Gateway):
    is_visited = False


def idle(setting: Setting) -> Result:
    """PSS of all processes, and their share of one core, without any mail or visitor."""
    size = setting.size
    with (
        setting.directory() as directory,
        Sink() as sink,
        _Unvisited(directory, providers={"sink": provider(sink.port)}) as gateway,
    ):
        setting.say(f"settling for {size.settle_s:.0f} s, then watching {size.idle_s:.0f} s")
        time.sleep(size.settle_s)
        begun_s, before_s = time.monotonic(), gateway.cpu_s()
        time.sleep(size.idle_s)
        used_s, watched_s = gateway.cpu_s() - before_s, time.monotonic() - begun_s
        pss_mb = gateway.pss_bytes() / MB
        processes = len(gateway.pids())
    return Result(
        [
            Figure("memory (PSS)", pss_mb, "MB", 180, 120),
            Figure("processor", used_s / watched_s * 100, "%", 1.0, 0.3),
        ],
        [f"{processes} processes; {used_s:.2f} s of processor time in {watched_s:.0f} s"],
    )
