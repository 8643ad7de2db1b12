"""A provider with limits, an SMTP server of its own process; `LimitedProvider` starts it.

What it allows is told by a file of Terms (JSON), which it reads at the start and at each SIGHUP.
Over its rate it refuses at the final dot, over its connections at the greeting, both as Amazon
SES words it. A session that logged in by a password of before gets 421 to its next command.

It tells the history (bench/history.py) of each connection, and of each message by its X-Bench-Id,
or by its X-Id (bench/rig/message.py) and then with its digest. A message whose dot was read and
that has no answer is in doubt.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import itertools
import json
import re
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.history import History, open_history
from bench.rig.limited_terms import USER, Bucket, Terms
from bench.rig.message import NOBODY, digest, identify, named

_PATH = re.compile(rb":\s*<([^>]*)>")
_BENCH_ID = re.compile(rb"^X-Bench-Id: (\S+)\r$", re.MULTILINE)
_HEAD_BYTES = 4096  # the id stands in these
_END_OF_CONTENT = b"\r\n.\r\n"
_EXTENSIONS = b"250-limited.bench.test\r\n250-PIPELINING\r\n250-8BITMIME\r\n"
_TOO_MANY = b"421 Too many concurrent SMTP connections\r\n"
_TOO_FAST = b"454 Throttling failure: Maximum sending rate exceeded.\r\n"
_BAD_LOGIN = b"535 Authentication Credentials Invalid\r\n"
_CUT = b"421 4.7.0 closing connection\r\n"
_REPLIES = {
    b"MAIL": b"250 2.1.0 ok\r\n",
    b"RCPT": b"250 2.1.5 ok\r\n",
    b"DATA": b"354 go on\r\n",
    b"RSET": b"250 2.0.0 ok\r\n",
    b"NOOP": b"250 2.0.0 ok\r\n",
    b"QUIT": b"221 2.0.0 bye\r\n",
}


@dataclass(eq=False)
class House:
    """What all sessions share."""

    terms_path: Path
    name: str
    history: History
    open_count: int = 0
    numbers: itertools.count[int] = field(default_factory=itertools.count)

    def __post_init__(self) -> None:
        self.read_terms()

    def read_terms(self) -> None:
        """Go by the file as it is now."""
        self.terms = Terms(**json.loads(self.terms_path.read_text()))
        rate_per_s = self.terms.rate_per_s
        self._bucket = (
            Bucket(rate_per_s, self.terms.burst_s, time.monotonic()) if rate_per_s else None
        )

    def may_take(self) -> bool:
        """Count one message against the rate, if it has room."""
        return self._bucket is None or self._bucket.may_take(time.monotonic())


class Session(asyncio.Protocol):
    """One connection of the gateway's."""

    def __init__(self, house: House) -> None:
        self._house = house
        self._name = f"{house.name}/{next(house.numbers)}"
        self._history = house.history
        self._password: str | None = None
        self._unread = b""
        self._is_content = False
        self._sender = ""
        self._recipients: list[str] = []
        self._answer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._house.open_count += 1
        most = self._house.terms.connections
        if most is not None and self._house.open_count > most:
            self._history.fail(self._name, "connect")
            self._end(_TOO_MANY)
            return
        self._history.invoke(self._name, "connect")
        transport.write(b"220 limited.bench.test ESMTP\r\n")

    def connection_lost(self, exc: Exception | None) -> None:
        self._house.open_count -= 1
        if self._answer is not None:
            self._answer.cancel()
        self._history.ok(self._name, "connect")

    def data_received(self, data: bytes) -> None:
        self._unread += data
        self._go_on()

    def _go_on(self) -> None:
        """Work on what was read, in order; an answer that is due holds up the rest."""
        while self._answer is None and not self._transport.is_closing():
            end = _END_OF_CONTENT if self._is_content else b"\r\n"
            piece, found, rest = self._unread.partition(end)
            if not found:
                return
            self._unread = rest
            if self._password != self._house.terms.password and self._password is not None:
                self._history.info(self._name, "connect")
                self._end(_CUT)
            elif self._is_content:
                self._take(piece + b"\r\n")
            else:
                self._obey(piece)

    def _obey(self, command: bytes) -> None:
        verb = command[:4].upper()
        has_login = self._password is not None or self._house.terms.password is None
        if verb == b"EHLO":
            auth = b"250-AUTH PLAIN\r\n" if self._house.terms.password is not None else b""
            self._transport.write(_EXTENSIONS + auth + b"250 SIZE 40000000\r\n")
        elif verb == b"AUTH":
            self._log_in(command)
        elif verb == b"MAIL" and not has_login:
            self._transport.write(b"530 Authentication required\r\n")
        else:
            self._note_envelope(verb, command)
            self._transport.write(_REPLIES.get(verb, b"500 5.5.1 what\r\n"))
        if verb == b"QUIT":
            self._transport.close()

    def _log_in(self, command: bytes) -> None:
        given = base64.b64decode(command.split()[-1]).decode()
        password = self._house.terms.password
        if password is None or given != f"\0{USER}\0{password}":
            self._history.fail(self._name, "login")
            self._transport.write(_BAD_LOGIN)
            return
        self._password = password
        self._transport.write(b"235 Authentication successful.\r\n")

    def _note_envelope(self, verb: bytes, command: bytes) -> None:
        path = _PATH.search(command)
        if verb == b"MAIL" and path is not None:
            self._sender, self._recipients = path[1].decode("latin-1"), []
        elif verb == b"RCPT" and path is not None:
            self._recipients.append(path[1].decode("latin-1"))
        self._is_content = verb == b"DATA"
        if self._is_content:
            self._history.invoke(self._name, "deliver")

    def _take(self, stuffed: bytes) -> None:
        match = _BENCH_ID.search(stuffed[:_HEAD_BYTES])
        bench_id = match[1].decode("ascii") if match else NOBODY
        told: dict[str, Any] = {}
        if match is None:
            bench_id, written = identify((b"\r\n" + stuffed).replace(b"\r\n.", b"\r\n")[2:])
            mark = digest(self._sender, (self._recipients or [""])[0], written)
            told = {"digest": mark, **named(self._recipients)}
        self._history.info(self._name, "dot", message=bench_id, **told)
        self._is_content = False
        is_accepted = self._house.may_take()
        self._answer = asyncio.get_running_loop().call_later(
            self._house.terms.delay_s(bench_id), self._reply, bench_id, is_accepted
        )

    def _reply(self, bench_id: str, is_accepted: bool) -> None:
        self._answer = None
        if is_accepted:
            self._history.ok(self._name, "deliver", message=bench_id)
        else:
            self._history.fail(self._name, "deliver", message=bench_id, code=454)
        self._transport.write(b"250 Ok\r\n" if is_accepted else _TOO_FAST)
        self._go_on()

    def _end(self, reply: bytes) -> None:
        self._transport.write(reply)
        self._transport.close()


async def _serve(port: int, name: str, terms: Path, history: Path) -> None:
    loop = asyncio.get_running_loop()
    house = House(terms, name, open_history(history))
    loop.add_signal_handler(signal.SIGHUP, house.read_terms)
    server = await loop.create_server(lambda: Session(house), "127.0.0.1", port, backlog=512)
    print("listens", flush=True)
    async with server:
        await server.serve_forever()


def main() -> None:
    """Serve until killed: port, name, terms, history."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("port", type=int)
    parser.add_argument("name")
    parser.add_argument("terms", type=Path)
    parser.add_argument("history", type=Path)
    options = parser.parse_args()
    asyncio.run(_serve(options.port, options.name, options.terms, options.history))


if __name__ == "__main__":
    main()
