"""The queue of a session: every verb of the product, on SQLite in memory."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import NamedTuple

from sqlalchemy import Connection

from bench.simulation.store import Queue
from relaygw.errors import StoreFull, StoreUnavailable, Unstorable
from relaygw.mail.clock import clock_ms
from relaygw.store.database import Database, Write
from relaygw.store.log_check import driver
from relaygw.store.store import store_on

_WRITTEN = ("chunk", "recipient", "delivery", "message")
_TROUBLE = 0.3  # of transactions, where there is trouble


class Stored(NamedTuple):
    """One message as it is in the queue."""

    queue_id: str
    sender: str
    recipients: list[str]
    content: bytes


class FuzzedDatabase(Database):
    """The way to it; `chance` makes some transactions fail."""

    is_shared = False

    def __init__(self, queue: Queue) -> None:
        self.queue = queue
        self.store = store_on(self)
        self._chance: random.Random | None = None

    def begin(self, chance: random.Random | None) -> None:
        """Begin a session."""
        self._chance = chance

    @contextmanager
    def _reading(self) -> Iterator[Connection]:
        connection = self.queue.connection
        try:
            yield connection
        finally:
            if connection.in_transaction():
                connection.rollback()

    @contextmanager
    def _writing(self, kind: Write) -> Iterator[Connection]:
        if self._chance is not None and self._chance.random() < _TROUBLE:
            raise self._chance.choice((StoreUnavailable, StoreFull))("trouble of the queue")
        raw, connection = self.queue.raw, self.queue.connection
        raw.execute("BEGIN IMMEDIATE")
        try:
            yield connection
        except BaseException:
            raw.rollback()
            raise
        if connection.in_transaction():
            connection.commit()
        else:
            raw.commit()

    def _now_us(self, _connection: Connection) -> int:
        return clock_ms() * 1000

    def _ahead_ms(self) -> int:
        return 0

    def measure_clock(self) -> None:
        """There is one clock."""

    def clock_ms(self) -> int:
        """Return the time."""
        return clock_ms()

    def _translate(self, error: Exception) -> Exception:
        cause = getattr(error, "orig", error)
        if isinstance(cause, (driver.IntegrityError, driver.DataError)):
            return Unstorable(str(cause))
        return StoreUnavailable(str(cause)) if isinstance(cause, driver.Error) else error

    def close(self) -> None:
        """Nothing is open."""


@cache
def database() -> FuzzedDatabase:
    """Return the one of this process."""
    queue = Queue()
    queue.empty()
    return FuzzedDatabase(queue)


def taken_from(queue: Queue) -> list[Stored]:
    """Return all messages in the order of their acceptance, and remove them."""
    found = [
        Stored(queue_id, sender, _people(queue, queue_id), _content(queue, queue_id))
        for queue_id, sender in queue.rows("SELECT queue_id, sender FROM message ORDER BY queue_id")
    ]
    if found:
        for table in _WRITTEN:
            queue.raw.execute(f"DELETE FROM {table}")
    return found


def _people(queue: Queue, queue_id: str) -> list[str]:
    rows = queue.rows("SELECT address FROM recipient WHERE queue_id = ? ORDER BY rcpt_no", queue_id)
    return [address for (address,) in rows]


def _content(queue: Queue, queue_id: str) -> bytes:
    rows = queue.rows("SELECT body FROM chunk WHERE queue_id = ? ORDER BY chunk_no", queue_id)
    return b"".join(body for (body,) in rows)
