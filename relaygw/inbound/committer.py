"""The commit: all messages that wait share one synced transaction; what is too much is refused."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from relaygw.errors import AlreadyAccepted, IntakeFull, StoreUnavailable, TakenBefore, Unstorable
from relaygw.mail.envelope import AcceptedMessage
from relaygw.store.batch_writer import BatchWriter
from relaygw.store.store import Store

MAX_BATCH_MESSAGES = 200
MAX_BATCH_BYTES = 16 * 2**20
MAX_PENDING_BYTES = 64 * 2**20
PACE_S = 0.008
"""From one batch of a busy front to the next, while more is expected: each costs a sync."""
PATIENT_BATCHES = 3
"""So many batches, twice that at most, wait for one session."""
BUSY_BATCH_MESSAGES = 3.0
"""How many messages a batch must have had of late for a front to be busy."""
PIECE_PAUSE_S = 0.002
"""Between pieces of large content while small mail is on its way."""
LARGE_MESSAGES_AT_ONCE = 2
"""Large messages that are written at once: one is read from its file while one is stored."""

T = TypeVar("T")
Failure = StoreUnavailable | AlreadyAccepted | TakenBefore


class GroupCommitter:
    """Commits messages for all sessions of a front; owns the store's writing thread.

    A busy front waits, PACE_S at most, for the sessions that are about to hand over a message, so
    that they share a batch. One that is not busy waits for nobody.
    """

    def __init__(
        self,
        store: Store,
        *,
        committed: Callable[[Sequence[AcceptedMessage]], None],
        wrote: Callable[[float], None] = lambda _seconds: None,
        refused: Callable[[AcceptedMessage, Exception | None], None] = lambda _message, _why: None,
        pace_s: float = PACE_S,
    ) -> None:
        self._store = store
        self._refused = refused  # told of each message that is not stored
        self._wrote = wrote  # told by the store's thread how long a batch took
        self._committed = committed
        self._writer: BatchWriter[AcceptedMessage, Failure | None] = BatchWriter(
            "commit",
            size=_batch_size,
            write_all=self._accept,
            refused=_failure,
            told=self._told,
            pace_s=pace_s,
            expected=self._expected,
        )
        self._batch_messages = 0.0  # of late
        self._batches = 0
        self.expected_of: set[object] = set()  # sessions
        self._slow: set[object] = set()  # of them, those of PATIENT_BATCHES before
        self.large_turn = asyncio.Semaphore(LARGE_MESSAGES_AT_ONCE)
        """Whose turn it is to have a chunk of large content in memory."""
        # large content has a thread of its own: a small message waits for one chunk at most
        self._bulk_thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="chunks")
        self._pending_bytes = 0

    def expect(self, session: object) -> None:
        """Count on a message of `session` soon: until `dismiss`, or it is found to be slow."""
        self.expected_of.add(session)

    def dismiss(self, session: object) -> None:
        """Count on no message of `session`: what it had is handed over, or never will be."""
        self.expected_of.discard(session)
        self._writer.look_again()

    async def submit(self, message: AcceptedMessage) -> str:
        """Return its queue id once `message` is durable; cancelling the caller withdraws nothing.

        Or the queue id of another one where that is durable and the same (`mail_key`). Raises
        StoreUnavailable (nothing stored), AlreadyAccepted (its drop id was stored before),
        IntakeFull (too much waits already).
        """
        size_bytes = _size_bytes(message)
        if self._pending_bytes + size_bytes > MAX_PENDING_BYTES:
            self._refused(message, None)
            raise IntakeFull(f"{self._pending_bytes} bytes wait to be written")
        self._pending_bytes += size_bytes
        failure = await self._writer.add(message)
        if isinstance(failure, TakenBefore):  # as after a lost reply: it is taken, once
            return failure.queue_id
        if failure is not None:
            raise failure
        return message.queue_id

    def work_aside(self, work: Callable[[], T]) -> asyncio.Future[T]:
        """Run blocking work on large content where it holds up no small message."""
        return asyncio.get_running_loop().run_in_executor(self._bulk_thread, work)

    def work_piece(self, work: Callable[[], T]) -> asyncio.Future[T]:
        """Work aside on a piece of many; sessions that are about to hand over go first.

        A thread that works without a pause would have them wait at each step for the interpreter.
        """

        def work_and_pause() -> T:
            result = work()
            if self.expected_of:
                time.sleep(PIECE_PAUSE_S)
            return result

        return self.work_aside(work_and_pause)

    async def add_chunks(self, message: AcceptedMessage, chunks: Iterator[bytes]) -> None:
        """Store content ahead of its large message, a transaction a chunk; `chunks` may block."""
        numbered = enumerate(chunks)

        def store_next() -> bool:
            for number, body in numbered:
                self._store.intake.add_chunks(message.queue_id, number, [body])
                return True
            return False

        try:
            while await self.work_piece(store_next):
                pass
        except BaseException:
            self._refused(message, None)
            raise

    async def drain(self) -> None:
        """Return when nothing waits any more, and stop the threads."""
        await self._writer.drain()
        await asyncio.to_thread(self._bulk_thread.shutdown)

    def _expected(self) -> int:
        is_busy = self._batch_messages >= BUSY_BATCH_MESSAGES
        return self._writer.waiting + len(self.expected_of) if is_busy else 0

    def _accept(self, messages: Sequence[AcceptedMessage]) -> list[Failure | None]:
        began_s = time.monotonic()
        again = self._store.intake.accept_batch(messages)
        with contextlib.suppress(Exception):  # it is durable, whatever is wrong with counting
            self._wrote(time.monotonic() - began_s)
        if not again:
            return [None] * len(messages)
        return [_before(message, again.get(message.queue_id)) for message in messages]

    def _told(
        self, messages: Sequence[AcceptedMessage], failures: Sequence[Failure | None]
    ) -> None:
        self._batch_messages += (len(messages) - self._batch_messages) / 4
        self._batches += 1
        if self._batches % PATIENT_BATCHES == 0:  # who has not come by now does not come soon
            self.expected_of -= self._slow
            self._slow = self.expected_of.copy()
        self._pending_bytes -= sum(map(_size_bytes, messages))
        stored = [
            accepted
            for accepted, failure in zip(messages, failures, strict=True)
            if failure is None
        ]
        if stored:
            self._committed(stored)
        if len(stored) < len(messages):
            for message, failure in zip(messages, failures, strict=True):
                if failure is not None:
                    self._refused(message, failure)


def _batch_size(waiting: Sequence[AcceptedMessage]) -> int:
    size_bytes = 0
    for number, message in enumerate(waiting[:MAX_BATCH_MESSAGES]):
        size_bytes += _size_bytes(message)
        if number and size_bytes > MAX_BATCH_BYTES:
            return number
    return min(len(waiting), MAX_BATCH_MESSAGES)


def _size_bytes(message: AcceptedMessage) -> int:
    return message.size_bytes if message.content else 0  # else its chunks are stored


def _before(message: AcceptedMessage, first_id: str | None) -> TakenBefore | None:
    if first_id is None:
        return None
    source = message.source
    return TakenBefore(first_id, source.client or f"local user {source.uid}")


def _failure(_: AcceptedMessage, error: Exception) -> Failure:
    if isinstance(error, StoreUnavailable | AlreadyAccepted):
        return error
    # a defect is the front's trouble, never the client's
    return Unstorable(f"{type(error).__name__}: {error}")
