"""Many SMTP clients that only stay, or dribble a byte now and then, in a process of their own.

`Crowd` starts it and waits until all are there; `cuts_s` ends it and tells when each was cut,
in seconds from when it began to be slow.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Self

ROOT = Path(__file__).resolve().parents[2]
_AT_ONCE = 200  # connections that are being opened
_BEGINNING = {
    "idle": [b"EHLO crowd.bench.test\r\n"],
    "command": [b"EHLO crowd.bench.test\r\n"],
    "content": [
        b"EHLO crowd.bench.test\r\n",
        b"MAIL FROM:<slow@crowd.bench.test>\r\n",
        b"RCPT TO:<customer@example.net>\r\n",
        b"DATA\r\n",
    ],
}


class Crowd:
    """`clients` that behave in one way: idle, command or content."""

    def __init__(self, port: int, *, clients: int, behaviour: str, every_s: float = 10.0) -> None:
        self._command = [sys.executable, "-m", "bench.rig.crowd", str(port), str(clients)]
        self._command += [behaviour, str(every_s)]
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
        )
        assert self._process.stdout is not None
        if self._process.stdout.readline().strip() != "ready":
            raise RuntimeError("the crowd could not connect")
        return self

    def __exit__(self, *_exc: object) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def cuts_s(self) -> list[float]:
        """End it; return after how long each client was cut, without those that were not."""
        assert self._process is not None
        out, _ = self._process.communicate("end\n")
        return [float(cut_s) for cut_s in json.loads(out)]


async def _client(port: int, behaviour: str, every_s: float, is_there: asyncio.Semaphore) -> float:
    """Stay until cut; return how long that took."""
    reader, writer = await _begun(port, behaviour)
    is_there.release()
    began_s = time.monotonic()
    ended = asyncio.ensure_future(reader.read(1))  # a client that is cut hears why first
    try:
        while not ended.done():
            if behaviour != "idle":
                writer.write(b"x")
            await asyncio.wait([ended], timeout=every_s)
        return time.monotonic() - began_s
    finally:
        ended.cancel()
        writer.close()


async def _begun(port: int, behaviour: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=4096)
    await _reply(reader)
    for command in _BEGINNING[behaviour]:
        writer.write(command)
        await _reply(reader)
    return reader, writer


async def _reply(reader: asyncio.StreamReader) -> None:
    while (line := await reader.readline())[3:4] == b"-":
        pass
    if line[:1] not in (b"2", b"3"):
        raise RuntimeError(f"a client of the crowd was told {line!r}")


async def _run(options: argparse.Namespace) -> list[float]:
    there = asyncio.Semaphore(0)
    tasks = []
    for number in range(options.clients):
        tasks.append(
            asyncio.create_task(_client(options.port, options.behaviour, options.every_s, there))
        )
        if number >= _AT_ONCE:
            await there.acquire()
    for _ in range(min(_AT_ONCE, options.clients)):
        await there.acquire()
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    await asyncio.to_thread(sys.stdin.readline)
    cuts_s = [task.result() for task in tasks if task.done()]
    for task in tasks:
        task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.gather(*tasks, return_exceptions=True)
    return cuts_s


def main() -> None:
    """Connect, say `ready`, wait for a line, print when each was cut."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("port", type=int)
    parser.add_argument("clients", type=int)
    parser.add_argument("behaviour", choices=list(_BEGINNING))
    parser.add_argument("every_s", type=float)
    options = parser.parse_args()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    sys.stdout.write(json.dumps(asyncio.run(_run(options))))


if __name__ == "__main__":
    main()
