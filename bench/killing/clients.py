"""The clients of the campaign: several connections that send as fast as the backlog allows.

With a rate they keep to it together; each n-th message may be to three, or large (1.3 MB).

Of each message the history has `send`, invoked right before its content is written. An id is used
for one message, and after that never again.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bench.history import History, open_history
from bench.killing.backlog import Backlog
from bench.rig.message import Message, compose, named

_RECONNECT_S = 0.02
_PATIENCE_S = 60.0
_SEVERAL, _LARGE_LINES = 3, 20_000


class Refused(Exception):
    """The gateway said no."""


@dataclass(slots=True)
class Client:
    """One connection at a time to the gateway."""

    name: int
    port: int
    history: History
    backlog: Backlog
    stop: asyncio.Event
    every_s: float = 0.0
    several_each: int = 0
    large_each: int = 0
    step: str = ""
    streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def run(self) -> None:
        """Send messages until told to stop; reconnects whenever it has to."""
        for number in itertools.count():
            await self.backlog.room()
            if self.stop.is_set():
                break
            began_s = time.monotonic()
            await self._send(self._composed(number))
            await self._pause(began_s + self.every_s - time.monotonic())
        self._hang_up()

    def _composed(self, number: int) -> Message:
        return compose(
            f"{self.name:x}-{number:x}",
            number,
            more_lines=_LARGE_LINES * _is_due(number, self.large_each),
            several=_SEVERAL * _is_due(number, self.several_each),
        )

    async def _pause(self, for_s: float) -> None:
        with contextlib.suppress(TimeoutError):
            if for_s > 0:
                await asyncio.wait_for(self.stop.wait(), for_s)

    async def _send(self, message: Message) -> None:
        """Take one message to its end, whatever that is."""
        try:
            async with asyncio.timeout(_PATIENCE_S):
                await self._transact(message)
        except Refused as refusal:
            code = int(str(refusal) or 0)
            self._end(self.history.fail, message, step=self.step, code=code)
            self._hang_up()
        except (OSError, EOFError, TimeoutError):
            is_open = self.step == "content"
            self._end(self.history.info if is_open else self.history.fail, message, step=self.step)
            self._hang_up()
            await asyncio.sleep(_RECONNECT_S)

    async def _transact(self, message: Message) -> None:
        if self.streams is None:
            await self._connect()
        await self._ask("mail", f"MAIL FROM:<{message.sender}>", 250)
        for recipient in message.recipients:
            await self._ask("rcpt", f"RCPT TO:<{recipient}>", 250)
        await self._ask("data", "DATA", 354)
        self.step = "content"
        who, what, to = f"client-{self.name}", message.message_id, named(message.recipients)
        self.history.invoke(who, "send", message=what, digest=message.digest, **to)
        await self._write(message.content.replace(b"\r\n.", b"\r\n..") + b".\r\n")
        await self._read_reply(250)
        self.backlog.acknowledged(message.message_id)
        self._end(self.history.ok, message)

    async def _connect(self) -> None:
        self.step = "connecting"
        self.streams = await asyncio.open_connection("127.0.0.1", self.port)
        await self._read_reply(220)
        await self._write(b"EHLO client.test\r\n")
        await self._read_reply(250)

    async def _ask(self, step: str, command: str, code: int) -> None:
        self.step = step
        await self._write(f"{command}\r\n".encode())
        await self._read_reply(code)

    def _end(self, note: Callable[..., None], message: Message, **value: object) -> None:
        note(f"client-{self.name}", "send", message=message.message_id, **value)

    async def _write(self, octets: bytes) -> None:
        assert self.streams is not None
        self.streams[1].write(octets)
        await self.streams[1].drain()

    async def _read_reply(self, code: int) -> str:
        assert self.streams is not None
        while True:
            line = (await self.streams[0].readline()).decode("latin-1")
            if not line.endswith("\n"):
                raise EOFError
            if line[3:4] != "-":
                break
        if line[:3] != str(code):
            raise Refused(line[:3])
        return line

    def _hang_up(self) -> None:
        if self.streams is not None:
            self.streams[1].close()
            self.streams = None


def _is_due(number: int, each: int) -> bool:
    return each > 0 and number % each == each - 1


async def load(options: argparse.Namespace) -> None:
    """Send until TERM; messages that are under way are taken to their end."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    loop.add_signal_handler(signal.SIGINT, lambda: None)  # the campaign decides
    history = open_history(options.history)
    backlog = Backlog(options.history, limit=options.backlog)
    follow = loop.create_task(backlog.follow())
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    await asyncio.gather(
        *(
            Client(
                options.first_name + number,
                options.port,
                history,
                backlog,
                stop,
                options.connections / options.rate_per_s if options.rate_per_s else 0.0,
                options.several_each,
                options.large_each,
            ).run()
            for number in range(options.connections)
        )
    )
    follow.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await follow


def main() -> None:
    """Run as `python3 -m bench.killing.clients`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--history", type=Path, required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--connections", type=int, required=True)
    parser.add_argument("--backlog", type=int, required=True)
    parser.add_argument("--first-name", type=int, default=0, help="of the connections, a number")
    parser.add_argument(
        "--rate-per-s", type=float, default=0.0, help="of all; 0: as fast as can be"
    )
    parser.add_argument("--several-each", type=int, default=0, help="0: never")
    parser.add_argument("--large-each", type=int, default=0, help="0: never")
    asyncio.run(load(parser.parse_args()))


if __name__ == "__main__":
    main()
