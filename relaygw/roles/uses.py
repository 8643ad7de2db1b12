"""When names were last used to log in, and who came: noted in memory, written now and then."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Protocol, TypeVar

from relaygw.access import Uses
from relaygw.errors import StoreUnavailable
from relaygw.store.store import Store

WRITE_EACH_S = 60.0
NOTES_EACH_S = 5.0
Note = TypeVar("Note")


class Notes(Protocol[Note]):
    """What is noted in memory until it is written."""

    def take(self) -> list[Note]:
        """Return what was noted since the last time."""

    def put_back(self, notes: Sequence[Note], /) -> None:
        """Take back what could not be written."""


@asynccontextmanager
async def written(
    notes: Notes[Note], write: Callable[[list[Note]], None], *, each_s: float = NOTES_EACH_S
) -> AsyncIterator[None]:
    """Write notes within a with block, the last at its end."""
    writing = asyncio.create_task(_keep_noting(notes, write, each_s), name="notes")
    try:
        yield
    finally:
        writing.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await writing
        await _write_notes(notes, write)


async def _keep_noting(
    notes: Notes[Note], write: Callable[[list[Note]], None], each_s: float
) -> None:
    while True:
        await asyncio.sleep(each_s)
        # a write that was begun is finished: what was counted is in it once
        await asyncio.shield(asyncio.ensure_future(_write_notes(notes, write)))


async def _write_notes(notes: Notes[Note], write: Callable[[list[Note]], None]) -> None:
    taken = notes.take()
    try:
        if taken:
            await asyncio.to_thread(write, taken)
    except StoreUnavailable:
        notes.put_back(taken)


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
