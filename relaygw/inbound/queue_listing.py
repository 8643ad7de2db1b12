"""mailq for any local user: whoever connects to a socket in the maildrop is sent the queue.

One page at a time is read from the store, in a thread that rests as long as it worked, so that
the front goes on accepting, and no list is held in memory. A client costs a descriptor and a
page until it has read, left, or been cut for reading too slowly.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct
import time
from collections import Counter
from collections.abc import Awaitable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from relaygw.errors import StoreUnavailable
from relaygw.inbound.drop_directory import DropDirectory
from relaygw.inbound.queue_report import HEADINGS, compose_closing, compose_rows
from relaygw.mail import queue_socket
from relaygw.observe.maillog import MailLog
from relaygw.store.store import Store

MAX_CLIENTS = 20
MAX_CLIENTS_OF_A_USER = 4
STALL_S = 300.0
"""How long a client may take to make room for a page."""
PAGE_MESSAGES = 500
_BACKLOG = 64
_PAUSE_S = 0.005  # a flood of connections must not keep the front busy
_NO_DESCRIPTORS_S = 1.0
_CREDENTIALS = struct.Struct("3i")  # pid, uid, gid


@dataclass(slots=True)
class _Progress:
    """How far one report is."""

    after: str = ""
    messages: int = 0
    size_bytes: int = 0
    is_over: bool = False


class QueueListing:
    """Serves the queue at a maildrop for the length of an `async with` block."""

    def __init__(self, directory: DropDirectory, store: Store, log: MailLog) -> None:
        self._directory = directory
        self._store = store
        self._log = log
        self._listening: socket.socket | None = None
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="mailq")
        self._tasks: set[asyncio.Task[None]] = set()
        self._clients: Counter[int] = Counter()  # by user id
        self._complaint = ""

    @property
    def client_count(self) -> int:
        """How many reports are being sent."""
        return self._clients.total()

    async def __aenter__(self) -> None:
        try:
            self._listening = self._listen()
        except OSError as error:
            path = self._directory.path / queue_socket.NAME
            self._say(
                f"{path}: no socket ({error.strerror or error}); nobody can ask for the queue there"
            )
            return
        self._start(self._accept(self._listening))

    async def __aexit__(self, *_exc: object) -> None:
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        if self._listening is not None:
            with contextlib.suppress(OSError):  # before the lock goes: the next one binds its own
                os.unlink(queue_socket.NAME, dir_fd=self._directory.descriptor)
            self._listening.close()
        # the store may be closed after this
        await asyncio.to_thread(self._thread.shutdown, cancel_futures=True)

    def _listen(self) -> socket.socket:
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            listening.setblocking(False)
            with contextlib.suppress(FileNotFoundError):
                os.unlink(queue_socket.NAME, dir_fd=self._directory.descriptor)
            listening.bind(str(self._directory.path / queue_socket.NAME))
            # who may come here at all is up to the directory
            os.chmod(queue_socket.NAME, 0o666, dir_fd=self._directory.descriptor)
            listening.listen(_BACKLOG)
        except OSError:
            listening.close()
            raise
        return listening

    def _start(self, work: Awaitable[None]) -> None:
        async def guarded() -> None:
            try:
                await work
            except Exception as error:
                self._say(f"mailq: {type(error).__name__}: {error}")

        task = asyncio.create_task(guarded())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _say(self, text: str) -> None:
        """Write a line unless it was the last one: local users can ask as often as they like."""
        if text != self._complaint:
            self._complaint = text
            self._log.note("showq", f"warning: {text}")

    # --- clients -------------------------------------------------------------------------

    async def _accept(self, listening: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                client, _ = await loop.sock_accept(listening)
            except OSError as error:
                self._say(f"mailq: {error.strerror or error}")
                await asyncio.sleep(_NO_DESCRIPTORS_S)
                continue
            uid = _user_of(client)
            is_full = self.client_count >= MAX_CLIENTS
            if is_full or self._clients[uid] >= MAX_CLIENTS_OF_A_USER:
                client.close()  # a report without an end: the command says so
            else:
                self._clients[uid] += 1
                self._start(self._serve(client, uid))
            await asyncio.sleep(_PAUSE_S)

    async def _serve(self, client: socket.socket, uid: int) -> None:
        loop = asyncio.get_running_loop()
        progress = _Progress()
        try:
            while not progress.is_over:
                page = await loop.run_in_executor(self._thread, self._next_page, progress)
                async with asyncio.timeout(STALL_S):
                    await loop.sock_sendall(client, page)
        except (StoreUnavailable, OSError, TimeoutError):
            pass  # no end: the client knows that it is not all
        finally:
            self._clients[uid] -= 1
            if not self._clients[uid]:
                del self._clients[uid]
            client.close()

    # --- in the thread -------------------------------------------------------------------

    def _next_page(self, progress: _Progress) -> bytes:
        """Return the next piece of a report."""
        begun_s = time.thread_time()
        entries = self._store.queue.waiting(limit=PAGE_MESSAGES, after=progress.after)
        rows = [compose_rows(entry) for entry in entries]
        if rows and not progress.messages:
            rows.insert(0, HEADINGS)
        if entries:
            progress.after = entries[-1].queue_id
            progress.messages += len(entries)
            progress.size_bytes += sum(entry.size_bytes for entry in entries)
        progress.is_over = len(entries) < PAGE_MESSAGES
        if progress.is_over:
            rows.append(_end(progress))
        else:
            time.sleep(time.thread_time() - begun_s)
        return b"".join(rows)


def _end(progress: _Progress) -> bytes:
    if not progress.messages:
        return queue_socket.EMPTY
    return compose_closing(messages=progress.messages, size_bytes=progress.size_bytes)


def _user_of(client: socket.socket) -> int:
    credentials = client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    uid: int = _CREDENTIALS.unpack(credentials)[1]
    return uid
