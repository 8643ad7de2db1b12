"""A start with a long queue: how soon it answers and delivers, and what memory it takes."""

from __future__ import annotations

import socket
import statistics
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from bench.rig.filling import Mail
from bench.rig.gateway import Gateway, provider
from bench.standing.figure import Figure, Result
from bench.standing.setting import Setting
from bench.standing.stamping_sink import StampingSink
from bench.standing.template import install, make_template

CONNECTIONS = 10
_POLL_S = 0.002
_SAMPLE_S = 0.25
_PATIENCE_S = 60.0


@dataclass(frozen=True)
class Run:
    """One start; seconds count from just before the process is made."""

    greeting_s: float
    delivery_s: float
    peak_mb: float
    delivered: int


def restart(setting: Setting) -> Result:
    """From the start of the process to the first 220 and the first delivery."""
    half = setting.size.queued // 2
    with setting.directory() as directory:
        template = make_template(
            setting,
            Gateway(directory / "template", providers={"sink": provider(1)}),
            Mail(half, "incoming", "default", oldest_s=7200.0, newest_s=60.0),
            Mail(half, "deferred", "default", provider="sink", oldest_s=7200.0, due_in_s=-60.0),
        )
        runs = []
        for number in range(setting.size.restarts):
            setting.say(f"start {number + 1} of {setting.size.restarts}")
            runs.append(_run(setting, template))
    middle = statistics.median
    return Result(
        [
            Figure("first 220", middle(run.greeting_s for run in runs), "s", 2.0, 1.0),
            Figure("first delivery", middle(run.delivery_s for run in runs), "s", 5.0, 2.0),
            Figure("memory (PSS), peak", middle(run.peak_mb for run in runs), "MB", 250, 200),
        ],
        [
            f"run {number}: 220 {run.greeting_s:.2f} s, delivery {run.delivery_s:.2f} s, "
            f"{run.peak_mb:.0f} MB, {run.delivered} sent in {setting.size.watch_s:.0f} s"
            for number, run in enumerate(runs, 1)
        ],
    )


def _run(setting: Setting, template: Path) -> Run:
    with setting.directory() as directory, StampingSink(directory / "stamps") as sink:
        upstream = provider(sink.port, max_connections=CONNECTIONS)
        gateway = Gateway(directory / "gateway", providers={"sink": upstream})
        install(template, gateway)
        greeting: list[float] = []
        watcher = threading.Thread(target=_watch, args=(gateway.smtp_port, greeting))
        begun_s = time.monotonic()
        watcher.start()
        with gateway:
            peak_bytes = 0
            while time.monotonic() < begun_s + setting.size.watch_s:
                peak_bytes = max(peak_bytes, gateway.pss_bytes())
                time.sleep(_SAMPLE_S)
            watcher.join()
            stamps = sink.read()
    if not greeting or not stamps:
        raise RuntimeError("no greeting or no delivery in the time of the watch")
    return Run(greeting[0] - begun_s, stamps[0][0] - begun_s, peak_bytes / 1e6, len(stamps))


def _watch(port: int, greeting: list[float]) -> None:
    """Note when the first 220 arrives."""
    deadline_s = time.monotonic() + _PATIENCE_S
    while time.monotonic() < deadline_s:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=_PATIENCE_S) as client:
                if client.recv(3) == b"220":
                    greeting.append(time.monotonic())
                    return
        except OSError:
            time.sleep(_POLL_S)
