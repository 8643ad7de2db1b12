"""From exit 0 of the sendmail command to the provider, one message at a time."""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from bench.rig.gateway import PATIENCE_S, Gateway, provider
from bench.rig.latency import percentile
from bench.rig.machine import sync_times
from bench.rig.sendmail import Sendmail, install_ours
from bench.standing.figure import Figure, Result
from bench.standing.latency import summary
from bench.standing.setting import Setting
from bench.standing.stamping_sink import StampingSink

SIZE_BYTES = 45_000
AT_LEAST_MS, AIM_MS = 100.0, 30.0
_HEAD = (
    "X-Bench-Id: %s\nTo: customer@customer.bench.test\nFrom: shop@shop.bench.test\n"
    "Subject: order\nMIME-Version: 1.0\nContent-Type: text/html; charset=utf-8\n\n"
)
_LINE = b"x" * 74 + b"\n"


def sendmail_to_provider(setting: Setting) -> Result:
    """From exit 0 of `sendmail -t -i` to the provider's final dot, idle gateway."""
    with setting.directory() as directory, StampingSink(directory / "stamps") as sink:
        main = provider(sink.port)
        syncs = sync_times(directory)
        with Gateway(directory / "gateway", providers={"main": main}) as gateway:
            maildrop = Path(gateway.settings["maildrop"]["path"])
            command = install_ours(directory / "usr", maildrop)
            setting.say(f"{setting.size.sends} messages of {SIZE_BYTES} bytes, one at a time")
            begun, ended = _send_all(command, gateway, setting.size.sends)
        arrived = {bench_id: at_s for at_s, bench_id in sink.read()}
    delays_ms = [(arrived[one] - at_s) * 1000 for one, at_s in ended.items() if one in arrived]
    whole_ms = [(arrived[one] - at_s) * 1000 for one, at_s in begun.items() if one in arrived]
    calls_ms = [(ended[one] - at_s) * 1000 for one, at_s in begun.items()]
    return Result(
        [
            Figure(
                "p50 from exit 0 to the final dot", _at(delays_ms, 0.5), "ms", AT_LEAST_MS, AIM_MS
            ),
            Figure("p99", _at(delays_ms, 0.99), "ms"),
            Figure("not at the provider", len(begun) - len(delays_ms), "", 0, 0),
        ],
        [
            f"from exit 0:   {summary(delays_ms)}",
            f"from the call: {summary(whole_ms)}",
            f"the call:      {summary(calls_ms)} (whole process)",
            f"fdatasync:     {syncs} (appends of 4 KiB)",
        ],
    )


def _at(values_ms: list[float], share: float) -> float:
    return percentile(values_ms, share) if values_ms else float("inf")


def _send_all(
    command: Sendmail, gateway: Gateway, count: int
) -> tuple[dict[str, float], dict[str, float]]:
    """Send, each once the gateway is done with the one before; return begins and ends by id."""
    begun, ended = {}, {}
    for number in range(count):
        bench_id = f"n{number}"
        with _message(bench_id) as message:
            begun[bench_id] = time.monotonic()
            subprocess.run(
                [*command.words, "-t", "-i"],
                stdin=message,
                env={**os.environ, **command.environment},
                check=True,
            )
            ended[bench_id] = time.monotonic()
        _wait_until_idle(gateway, number + 1)
    return begun, ended


@contextmanager
def _message(bench_id: str) -> Iterator[IO[bytes]]:
    with tempfile.TemporaryFile() as message:
        head = (_HEAD % bench_id).encode()
        message.write((head + _LINE * (SIZE_BYTES // len(_LINE)))[:SIZE_BYTES])
        message.seek(0)
        yield message


def _wait_until_idle(gateway: Gateway, count: int) -> None:
    """Return when `count` messages are done with, nothing is left to take, and all roles rest."""
    maildrop = Path(gateway.settings["maildrop"]["path"])
    deadline_s = time.monotonic() + PATIENCE_S
    used_s = -1.0
    while True:
        is_done = gateway.log_path.read_bytes().count(b": removed\n") >= count
        if is_done and not list(maildrop.glob("*.drop")):
            before_s, used_s = used_s, gateway.cpu_s()
            if used_s == before_s:
                return
        if time.monotonic() > deadline_s:
            raise RuntimeError(f"the gateway is not done with message {count}")
        time.sleep(0.05)  # long enough for the clock of processor time to move
