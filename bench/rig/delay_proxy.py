"""A long line in user space: what goes in comes out half a round trip later, in order.

    python3 -m bench.rig.delay_proxy ACCEPT_PORT CONNECT_PORT ROUND_TRIP_MS

Bandwidth is not limited. A new connection waits one round trip first, as its handshake would.
Standard input takes the words `hold` (end all connections, let new ones wait), `silence` (end none,
pass nothing on, let new ones wait) and `release`, each answered with the same word on standard
output; its end ends the program.

Run as a process of its own, so that it waits for nobody's interpreter.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections import deque
from typing import cast


class Line:
    """What all connections share: the delay, the far end, and whether the line is open."""

    def __init__(self, connect_port: int, round_trip_s: float) -> None:
        self.connect_port = connect_port
        self.round_trip_s = round_trip_s
        self.is_open = asyncio.Event()
        self.is_open.set()
        self.ends: set[End] = set()

    def hold(self) -> None:
        """End every connection and let new ones wait."""
        self.is_open.clear()
        for end in list(self.ends):
            end.transport.abort()

    def silence(self) -> None:
        """Pass nothing on, and close nothing, as a network that drops everything."""
        self.is_open.clear()
        for end in self.ends:
            end.transport.pause_reading()

    def release(self) -> None:
        """Pass on what came meanwhile, and what comes."""
        self.is_open.set()
        for end in self.ends:
            if end.other is not None:
                end.transport.resume_reading()


class End(asyncio.Protocol):
    """One end of a connection; what it receives leaves at the other end, later."""

    def __init__(self, line: Line, other: End | None = None) -> None:
        self.line = line
        self.transport: asyncio.Transport
        self.other = other
        self._under_way: deque[bytes] = deque()  # an empty entry is the end of the stream
        self._has_ended = False
        self._is_done = False  # the end of its stream has arrived

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Note the transport."""
        self.transport = cast("asyncio.Transport", transport)
        self.line.ends.add(self)
        if not self.line.is_open.is_set():
            self.transport.pause_reading()

    def data_received(self, data: bytes) -> None:
        """Send `data` on its way."""
        self._under_way.append(data)
        # each timer takes the oldest entry, so order holds even if two timers change places
        asyncio.get_running_loop().call_later(self.line.round_trip_s / 2, self._arrive)

    def eof_received(self) -> bool:
        """Send the end on its way; the other direction stays open."""
        self._end_stream()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the other end, after what is still under way."""
        self.line.ends.discard(self)
        self._end_stream()

    def _end_stream(self) -> None:
        if not self._has_ended:
            self._has_ended = True
            self.data_received(b"")

    def _arrive(self) -> None:
        data = self._under_way.popleft()
        if self.other is None or self.other.transport.is_closing():
            return
        if data:
            self.other.transport.write(data)
        else:
            self._finish(self.other)

    def _finish(self, other: End) -> None:
        self._is_done = True
        if other._is_done or self.transport.is_closing():
            other.transport.close()
            self.transport.close()
        else:
            with contextlib.suppress(OSError):  # it was reset, and nobody has read of it yet
                other.transport.write_eof()


class NearEnd(End):
    """The accepted end; it reads once the line is open and the far end is connected."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Reach for the far end."""
        super().connection_made(transport)
        self.transport.pause_reading()
        self._reaching = asyncio.create_task(self._reach())

    def connection_lost(self, exc: Exception | None) -> None:
        """Reach no further."""
        self._reaching.cancel()
        super().connection_lost(exc)

    async def _reach(self) -> None:
        await self.line.is_open.wait()
        await asyncio.sleep(self.line.round_trip_s)
        try:
            _, self.other = await asyncio.get_running_loop().create_connection(
                lambda: End(self.line, self), "127.0.0.1", self.line.connect_port
            )
        except OSError:
            self.transport.abort()
        else:
            await self.line.is_open.wait()
            self.transport.resume_reading()


async def serve(accept_port: int, connect_port: int, round_trip_ms: float) -> None:
    """Run the line until standard input ends."""
    loop = asyncio.get_running_loop()
    line = Line(connect_port, round_trip_ms / 1000)
    server = await loop.create_server(lambda: NearEnd(line), "127.0.0.1", accept_port, backlog=1024)
    print("ready", flush=True)
    while word := (await loop.run_in_executor(None, sys.stdin.readline)).strip():
        {"hold": line.hold, "silence": line.silence, "release": line.release}[word]()
        print(word, flush=True)
    server.close()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])))
