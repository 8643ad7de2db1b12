"""How long one shop's orders take while another shop's burst waits, both of one stream.

The provider is limited by rate. Clients take turns, so that an order should wait for a few
messages of the burst, not for all of it.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

from bench.rig.gateway import Gateway, provider
from bench.rig.latency import Load, Sample
from bench.rig.postgres import postgres_queue
from bench.standing.figure import Figure, Result
from bench.standing.setting import Setting
from bench.standing.stamping_sink import StampingSink

RATE_PER_S = 50
CONNECTIONS = 5
ORDERS = 10
ORDERS_PER_S = 2.0
SIZE_BYTES = 4096
BURST_PER_S = 400.0
OTHER_SHOP = "127.0.1.1"  # an address in another network than 127.0.0.1
_PATIENCE_S = 120.0


@dataclass(frozen=True)
class Round:
    """How long each order waited from its 250 to the provider, without the burst and beside it."""

    alone_ms: list[float]
    beside_ms: list[float]
    burst_left: int  # of the burst, when the last order was there


def fairness_shops(setting: Setting) -> Result:
    """Orders of one shop, alone and beside a burst of another's, on both databases."""
    figures, notes = [], []
    for name, queue in (("SQLite", _sqlite), ("PostgreSQL", _postgres)):
        rounds = []
        for number in range(setting.size.rounds):
            setting.say(f"(c) another shop's burst, {name}, {number + 1}/{setting.size.rounds}")
            rounds.append(_round(setting, queue))
        alone = statistics.median(ms for each in rounds for ms in each.alone_ms)
        beside = statistics.median(ms for each in rounds for ms in each.beside_ms)
        worst = max(ms for each in rounds for ms in each.beside_ms)
        figures += [
            Figure(f"(c) order alone, {name}", alone, "ms"),
            Figure(f"(c) order beside a burst, {name}", beside, "ms"),
        ]
        notes += [
            f"(c) {name}: {setting.size.burst // 2} of another shop at {RATE_PER_S}/s;",
            f"    max {worst:.0f} ms, least left of it: {min(r.burst_left for r in rounds)}",
        ]
    return Result(figures, notes)


@contextmanager
def _sqlite() -> Iterator[str | None]:
    yield None


@contextmanager
def _postgres() -> Iterator[str | None]:
    with postgres_queue() as url:
        yield url


def _round(setting: Setting, queue: Callable[[], AbstractContextManager[str | None]]) -> Round:
    upstream = {"rate": f"{RATE_PER_S}/s", "max_connections": CONNECTIONS}
    with (
        setting.directory() as directory,
        StampingSink(directory / "stamps") as sink,
        queue() as url,
        Gateway(
            directory / "gateway",
            providers={"sink": provider(sink.port, **upstream)},
            **({"queue": {"url": url}} if url else {}),
        ) as gateway,
    ):
        alone = _orders(gateway, sink, "alone")
        burst = setting.size.burst // 2
        _send(gateway, burst, BURST_PER_S, "burst")
        beside = _orders(gateway, sink, "beside")
        gone = sum(bench_id.startswith("burst") for _, bench_id in sink.read())
    return Round(alone, beside, burst - gone)


def _send(
    gateway: Gateway, count: int, rate_per_s: float, prefix: str, source: str = ""
) -> list[Sample]:
    with Load(
        gateway.smtp_port,
        rate_per_s=rate_per_s,
        messages=count,
        size_bytes=SIZE_BYTES,
        prefix=prefix,
        source=source,
    ) as load:
        samples = load.samples()
    if any(each.code != 250 for each in samples):
        raise RuntimeError(f"mail {prefix} was not accepted")
    return samples


def _orders(gateway: Gateway, sink: StampingSink, prefix: str) -> list[float]:
    """Return how long each order took from its 250 to the provider."""
    samples = _send(gateway, ORDERS, ORDERS_PER_S, prefix, OTHER_SHOP)
    wanted = {each.bench_id for each in samples}
    deadline_s = time.monotonic() + _PATIENCE_S
    while True:
        there = {bench_id: at_s for at_s, bench_id in sink.read() if bench_id in wanted}
        if len(there) == len(wanted):
            break
        if time.monotonic() > deadline_s:
            raise TimeoutError("orders do not reach the provider")
        time.sleep(0.05)
    return [max(0.0, there[each.bench_id] - each.answered_s) * 1000 for each in samples]
