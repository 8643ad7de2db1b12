"""What a process counted reaches the store: in time, at its end, and after the store was away."""

from __future__ import annotations

import asyncio
import io
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from relaygw.alerting.history import history_kept, write_history
from relaygw.delivery import janitor as janitor_module
from relaygw.delivery.janitor import Janitor
from relaygw.errors import StoreUnavailable
from relaygw.observe.history import History, Series
from relaygw.settings.model import Settings
from tests.altered_store import AlteredStore
from tests.logs import text_log
from tests.queues import make_queue

DAY_MS = 86_400_000


class FlakyStore(AlteredStore):
    """Fails as often as it is told to."""

    failures = 0

    def add_history(self, at_ms: int, amounts: Any, **more: bool) -> None:
        if self.failures:
            self.failures -= 1
            raise StoreUnavailable("away")
        super().add_history(at_ms, amounts, **more)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[FlakyStore]:
    url = f"sqlite:///{tmp_path}/queue.db"
    make_queue(url)
    store = FlakyStore(url)
    yield store
    store.close()


def amount(store: FlakyStore) -> int:
    return sum(point.amount for point in store.watch.history(0))


async def test_counts_are_written_in_time_and_the_last_ones_at_the_end(store: FlakyStore) -> None:
    history = History()
    history.add(Series.ACCEPTED, "default")
    async with history_kept(history, store, each_s=0.01):
        async with asyncio.timeout(30):
            while amount(store) != 1:  # noqa: ASYNC110 - nobody signals it
                await asyncio.sleep(0.01)
    async with history_kept(history, store, each_s=600):
        history.add(Series.ACCEPTED, "default", 2)
    assert amount(store) == 3


async def test_what_a_store_that_was_away_did_not_take_is_written_later(store: FlakyStore) -> None:
    history = History()
    history.add(Series.ACCEPTED, "default")
    store.failures = 2
    await write_history(history, store)
    history.add(Series.ACCEPTED, "default")
    await write_history(history, store)
    assert amount(store) == 0
    await write_history(history, store)
    await write_history(history, store)
    assert amount(store) == 2


async def test_the_janitor_forgets_what_is_two_weeks_old(
    store: FlakyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(janitor_module, "_FIRST_ORPHANS_STEP", 0)
    now_ms = time.time_ns() // 1_000_000
    for days in (0, 13, 15, 16, 40):
        store.watch.add_history(now_ms - days * DAY_MS, {("x", str(days)): 1})
    janitor = Janitor(
        Settings.model_validate({"mode": "sandbox"}),
        store,
        text_log(io.StringIO()),
        incarnation="w",
        bury_dead_of_this_host=list,
        wake_workers=lambda: None,
    )
    running = asyncio.create_task(janitor.run())
    async with asyncio.timeout(30):
        while amount(store) != 2:  # noqa: ASYNC110 - nobody signals it
            await asyncio.sleep(0.02)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert [point.label for point in store.watch.history(0)] == ["13", "0"]
