"""Wakes pages and clients that wait for captured mail to come or to go."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

from relaygw.errors import StoreUnavailable
from relaygw.mail.search import EVERYTHING
from relaygw.store.store import Store
from relaygw.web.indexing import Indexer

ARRIVAL_LOOK_S = 0.2


class Arrivals:
    """Wakes those who wait for something to come, to go or to be read; `stop` ends all waits.

    The store is looked at five times a second, only while somebody waits, and once for all.
    """

    def __init__(
        self,
        read: Callable[[Callable[[], bool]], Awaitable[bool]],
        store: Store,
        indexer: Indexer,
        stop: asyncio.Event,
    ) -> None:
        self.stop = stop
        self.version = 0  # another one after each change
        self._read, self._store, self._indexer = read, store, indexer
        self._seen: tuple[str | int, ...] | None = None
        self._changed = asyncio.Event()
        self._waiting = 0
        self._watching: asyncio.Task[None] | None = None

    async def after(self, version: int, *, timeout_s: float) -> None:
        """Wait for a change after `version` (read before a look), for the stop, or so long."""
        self._waiting += 1
        try:
            if self._watching is None or self._watching.done():
                self._watching = asyncio.create_task(self._watch(), name="sandbox arrivals")
            if self.version == version and not self.stop.is_set():
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(timeout_s):
                        await self._changed.wait()
        finally:
            self._waiting -= 1

    async def _watch(self) -> None:
        while self._waiting and not self.stop.is_set():
            with contextlib.suppress(StoreUnavailable):  # the next look may do
                if await self._read(self._look):
                    self._tell()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(ARRIVAL_LOOK_S):
                    await self.stop.wait()
        self._tell()

    def _tell(self) -> None:
        self.version += 1
        self._changed.set()
        self._changed = asyncio.Event()

    def _look(self) -> bool:
        """Return whether something changed; while content is still being read it does."""
        is_all_read = self._indexer.catch_up()
        newest = self._store.sandbox.captured_entry(None)
        counts = self._store.sandbox.count_captured(EVERYTHING)
        before, self._seen = self._seen, (newest.entry.queue_id if newest else "", *counts)
        return self._seen != before or not is_all_read
