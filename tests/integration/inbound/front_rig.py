"""A front in this process, with its limits made short, over a real socket and store."""

from __future__ import annotations

import asyncio
import io
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from relaygw.inbound.intake import Intake
from relaygw.inbound.listeners import FrontService
from relaygw.inbound.mail_classes import MailClasses
from relaygw.inbound.screen import Screen, refreshed
from relaygw.inbound.sources import SourceCounts, counts_kept
from relaygw.inbound.time_limits import USUAL, TimeLimits
from relaygw.mail import drop
from relaygw.observe.observer import FrontObserver
from relaygw.settings.model import Settings
from relaygw.store.store import Store, open_store
from tests.logs import text_log
from tests.queues import make_queue


async def until(condition: Callable[[], bool]) -> None:
    """Return once `condition` holds."""
    while True:
        if condition():
            return
        await asyncio.sleep(0.02)


class Client:
    """An SMTP client that reads line by line."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def command(self, line: bytes) -> str:
        """Send a line and return the whole reply, "" when the server closed."""
        self.writer.write(line + b"\r\n")
        return await self.reply()

    async def reply(self) -> str:
        """Return the next reply, "" when the server closed."""
        lines = []
        with suppress(ConnectionResetError):
            while line := await self.reader.readline():
                lines.append(line.decode().rstrip("\r\n"))
                if line[3:4] != b"-":
                    break
        return "\n".join(lines)


class Rig:
    """What a test has to do with a front."""

    def __init__(self, port: int, log: io.StringIO, service: FrontService) -> None:
        self.port = port
        self.log = log
        self.service = service
        self._open: list[asyncio.StreamWriter] = []

    async def connect(self) -> Client:
        """Open a connection; nothing is read yet."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        self._open.append(writer)
        return Client(reader, writer)

    async def greeted(self) -> Client:
        """Open a connection and say EHLO."""
        client = await self.connect()
        assert (await client.reply()).startswith("220 ")
        assert (await client.command(b"EHLO c.test")).startswith("250")
        return client

    async def close(self) -> None:
        """Close all connections."""
        for writer in self._open:
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()


@asynccontextmanager
async def running_front(
    directory: Path,
    *,
    users: list[dict[str, Any]] | None = None,
    settings: dict[str, Any] | None = None,
    screened: Callable[[Store], Screen] | None = None,
    limits: TimeLimits = USUAL,
    **listener: Any,
) -> AsyncIterator[Rig]:
    """Serve one listener in sandbox mode, or as `settings` say; mail is counted with a screen."""
    url = f"sqlite:///{directory}/queue.db"
    make_queue(url)
    loaded = Settings.model_validate(
        {
            "mode": "sandbox",
            "hostname": "gw.test",
            "queue": {"url": url, "min_free": "0%"},
            "listeners": [{"bind": "127.0.0.1:0", **listener}],
            "maildrop": {"path": str(directory / "maildrop")},
            "users": users or [],
            **(settings or {}),
        }
    )
    store = open_store(url)
    log = io.StringIO()
    screen = None if screened is None else screened(store)
    classes, counts = (None if screen is None else MailClasses()), SourceCounts()
    service = FrontService(
        loaded,
        store,
        FrontObserver(text_log(log)),
        intake=Intake(
            loaded,
            state_dir=directory,
            classes=classes,
            screen=screen,
            takes_once=loaded.duplicates == "once",
        ),
        notify=lambda: None,
        flush=lambda _actor, _queue_id: 0,
        look_around=lambda: lambda way: "",
        counts=counts,
        screen=screen,
        limits=limits,
    )
    listening = socket.create_server(("127.0.0.1", 0))
    rig = Rig(listening.getsockname()[1], log, service)
    await service.start([listening])
    await until((directory / "maildrop" / drop.QUEUE_SOCKET).exists)
    try:
        async with counts_kept(counts, classes, store, each_s=0.05), refreshed(screen):
            yield rig
    finally:
        await rig.close()
        await service.stop()
        store.close()
