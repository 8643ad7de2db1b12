"""The store on SQLite: write-ahead log, full sync, one writer at a time (decisions 3, 6 and 8).

`synchronous=FULL` is asserted on every connection but those for claims and large content: with
NORMAL a power cut loses commits that clients were told of.
"""

from __future__ import annotations

import fcntl
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import cache, partial
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Dialect, Engine, create_engine, event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import QueuePool

from relaygw.errors import AlreadyAccepted, QueueDamaged, StoreFull, StoreUnavailable, Unstorable
from relaygw.mail.clock import is_settled
from relaygw.store.database import NO_SPACE_REMEDY, Database, Translated, Write, damage
from relaygw.store.log_check import DriverError, database_path, driver, read_write
from relaygw.store.queue_file import QueueFile, frames_of
from relaygw.store.queue_lock import FileLock, lock_directory_of
from relaygw.store.readers import Readers
from relaygw.store.schema import SQLITE_LOWER

_BUSY_TIMEOUT_MS = 10_000  # foreign processes only (a backup, a shell): we have the lock
_WAL_PAGES = 65_536  # the janitor checkpoints; this bounds the log if it cannot
_INCREMENTAL = 2  # as SQLite counts the ways of auto_vacuum
_LONG_LOG_FRAMES = 4_096
_FEW_FRAMES = 256
_BULK_FRAMES = 8_192  # at which large content waits until the log is moved
_CHECKPOINT_ROUNDS = 5
_SPARE_PAGES = 16_384  # free pages that are kept for the mail to come
FREE_PAGES_A_STEP = 256
_DRIVER = "sqlite+pysqlite"
_LOCKS = ("gate", "turnstile", "lock")
# before 3.51.3 a log that was reset under a checkpoint could corrupt the database
CAN_CHECKPOINT_BESIDE_WRITERS = driver.sqlite_version_info >= (3, 51, 3)


@cache
def sqlite_dialect() -> Dialect:
    """Return how SQLAlchemy speaks to SQLite: found out once, before the roles are forked."""
    engine = create_engine(f"{_DRIVER}://", module=driver)
    engine.connect().close()
    engine.dispose()
    return engine.dialect


def create_sqlite_engine(
    url: str, *, begin: str | None, is_synced: bool = True, file: QueueFile | None = None
) -> Engine:
    """Return an engine whose transactions start with `begin`; `file` outlives its connections.

    None: who has a connection begins them. `is_synced` False: a commit is durable only with the
    next one that is synced.
    """
    expected_level = 2 if is_synced else 1
    dialect = sqlite_dialect()
    creator = partial(_connect, database_path(url), file)
    # the connection used last comes first: the others keep no statements and pages of their own
    pool = QueuePool(creator, dialect=dialect, pool_size=5, max_overflow=20, use_lifo=True)
    engine = Engine(pool, dialect, make_url(url).set(drivername=_DRIVER))
    set_up = dialect.on_connect()

    def configure(connection: Any, _record: object) -> None:
        if set_up is not None:
            set_up(connection)
        connection.isolation_level = None  # transactions are ours, not the driver's
        connection.create_function(SQLITE_LOWER, 1, _lower, deterministic=True)
        (vacuums,) = connection.execute("PRAGMA auto_vacuum").fetchone()
        if vacuums != _INCREMENTAL:  # setting it again writes a page, outside of the write lock
            connection.execute(f"PRAGMA auto_vacuum={_INCREMENTAL}")
        pragmas = f"journal_mode=WAL synchronous={expected_level} temp_store=MEMORY"
        pragmas += " secure_delete=OFF"  # else what is deleted is written once more, as zeros
        for pragma in (*pragmas.split(), f"wal_autocheckpoint={_WAL_PAGES}"):
            connection.execute(f"PRAGMA {pragma}")
        (level,) = connection.execute("PRAGMA synchronous").fetchone()
        if level != expected_level:
            raise StoreUnavailable(f"{url}: synchronous is {level}, expected {expected_level}")
        if file is not None:
            try:
                file.keep_log()
            except StoreUnavailable:
                connection.close()  # with it go what it has opened, and how
                raise

    def start(connection: Connection) -> None:
        driver_connection: Any = connection.connection.dbapi_connection
        driver_connection.execute(begin)

    event.listen(engine, "connect", configure)
    if begin is not None:
        event.listen(engine, "begin", start)
    return engine


def _connect(path: Path, file: QueueFile | None) -> Any:
    if file is not None:
        file.may_connect()
    # moved away since that look, it must not be made anew: empty, it would pass for the queue
    return read_write(path, patience_s=_BUSY_TIMEOUT_MS / 1000)


def _lower(text: str | None) -> str | None:
    return None if text is None else text.lower()


class WriteLock:
    """One lock around every write transaction, among threads and processes: decision 3.

    The front, `first_in_line`, takes the turnstile and then the lock; everyone else queues at a
    gate first, so that at most one of them stands at the turnstile with the front.
    """

    def __init__(self, directory: Path, *, first_in_line: bool) -> None:
        self._first_in_line = first_in_line
        self._thread_lock = threading.Lock()
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
        self._gate, self._turnstile, self._lock = (
            os.open(directory / name, flags, 0o600) for name in _LOCKS
        )

    def close(self) -> None:
        """Close the lock files; the files stay, others may hold them."""
        for descriptor in (self._gate, self._turnstile, self._lock):
            os.close(descriptor)

    def __enter__(self) -> None:
        self._thread_lock.acquire()
        try:
            if not self._first_in_line:
                fcntl.flock(self._gate, fcntl.LOCK_EX)
            fcntl.flock(self._turnstile, fcntl.LOCK_EX)
            fcntl.flock(self._lock, fcntl.LOCK_EX)
            fcntl.flock(self._turnstile, fcntl.LOCK_UN)
        except BaseException:
            fcntl.flock(self._turnstile, fcntl.LOCK_UN)
            self.__exit__()  # what was not taken is given back without harm
            raise

    def __exit__(self, *_: object) -> None:
        try:
            fcntl.flock(self._lock, fcntl.LOCK_UN)
            if not self._first_in_line:
                fcntl.flock(self._gate, fcntl.LOCK_UN)
        finally:
            self._thread_lock.release()


class _Writer:
    """One connection that is kept open, since a checkout costs more than a row, and its lock."""

    def __init__(
        self, url: str, lock: WriteLock, file: QueueFile, *, is_synced: bool = True
    ) -> None:
        self._engine = create_sqlite_engine(url, begin=None, is_synced=is_synced, file=file)
        self._lock = lock
        self._file = file
        self._is_synced = is_synced
        self._connection: Connection | None = None

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """Hold the lock and a transaction, which is committed on exit."""
        with self._lock:
            if self._connection is None or self._connection.closed:
                self._connection = self._engine.connect()
            connection = self._connection
            raw: Any = connection.connection.dbapi_connection
            try:
                self._file.require_log(raw)
                raw.execute("BEGIN IMMEDIATE")
                yield connection
                if connection.in_transaction():  # which began with a statement of its own
                    connection.commit()
                else:  # nearly always; begun and ended by SQLAlchemy it would cost 50 calls more
                    raw.commit()
            except BaseException:
                # after a failed sync or a full disk only a new connection knows the truth
                connection.invalidate()
                connection.close()
                self._connection = None
                raise
            if self._is_synced:
                self._file.note_commit(raw)

    @contextmanager
    def beside(self) -> Iterator[Any]:
        """Lend the driver's connection outside of any transaction and lock."""
        with self._engine.connect() as connection:
            yield connection.connection.dbapi_connection

    @contextmanager
    def kept(self) -> Iterator[Any]:
        """Lend the connection of the transactions, which may not be opened again; with the lock."""
        if self._connection is None or self._connection.closed:
            self._connection = self._engine.connect()
        yield self._connection.connection.dbapi_connection

    def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        self._engine.dispose()


class _BulkWriter(_Writer):
    """Writes large content, which is synced when the lock is given back: others need not wait.

    `move_log` is called when the log gets long, before more is written.
    """

    def __init__(
        self,
        url: str,
        lock: WriteLock,
        file: QueueFile,
        *,
        turn: FileLock,
        move_log: Callable[[], object],
    ) -> None:
        super().__init__(url, lock, file, is_synced=False)
        self._turn = turn
        self._move_log = move_log

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """See _Writer; it is durable on exit."""
        with self._turn:
            with super().transaction() as connection:
                yield connection
            self._file.sync_log()
            with self.kept() as raw:
                is_long = CAN_CHECKPOINT_BESIDE_WRITERS and frames_of(raw) >= _BULK_FRAMES
        if is_long:
            with suppress(StoreUnavailable):  # the janitor says so; what was written is durable
                self._move_log()


class SqliteDatabase(Database):
    """One SQLite file; `first_in_line`: writes go before those of other processes."""

    is_shared = False

    def __init__(self, url: str, *, first_in_line: bool = False) -> None:
        self._path = database_path(url)
        directory = lock_directory_of(self._path)
        self._file = QueueFile(self._path)
        try:
            self._lock = WriteLock(directory, first_in_line=first_in_line)
            # what a front writes beside its mail queues with everyone else: large content, and
            # counts, which would each wait for a lock of another program's before the next mail
            self._later_lock = WriteLock(directory, first_in_line=False)
            self._bulk_turn = FileLock(self._path, "bulk")
        except OSError as error:
            self._file.close()
            raise StoreUnavailable(f"{directory}: {error.strerror}") from error
        self._readers = Readers(create_sqlite_engine(url, begin=None, file=self._file))
        unsynced_lock = self._later_lock if first_in_line else self._lock
        unsynced = _Writer(url, unsynced_lock, self._file, is_synced=False)
        self._writers = {
            Write.SYNCED: _Writer(url, self._lock, self._file),
            Write.UNSYNCED: unsynced,
            Write.LEASE: unsynced,  # what forgets it is the machine, and the worker goes with it
            Write.BULK: _BulkWriter(
                url,
                self._later_lock,
                self._file,
                turn=self._bulk_turn,
                move_log=self.checkpoint,
            ),
        }
        self._moved_at_ns = 0  # the log's time of change when all of it was moved

    def _reading(self) -> AbstractContextManager[Connection]:
        return self._readers.transaction()

    def _writing(self, kind: Write) -> AbstractContextManager[Connection]:
        return self._writers[kind].transaction()

    def _translate(self, error: Exception) -> Exception:
        cause = error.orig if isinstance(error, DBAPIError) else error
        if isinstance(cause, driver.IntegrityError) and "message.drop_id" in str(cause):
            return AlreadyAccepted("a message with this drop id was stored before")
        if isinstance(cause, (driver.IntegrityError, driver.DataError)):
            return Unstorable(f"{self._path}: {cause}")
        if isinstance(cause, DriverError) and is_damage(cause):
            return QueueDamaged(damage(str(self._path), str(cause)))
        if isinstance(cause, DriverError):
            if "full" in str(cause):
                return StoreFull(f"{self._path}: {cause}; {NO_SPACE_REMEDY}")
            return StoreUnavailable(f"{self._path}: {cause}")
        if isinstance(error, OSError):
            return StoreUnavailable(f"{self._path}: {error.strerror}")
        return error

    def _now_us(self, _connection: Connection) -> int:
        return time.time_ns() // 1000

    def refuse_if_broken(self) -> None:
        """Raise QueueDamaged: what a queue whose files are gone takes no more."""
        self._file.refuse_if_broken()

    def close(self) -> None:
        """Close all connections; the last one leaves a database that needs no log."""
        with suppress(StoreUnavailable):
            self._finish()
        self._file.end_reading()
        for writer in self._writers.values():
            writer.close()
        self._readers.close()
        self._file.close()
        self._lock.close()
        self._later_lock.close()
        self._bulk_turn.close()

    def _finish(self) -> None:
        """Leave a database that needs no log, unless somebody else has it open."""
        if self._file.has_mark:
            writer = self._writers[Write.SYNCED]
            with Translated(self._translate), self._lock, writer.kept() as raw:
                self._file.finish(raw)

    def change_mark(self) -> int | None:
        """See Database: the log's time of change."""
        changed_at_ns = self._file.log_changed_at_ns
        return changed_at_ns if changed_at_ns and is_settled(changed_at_ns) else None

    def checkpoint(self) -> bool:
        """See Janitor.checkpoint."""
        changed_at_ns = self._file.log_changed_at_ns
        if changed_at_ns == self._moved_at_ns:
            return False
        writer = self._writers[Write.SYNCED]
        # large content waits: else the log would grow while it is moved
        with Translated(self._translate), self._bulk_turn, writer.beside() as raw:
            frames = _LONG_LOG_FRAMES
            if CAN_CHECKPOINT_BESIDE_WRITERS:
                frames = _move_log(raw)
            if frames >= _LONG_LOG_FRAMES:
                # with nothing left to move, the next writer starts the log from its beginning
                with self._later_lock:
                    raw.execute("PRAGMA wal_checkpoint(PASSIVE)")
        self._moved_at_ns = changed_at_ns
        return frames >= _LONG_LOG_FRAMES // 4

    def shrink(self) -> None:
        """See Janitor.shrink."""
        with Translated(self._translate), self._writers[Write.SYNCED].beside() as raw:
            (free_pages,) = raw.execute("PRAGMA freelist_count").fetchone()
            if free_pages > _SPARE_PAGES:
                with self._later_lock:
                    self._file.require_log(raw)
                    raw.execute(f"PRAGMA incremental_vacuum({FREE_PAGES_A_STEP})").fetchall()


def is_damage(error: BaseException | None) -> bool:
    """True for what SQLite says of a database that it cannot read."""
    return any(words in str(error) for words in ("malformed", "not a database"))


def _move_log(raw: Any) -> int:
    """Move the log into the database beside the writers, in rounds; return its length in frames."""
    frames = 0
    for _ in range(_CHECKPOINT_ROUNDS):
        _, frames, moved = raw.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        if frames - moved < _FEW_FRAMES:
            break
    return int(frames)
