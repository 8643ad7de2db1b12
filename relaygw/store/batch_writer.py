"""Group commit: what arrives while one batch is written is the next batch.

No timer: what comes alone is written at once, what many bring shares each transaction.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, TypeVar

from relaygw.errors import Unstorable

Item = TypeVar("Item")
Result = TypeVar("Result")
_RETRY_LADDER_S = (0.1, 0.5, 1.0, 2.0)


@dataclass(slots=True, eq=False)
class _Waiting(Generic[Item, Result]):
    item: Item
    written: asyncio.Future[Result]


class BatchWriter(Generic[Item, Result]):
    """Writes what many hand in, one batch at a time, in a thread of its own.

    `write_all` writes a batch, in the thread, and returns a result for each item. When it fails
    its items are written one by one, so that one with a defect stops no other; `refused` returns,
    the result of one that fails alone. `size` says how many of the first items are the next batch.
    `told` is called with what was written before those who wait for it go on.

    With `is_away` nothing is dropped: a batch whose error says that the store is away is tried
    again after a wait; `away` is told of the error and how much waits.
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
    ) -> None:
        self._size = size
        self._write_all = write_all
        self._refused = refused
        self._told = told
        self._is_away = is_away
        self._away = away
        self._waiting: list[_Waiting[Item, Result]] = []
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix=name)
        self._writer: asyncio.Task[None] | None = None
        self._failures = 0

    def add(self, item: Item) -> asyncio.Future[Result]:
        """Take an item; what is returned is done once it is durable, and was told of.

        Nothing withdraws it: neither the caller's end nor a cancellation of the future.
        """
        loop = asyncio.get_running_loop()
        written: asyncio.Future[Result] = loop.create_future()
        self._waiting.append(_Waiting(item, written))
        if self._writer is None:
            self._writer = loop.create_task(self._run())
        return written

    async def drain(self, limit_s: float | None = None) -> list[Item]:
        """Return when everything is durable, and stop the thread.

        What takes longer than `limit_s` is left, and returned.
        """
        deadline_s = None if limit_s is None else time.monotonic() + limit_s
        left: list[Item] = []
        while self._writer is not None:
            left_s = None if deadline_s is None else deadline_s - time.monotonic()
            if left_s is not None and left_s <= 0:
                self._writer.cancel()
                left = [one.item for one in self._waiting]
                break
            await asyncio.wait({self._writer}, timeout=left_s)
        self._thread.shutdown(wait=False)
        return left

    async def _run(self) -> None:
        try:
            while self._waiting:
                await self._write_next()
        finally:
            self._writer = None

    async def _write_next(self) -> None:
        """Write a batch and tell of it; whatever goes wrong, it is written or waits."""
        items = [one.item for one in self._waiting]
        items = items[: self._size(items)]
        loop = asyncio.get_running_loop()
        try:
            results = await loop.run_in_executor(self._thread, self._write, items)
        except Exception as error:
            if self._is_away is not None:
                await self._wait_for_store(error)
                return
            why = Unstorable(f"it was not written: {type(error).__name__}: {error}")
            results = [self._refused(item, why) for item in items]
        self._failures = 0
        batch = self._waiting[: len(items)]
        del self._waiting[: len(items)]
        try:
            self._told(items, results)
        except Exception as error:  # what is durable is acknowledged, and the next one is written
            what = "what follows a commit failed"
            loop.call_exception_handler({"message": what, "exception": error})
        finally:
            for one, result in zip(batch, results, strict=True):
                if not one.written.done():
                    one.written.set_result(result)

    async def _wait_for_store(self, error: Exception) -> None:
        self._away(error, len(self._waiting))
        wait_s = _RETRY_LADDER_S[min(self._failures, len(_RETRY_LADDER_S) - 1)]
        self._failures += 1
        await asyncio.sleep(wait_s)

    def _write(self, items: Sequence[Item]) -> Sequence[Result]:
        try:
            return self._write_all(items)
        except Exception as error:
            if self._is_away is not None and self._is_away(error):
                raise
            if len(items) == 1:
                return [self._refused(items[0], error)]
        # those that are written already stay so when the store goes away in the middle
        return [result for item in items for result in self._write([item])]
