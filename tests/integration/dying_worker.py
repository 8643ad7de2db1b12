"""A delivery worker in a process of its own that is killed at a write of its choice."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from relaygw.store.database import Transaction, Write
from relaygw.store.sqlite import SqliteDatabase
from relaygw.store.store import store_on
from tests.integration import loyal_worker


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
    database = DyingDatabase(f"sqlite:///{directory}/queue.db")
    database.number, database.is_after = number, is_after
    settings = loyal_worker.settings_of(provider, "gw.test")
    asyncio.run(
        loyal_worker.work(settings, store_on(database), directory / "instances", incarnation)
    )
