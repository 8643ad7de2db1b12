"""A stream socket in the maildrop that any local user may connect to: bounded for each and for all.

The kernel says who connects; nothing that he could claim is asked.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from abc import ABC, abstractmethod
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import ClassVar, Self

from relaygw.background_tasks import BackgroundTasks
from relaygw.errors import StoreUnavailable
from relaygw.inbound.drop_directory import DropDirectory
from relaygw.observe.maillog import MailLog

MAX_CLIENTS = 20
MAX_CLIENTS_OF_A_USER = 4
STALL_S = 300.0  # how long a client may take to make room for what he is sent
_BACKLOG = 64
_PAUSE_S = 0.005  # a flood of connections must not keep the front busy
_NO_DESCRIPTORS_S = 1.0
_CREDENTIALS = struct.Struct("3i")  # pid, uid, gid


class LocalSocket(ABC):
    """Serves local users at a maildrop for the length of an `async with` block."""

    name: ClassVar[str]  # of the socket
    serves: ClassVar[str]  # the command that uses it, for the log

    def __init__(self, directory: DropDirectory, log: MailLog) -> None:
        self._directory = directory
        self._log = log
        self._listening: socket.socket | None = None
        self.thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix=self.name)
        self._tasks = BackgroundTasks(lambda text: self._say(f"{self.serves}: {text}"))
        self.clients: Counter[int] = Counter()  # by user id
        self._complaint = ""

    @abstractmethod
    async def answer(self, client: socket.socket, uid: int) -> None:
        """Serve one client; where it raises, he gets no end, and so knows that it is not all."""

    async def __aenter__(self) -> Self:
        try:
            self._listening = self._directory.bind(self.name, mode=0o666)
            self._listening.listen(_BACKLOG)
        except OSError as error:
            where, why = self._directory.path / self.name, error.strerror or error
            self._say(f"{where}: no socket ({why}); {self.serves} does not work there")
            return self
        self._tasks.spawn(self._accept(self._listening))
        return self

    async def __aexit__(self, *_exc: object) -> None:
        await self._tasks.drain(0)
        if self._listening is not None:
            self._directory.unbind(self.name, self._listening)
        # the store may be closed after this
        await asyncio.to_thread(self.thread.shutdown, cancel_futures=True)

    def _say(self, text: str) -> None:
        """Write a line unless it was the last one: local users can ask as often as they like."""
        if text != self._complaint:
            self._complaint = text
            self._log.note("showq", f"warning: {text}")

    async def _accept(self, listening: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                client, _ = await loop.sock_accept(listening)
            except OSError as error:
                self._say(f"{self.serves}: {error.strerror or error}")
                await asyncio.sleep(_NO_DESCRIPTORS_S)
                continue
            credentials = client.getsockopt(
                socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size
            )
            uid: int = _CREDENTIALS.unpack(credentials)[1]
            is_full = self.clients.total() >= MAX_CLIENTS
            if is_full or self.clients[uid] >= MAX_CLIENTS_OF_A_USER:
                client.close()  # without an end: the command says so
            else:
                self.clients[uid] += 1
                self._tasks.spawn(self._serve(client, uid))
            await asyncio.sleep(_PAUSE_S)

    async def _serve(self, client: socket.socket, uid: int) -> None:
        try:
            await self.answer(client, uid)
        except (StoreUnavailable, OSError, TimeoutError):
            pass  # he knows by the end that is missing
        finally:
            self.clients[uid] -= 1
            if not self.clients[uid]:
                del self.clients[uid]
            client.close()
