"""What logging, metrics, history and alerts cost: throughput with all of them against none."""

from __future__ import annotations

import statistics
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from bench.rig.gateway import Gateway, free_port, provider
from bench.rig.sink import Sink
from bench.rig.source import send
from bench.standing.figure import Figure, Result
from bench.standing.setting import Setting

BODY_BYTES = 4096
CONNECTIONS = 10
WARM_UP = 200
SCRAPE_EACH_S = 5.0  # Prometheus' own default is a minute
PATIENCE_S = 60.0
UNOBSERVED = ("-m", "bench.rig.unobserved")


@dataclass(frozen=True)
class Run:
    """Messages a second: until the last 250, and until the last one was at the provider."""

    accept_per_s: float
    through_per_s: float
    scrapes: int = 0


def observing(setting: Setting) -> Result:
    """Throughput with log, metrics, history and alerts against none of them."""
    pairs = [_pair(setting, number) for number in range(setting.size.rounds)]
    accept = statistics.median(on.accept_per_s / off.accept_per_s for off, on in pairs)
    through = statistics.median(on.through_per_s / off.through_per_s for off, on in pairs)
    figures = [
        Figure("accept, observed / not", accept, "", 0.9, 0.95, is_more_better=True),
        Figure("end to end, observed / not", through, "", 0.9, 0.95, is_more_better=True),
    ]
    notes = ["messages a second:   accept  none     all    end to end  none     all  scrapes"] + [
        f"  round {number}            {off.accept_per_s:12.0f} {on.accept_per_s:7.0f}"
        f"     {off.through_per_s:11.0f} {on.through_per_s:7.0f} {on.scrapes:8}"
        for number, (off, on) in enumerate(pairs, 1)
    ]
    return Result(figures, notes)


def _pair(setting: Setting, number: int) -> tuple[Run, Run]:
    """Run both, the one that begins taking turns."""
    order = [False, True] if number % 2 == 0 else [True, False]
    runs = {is_observed: _run(setting, is_observed=is_observed) for is_observed in order}
    for is_observed in order:
        run = runs[is_observed]
        setting.say(
            f"round {number + 1}, {'all' if is_observed else 'none'}: {run.accept_per_s:.0f} "
            f"accepted, {run.through_per_s:.0f} end to end a second"
        )
    return runs[False], runs[True]


def _run(setting: Setting, *, is_observed: bool) -> Run:
    burst = setting.size.burst
    metrics_port = free_port()
    more = {
        "metrics": {"bind": f"127.0.0.1:{metrics_port}"},
        "alerts": [{"webhook": f"plain:http://127.0.0.1:{free_port()}/"}],
    }
    with setting.directory() as root, Sink() as sink:
        gateway = Gateway(
            root / "gateway",
            providers={"sink": provider(sink.port, max_connections=CONNECTIONS)},
            **(more if is_observed else {}),
        )
        gateway.program = gateway.program if is_observed else UNOBSERVED
        with gateway, _scraped(metrics_port if is_observed else None) as scrapes:
            send(gateway.smtp_port, messages=WARM_UP, size_bytes=BODY_BYTES)
            sink.wait_for(WARM_UP, patience_s=PATIENCE_S)
            begun_s = time.monotonic()
            sent_s = send(gateway.smtp_port, messages=burst, size_bytes=BODY_BYTES)
            ended_s = sink.wait_for(WARM_UP + burst, patience_s=PATIENCE_S)
    return Run(burst / sent_s, burst / (ended_s - begun_s), len(scrapes))


@contextmanager
def _scraped(port: int | None) -> Iterator[list[int]]:
    """Read the metrics as Prometheus does, within a with block; yields the sizes of the answers."""
    sizes: list[int] = []
    is_over = threading.Event()

    def scrape() -> None:
        while not is_over.wait(0 if not sizes else SCRAPE_EACH_S):
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as answer:
                sizes.append(len(answer.read()))

    thread = threading.Thread(target=scrape, daemon=True)
    if port is not None:
        thread.start()
    try:
        yield sizes
    finally:
        is_over.set()
        if port is not None:
            thread.join()
