"""How long an order mail takes while much other mail is queued: promotional, or another shop's."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.rig.filling import Mail
from bench.rig.gateway import Gateway, provider
from bench.rig.latency import Load, Sample, percentile
from bench.rig.ports import free_port
from bench.standing.fairness_shops import fairness_shops
from bench.standing.figure import Figure, Result
from bench.standing.setting import Setting
from bench.standing.stamping_sink import StampingSink
from bench.standing.template import make_template

RATE_PER_S = 10.0
SIZE_BYTES = 4096
CONNECTIONS = 10
SINK_DELAY_S = 0.02
_PATIENCE_S = 60.0


@dataclass(frozen=True)
class Situation:
    """Where the promotional mail goes, and what order mail may take beside it."""

    title: str
    promotional_provider: str
    flowing: int  # promotional messages seen at the sink before the measurement begins
    sink_delay_s: float
    at_least_ms: float
    aim_ms: float


SITUATIONS = (
    Situation("(a) their provider is dead", "dead", 0, 0.0, 200, 100),
    Situation("(b) same provider, at its limit", "sink", 100, SINK_DELAY_S, 500, 200),
)


def fairness(setting: Setting) -> Result:
    """From the 250 to the provider, orders beside 100,000 promotions, or another shop's burst."""
    results = [_situation(setting, situation) for situation in SITUATIONS]
    results.append(fairness_shops(setting))
    return Result(
        [figure for result in results for figure in result.figures],
        [note for result in results for note in result.notes],
    )


def _situation(setting: Setting, situation: Situation) -> Result:
    setting.say(situation.title)
    with (
        setting.directory() as directory,
        StampingSink(directory / "stamps", delay_s=situation.sink_delay_s) as sink,
    ):
        gateway = _gateway(directory, sink.port, situation)
        queued = Mail(
            setting.size.queued,
            "incoming",
            "promo",
            stream="promotional",
            sender_domain="promo.bench.test",
            oldest_s=3600.0,
            newest_s=60.0,
        )
        make_template(setting, gateway, queued)
        with gateway:
            _wait_until_it_flows(sink, situation.flowing)
            before = len(sink.read())
            begun_s = time.monotonic()
            samples = _load(setting, gateway)
            taken_s = time.monotonic() - begun_s
            stamps = _stamps(sink, samples)
    promotional = len(stamps) - before - len(samples)
    return _result(situation, samples, stamps, promotional / taken_s)


def _gateway(directory: Path, port: int, situation: Situation) -> Gateway:
    promotional: dict[str, Any] = {
        "name": "promo",
        "sender": ["@promo.bench.test"],
        "stream": "promotional",
        "providers": [situation.promotional_provider],
    }
    orders = {"name": "orders", "stream": "transactional", "providers": ["sink"]}
    providers = {"sink": provider(port, max_connections=CONNECTIONS)}
    if situation.promotional_provider == "dead":
        providers["dead"] = provider(free_port(), max_connections=CONNECTIONS)
    return Gateway(directory / "gateway", providers=providers, routes=[promotional, orders])


def _wait_until_it_flows(sink: StampingSink, count: int) -> None:
    deadline_s = time.monotonic() + _PATIENCE_S
    while len(sink.read()) < count:
        if time.monotonic() > deadline_s:
            raise TimeoutError("promotional mail does not flow")
        time.sleep(0.1)


def _load(setting: Setting, gateway: Gateway) -> list[Sample]:
    messages = int(setting.size.load_s * RATE_PER_S)
    with Load(
        gateway.smtp_port, rate_per_s=RATE_PER_S, messages=messages, size_bytes=SIZE_BYTES
    ) as load:
        samples = load.samples()
    if any(each.code != 250 for each in samples):
        raise RuntimeError("order mail was not accepted")
    return samples


def _stamps(sink: StampingSink, samples: list[Sample]) -> list[tuple[float, str]]:
    """Wait until all of `samples` are at the sink and return everything that came by then."""
    deadline_s = time.monotonic() + _PATIENCE_S
    wanted = {each.bench_id for each in samples}
    while True:
        stamps = sink.read()
        if wanted <= {bench_id for _, bench_id in stamps}:
            return stamps
        if time.monotonic() > deadline_s:
            raise TimeoutError("order mail does not reach the provider")
        time.sleep(0.05)


def _result(
    situation: Situation,
    samples: list[Sample],
    stamps: list[tuple[float, str]],
    promotional_per_s: float,
) -> Result:
    arrived_s = {bench_id: at_s for at_s, bench_id in reversed(stamps)}  # the first of each
    taken_ms = [(arrived_s[each.bench_id] - each.answered_s) * 1000 for each in samples]
    p50, p99, most = (percentile(taken_ms, share) for share in (0.5, 0.99, 1.0))
    accept_ms = percentile([each.latency_ms for each in samples], 0.99)
    return Result(
        [Figure(f"p99 {situation.title}", p99, "ms", situation.at_least_ms, situation.aim_ms)],
        [
            f"{situation.title}: p50 {p50:.0f}, p99 {p99:.0f}, max {most:.0f} ms;",
            f"    {len(samples)} samples; promotional {promotional_per_s:.0f}/s; "
            f"accept p99 {accept_ms:.0f} ms",
        ],
    )
