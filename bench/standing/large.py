"""Forty connections with 25 MB each at once: memory, and what a small message feels of it."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from bench.rig.gateway import Gateway, provider
from bench.rig.latency import Load, Sample, last_waits_ms, percentile
from bench.rig.sink import Sink
from bench.rig.source import send
from bench.standing.bulk import KINDS, BulkSender
from bench.standing.figure import Figure, Result
from bench.standing.latency import summary
from bench.standing.memory import MemoryWatch
from bench.standing.setting import Setting

RATE_PER_S = 20.0
SAMPLES = 300
PROBE_BYTES = 4096
WARM_UP = 200
_PATIENCE_S = 60.0


def large(setting: Setting) -> Result:
    """Memory added by 40 x 25 MB at once; small mail meanwhile."""
    with setting.directory() as directory, Sink() as sink:
        gateway = Gateway(directory / "gateway", providers={"sink": provider(sink.port)})
        with gateway:
            send(gateway.smtp_port, messages=WARM_UP, size_bytes=PROBE_BYTES)
            sink.wait_for(WARM_UP, patience_s=_PATIENCE_S)
            with MemoryWatch(gateway) as watch:
                samples, waves = _probe_during_waves(setting, gateway)
            complaints = _complaints(gateway.log_path)
    return _result(watch, samples, waves, complaints)


@dataclass(frozen=True)
class Wave:
    """All large messages that left at once."""

    accepted: int
    slowest_s: float
    refusals: list[str]


def _probe_during_waves(setting: Setting, gateway: Gateway) -> tuple[list[Sample], list[Wave]]:
    """Probe at a fixed rate; send waves of large messages as long as the probe runs."""
    waves: list[Wave] = []
    with Load(
        gateway.smtp_port, rate_per_s=RATE_PER_S, messages=SAMPLES, size_bytes=PROBE_BYTES
    ) as probe:
        while probe.is_running:
            setting.say(f"wave {len(waves) + 1} of large messages")
            waves.append(_wave(setting, gateway.smtp_port))
        return probe.samples(), waves


def _wave(setting: Setting, port: int) -> Wave:
    """Send all kinds at once and return what came of it."""
    connections = setting.size.bulk_connections // len(KINDS)
    with ExitStack() as stack:
        senders = {
            kind: stack.enter_context(
                BulkSender(port, kind, setting.size.bulk_bytes, connections=connections)
            )
            for kind in KINDS
        }
        told = {kind: sender.wait() for kind, sender in senders.items()}
    return Wave(
        accepted=sum(each.accepted for each in told.values()),
        slowest_s=max(each.slowest_s for each in told.values()),
        refusals=[f"{kind}: {each.other}" for kind, each in told.items() if each.other],
    )


def _complaints(log: Path) -> list[str]:
    lines = log.read_text(errors="replace").splitlines()
    return [line for line in lines if " error: " in line or "Traceback" in line]


def _result(
    watch: MemoryWatch,
    samples: list[Sample],
    waves: list[Wave],
    complaints: list[str],
) -> Result:
    notes = [
        f"memory: {sum(watch.before_bytes.values()) / 1e6:.0f} MB before, at most "
        f"{watch.most_bytes / 1e6:.0f} MB, {watch.samples} samples",
        f"grown at most: {watch.added_by_role()}",
        f"small:     {summary([each.latency_ms for each in samples])}, {len(samples)} samples",
        f"last wait: {summary(last_waits_ms(samples))} (content to 250)",
    ]
    for number, wave in enumerate(waves, 1):
        notes.append(f"wave {number}: {wave.accepted} accepted, slowest {wave.slowest_s:.1f} s")
        notes += [refusal[:76] for refusal in wave.refusals]
    notes += [f"log: {line[-70:]}" for line in complaints[:5]]
    failed = sum(each.code != 250 for each in samples)
    p99_ms = percentile([each.latency_ms for each in samples], 0.99)
    return Result(
        [
            Figure("added memory (PSS)", watch.added_mb, "MB", 200, 100),
            Figure("p99 of a small message", p99_ms, "ms", 200, 50),
            Figure("small ones not answered 250", failed, "", 0, 0),
        ],
        notes,
    )
