"""A delivery worker in a process of its own that is killed at a write of its choice."""

from __future__ import annotations

import asyncio
import io
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from relaygw.delivery.worker import Worker
from relaygw.observe.observer import DeliveryObserver
from relaygw.settings.model import Settings
from relaygw.settings.provider import Provider
from relaygw.settings.routes import Route
from relaygw.store.database import Transaction, Write
from relaygw.store.instances import Instance, Lifeline
from relaygw.store.sqlite import SqliteDatabase
from relaygw.store.store import Store, store_on
from tests.logs import text_log


class DyingDatabase(SqliteDatabase):
    """Kills its process right before, or right after, the transaction of that number."""

    number = 0  # 0: never
    is_after = False
    written = 0

    @contextmanager
    def write(self, kind: Write = Write.SYNCED) -> Iterator[Transaction]:
        self.written += 1
        is_last = self.written == self.number
        if is_last and not self.is_after:
            os.kill(os.getpid(), signal.SIGKILL)
        with super().write(kind) as tx:
            yield tx
        if is_last:
            os.kill(os.getpid(), signal.SIGKILL)


def deliver(
    directory: Path, incarnation: str, provider: dict[str, Any], number: int, is_after: bool
) -> None:
    """Deliver what is in the queue, and end, unless the `number`th write comes before that."""
    asyncio.run(_deliver(directory, incarnation, provider, number, is_after))


async def _deliver(
    directory: Path, incarnation: str, provider: dict[str, Any], number: int, is_after: bool
) -> None:
    database = DyingDatabase(f"sqlite:///{directory}/queue.db")
    database.number, database.is_after = number, is_after
    store = store_on(database)
    lifeline = Lifeline(directory / "instances", incarnation)
    store.instances.register(
        Instance(
            incarnation=incarnation, name="g", role="delivery", pid=1, version="1", fingerprint="f"
        )
    )
    settings = Settings.model_validate(
        {
            "mode": "production",
            "hostname": "gw.test",
            "providers": {"p": Provider.model_validate(provider)},
            "routes": [Route(name="default", providers=("p",))],
        }
    )
    worker = Worker(
        settings,
        store,
        DeliveryObserver(text_log(io.StringIO())),
        incarnation=incarnation,
        in_flight=lifeline,
        hints=None,
    )
    stop = asyncio.Event()
    running = asyncio.create_task(worker.run(stop))
    while _has_work(store):
        worker.wake()
        await asyncio.sleep(0.01)
    stop.set()
    await running
    store.instances.bury(incarnation)
    lifeline.release()
    store.close()


def _has_work(store: Store) -> bool:
    with store.database.read() as connection:
        left = "SELECT 1 FROM delivery WHERE state <> 'finished' LIMIT 1"
        return bool(connection.connection.exec_driver_sql(left).all())
