"""When names were last used to log in, and who came: noted in memory, written now and then."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Protocol, TypeVar

from relaygw.errors import StoreUnavailable
from relaygw.passwords import Uses
from relaygw.store.batch_writer import written_each
from relaygw.store.store import Store

WRITE_EACH_S = 60.0
NOTES_EACH_S = 5.0
Note = TypeVar("Note")


class Notes(Protocol[Note]):
    """What is noted in memory until it is written."""

    def take(self) -> list[Note]:
        """Return the uses noted since the last call."""

    def put_back(self, notes: Sequence[Note], /) -> None:
        """Take back what could not be written."""


def written(
    notes: Notes[Note], write: Callable[[list[Note]], None], *, each_s: float = NOTES_EACH_S
) -> AbstractAsyncContextManager[None]:
    """Write notes within a with block, the last at its end."""

    async def write_notes() -> None:
        taken = notes.take()
        try:
            if taken:
                await asyncio.to_thread(write, taken)
        except StoreUnavailable:
            notes.put_back(taken)

    return written_each(each_s, write_notes, name="notes")


def uses_kept(
    uses: Uses, store: Store, *, each_s: float = WRITE_EACH_S
) -> AbstractAsyncContextManager[None]:
    """Write what is noted in `uses` within a with block, the last at its end."""
    return written_each(each_s, partial(_write, uses, store), name="logins")


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
