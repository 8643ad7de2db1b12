"""mailq for any local user: whoever connects to a socket in the maildrop is sent the queue.

In the form of Postfix's mailq with long queue ids, which monitoring reads: `*` behind the id is
active, `!` held. A page at a time, in a thread that rests as long as it worked, and none while a
client does not read.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import time
from collections import Counter
from collections.abc import Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from relaygw.errors import StoreUnavailable
from relaygw.inbound.drop_directory import DropDirectory
from relaygw.mail import drop
from relaygw.mail.state import DeliveryState
from relaygw.mail.words import counted, escape
from relaygw.observe.maillog import MailLog
from relaygw.store.queue import Queue
from relaygw.store.queue_entry import Waiting

MAX_CLIENTS = 20
MAX_CLIENTS_OF_A_USER = 4
STALL_S = 300.0  # how long a client may take to make room for a page
PAGE_MESSAGES = 500
HEADINGS = b"----Queue ID----- --Size-- ---Arrival Time---- --Sender/Recipient------\n"
NULL_SENDER = "MAILER-DAEMON"  # what Postfix prints for the null sender
_BACKLOG = 64
_PAUSE_S = 0.005  # a flood of connections must not keep the front busy
_NO_DESCRIPTORS_S = 1.0
_HELD = frozenset({DeliveryState.HELD.value})
_RECIPIENT_INDENT = " " * 47  # below the sender
_REASON_END = 76  # reasons are set against the right
_REASON_CHARACTERS = 1000
_CREDENTIALS = struct.Struct("3i")  # pid, uid, gid


@dataclass(slots=True)
class _Progress:
    after: str = ""  # this id
    messages: int = 0
    size_bytes: int = 0
    is_over: bool = False


class QueueListing:
    """Serves the queue at a maildrop for the length of an `async with` block."""

    def __init__(self, directory: DropDirectory, queue: Queue, log: MailLog) -> None:
        self._directory = directory
        self._queue = queue
        self._log = log
        self._listening: socket.socket | None = None
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="mailq")
        self._tasks: set[asyncio.Task[None]] = set()
        self._clients: Counter[int] = Counter()  # by user id
        self._complaint = ""

    async def __aenter__(self) -> None:
        try:
            self._listening = self._directory.bind(drop.QUEUE_SOCKET, mode=0o666)
            self._listening.listen(_BACKLOG)
        except OSError as error:
            path = self._directory.path / drop.QUEUE_SOCKET
            self._say(f"{path}: no socket ({error.strerror or error}); mailq does not work there")
            return
        self._start(self._accept(self._listening))

    async def __aexit__(self, *_exc: object) -> None:
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        if self._listening is not None:
            self._directory.unbind(drop.QUEUE_SOCKET, self._listening)
        # the store may be closed after this
        await asyncio.to_thread(self._thread.shutdown, cancel_futures=True)

    def _start(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._end)

    def _end(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self._say(f"mailq: {type(error).__name__}: {error}")

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
            credentials = client.getsockopt(
                socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size
            )
            uid: int = _CREDENTIALS.unpack(credentials)[1]
            is_full = self._clients.total() >= MAX_CLIENTS
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
        begun_s = time.thread_time()
        entries = self._queue.waiting(limit=PAGE_MESSAGES, after=progress.after)
        rows = [compose_rows(entry) for entry in entries]
        if rows and not progress.messages:
            rows.insert(0, HEADINGS)
        if entries:
            progress.after = entries[-1].queue_id
            progress.messages += len(entries)
            progress.size_bytes += sum(entry.size_bytes for entry in entries)
        progress.is_over = len(entries) < PAGE_MESSAGES
        if not progress.is_over:
            time.sleep(time.thread_time() - begun_s)
        elif not progress.messages:
            rows.append(drop.QUEUE_EMPTY)
        else:
            rows.append(compose_closing(messages=progress.messages, size_bytes=progress.size_bytes))
        return b"".join(rows)


def compose_rows(one: Waiting) -> bytes:
    """Return the lines of a message, an empty one last; times are local."""
    arrival = time.asctime(time.localtime(one.accepted_at_ms / 1000))[:19]
    sender = escape(one.sender) or NULL_SENDER
    mark = "!" if one.states == _HELD else ""
    if DeliveryState.ACTIVE in one.states:
        mark = "*"
    # a mark needs a place of its own, so that no size runs into it
    name = f"{one.queue_id}{mark}"
    lines = [f"{name:<18} {one.size_bytes:>7} {arrival} {sender}", *_recipient_lines(one)]
    return ("\n".join(lines) + "\n\n").encode("utf-8", "replace")


def compose_closing(*, messages: int, size_bytes: int) -> bytes:
    """Return the last line."""
    text = f"{size_bytes // 1024} Kbytes in {counted(messages, 'Request')}.\n"
    return drop.QUEUE_CLOSING + text.encode("ascii")


def _recipient_lines(one: Waiting) -> Iterator[str]:
    said = ""
    for address, why in one.recipients:
        reason = escape(why[:_REASON_CHARACTERS])
        if reason and reason != said:
            yield f"({reason})".rjust(_REASON_END + 2)
        said = reason
        yield f"{_RECIPIENT_INDENT} {escape(address)}"
