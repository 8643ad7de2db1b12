"""Group commit: what arrives while one transaction is written is the next transaction.

No timer: an idle front commits a message at once, a busy one shares each sync among all
that wait. A failed batch is retried message by message once, so that one bad row refuses
nobody else.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from relaygw.errors import AlreadyAccepted, IntakeFull, StoreUnavailable, Unstorable
from relaygw.mail.envelope import AcceptedMessage
from relaygw.observe.metrics.meters import SILENT, FrontMeter
from relaygw.store.protocol import Store

MAX_BATCH_MESSAGES = 200
MAX_BATCH_BYTES = 16 * 2**20
MAX_PENDING_BYTES = 64 * 2**20

T = TypeVar("T")
Waiter = tuple[AcceptedMessage, asyncio.Future[None]]
Failure = StoreUnavailable | AlreadyAccepted


class GroupCommitter:
    """Commits messages for all sessions of a front; owns the store's writing thread."""

    def __init__(
        self,
        store: Store,
        *,
        committed: Callable[[Sequence[AcceptedMessage]], None],
        meter: FrontMeter = SILENT,
    ) -> None:
        self._store = store
        self._meter = meter
        self._committed = committed
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="commit")
        # large content has a thread of its own: a small message waits for one chunk at most
        self._bulk_thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="chunks")
        self._waiting: list[Waiter] = []
        self._pending_bytes = 0
        self._is_writing = False
        self._idle = asyncio.Event()
        self._idle.set()

    async def submit(self, message: AcceptedMessage) -> None:
        """Return once `message` is durable; many callers share one transaction.

        Raises StoreUnavailable (nothing stored), AlreadyAccepted (its drop id was stored before)
        or IntakeFull (too much waits already).
        Cancelling the caller does not withdraw the message.
        """
        size_bytes = sum(map(len, message.content))
        if self._pending_bytes + size_bytes > MAX_PENDING_BYTES:
            raise IntakeFull(f"{self._pending_bytes} bytes wait to be written")
        self._pending_bytes += size_bytes
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((message, done))
        if not self._is_writing:
            self._start_next_batch()
        await done

    def work_aside(self, work: Callable[[], T]) -> asyncio.Future[T]:
        """Run blocking work on large content where it holds up no small message."""
        return asyncio.get_running_loop().run_in_executor(self._bulk_thread, work)

    async def add_chunks(self, queue_id: str, chunks: Iterator[bytes]) -> None:
        """Store the content of a large message ahead of it, each chunk in its own transaction.

        `chunks` may block: it is read where it holds up no small message.
        """
        numbered = enumerate(chunks)
        while await self.work_aside(lambda: self._store_next(queue_id, numbered)):
            pass

    def _store_next(self, queue_id: str, numbered: Iterator[tuple[int, bytes]]) -> bool:
        for number, body in numbered:
            self._store.add_chunks(queue_id, number, [body])
            return True
        return False

    async def drain(self) -> None:
        """Return when nothing waits any more, and stop the threads."""
        await self._idle.wait()
        await asyncio.to_thread(self._bulk_thread.shutdown)
        await asyncio.to_thread(self._thread.shutdown)

    def _start_next_batch(self) -> None:
        batch: list[Waiter] = []
        size_bytes = 0
        for waiter in self._waiting[:MAX_BATCH_MESSAGES]:
            size_bytes += sum(map(len, waiter[0].content))
            if batch and size_bytes > MAX_BATCH_BYTES:
                break
            batch.append(waiter)
        del self._waiting[: len(batch)]
        self._is_writing = True
        self._idle.clear()
        written = asyncio.get_running_loop().run_in_executor(
            self._thread, self._write, [message for message, _ in batch]
        )
        written.add_done_callback(lambda result: self._end_batch(batch, result))

    def _write(self, messages: list[AcceptedMessage]) -> list[Failure | None]:
        """Write a batch, in the store's thread; return what went wrong with each message."""
        began_s = time.monotonic()
        try:
            self._store.accept_batch(messages)
        except (StoreUnavailable, AlreadyAccepted) as error:
            if len(messages) == 1:
                return [error]
            return [self._write([message])[0] for message in messages]
        except Exception as error:  # a defect is the front's trouble, never the client's
            if len(messages) == 1:
                return [Unstorable(f"{type(error).__name__}: {error}")]
            return [self._write([message])[0] for message in messages]
        with contextlib.suppress(Exception):  # it is durable, whatever is wrong with counting
            self._meter.wrote(time.monotonic() - began_s)
        return [None] * len(messages)

    def _end_batch(
        self, batch: list[Waiter], written: asyncio.Future[list[Failure | None]]
    ) -> None:
        """Answer a batch and begin the next one, whatever goes wrong with telling of it."""
        error = None if written.cancelled() else written.exception()
        try:
            if written.cancelled() or error is not None:
                what = f"{type(error).__name__}: {error}" if error is not None else "cancelled"
                self._answer(batch, [Unstorable(f"it was not written: {what}")] * len(batch))
            else:
                self._answer(batch, written.result())
        finally:
            if self._waiting:
                self._start_next_batch()
            else:
                self._is_writing = False
                self._idle.set()

    def _answer(self, batch: list[Waiter], errors: Sequence[Failure | None]) -> None:
        stored = []
        for (message, done), error in zip(batch, errors, strict=True):
            self._pending_bytes -= sum(map(len, message.content))
            if error is None:
                stored.append(message)
            if done.cancelled():
                continue
            if error is None:
                done.set_result(None)
            else:
                done.set_exception(error)
        if stored:
            self._committed(stored)  # what it raises, the loop's handler tells
