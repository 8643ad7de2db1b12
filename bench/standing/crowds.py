"""A good client beside many that stay for nothing, or are as slow as they may be."""

from __future__ import annotations

import time
from pathlib import Path

from bench.rig.crowd import Crowd
from bench.rig.gateway import Gateway, provider, pss_bytes_of
from bench.rig.latency import Load, Sample, percentile, told
from bench.rig.sink import Sink
from bench.standing.figure import Figure, Result
from bench.standing.latency import summary
from bench.standing.setting import Setting
from relaygw.inbound.time_limits import USUAL

MB = 1_000_000
RATE_PER_S = 50.0
SIZE_BYTES = 10_000
_LATE_S = 5.0  # the gateway looks each second, and a busy machine has others to serve


def idle_connections(setting: Setting) -> Result:
    """Memory of 5,000 idle connections, and how soon a new client has its 250."""
    clients = setting.size.idle_clients
    with (
        setting.directory() as directory,
        Sink() as sink,
        _roomy_gateway(directory, sink.port, clients) as gateway,
    ):
        (front,) = gateway.pids("front")
        _measure(gateway, setting.size.crowd_s / 3)  # a front that has worked is bigger
        before = pss_bytes_of(front)
        setting.say(f"{clients} clients connect")
        with Crowd(gateway.smtp_port, clients=clients, behaviour="idle") as crowd:
            held_mb = (pss_bytes_of(front) - before) / MB
            samples = _measure(gateway, setting.size.crowd_s)
            cut = len(crowd.cuts_s())
    return Result(
        [
            Figure(f"memory of {clients} idle connections", held_mb, "MB", 200, 100),
            Figure("p99 of a new client's 250", _p99_ms(samples), "ms", 1000, 50),
            Figure("idle ones cut before their time", cut, "", 0, 0),
        ],
        _notes(samples),
    )


def slow_clients(setting: Setting) -> Result:
    """A good client beside 2,000 that send a byte each ten seconds, and when those are cut."""
    half = setting.size.slow_clients // 2
    limit_s = {"command": USUAL.command_s, "content": USUAL.content_grace_s}
    with (
        setting.directory() as directory,
        Sink() as sink,
        _roomy_gateway(directory, sink.port, 2 * half) as gateway,
        Crowd(gateway.smtp_port, clients=half, behaviour="command") as command,
        Crowd(gateway.smtp_port, clients=half, behaviour="content") as content,
    ):
        setting.say(f"{2 * half} slow clients are there; they are watched until all are cut")
        began_s = time.monotonic()
        samples = _measure(gateway, max(limit_s.values()) + 2 * _LATE_S)
        watched_s = time.monotonic() - began_s
        cuts_s = {"command": command.cuts_s(), "content": content.cuts_s()}
    left = 2 * half - sum(map(len, cuts_s.values()))
    off = sum(
        not limit_s[how] - 1.0 < cut_s < limit_s[how] + _LATE_S
        for how, cuts in cuts_s.items()
        for cut_s in cuts
    )
    return Result(
        [
            Figure("p99 of a good client", _p99_ms(samples), "ms", 200, 50),
            Figure(f"slow ones left after {watched_s:.0f} s", left, "", 0, 0),
            Figure("cut at another time than the limit", off, "", 0, 0),
        ],
        [
            *_notes(samples),
            *(
                f"cut in {how}: {len(cuts)} at {min(cuts, default=0):.0f}-"
                f"{max(cuts, default=0):.0f} s, limit {limit_s[how]:.0f} s"
                for how, cuts in cuts_s.items()
            ),
        ],
    )


def _roomy_gateway(directory: Path, sink_port: int, clients: int) -> Gateway:
    """Return a gateway with room for all of them and the good one."""
    gateway = Gateway(directory, providers={"sink": provider(sink_port)})
    (listener,) = gateway.settings["listeners"]
    listener["max_connections"] = clients + 500
    return gateway


def _measure(gateway: Gateway, load_s: float) -> list[Sample]:
    messages = int(load_s * RATE_PER_S)
    with Load(
        gateway.smtp_port, rate_per_s=RATE_PER_S, messages=messages, size_bytes=SIZE_BYTES
    ) as load:
        return load.samples()


def _p99_ms(samples: list[Sample]) -> float:
    """Return the latency that 99 of 100 messages do not exceed; without a 250 it is endless."""
    return percentile(
        [each.latency_ms if each.code == 250 else float("inf") for each in samples], 0.99
    )


def _notes(samples: list[Sample]) -> list[str]:
    return [
        f"good client: {summary([each.latency_ms for each in samples])}",
        f"replies: {told(samples)}; {RATE_PER_S:.0f} messages of {SIZE_BYTES} bytes a second",
    ]
