"""A database to read and to write: its place, its transactions, and statements of the hot path.

`SqliteDatabase` and `PostgresDatabase` know how a transaction starts, what their errors mean, and
whose clock counts. A statement takes many rows at once, straight to the driver (decision 6).
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, fields
from enum import Enum, auto
from functools import cache, partial
from itertools import chain
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Self, TypeVar

from sqlalchemy import Connection, Engine, event
from sqlalchemy.engine import make_url

from relaygw.errors import StoreUnavailable
from relaygw.mail.clock import clock_ms
from relaygw.store.rules import NO_RULES, StoreRules

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

RAW_CURSOR = "raw_cursor"
"""Key in a connection's `info`: makes a cursor that does not parse each statement once more."""

MAX_CONNECTIONS = 25  # of one process to PostgreSQL

_shared = threading.local()  # the database that a thread has a snapshot of, and its transaction

Row = tuple[Any, ...]
Time = TypeVar("Time", int, int | None)
Entry = TypeVar("Entry", bound="DataclassInstance")


def close_connections(engine: Engine) -> None:
    """Close all connections; one that a thread still has in use, when it is given back."""
    event.listen(engine, "checkin", lambda raw, _record: raw and raw.close())
    engine.dispose()


class Write(Enum):
    """What a write transaction is for."""

    SYNCED = auto()  # durable when it is committed
    UNSYNCED = auto()  # durable with the next one that is synced
    LEASE = auto()  # durable as long as the worker lives that it is for
    BULK = auto()  # large content: durable when it is committed; after everyone else


class Transaction:
    """An open transaction, and the clock that its rows are written by.

    A verb passes each time that it is given through `to_stored`, each that it returns through
    `to_local`; where many rows pass, it adds or subtracts `ahead_ms` itself.
    """

    __slots__ = ("_now_us", "ahead_ms", "connection", "cursor", "execute")

    def __init__(
        self, connection: Connection, now_us: Callable[[Connection], int], ahead_ms: int
    ) -> None:
        self.connection = connection
        self.execute = connection.execute
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

    def entry(self, kind: type[Entry], row: Any, /, *times: str, **others: Any) -> Entry:
        """Return a row as a dataclass; `times` become local, `others` stand for their columns."""
        columns = row._mapping
        found = {
            field.name: columns[field.name] for field in fields(kind) if field.name not in others
        }
        for name in times:
            found[name] = self.to_local(found[name])
        return kind(**found, **others)


# --- statements ---------------------------------------------------------------------------

MAX_ROWS = 50  # of a statement: few texts, below every driver's limit of parameters

_WORDS = {
    "qmark": {"?": "?", "for_update": "", "key_share": "", "skip_locked": ""},
    "pyformat": {
        "?": "$",  # numbered: the raw cursor of the driver takes what the server takes
        "for_update": "FOR UPDATE",
        "key_share": "FOR KEY SHARE",
        "skip_locked": "FOR UPDATE SKIP LOCKED",
    },
}
"""What stands for `{?}` and the like, by the driver's style of parameters: SQLite has one writer
and needs no row locks."""


def _spelled(sql: str, style: str) -> str:
    words = _WORDS[style]
    for word in ("for_update", "key_share", "skip_locked"):
        sql = sql.replace(f"{{{word}}}", words[word])
    if words["?"] != "$":
        return sql.replace("{?}", words["?"])
    first, *rest = sql.split("{?}")
    return first + "".join(f"${number}{part}" for number, part in enumerate(rest, 1))


class NamedRow(SimpleNamespace):
    """A row of a `Statement` whose columns have names, as SQLAlchemy's rows have."""

    @property
    def _mapping(self) -> dict[str, Any]:
        return vars(self)


class Statement:
    """SQL in which `{?}` stands for a parameter, in the way of every driver.

    `{for_update}`, `{key_share}` and `{skip_locked}` lock rows where several may write at once.
    """

    def __init__(self, sql: str) -> None:
        self._text = cache(partial(_spelled, sql))

    def fetch(self, tx: Transaction, *parameters: Any) -> list[Row]:
        """Execute in a transaction and return the rows as plain tuples."""
        cursor = tx.cursor()
        cursor.execute(self._text(tx.connection.dialect.paramstyle), parameters)
        rows: list[Row] = cursor.fetchall()
        return rows

    def fetch_named(self, tx: Transaction, *parameters: Any) -> list[NamedRow]:
        """Execute in a transaction and return the rows with the names of their columns."""
        cursor = tx.cursor()
        cursor.execute(self._text(tx.connection.dialect.paramstyle), parameters)
        names = [column[0] for column in cursor.description]
        return [NamedRow(**dict(zip(names, row, strict=True))) for row in cursor.fetchall()]

    def run(self, tx: Transaction, *parameters: Any) -> int:
        """Execute in a transaction; return how many rows changed."""
        cursor = tx.cursor()
        cursor.execute(self._text(tx.connection.dialect.paramstyle), parameters)
        changed: int = cursor.rowcount
        return changed

    def text(self, style: str = "qmark") -> str:
        """Return the statement for a driver's style of parameters, usually as SQLite takes it."""
        return self._text(style)


class BatchStatement:
    """SQL with `{rows}` where a list of rows goes, named column1, column2, ... on every database.

    `{?}` stands for a parameter of the whole statement; they follow the rows in `last`.
    """

    def __init__(self, sql: str, *, columns: int, constants: Sequence[str] = ()) -> None:
        self._sql = sql
        self._columns = columns
        self._constants = constants
        self._text = cache(self._build_text)

    def run(self, tx: Transaction, rows: Sequence[Row], *last: Any) -> int:
        """Execute for all `rows`, in as few steps as MAX_ROWS allows; return how many changed."""
        changed = 0
        for start in range(0, len(rows), MAX_ROWS):
            changed += self.execute(tx, rows[start : start + MAX_ROWS], last).rowcount
        return changed

    def fetch(self, tx: Transaction, rows: Sequence[Row], *last: Any) -> list[Row]:
        """Execute a query for all `rows` and return what it found, in no order."""
        found: list[Row] = []
        for start in range(0, len(rows), MAX_ROWS):
            found += self.execute(tx, rows[start : start + MAX_ROWS], last).fetchall()
        return found

    def execute(self, tx: Transaction, rows: Sequence[Row], last: Row) -> Any:
        """Execute for rows of one step; return the driver's cursor."""
        text = self._text(len(rows), tx.connection.dialect.paramstyle)
        cursor = tx.cursor()
        cursor.execute(text, (*chain.from_iterable(rows), *last))
        return cursor

    def text(self, count: int, style: str = "qmark") -> str:
        """Return the statement for `count` rows, usually as SQLite takes it."""
        return self._text(count, style)

    def _build_text(self, count: int, style: str) -> str:
        row = f"({', '.join([*['{?}'] * self._columns, *self._constants])})"
        return _spelled(self._sql.replace("{rows}", ", ".join([row] * count)), style)


def insert_into(
    table: str, names: str, *, on_conflict: str = "", **constants: int
) -> BatchStatement:
    """Return a statement that inserts rows of these columns; others are left null.

    `on_conflict`: `DO NOTHING`, or the key and `DO UPDATE SET ...`. `constants` are in each row.
    """
    columns = names.split()
    then = f" ON CONFLICT {on_conflict}" if on_conflict else ""
    return BatchStatement(
        f"INSERT INTO {table} ({', '.join((*columns, *constants))}) VALUES {{rows}}{then}",
        columns=len(columns),
        constants=tuple(map(str, constants.values())),
    )


# --- the two dialects ---------------------------------------------------------------------


class Database(ABC):
    """One of the two dialects; safe to use from any thread."""

    is_shared: bool  # True when processes on other machines may use it, too

    @abstractmethod
    def _reading(self) -> AbstractContextManager[Connection]:
        """Lend a connection in a read transaction."""

    @abstractmethod
    def _writing(self, kind: Write) -> AbstractContextManager[Connection]:
        """Lend a connection in a write transaction that is committed on exit."""

    @abstractmethod
    def _now_us(self, connection: Connection) -> int:
        """Return the database's time in microseconds."""

    def _ahead_ms(self) -> int:
        """Return how far the database's clock is ahead of this machine's; may ask it once."""
        return 0

    @abstractmethod
    def _translate(self, error: Exception) -> Exception:
        """Turn a driver's error into one of relaygw.errors."""

    def read(self) -> AbstractContextManager[Transaction]:
        """Lend a read transaction: one snapshot. Raises StoreUnavailable."""
        lent: tuple[Database, Transaction] | None = getattr(_shared, "of", None)
        if lent is not None and lent[0] is self:
            return nullcontext(lent[1])
        return self._transaction(self._reading())

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """Let all reads of this thread within a with block be of one snapshot, at a third the cost.

        Nothing may be written within it, and no error of a read be caught: who lends the
        connection has to see it. Raises StoreUnavailable.
        """
        with self._transaction(self._reading()) as transaction:
            _shared.of = self, transaction
            try:
                yield
            finally:
                del _shared.of

    def write(self, kind: Write = Write.SYNCED) -> AbstractContextManager[Transaction]:
        """Lend a write transaction that is committed on exit. Raises StoreUnavailable."""
        return self._transaction(self._writing(kind))

    @contextmanager
    def _transaction(self, lent: AbstractContextManager[Connection]) -> Iterator[Transaction]:
        with Translated(self._translate):
            ahead_ms = self._ahead_ms()
            with lent as connection:
                yield Transaction(connection, self._now_us, ahead_ms)

    # --- what only one of them has to do

    def clock_ms(self) -> int:
        """Return the time by the queue's clock, as it was last measured; it costs no call."""
        return clock_ms()

    def measure_clock(self) -> None:
        """Look at the database's clock; errors are left for the next call."""
        return

    def outlive_restarts(self, write: Callable[[], None], *, is_done: Callable[[], bool]) -> None:
        """Write once, also when the server goes away meanwhile and comes back soon.

        After a lost COMMIT `is_done` tells whether it happened; on SQLite none is ever in doubt.
        """
        write()

    def refuse_if_broken(self) -> None:
        """Raise QueueDamaged once a file of the queue was seen to be removed or replaced."""
        return

    def change_mark(self) -> int | None:
        """Return a value that differs once anybody has written; None: unknown. Does not wait."""
        return None

    def checkpoint(self) -> bool:
        """See Janitor.checkpoint; on PostgreSQL it is the server's own business."""
        return False

    def shrink(self) -> None:
        """See Janitor.shrink; on PostgreSQL autovacuum gives space back."""
        return

    @abstractmethod
    def close(self) -> None:
        """Close all connections."""


class Translated:
    """Raises the errors of a `with` block as those of relaygw.errors."""

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

    Each verb is one transaction, where it does not say otherwise. It raises StoreUnavailable when
    nothing was changed and trying again is right. What a writing verb returns from survives a crash
    of the process and of the machine. All times are by the clock of the machine that calls.
    """

    def __init__(self, database: Database, rules: StoreRules = NO_RULES) -> None:
        self._database = database
        self._rules = rules
        self._read = database.read
        self._write = database.write


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a queue lies, by URL; `password` is asked for each connection and never kept."""

    url: str
    password: Callable[[], str | None] = lambda: None
    allow_unsafe: bool = False  # a PostgreSQL that may forget what it acknowledged
    connections: int = MAX_CONNECTIONS  # to PostgreSQL, at most, of what opens it

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
            "check that the server runs, its address, user and password, and how many connections "
            "it grants"
            if self.is_postgres
            else "check the file, its owner and the space on its volume"
        )
        return f"{self}: {problem}; {remedy}"


NO_SPACE_REMEDY = "free some space; no accepted mail is lost"


def damage(path: str, what: str) -> str:
    """Return the problem of a SQLite database, and a remedy."""
    return f"{path}: {what}; relaygw db check shows more, relaygw db recover saves what is readable"
