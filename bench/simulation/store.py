"""The store of a run: every verb of the product, on a SQLite database in memory.

What is simulated is the way to it: calls that wait, that fail before they began or after they were
committed, and processes that are killed before or after a commit. It passes the contract suite by
being the same code: only how a transaction begins and ends is ours. `is_shared` makes it a queue of
several machines, each with a clock of its own and the database with a third, as PostgreSQL is.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import Enum, auto
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, create_engine
from sqlalchemy.pool import StaticPool

from bench.simulation.clocks import BEGIN_S
from bench.simulation.loop import Killed, Machine, Process, VirtualLoop
from relaygw.errors import AlreadyAccepted, StoreUnavailable, Unstorable
from relaygw.mail.clock import clock_ms
from relaygw.store import migrate
from relaygw.store.database import Database, Write
from relaygw.store.log_check import driver
from relaygw.store.schema import SQLITE_LOWER

_AGAIN = 3  # what a lost answer of an acceptance is looked up for, as on PostgreSQL


class Trouble(Enum):
    """What goes wrong with one transaction."""

    AWAY = auto()  # nothing was begun
    UNANSWERED = auto()  # it was committed, and the answer is lost
    KILLED_BEFORE = auto()
    KILLED_AFTER = auto()


_TABLES = """
    SELECT name FROM pragma_table_list
    WHERE schema = 'main' AND type IN ('table', 'virtual') AND name NOT LIKE 'sqlite_s%'
"""


class Queue:
    """The one database of this process, made anew for each run."""

    def __init__(self) -> None:
        self._template = _migrated()
        self.raw: Any = driver.connect(
            ":memory:", check_same_thread=False, isolation_level=None, cached_statements=2000
        )
        self.raw.create_function(SQLITE_LOWER, 1, _lower, deterministic=True)
        engine = create_engine(
            "sqlite+pysqlite://", module=driver, poolclass=StaticPool, creator=lambda: self.raw
        )
        self.connection: Connection = engine.connect()
        self._template.backup(self.raw)
        tables = self.rows(_TABLES)
        self._kept = {name: self.rows(f"SELECT * FROM {name}") for (name,) in tables}

    def empty(self) -> None:
        """Begin with an empty queue; what was prepared stays so, as a copy would not have it."""
        self.raw.execute("BEGIN")
        for name, rows in self._kept.items():
            self.raw.execute(f"DELETE FROM {name}")
            for row in rows:
                self.raw.execute(f"INSERT INTO {name} VALUES ({', '.join('?' * len(row))})", row)
        self.raw.execute("COMMIT")

    def copy(self) -> Any:
        """Return what is in it now, as a standby has it."""
        copied = driver.connect(":memory:", isolation_level=None)
        self.raw.backup(copied)
        return copied

    def become(self, copied: Any) -> None:
        """Have what a copy has from now on, and nothing of what came later."""
        copied.backup(self.raw)
        copied.close()

    def rows(self, sql: str, *parameters: Any) -> list[Any]:
        """Look at the queue from outside of the run."""
        rows: list[Any] = self.raw.execute(sql, parameters).fetchall()
        return rows


def _migrated() -> Any:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "queue.db")
        migrate.upgrade(f"sqlite:///{path}")
        template = driver.connect(":memory:", isolation_level=None)
        source = driver.connect(str(path))
        source.backup(template)
        source.close()
    return template


def _lower(text: str | None) -> str | None:
    return None if text is None else text.lower()


class SimulatedDatabase(Database):
    """What one process sees of the queue."""

    def __init__(
        self,
        queue: Queue,
        loop: VirtualLoop,
        process: Process,
        server: Machine | None,
        trouble: Callable[[Process, bool], Trouble | None],
        kill: Callable[[Process], None],
    ) -> None:
        self.is_shared = server is not None
        self._queue, self._loop, self._process = queue, loop, process
        self._server = server
        self._trouble, self._kill = trouble, kill
        self._ahead = 0
        self.measure_clock()

    @contextmanager
    def _reading(self) -> Iterator[Connection]:
        # a call is in one piece: nobody writes meanwhile
        self._begin(is_writing=False)
        connection = self._queue.connection
        try:
            yield connection
        finally:
            if connection.in_transaction():
                connection.rollback()

    @contextmanager
    def _writing(self, kind: Write) -> Iterator[Connection]:
        trouble = self._begin(is_writing=True)
        raw, connection = self._queue.raw, self._queue.connection
        raw.execute("BEGIN IMMEDIATE")
        try:
            yield connection
        except BaseException:
            self._end()
            raise
        if trouble is Trouble.KILLED_BEFORE:
            self._end()
            self._die()
        if connection.in_transaction():
            connection.commit()
        else:
            raw.commit()
        if trouble is Trouble.KILLED_AFTER:
            self._die()
        if trouble is Trouble.UNANSWERED:
            raise StoreUnavailable("no answer to a commit")

    def _begin(self, *, is_writing: bool) -> Trouble | None:
        if self._process.is_dead:
            raise Killed
        trouble = self._trouble(self._process, is_writing)
        if trouble is Trouble.AWAY:
            raise StoreUnavailable("the queue is away")
        return trouble

    def _end(self) -> None:
        connection = self._queue.connection
        if connection.in_transaction():
            connection.rollback()
        elif self._queue.raw.in_transaction:
            self._queue.raw.rollback()

    def _die(self) -> None:
        self._kill(self._process)
        raise Killed

    # --- clocks

    def _server_s(self) -> float:
        machine = self._server or self._process.machine
        return BEGIN_S + self._loop.now_s + machine.ahead_s

    def _now_us(self, _connection: Connection) -> int:
        return int(self._server_s() * 1e6)

    def _ahead_ms(self) -> int:
        return self._ahead

    def measure_clock(self) -> None:
        """Look at the clock of the server."""
        if self._server is not None:
            self._ahead = int((self._server.ahead_s - self._process.machine.ahead_s) * 1000)

    def clock_ms(self) -> int:
        """Return the time by the queue's clock, as it was last measured."""
        return clock_ms() + self._ahead

    # --- the rest

    def _translate(self, error: Exception) -> Exception:
        cause = getattr(error, "orig", error)
        if isinstance(cause, driver.IntegrityError) and "message.drop_id" in str(cause):
            return AlreadyAccepted("a message with this drop id was stored before")
        if isinstance(cause, (driver.IntegrityError, driver.DataError)):
            return Unstorable(str(cause))
        return StoreUnavailable(str(cause)) if isinstance(cause, driver.Error) else error

    def outlive_restarts(self, write: Callable[[], None], *, is_done: Callable[[], bool]) -> None:
        """Write once; after a lost answer look up whether it happened, as on PostgreSQL."""
        is_unknown = False
        for number in range(_AGAIN):
            try:
                if not (is_unknown and is_done()):
                    write()
                return
            except StoreUnavailable:
                if not self.is_shared or number == _AGAIN - 1:
                    raise
                is_unknown = True

    def close(self) -> None:
        """Nothing is open."""
