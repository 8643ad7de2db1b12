"""When names were last used to log in: noted in memory, written once a minute."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from relaygw.access import Uses
from relaygw.errors import StoreUnavailable
from relaygw.store.store import Store

WRITE_EACH_S = 60.0


@asynccontextmanager
async def uses_kept(
    uses: Uses, store: Store, *, each_s: float = WRITE_EACH_S
) -> AsyncIterator[None]:
    """Write what is noted in `uses` within a with block, the last at its end."""
    writing = asyncio.create_task(_keep_writing(uses, store, each_s), name="logins")
    try:
        yield
    finally:
        writing.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await writing
        await _write(uses, store)


async def _keep_writing(uses: Uses, store: Store, each_s: float) -> None:
    while True:
        await asyncio.sleep(each_s)
        await _write(uses, store)


async def _write(uses: Uses, store: Store) -> None:
    """Write what was noted; what cannot be written is tried again with the next."""
    taken = dict(uses)
    if not taken:
        return
    try:
        await asyncio.to_thread(store.sessions.note_used, taken)
    except StoreUnavailable:
        return
    for key, at_ms in taken.items():
        if uses.get(key) == at_ms:  # else it was used again meanwhile
            del uses[key]
