"""Group commit: what arrives while one batch is written is the next batch (decision 2).

What may be lost is written every few seconds (`written_each`).
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from queue import SimpleQueue
from threading import Thread
from typing import Any, Generic, TypeVar

from relaygw.errors import Unstorable
from relaygw.policy.pacing import ladder_step

Item = TypeVar("Item")
Result = TypeVar("Result")
RETRY_LADDER_S = (0.1, 0.5, 1.0, 2.0)
_Batch = tuple[Sequence[Item], asyncio.Future[Sequence[Result]]]


class BatchWriter(Generic[Item, Result]):
    """Writes what many hand in, one batch at a time, in a thread of its own.

    `size` says how many of the first items are the next batch; `write_all` returns a result for
    each. When it fails, items are written one by one, and `refused` returns the result of one that
    fails alone. `told` is called with what was written before those who wait for it go on. A batch
    whose error `is_away` is not dropped but tried again after a wait; `away` is told of the error
    and how much waits. A batch begins `pace_s` after the one before, or once all that is `expected`
    waits, so that a busy writer has fewer of them; the first one after a pause begins at once.
    """

    def __init__(
        self,
        name: str,
        *,
        size: Callable[[Sequence[Item]], int],
        write_all: Callable[[Sequence[Item]], Sequence[Result]],
        refused: Callable[[Item, Exception], Result],
        told: Callable[[Sequence[Item], Sequence[Result]], None],
        is_away: Callable[[Exception], bool] | None = None,
        away: Callable[[Exception, int], None] = lambda _error, _waiting: None,
        retry_ladder_s: Sequence[float] = RETRY_LADDER_S,
        pace_s: float = 0.0,
        expected: Callable[[], int] = lambda: 0,
    ) -> None:
        self._size = size
        self._write_all = write_all
        self._refused = refused
        self._told = told
        self._is_away = is_away
        self._away = away
        self._retry_ladder_s = retry_ladder_s
        self._pace_s = pace_s
        self._expected = expected
        self._next_s = 0.0  # when the next batch may begin, by the clock of the loop
        self._gathered: asyncio.Future[None] | None = None
        self._items: list[Item] = []  # that wait, the oldest first
        self._written: list[asyncio.Future[Result]] = []  # one for each of them
        # an executor would take 50 calls to hand over each batch
        self._batches: SimpleQueue[_Batch[Item, Result] | None] = SimpleQueue()
        Thread(target=self._serve, name=name, daemon=True).start()
        self._writer: asyncio.Task[None] | None = None
        self._failures = 0

    @property
    def waiting(self) -> int:
        """How many items are not durable yet."""
        return len(self._items)

    def add(self, item: Item) -> asyncio.Future[Result]:
        """Take an item; the future is done once it is durable and told. Nothing withdraws it."""
        loop = asyncio.get_running_loop()
        written: asyncio.Future[Result] = loop.create_future()
        self._items.append(item)
        self._written.append(written)
        if self._writer is None:
            self._writer = loop.create_task(self._run())
        else:
            self.look_again()
        return written

    def look_again(self) -> None:
        """Begin the batch that is gathered if all that is expected waits by now."""
        if self._gathered is not None and len(self._items) >= self._expected():
            self._end_gathering()

    async def drain(self, limit_s: float | None = None) -> list[Item]:
        """Return when everything is durable, or what is left after `limit_s`; stop the thread."""
        deadline_s = None if limit_s is None else time.monotonic() + limit_s
        left: list[Item] = []
        while self._writer is not None:
            left_s = None if deadline_s is None else deadline_s - time.monotonic()
            if left_s is not None and left_s <= 0:
                self._writer.cancel()
                left = self._items
                break
            await asyncio.wait({self._writer}, timeout=left_s)
        self._batches.put(None)
        return left

    async def _run(self) -> None:
        try:
            while self._items:
                await self._gather()
                await self._write_next()
        finally:
            self._writer = None

    async def _gather(self) -> None:
        """Wait for a moment, if the batch before was only just begun and more is to come."""
        loop = asyncio.get_running_loop()
        now_s = loop.time()
        if now_s < self._next_s and len(self._items) < self._expected():
            self._gathered = loop.create_future()
            timer = loop.call_at(self._next_s, self._end_gathering)
            try:
                await self._gathered
            finally:
                self._gathered = None
                timer.cancel()
            now_s = loop.time()
        self._next_s = now_s + self._pace_s

    def _end_gathering(self) -> None:
        if self._gathered is not None and not self._gathered.done():
            self._gathered.set_result(None)

    async def _write_next(self) -> None:
        """Write a batch and tell of it; whatever goes wrong, it is written or waits."""
        count = self._size(self._items)
        items = self._items[:count]
        answer: asyncio.Future[Sequence[Result]] = asyncio.get_running_loop().create_future()
        self._batches.put((items, answer))
        try:
            results = await answer
        except Exception as error:
            if self._is_away is not None:
                await self._wait_for_store(error)
                return
            why = Unstorable(f"it was not written: {type(error).__name__}: {error}")
            results = [self._refused(item, why) for item in items]
        self._failures = 0
        written = self._written[:count]
        del self._items[:count], self._written[:count]
        try:
            self._told(items, results)
        except Exception as error:  # what is durable is acknowledged, and the next one is written
            what = "what follows a commit failed"
            asyncio.get_running_loop().call_exception_handler({"message": what, "exception": error})
        finally:
            for future, result in zip(written, results, strict=True):
                if not future.done():
                    future.set_result(result)

    async def _wait_for_store(self, error: Exception) -> None:
        self._away(error, len(self._items))
        wait_s = ladder_step(self._retry_ladder_s, self._failures)
        self._failures += 1
        await asyncio.sleep(wait_s)

    # --- in the thread

    def _serve(self) -> None:
        while (batch := self._batches.get()) is not None:
            items, answer = batch
            hand_back: Callable[[], None]
            try:
                hand_back = partial(answer.set_result, self._write(items))
            except BaseException as failure:  # in a thread nobody else would hear of it
                hand_back = partial(answer.set_exception, _as_error(failure))
            with suppress(RuntimeError):  # the loop has ended: nobody waits any more
                answer.get_loop().call_soon_threadsafe(_unless_done, answer, hand_back)

    def _write(self, items: Sequence[Item]) -> Sequence[Result]:
        try:
            return self._write_all(items)
        except BaseException as failure:
            error = _as_error(failure)
            if self._is_away is not None and self._is_away(error):
                raise
            if len(items) == 1:
                return [self._refused(items[0], error)]
        # those that are written already stay so when the store goes away in the middle
        return [result for item in items for result in self._write([item])]


def _as_error(failure: BaseException) -> Exception:
    """Return the error of the batch alone, also for one that would end a thread or a generator."""
    if isinstance(failure, Exception) and not isinstance(failure, StopIteration):
        return failure
    return RuntimeError(repr(failure))


def _unless_done(answer: asyncio.Future[Any], hand_back: Callable[[], None]) -> None:
    if not answer.done():  # else nobody waits any more
        hand_back()


@asynccontextmanager
async def written_each(
    each_s: float, write: Callable[[], Awaitable[None]], *, name: str
) -> AsyncIterator[None]:
    """Call `write` within a with block, and once more at its end; a call is never cut short."""
    stop = asyncio.Event()

    async def keep_writing() -> None:
        while not stop.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(each_s):
                    await stop.wait()
            await write()

    writing = asyncio.create_task(keep_writing(), name=name)
    try:
        yield
    finally:
        stop.set()
        await writing
