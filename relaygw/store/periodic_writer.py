"""Writes what is noted in memory every few seconds, in the background of a with block."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager


@asynccontextmanager
async def written_each(
    each_s: float, write: Callable[[], Awaitable[None]], *, name: str
) -> AsyncIterator[None]:
    """Call `write` within a with block, and once more at its end; a call is never cut short."""
    stop = asyncio.Event()

    async def keep_writing() -> None:
        while not stop.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), each_s)
            await write()

    writing = asyncio.create_task(keep_writing(), name=name)
    try:
        yield
    finally:
        stop.set()
        await writing
