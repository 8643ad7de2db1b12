"""Gateways that differ in one thing, all up at once, which take short turns.

The speed of a machine that others share moves by a fifth within minutes. Turns of half a second,
each kind's beside the others', differ less; a figure is the median of what the turns of a round
differ by.
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.rig.gateway import Gateway, provider
from bench.rig.processor_time import ALL, ProcessorTime
from bench.rig.sink import Sink
from bench.rig.source import send
from bench.standing.figure import Figure
from bench.standing.setting import Setting

BODY_BYTES = 4096
CONNECTIONS = 10
WARM_UP = 500
PATIENCE_S = 60.0
_SETTLE_S = 0.3  # until outcomes are recorded, and who waits in a thread has done its part


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A configuration; with `told`, a turn ends when so many events have come for all mail."""

    provider: Mapping[str, Any] = field(default_factory=dict)
    sections: Mapping[str, Any] = field(default_factory=dict)
    program: tuple[str, ...] = ("-m", "relaygw")
    told: Callable[[], int] | None = None


@dataclass(frozen=True)
class Turn:
    """Messages a second until the last 250 and until the last one was at the provider.

    `processor_us` is the processor time a message by process, and of ALL.
    """

    accept_per_s: float
    through_per_s: float
    processor_us: Mapping[str, float]


class _Contestant:
    """A gateway that runs, with a provider of its own."""

    def __init__(self, kind: Kind, place: Path, stack: ExitStack) -> None:
        self._kind = kind
        self._sent = 0
        self._sink = stack.enter_context(Sink())
        usual = {"max_connections": CONNECTIONS}
        providers = {"sink": provider(self._sink.port, **usual, **kind.provider)}
        self._gateway = Gateway(place, providers=providers, **kind.sections)
        self._gateway.program = kind.program
        stack.enter_context(self._gateway)

    def turn(self, messages: int) -> Turn:
        self._sent += messages
        with ProcessorTime(self._gateway.pid) as processor:
            begun_s = time.monotonic()
            sent_s = send(self._gateway.smtp_port, messages=messages, size_bytes=BODY_BYTES)
            ended_s = self._sink.wait_for(self._sent, patience_s=PATIENCE_S)
            self._wait_until_told()
            time.sleep(_SETTLE_S)
        used_us = {name: used_s / messages * 1e6 for name, used_s in processor.used_s.items()}
        return Turn(messages / sent_s, messages / (ended_s - begun_s), used_us)

    def _wait_until_told(self) -> None:
        deadline_s = time.monotonic() + PATIENCE_S
        while self._kind.told is not None and self._kind.told() < self._sent:
            if time.monotonic() > deadline_s:
                raise RuntimeError(f"{self._kind.told()} of {self._sent} events")
            time.sleep(0.05)


def side_by_side(setting: Setting, kinds: Mapping[str, Kind]) -> dict[str, list[Turn]]:
    """Return the turns of each kind; those of a round stand at the same place."""
    turns: dict[str, list[Turn]] = {name: [] for name in kinds}
    with setting.directory() as root, ExitStack() as stack:
        running = {
            name: _Contestant(kind, root / f"gateway-{number}", stack)
            for number, (name, kind) in enumerate(kinds.items())
        }
        for one in running.values():
            one.turn(WARM_UP)
        for number in range(setting.size.turns):
            for name in random.sample(list(kinds), len(kinds)):
                turns[name].append(running[name].turn(setting.size.turn_messages))
            told = ", ".join(f"{name} {turns[name][-1].through_per_s:.0f}/s" for name in kinds)
            setting.say(f"round {number + 1} of {setting.size.turns}: {told}")
    return turns


def shares(
    turns: Mapping[str, Sequence[Turn]],
    one: str,
    base: str,
    *,
    at_least: float | None = None,
    aim: float | None = None,
) -> list[Figure]:
    """Return what is left of the speed of `base`, and its processor time against the other's."""
    pairs = list(zip(turns[one], turns[base], strict=True))
    accept = statistics.median(a.accept_per_s / b.accept_per_s for a, b in pairs)
    through = statistics.median(a.through_per_s / b.through_per_s for a, b in pairs)
    cpu = statistics.median(b.processor_us[ALL] / a.processor_us[ALL] for a, b in pairs)
    return [
        Figure(f"accept, {one} / {base}", accept, "", at_least, aim, is_more_better=True),
        Figure(f"end to end, {one} / {base}", through, "", at_least, aim, is_more_better=True),
        Figure(f"processor time a message, {base} / {one}", cpu, "", is_more_better=True),
    ]


def spread(turns: Mapping[str, Sequence[Turn]]) -> list[str]:
    """Return a line a kind: its median speeds with their quartiles, its processor time."""
    lines = ["              accept/s (half of them)  end to end/s (half)    processor us"]
    for name, its in turns.items():
        accept = _middle([one.accept_per_s for one in its])
        through = _middle([one.through_per_s for one in its])
        cpu = statistics.median(one.processor_us[ALL] for one in its)
        lines.append(f"  {name:12}{accept}  {through}  {cpu:7.0f}")
    return lines


def _middle(values: Sequence[float]) -> str:
    low, middle, high = statistics.quantiles(values, n=4) if len(values) > 1 else [*values] * 3
    return f"{middle:6.0f} ({low:5.0f} to {high:5.0f})"
