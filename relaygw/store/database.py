"""A database to read and to write, and its transactions.

Every transaction of the store begins here. `SqliteDatabase` and `PostgresDatabase` are the two
dialects: they know how a transaction starts, what their errors mean, and whose clock counts.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, fields
from enum import Enum, auto
from functools import partial
from typing import TYPE_CHECKING, Any, Self, TypeVar

from sqlalchemy import Connection, Row
from sqlalchemy.engine import make_url

from relaygw.errors import StoreUnavailable

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

RAW_CURSOR = "raw_cursor"
"""Key in a connection's `info`: makes a cursor that does not parse each statement once more."""

Time = TypeVar("Time", int, int | None)
Entry = TypeVar("Entry", bound="DataclassInstance")


class Write(Enum):
    """What a write transaction is for."""

    SYNCED = auto()  # durable when it is committed
    UNSYNCED = auto()  # durable with the next one that is synced
    LEASE = auto()  # durable as long as the worker lives that it is for
    BULK = auto()  # synced; after everyone else


class Transaction:
    """An open transaction, and the clock that its rows are written by.

    Callers go by their machine's clock, rows by the database's. Both directions of the difference
    are here: a verb passes each time that it is given through `to_stored`, and each time that it
    returns through `to_local`; where many rows pass, it adds or subtracts `ahead_ms` itself.
    """

    __slots__ = ("_now_us", "ahead_ms", "connection", "cursor", "execute")

    def __init__(
        self, connection: Connection, now_us: Callable[[Connection], int], ahead_ms: int
    ) -> None:
        self.connection = connection
        self.execute = connection.execute
        # the driver's own cursor: see statement.py
        pooled = connection.connection
        make = connection.info.get(RAW_CURSOR)
        driver: Any = pooled.dbapi_connection
        self.cursor: Callable[[], Any] = driver.cursor if make is None else partial(make, driver)
        self._now_us = now_us
        self.ahead_ms = ahead_ms

    @property
    def is_postgres(self) -> bool:
        """True on PostgreSQL; SQLite has one writer at a time, and needs no row locks."""
        return self.connection.dialect.name == "postgresql"

    def now_us(self) -> int:
        """Return the database's time in microseconds; on PostgreSQL this is a call."""
        return self._now_us(self.connection)

    def now_ms(self) -> int:
        """Return the database's time in milliseconds; on PostgreSQL this is a call."""
        return self._now_us(self.connection) // 1000

    def to_stored(self, at_ms: Time) -> Time:
        """Return a caller's time by the database's clock; None and 0 stay as they are."""
        return at_ms + self.ahead_ms if at_ms else at_ms

    def to_local(self, at_ms: Time) -> Time:
        """Return a time of the database by the caller's clock; None and 0 stay as they are."""
        return at_ms - self.ahead_ms if at_ms else at_ms

    def entry(self, kind: type[Entry], row: Row[Any], *times: str, **others: Any) -> Entry:
        """Return a row as a dataclass, by the names of its fields.

        `times` are those of the caller's clock; `others` are not in the row as they are wanted.
        """
        columns = row._mapping
        found = {one.name: columns[one.name] for one in fields(kind) if one.name not in others}
        for name in times:
            found[name] = self.to_local(found[name])
        return kind(**found, **others)


class Database(ABC):
    """One of the two dialects; safe to use from any thread."""

    is_shared: bool
    """True when processes on other machines may use it, too."""

    @abstractmethod
    def _reading(self) -> AbstractContextManager[Connection]:
        """Lend a connection in a read transaction."""

    @abstractmethod
    def _writing(self, kind: Write) -> AbstractContextManager[Connection]:
        """Lend a connection in a write transaction that is committed on exit."""

    @abstractmethod
    def _now_us(self, connection: Connection) -> int:
        """Return the database's time in microseconds."""

    @abstractmethod
    def _ahead_ms(self) -> int:
        """Return how far the database's clock is ahead of this machine's; may ask it once."""

    @abstractmethod
    def _translate(self, error: Exception) -> Exception:
        """Turn a driver's error into one of relaygw.errors."""

    def read(self) -> AbstractContextManager[Transaction]:
        """Lend a read transaction: one snapshot. Raises StoreUnavailable."""
        return self._transaction(self._reading())

    def write(self, kind: Write = Write.SYNCED) -> AbstractContextManager[Transaction]:
        """Lend a write transaction that is committed on exit. Raises StoreUnavailable."""
        return self._transaction(self._writing(kind))

    @contextmanager
    def _transaction(self, lent: AbstractContextManager[Connection]) -> Iterator[Transaction]:
        with self._translated():
            ahead_ms = self._ahead_ms()
            with lent as connection:
                yield Transaction(connection, self._now_us, ahead_ms)

    def _translated(self) -> _Translated:
        """Raise the errors of a `with` block as those of relaygw.errors."""
        return _Translated(self._translate)

    @abstractmethod
    def clock_ms(self) -> int:
        """Return the time by the clock of the queue; it costs no call.

        Where that is the database's, as it was when it was last measured.
        """

    @abstractmethod
    def measure_clock(self) -> None:
        """Look at the database's clock; errors are left for the next call."""

    @abstractmethod
    def outlive_restarts(self, write: Callable[[], None], *, is_done: Callable[[], bool]) -> None:
        """Write once, also when the server goes away meanwhile and comes back soon.

        After a lost COMMIT `is_done` tells whether it happened.
        """

    @abstractmethod
    def refuse_if_broken(self) -> None:
        """Raise QueueDamaged once a file of the queue was seen to be removed or replaced."""

    @abstractmethod
    def checkpoint(self) -> bool:
        """See Janitor.checkpoint."""

    @abstractmethod
    def shrink(self) -> None:
        """See Janitor.shrink."""

    @abstractmethod
    def close(self) -> None:
        """Close all connections."""


class _Translated:
    __slots__ = ("_translate",)

    def __init__(self, translate: Callable[[Exception], Exception]) -> None:
        self._translate = translate

    def __enter__(self) -> None:
        pass

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if isinstance(error, Exception) and not isinstance(error, StoreUnavailable):
            raise self._translate(error) from error


class Repository:
    """Verbs on one subject, over one database.

    Each verb is one transaction, where it does not say otherwise, and safe to call from any
    thread. It raises StoreUnavailable when nothing was changed and trying again is right. What a
    verb that writes returns from is durable: it survives a crash of the process and of the
    machine. All times are by the clock of the machine that calls.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._read = database.read
        self._write = database.write


def _no_password() -> str | None:
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a queue lies, by URL; `password` is asked for each connection and never kept."""

    url: str
    password: Callable[[], str | None] = _no_password
    allow_unsafe: bool = False  # a PostgreSQL that may forget what it acknowledged

    @classmethod
    def of(cls, place: Self | str) -> Self:
        """Return `place`, or the place that a URL alone names."""
        return cls(url=place) if isinstance(place, str) else place

    @property
    def is_postgres(self) -> bool:
        """True for PostgreSQL, False for SQLite."""
        return self.url.startswith("postgresql:")

    def __str__(self) -> str:
        """Return the URL without a password, or the path of the file."""
        url = make_url(self.url)
        return url.render_as_string(hide_password=True) if self.is_postgres else str(url.database)

    def explain(self, problem: str) -> str:
        """Return a problem with its place and what to look at."""
        remedy = (
            "check that the server runs, its address, user and password"
            if self.is_postgres
            else "check the file, its owner and the space on its volume"
        )
        return f"{self}: {problem}; {remedy}"


def damage(path: str, what: str) -> str:
    """Return what is wrong with a SQLite database, and what to do."""
    return f"{path}: {what}; relaygw db check tells more, relaygw db recover saves what can be read"
