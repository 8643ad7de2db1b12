"""An open-loop SMTP client: messages leave on a fixed timetable, whatever the answers do.

Latency counts from the instant on the timetable to the reply after the final dot, over a new
connection, so a stall is charged to every message that fell into it. It runs as a process of
its own; `Load` starts it and reads what it found. Instants are of CLOCK_MONOTONIC, which all
processes of a machine share.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import resource
import subprocess
import sys
import threading
import time
from collections import Counter
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Self, cast

ROOT = Path(__file__).resolve().parents[2]
LAST_ANSWER_S = 60.0
"""A message that has no answer this long after the last one left has failed."""


@dataclass(frozen=True)
class Sample:
    """One message: its id, when it was to leave, how it went and when."""

    bench_id: str
    scheduled_s: float
    content_s: float | None  # when the content was handed over
    answered_s: float
    code: int  # of the last reply; 0: none

    @property
    def latency_ms(self) -> float:
        """From the timetable to the answer."""
        return (self.answered_s - self.scheduled_s) * 1000


def last_waits_ms(samples: list[Sample]) -> list[float]:
    """Return the times from content to 250: what storing takes, as the client feels it."""
    return [
        (each.answered_s - each.content_s) * 1000
        for each in samples
        if each.code == 250 and each.content_s is not None
    ]


def told(samples: list[Sample]) -> str:
    """Return how many messages ended with which reply; 0 is a connection without one."""
    counts = sorted(Counter(each.code for each in samples).items())
    return ", ".join(f"{count} x {code}" for code, count in counts)


def percentile(values: list[float], share: float) -> float:
    """Return the smallest value that at least `share` of all do not exceed."""
    ranked = sorted(values)
    return ranked[max(0, -(-int(share * 1000) * len(ranked) // 1000) - 1)]


class Load:
    """The client process; entered, it starts; `samples()` waits for its end.

    `messages` of `size_bytes` leave at `rate_per_s`, each with an X-Bench-Id header, from the
    address `source`, or any.
    """

    def __init__(
        self,
        port: int,
        *,
        rate_per_s: float,
        messages: int,
        size_bytes: int,
        sender: str = "shop@tx.bench.test",
        prefix: str = "tx",
        source: str = "",
    ) -> None:
        self._arguments = [
            *("--port", str(port), "--rate-per-s", str(rate_per_s)),
            *("--messages", str(messages), "--size-bytes", str(size_bytes)),
            *("--sender", sender, "--prefix", prefix, "--source", source),
        ]
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "bench.rig.latency", *self._arguments],
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        return self

    def __exit__(self, *_exc: object) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    @property
    def is_running(self) -> bool:
        """True until the last answer is in."""
        return self._process is not None and self._process.poll() is None

    def samples(self) -> list[Sample]:
        """Wait for the end and return every message in the order of the timetable."""
        assert self._process is not None
        out, _ = self._process.communicate()
        if self._process.returncode:
            raise RuntimeError(f"the load client failed with code {self._process.returncode}")
        return [Sample(*line) for line in json.loads(out)]


class _Transaction(asyncio.Protocol):
    """One message: each command waits for its reply."""

    def __init__(self, commands: list[bytes], end: asyncio.Future[int]) -> None:
        self.content_s: float | None = None
        self._commands = iter(commands)
        self._end = end
        self._code = 0
        self._buffer = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        *lines, self._buffer = self._buffer.split(b"\r\n")
        if lines and lines[-1][3:4] != b"-":
            self._answer(int(lines[-1][:3]))

    def _answer(self, code: int) -> None:
        assert self._transport is not None
        self._code = code
        command = next(self._commands, None)
        if command is not None and code < 400:
            self._transport.write(command)
            if code == 354:
                self.content_s = time.monotonic()
            return
        if not self._end.done():
            self._end.set_result(code)
        self._transport.write(b"QUIT\r\n")
        self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._end.done():
            self._end.set_result(0)


def _content(bench_id: str, sender: str, recipient: str, size_bytes: int) -> bytes:
    head = (
        f"From: <{sender}>\r\nTo: <{recipient}>\r\nSubject: order {bench_id}\r\n"
        f"Message-ID: <{bench_id}@bench.test>\r\nX-Bench-Id: {bench_id}\r\n\r\n"
    ).encode()
    line = b"x" * 76 + b"\r\n"
    return head + line * ((size_bytes - len(head)) // len(line)) + b".\r\n"


async def _send(options: argparse.Namespace, bench_id: str, scheduled_s: float) -> Sample:
    loop = asyncio.get_running_loop()
    end: asyncio.Future[int] = loop.create_future()
    # another one each: the same mail to one customer over and over would be a storm
    recipient = f"customer-{bench_id}@example.net"
    commands = [
        b"EHLO client.bench.test\r\n",
        f"MAIL FROM:<{options.sender}>\r\n".encode(),
        f"RCPT TO:<{recipient}>\r\n".encode(),
        b"DATA\r\n",
        _content(bench_id, options.sender, recipient, options.size_bytes),
    ]
    transaction = _Transaction(commands, end)
    try:
        source = (options.source, 0) if options.source else None
        await loop.create_connection(
            lambda: transaction, "127.0.0.1", options.port, local_addr=source
        )
        code = await end
    except (OSError, asyncio.CancelledError):
        code = 0
    return Sample(bench_id, scheduled_s, transaction.content_s, time.monotonic(), code)


def _pace(
    loop: asyncio.AbstractEventLoop, waiting: asyncio.Queue[tuple[int, float]], times: list[float]
) -> None:
    """Announce each message at its instant, from a thread: the loop's timers round to 1 ms."""
    for number, at_s in enumerate(times):
        time.sleep(max(0.0, at_s - time.monotonic()))
        loop.call_soon_threadsafe(waiting.put_nowait, (number, at_s))


async def _run(options: argparse.Namespace) -> list[Sample]:
    first_s = time.monotonic() + 0.1
    times = [first_s + number / options.rate_per_s for number in range(options.messages)]
    waiting: asyncio.Queue[tuple[int, float]] = asyncio.Queue()
    pacer = threading.Thread(target=_pace, args=(asyncio.get_running_loop(), waiting, times))
    pacer.start()
    tasks = []
    for _ in times:
        number, at_s = await waiting.get()
        tasks.append(asyncio.create_task(_send(options, f"{options.prefix}-{number}", at_s)))
    _, late = await asyncio.wait(tasks, timeout=LAST_ANSWER_S)
    for task in late:
        task.cancel()
    return await asyncio.gather(*tasks)


def main() -> None:
    """Send and print a JSON list of samples."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--rate-per-s", type=float, default=100.0)
    parser.add_argument("--messages", type=int, default=100)
    parser.add_argument("--size-bytes", type=int, default=50_000)
    parser.add_argument("--sender", default="shop@tx.bench.test")
    parser.add_argument("--prefix", default="tx")
    parser.add_argument("--source", default="")
    options = parser.parse_args()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # a stall piles up connections
    gc.disable()  # a collection would count as the server's latency
    samples = asyncio.run(_run(options))
    sys.stdout.write(json.dumps([list(astuple(each)) for each in samples]))


if __name__ == "__main__":
    main()
