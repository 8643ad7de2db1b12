"""Last uses are written in batches: once for all, not once a login."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any, cast

from relaygw.errors import StoreUnavailable
from relaygw.passwords import Uses
from relaygw.roles.uses import uses_kept
from relaygw.store.store import Store

ANNA = ("web", "anna")


class Written:
    """A store that counts writes."""

    def __init__(self) -> None:
        self.writes: list[dict[tuple[str, str], int]] = []
        self.is_down = False
        self.written = asyncio.Event()
        self._loop = asyncio.get_running_loop()

    @property
    def store(self) -> Store:
        sessions: Any = SimpleNamespace(note_used=self._note)
        return cast(Store, SimpleNamespace(sessions=sessions))

    def _note(self, used: Mapping[tuple[str, str], int]) -> None:
        if self.is_down:
            raise StoreUnavailable("down")
        self.writes.append(dict(used))
        self._loop.call_soon_threadsafe(self.written.set)


async def test_a_thousand_logins_are_one_write_and_the_last_are_not_lost() -> None:
    uses, written = Uses(), Written()
    async with uses_kept(uses, written.store, each_s=3600.0):
        for number in range(1000):
            uses[ANNA] = number
        await asyncio.sleep(0)
        assert written.writes == []
    assert written.writes == [{ANNA: 999}]
    assert uses == {}


async def test_what_cannot_be_written_stays_for_the_next_time() -> None:
    uses, written = Uses({ANNA: 1}), Written()
    written.is_down = True
    async with uses_kept(uses, written.store, each_s=3600.0):
        pass
    assert uses == {ANNA: 1}
    written.is_down = False
    async with uses_kept(uses, written.store, each_s=0.001):
        await written.written.wait()
    assert {ANNA: 1} in written.writes
    assert uses == {}
