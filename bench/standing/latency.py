"""Latency of one SMTP transaction with 50 kB at 100 a second, with and without a provider."""

from __future__ import annotations

from pathlib import Path

from bench.rig.gateway import Gateway, provider
from bench.rig.latency import Load, Sample, last_waits_ms, percentile, told
from bench.rig.machine import sync_times
from bench.rig.ports import free_port
from bench.rig.sink import Sink
from bench.standing.figure import Figure, Result
from bench.standing.setting import Setting
from bench.standing.stamping_sink import StampingSink

RATE_PER_S = 100.0
SIZE_BYTES = 50_000
CONNECTIONS = 10
AT_LEAST_MS, AIM_MS = 20.0, 10.0


def latency_delivering(setting: Setting) -> Result:
    """From connect to the 250, 50 kB, 100 msg/s, while delivery runs."""
    with setting.directory() as directory, Sink() as sink:
        return _measure(setting, directory, sink.port, sink)


def latency_provider_down(setting: Setting) -> Result:
    """The same while the provider's port is closed, so that mail piles up."""
    with setting.directory() as directory:
        return _measure(setting, directory, free_port(), None)


def _measure(setting: Setting, directory: Path, port: int, sink: Sink | None) -> Result:
    floor = _floor(setting, directory)
    sync_before = sync_times(directory)
    upstream = provider(port, max_connections=CONNECTIONS)
    with Gateway(directory / "gateway", providers={"sink": upstream}) as gateway:
        setting.say(f"{setting.size.load_s:.0f} s of {SIZE_BYTES} bytes at {RATE_PER_S:.0f} msg/s")
        before_s = gateway.cpu_s()
        samples = _load(gateway.smtp_port, setting.size.load_s)
        used_s = gateway.cpu_s() - before_s
        delivered = sink.count if sink else 0
    notes = [
        f"gateway:   {summary([each.latency_ms for each in samples])}",
        f"last wait: {summary(last_waits_ms(samples))} (content to 250)",
        f"floor:     {summary([each.latency_ms for each in floor])} (client, bare server)",
        f"replies:   {told(samples)}",
        f"fdatasync: {sync_before} before (appends of 4 KiB)",
        f"           {sync_times(directory)} after",
        f"processor time of all roles: {used_s / len(samples) * 1000:.1f} ms a message",
        f"delivered when the last answer was in: {delivered} of {len(samples)}",
    ]
    failed = sum(each.code != 250 for each in samples)
    p99_ms = percentile([each.latency_ms for each in samples], 0.99)
    return Result(
        [
            Figure("p99 of a transaction", p99_ms, "ms", AT_LEAST_MS, AIM_MS),
            Figure("not answered 250", failed, "", 0, 0),
        ],
        notes,
    )


def _load(port: int, load_s: float) -> list[Sample]:
    messages = int(load_s * RATE_PER_S)
    with Load(port, rate_per_s=RATE_PER_S, messages=messages, size_bytes=SIZE_BYTES) as load:
        return load.samples()


def _floor(setting: Setting, directory: Path) -> list[Sample]:
    setting.say("the client's own share, against the simplest server")
    with StampingSink(directory / "stamps") as server:
        return _load(server.port, setting.size.load_s / 3)


def summary(values_ms: list[float]) -> str:
    """Return the distribution as text."""
    if not values_ms:
        return "nothing"
    parts = [f"{name} {percentile(values_ms, share):.1f}" for name, share in _SHARES.items()]
    return ", ".join(parts) + " ms"


_SHARES = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "max": 1.0}
