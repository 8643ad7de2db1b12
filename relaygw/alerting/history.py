"""The history as the queue keeps it: what this process counted goes in, sums come out.

A sum over a window takes in the whole slice that the window begins in.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from relaygw.errors import StoreUnavailable
from relaygw.mail.state import DeliveryState
from relaygw.observe.history import History, Series
from relaygw.store.store import Store
from relaygw.store.watch import HISTORY_SLICE_MS, HistoryPoint

WRITE_EACH_S = 10.0
HOUR_MS = 3_600_000


def totals(points: Sequence[HistoryPoint], series: Series, *, since_ms: int) -> dict[str, int]:
    """Add up a series by label."""
    first_ms = since_ms - since_ms % HISTORY_SLICE_MS
    found: Counter[str] = Counter()
    for point in points:
        if point.series == series and point.slice_at_ms >= first_ms:
            found[point.label] += point.amount
    return dict(found)


def total(points: Sequence[HistoryPoint], series: Series, *, since_ms: int) -> int:
    """Add up a series."""
    return sum(totals(points, series, since_ms=since_ms).values())


def waiting_then(points: Sequence[HistoryPoint], *, from_ms: int, until_ms: int) -> int | None:
    """How many mails waited, not held, in the emptiest slice of a time; None: nobody looked."""
    first_ms = from_ms - from_ms % HISTORY_SLICE_MS
    waited: defaultdict[int, int] = defaultdict(int)
    for point in points:
        if point.series == Series.QUEUE and first_ms <= point.slice_at_ms <= until_ms:
            is_held = point.label == DeliveryState.HELD
            waited[point.slice_at_ms] += 0 if is_held else point.amount
    return min(waited.values(), default=None)


def busiest_hour(points: Sequence[HistoryPoint], *, until_ms: int) -> dict[str, int]:
    """Return the greatest sum of twelve slices in a row before a time, by label."""
    slices: defaultdict[str, dict[int, int]] = defaultdict(dict)
    for point in points:
        if point.slice_at_ms + HISTORY_SLICE_MS <= until_ms:
            slices[point.label][point.slice_at_ms] = point.amount
    hour_ms = range(0, HOUR_MS, HISTORY_SLICE_MS)
    return {
        label: max(sum(amounts.get(at_ms - ago_ms, 0) for ago_ms in hour_ms) for at_ms in amounts)
        for label, amounts in slices.items()
    }


# --- writing ---------------------------------------------------------------------------------


@asynccontextmanager
async def history_kept(
    history: History, store: Store, *, each_s: float = WRITE_EACH_S
) -> AsyncIterator[None]:
    """Write the counts of `history` within a with block, the last ones at its end."""
    writing = asyncio.create_task(_keep_writing(history, store, each_s))
    try:
        yield
    finally:
        writing.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await writing
        await write_history(history, store)


async def _keep_writing(history: History, store: Store, each_s: float) -> None:
    while True:
        await asyncio.sleep(each_s)
        # a write that was begun is finished: what was counted is in it once
        await asyncio.shield(asyncio.ensure_future(write_history(history, store)))


async def write_history(history: History, store: Store) -> None:
    """Write what was counted; what cannot be written stays in memory, and nobody is told.

    The store's own users tell when it is away. An answer that was lost may count twice.
    """
    slices = history.take()
    while slices:
        at_ms, counts = slices[0]
        try:
            await asyncio.to_thread(store.watch.add_history, at_ms, counts)
        except StoreUnavailable:
            break
        del slices[0]
    history.put_back(slices)
