"""What all that follows a provider's 250 costs: throughput with all of it on against all off.

On are notices to senders, a listener for events with the mark in each mail, suppression, a webhook
for each delivered mail to a receiver on this machine, and an idempotency key in each mail.
"""

from __future__ import annotations

import base64
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from bench.rig.gateway import Gateway, free_port, provider
from bench.rig.sink import Sink
from bench.rig.source import send
from bench.standing.figure import Figure, Result
from bench.standing.setting import Setting
from bench.standing.webhooks import BODY_BYTES, CONNECTIONS, PATIENCE_S, SECRET, WARM_UP, Shop

WITHOUT_LOGIN = ("-m", "bench.rig.without_login")
_OFF = {"suppression": {"transactional": "off", "promotional": "off"}}


@dataclass(frozen=True)
class Run:
    """Messages a second, as in `webhooks`, and the processor time of all roles for one."""

    accept_per_s: float
    through_per_s: float
    told: int
    cpu_us: float


def all_feedback(setting: Setting) -> Result:
    """Throughput with notices, events, suppression, webhooks and keys against none of them."""
    return compared(setting, lambda is_on: _run(setting, is_on=is_on))


def compared(setting: Setting, run: Callable[[bool], Run]) -> Result:
    """Return what a run with something on costs against one without it, in pairs."""
    pairs = []
    for number in range(setting.size.rounds):
        order = [False, True] if number % 2 == 0 else [True, False]
        runs = {is_on: run(is_on) for is_on in order}
        pairs.append((runs[False], runs[True]))
        off, on = pairs[-1]
        setting.say(
            f"round {number + 1}: accepted {off.accept_per_s:.0f} off, {on.accept_per_s:.0f} on; "
            f"end to end {off.through_per_s:.0f} off, {on.through_per_s:.0f} on; processor "
            f"{off.cpu_us:.0f} us off, {on.cpu_us:.0f} us on; {on.told} told"
        )
    figures = []
    for what, name in (("accept", "accept_per_s"), ("end to end", "through_per_s")):
        share = statistics.median(getattr(on, name) / getattr(off, name) for off, on in pairs)
        figures.append(Figure(f"{what}, all on / off", share, "", 0.95, 0.98, is_more_better=True))
    # of the processor alone, which others on the machine change less than the speed
    cpu = statistics.median(off.cpu_us / on.cpu_us for off, on in pairs)
    figures.append(Figure("processor time a message, off / on", cpu, "", is_more_better=True))
    notes = ["messages a second: accept off   on   end to end off   on   cpu us off   on"] + [
        f"  round {number}            {off.accept_per_s:8.0f} {on.accept_per_s:5.0f}"
        f"     {off.through_per_s:8.0f} {on.through_per_s:5.0f}"
        f"    {off.cpu_us:7.0f} {on.cpu_us:5.0f}"
        for number, (off, on) in enumerate(pairs, 1)
    ]
    return Result(figures, notes)


def _run(setting: Setting, *, is_on: bool) -> Run:
    burst = setting.size.burst
    with setting.directory() as root, Sink() as sink, Shop() as shop:
        of_provider, sections = _all_on(shop.url) if is_on else ({}, _OFF)
        # the preset has a rate, which is less than a bench sends: both have one that is no limit
        usual = {"max_connections": CONNECTIONS, "rate": "100000/s"}
        providers = {"sink": provider(sink.port, **usual, **of_provider)}
        gateway = Gateway(root / "gateway", providers=providers, **sections)
        gateway.program = WITHOUT_LOGIN
        with gateway:
            send(gateway.smtp_port, messages=WARM_UP, size_bytes=BODY_BYTES)
            sink.wait_for(WARM_UP, patience_s=PATIENCE_S)
            used_s, begun_s = gateway.cpu_s(), time.monotonic()
            sent_s = send(gateway.smtp_port, messages=burst, size_bytes=BODY_BYTES)
            ended_s = sink.wait_for(WARM_UP + burst, patience_s=PATIENCE_S)
            deadline_s = time.monotonic() + PATIENCE_S
            while is_on and shop.events < WARM_UP + burst:
                if time.monotonic() > deadline_s:
                    raise RuntimeError(f"{shop.events} of {WARM_UP + burst} events")
                time.sleep(0.05)
            cpu_us = (gateway.cpu_s() - used_s) / burst * 1e6
    return Run(burst / sent_s, burst / (ended_s - begun_s), shop.events, cpu_us)


def _all_on(shop_url: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what is on at the provider, and in the rest of the configuration."""
    secret = "whsec_" + base64.b64encode(b"k" * 24).decode()
    of_provider = {
        "preset": "resend",  # its mark and its key
        "events": {"secret": f"plain:{secret}"},
    }
    sections: dict[str, Any] = {
        "bounces": {"to": "sender"},
        "retry": {"warn_after": "4h"},
        "events": {"bind": f"127.0.0.1:{free_port()}"},
        "suppression": {"transactional": "block", "promotional": "block"},
        "webhooks": [{"url": shop_url, "secret": SECRET, "on": ["delivered"]}],
    }
    return of_provider, sections
