"""The store on SQLite: write-ahead log, full sync, one writer at a time.

`synchronous=FULL` is asserted on every connection but one: with NORMAL a power cut loses commits
that clients were told of. The one is for claims: a lease lost in a power cut is no loss, as
whoever held it is dead too, and the next synced commit carries it along. Every write transaction
runs under `WriteLock`. Checkpoints run beside the writers but for their last few pages; with SQLite
3.7.0 to 3.51.2, where a database could be corrupted that way, all of them is under the lock.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import BigInteger, Connection, Engine, cast, create_engine, event, func
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import QueuePool
from sqlalchemy.sql.elements import ColumnElement

from relaygw.errors import AlreadyAccepted, StoreFull, StoreUnavailable, Unstorable
from relaygw.store import letter_case
from relaygw.store.sql import SqlStore
from relaygw.store.transactions import Write
from relaygw.store.write_lock import WriteLock

try:
    from pysqlite3 import dbapi2 as driver
except ImportError:  # no wheel for this platform: the standard module works under the lock
    import sqlite3 as driver

DriverError: type[Exception] = driver.Error
"""What the driver raises outside of SQLAlchemy, on connecting for one."""
_BUSY_TIMEOUT_MS = 10_000  # foreign processes only (a backup, a shell): we have the lock
_WAL_PAGES = 65_536  # the janitor checkpoints; this bounds the log if it cannot
_LONG_LOG_FRAMES = 4_096
_FEW_FRAMES = 256
_CHECKPOINT_ROUNDS = 5
_SPARE_PAGES = 16_384  # free pages that are kept for the mail to come
_FREE_PAGES_A_STEP = 256
# before 3.51.3 a log that was reset under a checkpoint could corrupt the database
_CAN_CHECKPOINT_BESIDE_WRITERS = driver.sqlite_version_info >= (3, 51, 3)
_EPOCH_JULIAN_DAY = 2440587.5
_MS_PER_DAY = 86_400_000


def database_path(url: str) -> Path:
    """Return the file of a `sqlite:///` URL."""
    return Path(make_url(url).database or "")


def lock_directory(url: str) -> Path:
    """Return the directory beside the database that holds its lock files."""
    path = database_path(url)
    return path.with_name(path.name + ".locks")


def create_sqlite_engine(url: str, *, begin: str, is_synced: bool = True) -> Engine:
    """Return an engine whose transactions start with the statement `begin`.

    `is_synced` False: a commit is durable only with the next one that is synced.
    """
    expected_level = 2 if is_synced else 1
    engine = create_engine(
        make_url(url).set(drivername="sqlite+pysqlite"),
        module=driver,
        poolclass=QueuePool,
        pool_size=5,
        max_overflow=20,
        connect_args={"check_same_thread": False, "timeout": _BUSY_TIMEOUT_MS / 1000},
    )

    def configure(connection: Any, _record: object) -> None:
        connection.isolation_level = None  # transactions are ours, not the driver's
        letter_case.add_to_sqlite(connection)
        for pragma in (
            "auto_vacuum=INCREMENTAL",
            "journal_mode=WAL",
            f"synchronous={expected_level}",
            "temp_store=MEMORY",
            f"wal_autocheckpoint={_WAL_PAGES}",
        ):
            connection.execute(f"PRAGMA {pragma}")
        (level,) = connection.execute("PRAGMA synchronous").fetchone()
        if level != expected_level:
            raise StoreUnavailable(f"{url}: synchronous is {level}, expected {expected_level}")

    def start(connection: Connection) -> None:
        connection.exec_driver_sql(begin)

    event.listen(engine, "connect", configure)
    event.listen(engine, "begin", start)
    return engine


class _Writer:
    """One connection that is kept open, since a checkout costs more than a row, and its lock."""

    def __init__(self, url: str, lock: WriteLock, *, is_synced: bool = True) -> None:
        self._engine = create_sqlite_engine(url, begin="BEGIN IMMEDIATE", is_synced=is_synced)
        self._lock = lock
        self._connection: Connection | None = None

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """Hold the lock and a transaction, which is committed on exit."""
        with self._lock.held():
            if self._connection is None or self._connection.closed:
                self._connection = self._engine.connect()
            connection = self._connection
            try:
                with connection.begin():
                    yield connection
            except BaseException:
                # after a failed sync or a full disk only a new connection knows the truth
                connection.invalidate()
                connection.close()
                self._connection = None
                raise

    @contextmanager
    def beside(self) -> Iterator[Any]:
        """Lend the driver's connection outside of any transaction and lock."""
        with self._engine.connect() as connection:
            yield connection.connection.dbapi_connection

    def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        self._engine.dispose()


class SqliteStore(SqlStore):
    """`protocol.Store` in one SQLite file."""

    def __init__(self, url: str, *, keep_content: bool, first_in_line: bool = False) -> None:
        super().__init__(keep_content=keep_content)
        self._path = database_path(url)
        directory = lock_directory(url)
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock = WriteLock(directory, first_in_line=first_in_line)
            # large content queues with everyone else, also behind the front's own mail
            self._bulk_lock = WriteLock(directory, first_in_line=False)
        except OSError as error:
            raise StoreUnavailable(f"{directory}: {error.strerror}") from error
        self._readers = create_sqlite_engine(url, begin="BEGIN")
        unsynced = _Writer(url, self._lock, is_synced=False)
        self._writers = {
            Write.SYNCED: _Writer(url, self._lock),
            Write.UNSYNCED: unsynced,
            Write.LEASE: unsynced,  # what forgets it is the machine, and the worker goes with it
            Write.BULK: _Writer(url, self._bulk_lock),
        }
        self._moved_at_ns = 0  # the log's time of change when all of it was moved

    @property
    def _clock(self) -> ColumnElement[Any]:
        return cast((func.julianday("now") - _EPOCH_JULIAN_DAY) * _MS_PER_DAY, BigInteger)

    @contextmanager
    def _reading(self) -> Iterator[Connection]:
        with self._readers.begin() as connection:
            yield connection

    def _writing(self, kind: Write = Write.SYNCED) -> AbstractContextManager[Connection]:
        return self._writers[kind].transaction()

    def _translate(self, error: Exception) -> Exception:
        cause = error.orig if isinstance(error, DBAPIError) else error
        if isinstance(cause, driver.IntegrityError) and "message.drop_id" in str(cause):
            return AlreadyAccepted("a message with this drop id was stored before")
        if isinstance(cause, (driver.IntegrityError, driver.DataError)):
            return Unstorable(f"{self._path}: {cause}")
        if isinstance(cause, DriverError):
            kind = StoreFull if "full" in str(cause) else StoreUnavailable
            return kind(f"{self._path}: {cause}")
        if isinstance(error, OSError):
            return StoreUnavailable(f"{self._path}: {error.strerror}")
        return error

    def close(self) -> None:
        for writer in self._writers.values():
            writer.close()
        self._readers.dispose()
        self._lock.close()
        self._bulk_lock.close()

    def checkpoint(self) -> bool:
        changed_at_ns = self._log_changed_at_ns()
        if changed_at_ns == self._moved_at_ns:
            return False
        with self._translated(), self._writers[Write.SYNCED].beside() as raw:
            frames = _LONG_LOG_FRAMES
            if _CAN_CHECKPOINT_BESIDE_WRITERS:
                frames = _move_log(raw)
            if frames >= _LONG_LOG_FRAMES:
                # with nothing left to move, the next writer starts the log from its beginning
                with self._bulk_lock.held():
                    raw.execute("PRAGMA wal_checkpoint(PASSIVE)")
        self._moved_at_ns = changed_at_ns
        return frames >= _LONG_LOG_FRAMES // 4

    def _log_changed_at_ns(self) -> int:
        try:
            return self._path.with_name(self._path.name + "-wal").stat().st_mtime_ns
        except OSError:
            return 0

    def shrink(self) -> None:
        with self._translated(), self._writers[Write.SYNCED].beside() as raw:
            (free_pages,) = raw.execute("PRAGMA freelist_count").fetchone()
            if free_pages > _SPARE_PAGES:
                with self._bulk_lock.held():
                    raw.execute(f"PRAGMA incremental_vacuum({_FREE_PAGES_A_STEP})").fetchall()


def _move_log(raw: Any) -> int:
    """Move the log into the database beside the writers; return its length in frames.

    What they add meanwhile is moved in further rounds, so that the rest is short.
    """
    frames = 0
    for _ in range(_CHECKPOINT_ROUNDS):
        _, frames, moved = raw.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        if frames - moved < _FEW_FRAMES:
            break
    return int(frames)


def create_private(url: str) -> None:
    """Create a new database for its owner only; SQLite gives its log the same mode."""
    prepare_directory(url)
    path = database_path(url)
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    except OSError as error:
        raise StoreUnavailable(f"{path}: {error.strerror}") from error


def prepare_directory(url: str) -> None:
    """Create the directory of a SQLite queue, for its owner only."""
    directory = database_path(url).parent
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise StoreUnavailable(f"{directory}: {error.strerror}") from error
    if not os.access(directory, os.W_OK):
        raise StoreUnavailable(f"{directory}: this user may not write there")
