"""The provider of the campaign: takes every message, answers late, and tells the history of both.

A message is taken with its final dot, whether or not its client lives to read the answer: the
strictest reading, and what a provider that commits first does.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import re
import signal
import sys
from pathlib import Path

from bench.history import History, open_history
from bench.rig.message import digest, identify

_PATH = re.compile(r":\s*<([^>]*)>")
_END_OF_DATA = b"\r\n.\r\n"
_REPLIES = {
    "EHLO": b"250-sink.test\r\n250-PIPELINING\r\n250-8BITMIME\r\n250 SIZE 10000000\r\n",
    "HELO": b"250 sink.test\r\n",
    "MAIL": b"250 2.1.0 sender ok\r\n",
    "RCPT": b"250 2.1.5 recipient ok\r\n",
    "DATA": b"354 go on\r\n",
    "RSET": b"250 2.0.0 reset\r\n",
    "NOOP": b"250 2.0.0 ok\r\n",
    "QUIT": b"221 2.0.0 bye\r\n",
}


class Conversation(asyncio.Protocol):
    """One connection of the gateway's."""

    def __init__(
        self, number: int, history: History, *, delay_s: float, delays_all: bool = False
    ) -> None:
        self._name = f"main/{number}"
        self._history = history
        self._delay_s = delay_s
        self._delays_all = delays_all
        self._unread = b""
        self._is_content = self._has_ended = False
        self._answer: asyncio.TimerHandle | None = None
        self._sender = self._recipient = ""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._history.invoke(self._name, "connect")
        transport.write(b"220 sink.test ESMTP\r\n")

    def connection_lost(self, exc: Exception | None) -> None:
        if self._answer is not None:
            self._answer.cancel()
        self._history.ok(self._name, "connect")

    def eof_received(self) -> bool:
        """Answer what is due: a client may end its half with the last dot, as Exim does."""
        self._has_ended = True
        return self._answer is not None

    def data_received(self, data: bytes) -> None:
        self._unread += data
        self._go_on()

    def _go_on(self) -> None:
        """Work on what was read, in order; a final reply that is due holds up the rest."""
        while self._answer is None:
            end = _END_OF_DATA if self._is_content else b"\r\n"
            piece, found, rest = self._unread.partition(end)
            if not found:
                break
            self._unread = rest
            if self._is_content:
                self._take(piece + b"\r\n")
            else:
                self._obey(piece.decode("latin-1"))
        if self._has_ended and self._answer is None:
            self._transport.close()

    def _obey(self, command: str) -> None:
        verb = command[:4].upper()
        path = _PATH.search(command)
        if verb == "MAIL" and path is not None:
            self._sender = path[1]
        elif verb == "RCPT" and path is not None:
            self._recipient = path[1]
        self._is_content = verb == "DATA"
        if self._is_content:
            self._history.invoke(self._name, "deliver")
        if self._delays_all and verb in ("MAIL", "RCPT", "DATA"):
            loop = asyncio.get_running_loop()
            self._answer = loop.call_later(self._delay_s, self._reply, verb)
            return
        self._transport.write(_REPLIES.get(verb, b"500 5.5.1 what\r\n"))
        if verb == "QUIT":
            self._transport.close()

    def _reply(self, verb: str) -> None:
        self._answer = None
        self._transport.write(_REPLIES[verb])
        self._go_on()

    def _take(self, stuffed: bytes) -> None:
        content = (b"\r\n" + stuffed).replace(b"\r\n.", b"\r\n")[2:]
        message_id, written = identify(content)
        mark = digest(self._sender, self._recipient, written)
        self._history.info(self._name, "dot", message=message_id, digest=mark)
        self._is_content = False
        loop = asyncio.get_running_loop()
        self._answer = loop.call_later(self._delay_s, self._accept)

    def _accept(self) -> None:
        self._answer = None
        self._history.ok(self._name, "deliver")
        self._transport.write(b"250 2.0.0 taken\r\n")
        self._go_on()


async def serve(history: History, *, delay_s: float, delays_all: bool) -> None:
    """Serve on a free loopback port, told on standard output, until TERM."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    loop.add_signal_handler(signal.SIGINT, lambda: None)  # the campaign decides
    numbers = itertools.count(1)
    server = await loop.create_server(
        lambda: Conversation(next(numbers), history, delay_s=delay_s, delays_all=delays_all),
        "127.0.0.1",
        0,
        backlog=512,
    )
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await stop.wait()
    server.close()


def main() -> None:
    """Run as `python3 -m bench.killing.sink`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--history", type=Path, required=True)
    parser.add_argument("--delay-ms", type=float, required=True)
    parser.add_argument("--delay-at", choices=("dot", "replies"), default="dot")
    options = parser.parse_args()
    asyncio.run(
        serve(
            open_history(options.history),
            delay_s=options.delay_ms / 1000,
            delays_all=options.delay_at == "replies",
        )
    )


if __name__ == "__main__":
    main()
