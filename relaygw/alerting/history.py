"""Writes what a process counted to the history, each few seconds and at its end."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from relaygw.errors import StoreUnavailable
from relaygw.observe.history.tally import HistoryTally
from relaygw.store.store import Store

WRITE_EACH_S = 10.0


@asynccontextmanager
async def history_kept(
    tally: HistoryTally, store: Store, *, each_s: float = WRITE_EACH_S
) -> AsyncIterator[None]:
    """Write the counts of `tally` within a with block, the last ones at its end."""
    writing = asyncio.create_task(_keep_writing(tally, store, each_s))
    try:
        yield
    finally:
        writing.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await writing
        await write_history(tally, store)


async def _keep_writing(tally: HistoryTally, store: Store, each_s: float) -> None:
    while True:
        await asyncio.sleep(each_s)
        # a write that was begun is finished: what was counted is in it once
        await asyncio.shield(asyncio.ensure_future(write_history(tally, store)))


async def write_history(tally: HistoryTally, store: Store) -> None:
    """Write what was counted; what cannot be written stays in memory, and nobody is told.

    The store's own users tell when it is away. An answer that was lost may count twice.
    """
    slices = tally.take()
    while slices:
        at_ms, counts = slices[0]
        try:
            await asyncio.to_thread(store.watch.add_history, at_ms, counts)
        except StoreUnavailable:
            break
        del slices[0]
    tally.put_back(slices)
