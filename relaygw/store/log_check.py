"""Whether the log of a SQLite queue is the one that its database needs: decision 16.

* The **mark**: `user_version` is the first salt of the log, 0 when nobody needs one, and
  `application_id` the schema's version then. A log starts anew with a salt that is greater by one,
  so that a later log of the same queue is known, too.
* A log that was begun and never committed, by a kill or on a full disk, is begun again with salts
  by chance. Before that `*.locks/progress` says so, synced, and then names the new log.
* `*.locks/progress` is else not synced: after a power cut it is older than the log, which is
  right. When the log is gone and its last page is in the database, which was written later, another
  program has moved the log: whoever opens the queue of a killed gateway does so, as its last user.
* `*.locks/moved`: a log that was lost is not missed then. Nobody else may open the queue as long
  as those who lost it live.
* Both belong to a mark: beside another database, put in its place by hand, they say nothing.
"""

from __future__ import annotations

import contextlib
import os
import struct
import zlib
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import quote

from sqlalchemy.engine import make_url

from relaygw.errors import QueueDamaged
from relaygw.store.database import damage
from relaygw.store.queue_lock import lock_directory_of

try:
    from pysqlite3 import dbapi2
except ImportError:  # no wheel for this platform: the standard module works under the lock
    import sqlite3 as dbapi2

driver: Any = dbapi2

DriverError: type[Exception] = driver.Error  # outside of SQLAlchemy, on connecting for one
HAS_FRAME_COUNT = driver.sqlite_version_info >= (3, 51, 0)  # without moving the log
FRAME_COUNT = "PRAGMA wal_checkpoint(NOOP)"  # length of the log in pages, second of three
_LOG_HEADER = struct.Struct(">8I")  # https://sqlite.org/fileformat.html#the_wal_file_format
# its magic, and at 40, 60, 68 the versions of schema, user and application: the same page
_DATABASE_HEADER = struct.Struct(">16s24xI16xI4xI")
_DATABASE_MAGIC = b"SQLite format 3\0"
_LOG_MAGIC = 0x377F0682, 0x377F0683
# both salts, frames, number and checksum of the last page, the boot of the machine, the mark
PROGRESS = struct.Struct(">IIQIIII")
_LEAST_PROGRESS_BYTES = PROGRESS.size - 4  # older versions did not note the mark
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_MOST_RESTARTS = 1 << 20  # of a log since its mark; each is some 16 MB of mail
LOG_HEADER_BYTES = _LOG_HEADER.size
WITH_LOG, WITHOUT_LOG = b"with log\n", b"without log\n"
"""What `moved` says: whether the log is still the one that was used."""
WORD = 1 << 32  # salts are numbers below this

Salts = tuple[int, int]
ANY_SALTS = 0, 0
"""What `progress` says while a log is begun: nothing of it is needed, its salts may be any."""


class LogState(Enum):
    """What a log is to its database."""

    WHOLE = auto()  # all that is needed is there
    SHORT = auto()  # the end of it is missing
    LOST = auto()  # it is missing, or what lies there is of another moment or database
    SPARE = auto()  # all of it is in the database, and what lies there is older
    LEFT = auto()  # the database itself is missing: SQLite would make a new one, and remove the log
    OFF = auto()  # those who use the queue have lost it, and moved all of it


@dataclass(frozen=True, slots=True)
class LogFinding:
    """What was found, in words where something is wrong; `is_marked`: the database needs a log."""

    state: LogState
    problem: str = ""
    is_marked: bool = False


_WHOLE = LogFinding(LogState.WHOLE, is_marked=True)


@dataclass(frozen=True, slots=True)
class _Progress:
    """How far a log was, and of the database with which mark."""

    salts: Salts
    frames: int = 0
    page: int = 0
    checksum: int = 0
    boot: int = 0
    mark: int = 0

    def is_of(self, mark: int) -> bool:
        """True when it says something of the database with this mark."""
        return self.mark == mark or (self.salts != ANY_SALTS and is_later(self.salts[0], mark))

    def names(self, salts: Salts) -> bool:
        """True when a log with these salts is the one that it tells of, or came of it."""
        return self.salts == ANY_SALTS or is_later(salts[0], self.salts[0])


def database_path(url: str) -> Path:
    """Return the file of a `sqlite:///` URL."""
    return Path(make_url(url).database or "")


def log_of(path: Path) -> Path:
    """Return the write-ahead log of a database."""
    return path.with_name(path.name + "-wal")


def index_of(path: Path) -> Path:
    """Return the shared index of a database's log."""
    return path.with_name(path.name + "-shm")


def sync(path: Path) -> None:
    """Have a file, or a directory, on disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_only(path: Path, *, as_it_lies: bool = False) -> Any:
    """Return a connection that changes nothing; `as_it_lies` leaves the log out and locks nothing.

    SQLite drops its locks in this process when anybody else here opens and closes the file.
    """
    for file in (path, path.with_name(path.name + "-journal")):
        if file.is_fifo():  # it would wait for who writes there
            raise DriverError(f"{file} is a pipe; remove it")
    return _connect(path, "immutable=1" if as_it_lies else "mode=ro")


def read_write(path: Path, *, patience_s: float) -> Any:
    """Return a connection to a database that is there: none is made in its place."""
    return _connect(path, "mode=rw", timeout=patience_s)


def _connect(path: Path, how: str, **options: Any) -> Any:
    name = f"file:{quote(str(path.absolute()))}?{how}"
    return driver.connect(name, uri=True, check_same_thread=False, **options)


def check_log(path: Path, *, is_alone: bool) -> LogFinding:
    """Look whether a database has its log; raises QueueDamaged when it is none.

    `is_alone`: nobody else has it open.
    """
    if problem := missing_database(path, is_alone=is_alone):
        return LogFinding(LogState.LEFT, problem, is_marked=True)
    try:
        mark = (_mark_alone(path) if is_alone else mark_of(path)) if path.exists() else None
    except DriverError:  # others move the log into it just now, and look after it
        return _WHOLE
    if mark is None:
        return LogFinding(LogState.WHOLE)
    log = log_of(path)
    salts = salts_of(log)
    moved = _moved_of(path, mark)
    if moved and not is_alone:
        problem = (
            f"{path}: a file of the queue was removed or replaced while relaygw ran, and it has "
            "accepted no mail since; nothing is lost: stop and restart relaygw"
        )
        return LogFinding(LogState.OFF, problem, is_marked=True)
    if moved and salts is None:
        return _WHOLE
    if moved == WITHOUT_LOG:
        problem = (
            f"{log_of(path)}: everything in the queue's log is already in {path.name}, and this "
            "log is older: remove it"
        )
        return LogFinding(LogState.SPARE, problem, is_marked=True)
    if salts is None and is_alone and _is_moved(path, mark):
        return _WHOLE
    if salts is None:
        state = "is empty or not a log" if log.exists() else "is missing"
        return _finding(LogState.LOST, path, state)
    noted = _progress_of(path)
    is_named = noted is not None and noted.is_of(mark) and noted.names(salts)
    if not (is_later(salts[0], mark) or is_named):
        return _finding(LogState.LOST, path, "may be of another database, or is too old")
    return _check_length(path, salts, mark) if is_alone else _WHOLE


def missing_database(path: Path, *, is_alone: bool = True) -> str:
    """Return the problem where a queue was and its database is gone or empty, else ""."""
    try:
        size_bytes = path.stat().st_size
    except OSError:
        size_bytes = None
    if size_bytes or (salts_of(log_of(path)) is None and (is_alone or size_bytes == 0)):
        return ""
    log = log_of(path).name
    return (
        f"{path}: the database of the queue is {'missing' if size_bytes is None else 'empty'}, "
        f"and acknowledged mail may be in it and in its log {log}: put it back beside the log, "
        f"and start again. To start with a new queue, stop relaygw and move {log} away"
    )


def _opened(file: Path) -> BinaryIO:
    """Open a file to read; a pipe in its place is empty, and nobody waits for who writes there."""
    return os.fdopen(os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb")


def _read(file: Path) -> bytes:
    try:
        with _opened(file) as stream:
            return stream.read()
    except OSError:
        return b""


def moved_words(words: bytes, mark: int) -> bytes:
    """Return the content of `moved` for a database with this mark."""
    return words + b"%d\n" % (mark % WORD)


def _moved_of(path: Path, mark: int) -> bytes:
    """Return the words of `moved` about a database with this mark, or empty."""
    found = _read(lock_directory_of(path) / "moved")
    matching = (WITH_LOG, WITHOUT_LOG)
    return next((words for words in matching if found in (words, moved_words(words, mark))), b"")


def _is_moved(path: Path, mark: int) -> bool:
    """True when the last page of a log that is gone has come into the database."""
    noted = _progress_of(path)
    if noted is None or noted.frames == 0 or not noted.is_of(mark):
        return False
    # of another boot it may be older than the log was
    if noted.boot == 0 or noted.boot != this_boot():
        return False
    if path.stat().st_mtime_ns < progress_file_of(path).stat().st_mtime_ns:
        return False
    # nobody has it open, so that no lock is dropped
    with _opened(path) as file:
        page_bytes = int.from_bytes(file.read(18)[16:]) or 1
        page_bytes = 65536 if page_bytes == 1 else page_bytes
        file.seek((noted.page - 1) * page_bytes)
        return bool(zlib.crc32(file.read(page_bytes)) == noted.checksum)


def this_boot() -> int:
    """Return a number of the machine's present run, 0 when it cannot be told."""
    return zlib.crc32(_read(_BOOT_ID))


def progress_file_of(path: Path) -> Path:
    """Return the account of how far a database's log is."""
    return lock_directory_of(path) / "progress"


def _progress_of(path: Path) -> _Progress | None:
    noted = _read(progress_file_of(path))
    if len(noted) < _LEAST_PROGRESS_BYTES:
        return None  # the database came without this file
    first, second, *others = PROGRESS.unpack_from(noted.ljust(PROGRESS.size, b"\0"))
    return _Progress((first, second), *others)


def _check_length(path: Path, salts: Salts, mark: int) -> LogFinding:
    """Compare what SQLite can read of a log with what was committed."""
    noted = _progress_of(path)
    if noted is None:
        return _WHOLE
    if noted.salts != salts:
        # else of another database, which was in this place before or is meant to be
        if noted.is_of(mark) and not noted.names(salts):
            return _finding(LogState.LOST, path, "is older than the database")
        return _WHOLE
    if HAS_FRAME_COUNT:
        try:
            with contextlib.closing(read_only(path)) as connection:
                connection.execute("SELECT 1 FROM sqlite_schema LIMIT 1").fetchall()
                _, readable, _ = connection.execute(FRAME_COUNT).fetchall()[0]
        except DriverError as error:
            return _finding(LogState.SHORT, path, f"cannot be read ({error})")
        if readable < noted.frames:
            what = f"is cut short or damaged: {readable} of {noted.frames} pages are readable"
            return _finding(LogState.SHORT, path, what)
    return _WHOLE


def _finding(state: LogState, path: Path, what: str) -> LogFinding:
    problem = (
        f"{log_of(path)}: the log of the queue {what}, and acknowledged mail may be only in that "
        f"log; put it back beside {path.name}, both from the same time. If it is lost: relaygw db "
        "recover"
    )
    return LogFinding(state, problem, is_marked=True)


def mark_of(path: Path) -> int | None:
    """Return the salt that a log must have or come from; DriverError while the file is written."""
    with contextlib.closing(read_only(path, as_it_lies=True)) as connection:
        return _mark_in(*stamps_of(connection))


def _mark_alone(path: Path) -> int | None:
    """Return the same of a database that nobody has open; raises QueueDamaged for what is none.

    By the header, which drops no lock: after a kill the rest may only make sense with its log.
    """
    with _opened(path) as file:
        header = file.read(_DATABASE_HEADER.size)
    if not header:
        return None  # it was made and not used yet
    if len(header) < _DATABASE_HEADER.size or not header.startswith(_DATABASE_MAGIC):
        raise QueueDamaged(damage(str(path), "file is not a database"))
    _, schema, marked, of_schema = _DATABASE_HEADER.unpack(header)
    return _mark_in(marked, of_schema, schema)


def _mark_in(marked: int, of_schema: int, schema: int) -> int | None:
    return marked if marked != 0 and of_schema == schema else None


def stamps_of(connection: Any) -> tuple[int, int, int]:
    """Return the salt of the mark, the schema's version of the mark, and that of now."""
    names = ("user_version", "application_id", "schema_version")
    marked, of_schema, schema = (
        connection.execute(f"PRAGMA {name}").fetchall()[0][0] for name in names
    )
    return marked % WORD, of_schema, schema


def is_later(salt: int, mark: int) -> bool:
    """True when a log with this first salt is the marked one, or one that it became."""
    return (salt - mark) % WORD < _MOST_RESTARTS


def salts_of(log: Path) -> Salts | None:
    """Return the salts of a log, None when it is none."""
    try:
        with _opened(log) as file:
            return salts_in(file.read(_LOG_HEADER.size))
    except OSError:
        return None


def salts_in(header: bytes) -> Salts | None:
    """Return the salts in a log's header, None when it is none."""
    if len(header) < _LOG_HEADER.size:
        return None
    magic, _, _, _, first, second, _, _ = _LOG_HEADER.unpack(header)
    return (first, second) if magic in _LOG_MAGIC else None
