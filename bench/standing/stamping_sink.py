"""An SMTP server that notes when each message was there; a process of its own.

It stands for a provider whose clock we can read, for one of a given speed, and, as the
simplest server there is, for the floor of what the load client itself adds.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import BinaryIO, Self, cast

from bench.rig.gateway import ROOT
from bench.rig.ports import free_port

_BENCH_ID = re.compile(rb"^X-Bench-Id: (\S+)\r$", re.MULTILINE)
_HEAD_BYTES = 4096  # the id stands in these
_EHLO = b"250-sink.bench.test\r\n250-PIPELINING\r\n250-8BITMIME\r\n250 SIZE 100000000\r\n"


class StampingSink:
    """The sink's process; entered, it listens.

    Each final reply comes `delay_s` after the final dot. `stamps` is a file with a line for
    each message: seconds of CLOCK_MONOTONIC at the dot, and its X-Bench-Id or `-`.
    """

    def __init__(self, stamps: Path, *, delay_s: float = 0.0) -> None:
        self.port = free_port()
        self.stamps = stamps
        self._delay_s = delay_s
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [
                *(sys.executable, "-m", "bench.standing.stamping_sink", str(self.port)),
                *(str(self.stamps), str(self._delay_s)),
            ],
            cwd=ROOT,
            stdout=subprocess.PIPE,
        )
        assert self._process.stdout is not None
        if not self._process.stdout.readline():
            raise RuntimeError("the sink does not listen")
        return self

    def __exit__(self, *_exc: object) -> None:
        assert self._process is not None and self._process.stdout is not None
        self._process.kill()
        self._process.wait()
        self._process.stdout.close()

    def read(self) -> list[tuple[float, str]]:
        """Return what has come so far: instant and id, in order."""
        complete, _, _ = self.stamps.read_bytes().rpartition(b"\n")
        lines = [line.split(" ") for line in complete.decode().splitlines()]
        return [(float(at_s), bench_id) for at_s, bench_id in lines]


class _Session(asyncio.Protocol):
    def __init__(self, out: BinaryIO, delay_s: float) -> None:
        self._out = out
        self._delay_s = delay_s
        self._buffer = b""
        self._head: bytes | None = None  # of the content that arrives; None between contents
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._reply(b"220 sink.bench.test\r\n")

    def _reply(self, text: bytes) -> None:
        assert self._transport is not None
        self._transport.write(text)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while self._take_content() if self._head is not None else self._take_command():
            pass

    def _take_command(self) -> bool:
        line, found, rest = self._buffer.partition(b"\r\n")
        if not found:
            return False
        self._buffer = rest
        verb = line[:4].upper()
        if verb == b"DATA":
            self._reply(b"354 go on\r\n")
            self._head = b""
            self._buffer = b"\r\n" + self._buffer  # so that a dot may end it at once
        elif verb == b"QUIT":
            self._reply(b"221 bye\r\n")
            assert self._transport is not None
            self._transport.close()
        else:
            self._reply(_EHLO if verb == b"EHLO" else b"250 ok\r\n")
        return True

    def _take_content(self) -> bool:
        assert self._head is not None
        body, found, rest = self._buffer.partition(b"\r\n.\r\n")
        if len(self._head) < _HEAD_BYTES:
            self._head += (body if found else body[:-4])[:_HEAD_BYTES]
        if not found:
            self._buffer = body[-4:]  # the beginning of an end, perhaps
            return False
        self._buffer = rest
        self._stamp(self._head)
        self._head = None
        if self._delay_s:
            asyncio.get_running_loop().call_later(self._delay_s, self._reply, b"250 ok\r\n")
        else:
            self._reply(b"250 ok\r\n")
        return True

    def _stamp(self, head: bytes) -> None:
        match = _BENCH_ID.search(head + b"\r")
        self._out.write(b"%.6f %s\n" % (time.monotonic(), match[1] if match else b"-"))


async def _serve(port: int, stamps: Path, delay_s: float) -> None:
    with stamps.open("ab", buffering=0) as out:
        server = await asyncio.get_running_loop().create_server(
            lambda: _Session(out, delay_s), "127.0.0.1", port, backlog=1000
        )
        print("listens", flush=True)
        async with server:
            await server.serve_forever()


def main() -> None:
    """Serve until killed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("port", type=int)
    parser.add_argument("stamps", type=Path)
    parser.add_argument("delay_s", type=float)
    options = parser.parse_args()
    asyncio.run(_serve(options.port, options.stamps, options.delay_s))


if __name__ == "__main__":
    main()
