"""What counting by source, guard, silence and storms cost: throughput with all on against all off.

Each mail has a recipient of its own, so that none of it is a storm; the guard alerts.
"""

from __future__ import annotations

import time
from typing import Any

from bench.rig.gateway import Gateway, provider
from bench.rig.sink import Sink
from bench.rig.source import send
from bench.standing.all_feedback import Run, compared
from bench.standing.figure import Result
from bench.standing.setting import Setting
from bench.standing.webhooks import BODY_BYTES, CONNECTIONS, PATIENCE_S, WARM_UP

_OFF: dict[str, Any] = {
    "guard": {"action": "off"},
    "silence": {"enabled": False},
    "storms": {"action": "off"},
}
_ON: dict[str, Any] = {
    "guard": {"action": "alert"},
    "silence": {"enabled": True},
    "storms": {"action": "hold"},
    "duplicates": "once",
}


def guard(setting: Setting) -> Result:
    """Throughput with sources, guard, silence and storms against none of them."""
    return compared(setting, lambda is_on: _run(setting, _ON if is_on else _OFF))


def _run(setting: Setting, sections: dict[str, Any]) -> Run:
    burst = setting.size.burst
    with setting.directory() as root, Sink() as sink:
        providers = {"sink": provider(sink.port, max_connections=CONNECTIONS)}
        with Gateway(root / "gateway", providers=providers, **sections) as gateway:
            _send(gateway, WARM_UP)
            sink.wait_for(WARM_UP, patience_s=PATIENCE_S)
            used_s, begun_s = gateway.cpu_s(), time.monotonic()
            sent_s = _send(gateway, burst)
            ended_s = sink.wait_for(WARM_UP + burst, patience_s=PATIENCE_S)
            cpu_us = (gateway.cpu_s() - used_s) / burst * 1e6
    return Run(burst / sent_s, burst / (ended_s - begun_s), 0, cpu_us)


def _send(gateway: Gateway, messages: int) -> float:
    return send(gateway.smtp_port, messages=messages, size_bytes=BODY_BYTES)
