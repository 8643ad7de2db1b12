"""One look at the store for all who ask at the same time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

Result = TypeVar("Result")


class SharedRead(Generic[Result]):
    """Something that is read at most each `fresh_s`; all who ask meanwhile get the same."""

    def __init__(self, read: Callable[[], Awaitable[Result]], *, fresh_s: float = 0.0) -> None:
        self._read = read
        self._fresh_s = fresh_s
        self._fresh_until_s = 0.0
        self._reading: asyncio.Task[Result] | None = None

    async def get(self, *, within_s: float | None = None) -> Result:
        """Return a result that is at most `fresh_s` old; raises TimeoutError after `within_s`."""
        is_due = time.monotonic() >= self._fresh_until_s
        if self._reading is None or (self._reading.done() and is_due):
            self._reading = asyncio.create_task(self._read_once())
        async with asyncio.timeout(within_s):
            return await asyncio.shield(self._reading)

    def forget(self) -> None:
        """Let the next who asks get what is read from now on."""
        self._reading = None

    async def _read_once(self) -> Result:
        try:
            return await self._read()
        finally:
            self._fresh_until_s = time.monotonic() + self._fresh_s
