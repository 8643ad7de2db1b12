"""The file of a SQLite queue and its log: whether both are what they were when they were left.

Mail that was acknowledged may stand in the log (`queue.db-wal`) alone. SQLite takes a database
whose log is missing, cut short or of another as if nothing had been in it, so the queue keeps
account itself:

* The **mark** stands in the database: `user_version` is the first salt of the log, 0 when nobody
  needs one, and `application_id` is the schema's version then, which is another in every copy
  that SQLite makes (backup, VACUUM INTO). It is in the file itself, synced, before the first
  write is answered, and is taken away by the last who closes the queue. A log starts anew with a
  salt that is greater by one, so that a later log of the same queue is known, too.
* `*.locks/users` is locked, shared, by everyone who has the queue open.
* `*.locks/progress` says how long the log was after the last synced commit. It is not synced
  itself: after a power cut it is older than the log, which is right.
* `*.locks/moved` is there when the log was lost while processes used it, and they have moved all
  of it into the database: then it is not missed.

SQLite removes the log when the last connection ends. A marked database must keep it, so each
process has one more connection, for reading only, which ends last and may not remove anything.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
import threading
import time
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from sqlalchemy.engine import make_url

from relaygw.errors import QueueDamaged, StoreUnavailable
from relaygw.store.place import damage

__all__ = [
    "DriverError",
    "QueueFile",
    "database_path",
    "driver",
    "lock_directory",
    "mark_of",
    "read_only",
]

try:
    from pysqlite3 import dbapi2 as driver
except ImportError:  # no wheel for this platform: the standard module works under the lock
    import sqlite3 as driver

DriverError: type[Exception] = driver.Error
"""What the driver raises outside of SQLAlchemy, on connecting for one."""
_HAS_FRAME_COUNT = driver.sqlite_version_info >= (3, 51, 0)  # wal_checkpoint(NOOP)
_LOG_HEADER = struct.Struct(">8I")  # https://sqlite.org/fileformat.html#the_wal_file_format
_LOG_MAGIC = 0x377F0682, 0x377F0683
_PROGRESS = struct.Struct(">IIQ")  # both salts, frames
_MOST_RESTARTS = 1 << 20  # of a log since its mark; each is some 16 MB of mail
_MOVE_TRIES = 20
_MOVE_PATIENCE_S = 0.005
_WORD = 1 << 32

_Salts = tuple[int, int]
_Identity = tuple[int, int] | None


def database_path(url: str) -> Path:
    """Return the file of a `sqlite:///` URL."""
    return Path(make_url(url).database or "")


def lock_directory(url: str) -> Path:
    """Return the directory beside the database that holds its lock files."""
    return lock_directory_of(database_path(url))


def lock_directory_of(path: Path) -> Path:
    """Return the directory that holds the lock files of a database."""
    return path.with_name(path.name + ".locks")


def log_of(path: Path) -> Path:
    """Return the write-ahead log of a database."""
    return path.with_name(path.name + "-wal")


def index_of(path: Path) -> Path:
    """Return the shared index of a database's log."""
    return path.with_name(path.name + "-shm")


def read_only(path: Path, *, as_it_lies: bool = False) -> Any:
    """Return a connection that changes nothing; `as_it_lies` leaves the log out and locks nothing.

    By SQLite itself, even for a few bytes: whoever opens and closes the file otherwise drops
    the locks that SQLite has on it in this process.
    """
    how = "immutable=1" if as_it_lies else "mode=ro"
    return driver.connect(
        f"file:{quote(str(path.absolute()))}?{how}", uri=True, check_same_thread=False
    )


class QueueFile:
    """One user of a queue's file; raises QueueDamaged when mail may be missing in it."""

    def __init__(self, path: Path) -> None:
        directory = lock_directory_of(path)
        self.path: Final = path
        self._log = log_of(path)
        # text: three looks at each commit
        self._name, self._log_name, self._index_name = map(str, (path, self._log, index_of(path)))
        self._moved = directory / "moved"
        self._anchor: Any = None
        self._is_marked = False
        self._found_mark = False
        self._trouble: str | None = None
        self._identities: tuple[_Identity, ...] = ()
        self._anchoring = threading.Lock()
        self._users = self._progress = self._log_descriptor = -1
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
            self._users = os.open(directory / "users", flags, 0o600)
            self._progress = os.open(directory / "progress", flags, 0o600)
        except OSError as error:
            self._let_go()
            raise StoreUnavailable(f"{directory}: {error.strerror}") from error
        try:
            is_alone = self._is_alone()
            if not is_alone:
                fcntl.flock(self._users, fcntl.LOCK_SH)
            self._check(is_alone=is_alone)
            fcntl.flock(self._users, fcntl.LOCK_SH)
        except BaseException:
            self._let_go()
            raise

    # --- opening -------------------------------------------------------------------------

    def _is_alone(self) -> bool:
        try:
            fcntl.flock(self._users, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _check(self, *, is_alone: bool) -> None:
        """Raise QueueDamaged when the log is not the one that the database needs."""
        if not self.path.exists():
            return  # it is made in a moment
        mark = mark_of(self.path)
        if mark is None:
            return
        self._found_mark = True
        salts = _salts_of(self._log)
        if self._moved.exists():
            self._check_moved(is_alone=is_alone, is_in_the_way=salts is not None)
            return
        if salts is None:
            state = "empty or no log" if self._log.exists() else "missing"
            raise QueueDamaged(self._explain(f"is {state}"))
        if not _is_later(salts[0], mark):
            raise QueueDamaged(self._explain("belongs to another database or is too old"))
        if is_alone and _HAS_FRAME_COUNT:
            self._check_length(salts)

    def _check_moved(self, *, is_alone: bool, is_in_the_way: bool) -> None:
        if not is_alone:
            raise QueueDamaged(
                f"{self._log}: removed while relaygw ran, which takes no mail since then; "
                "nothing is lost: stop relaygw and start it again"
            )
        if is_in_the_way:
            raise QueueDamaged(
                f"{self._log}: all that the log of the queue held is in {self.path.name} already, "
                "and this one is older: remove it"
            )

    def _check_length(self, salts: _Salts) -> None:
        """Raise QueueDamaged when SQLite can read less of the log than was committed."""
        try:
            *noted, frames = _PROGRESS.unpack(os.pread(self._progress, _PROGRESS.size, 0))
        except struct.error:
            return  # it came without this file
        if (noted[0], noted[1]) != salts:
            if not _is_later(salts[0], noted[0]):
                raise QueueDamaged(self._explain("is older than the database"))
            return
        try:
            with contextlib.closing(read_only(self.path)) as connection:
                connection.execute("SELECT 1 FROM sqlite_schema LIMIT 1").fetchone()
                _, readable, _ = _frames(connection)
        except DriverError as error:
            raise QueueDamaged(self._explain(f"cannot be read ({error})")) from error
        if readable < frames:
            raise QueueDamaged(
                self._explain(f"is cut short or damaged: {readable} of {frames} pages are readable")
            )

    def _explain(self, what: str) -> str:
        return (
            f"{self._log}: the log of the queue {what}, and mail that was acknowledged may be in "
            f"it alone; put it back beside {self.path.name}, both from the same moment. If it is "
            "gone for good: relaygw db recover"
        )

    # --- while it is open ----------------------------------------------------------------

    def may_connect(self) -> None:
        """Raise QueueDamaged when a new connection would not use the files that others use."""
        if self._trouble is None and self._identities and self._identify() != self._identities:
            self._note_trouble()
        self.refuse_if_broken()

    def keep_log(self) -> None:
        """Keep the log until `close`, however many other connections end; after each is made."""
        with self._anchoring:
            if self._anchor is None:
                anchor = read_only(self.path)
                # to the end: a statement that is not done would keep the log from starting anew
                anchor.execute("SELECT 1 FROM sqlite_schema LIMIT 1").fetchall()
                self._anchor = anchor
                self._identities = self._identify()
        self.may_connect()

    def mark(self, raw: Any) -> None:
        """Have the mark in the database before something is written; with the write lock."""
        if self._is_marked or self._trouble is not None:
            return
        if self._open_log() is None:
            raw.execute("PRAGMA user_version = 0")  # a log has salts once something is in it
        salts = self._open_log()
        if salts is None:
            raise QueueDamaged(self._explain("cannot be read"))
        marked, of_schema, schema = _stamps(raw)
        if marked == 0 or of_schema != schema or not _is_later(salts[0], marked):
            raw.execute(f"PRAGMA application_id = {schema}")
            raw.execute(f"PRAGMA user_version = {_signed(salts[0] or 1)}")
        elif mark_of(self.path) is not None:
            self._is_marked = True  # by another process
        self._is_marked = self._is_marked or _move_all(raw)
        if self._is_marked:
            self._moved.unlink(missing_ok=True)

    def note_commit(self, raw: Any) -> None:
        """Make sure that a commit, which is synced, is where the next process looks for it.

        With the write lock. When the log is gone, all of it is moved into the database instead;
        raises QueueDamaged where that cannot be done either: then nothing must be acknowledged.
        """
        if self._trouble is None and self._is_marked:
            if self._identify() == self._identities:
                if _HAS_FRAME_COUNT:
                    _, frames, _ = _frames(raw)
                    salts = os.pread(self._log_descriptor, 8, 16)
                    os.pwrite(self._progress, salts + frames.to_bytes(8), 0)
                return
            self._note_trouble()
        if self._trouble is not None:
            self._rescue(raw, self._trouble)

    def refuse_if_broken(self) -> None:
        """Raise QueueDamaged once a file of the queue was seen to be removed or replaced."""
        if self._trouble is not None:
            raise QueueDamaged(self._trouble)

    def _open_log(self) -> _Salts | None:
        """Open the log, by which nobody holds locks, for a look at each commit."""
        with contextlib.suppress(OSError):
            if self._log_descriptor >= 0:
                os.close(self._log_descriptor)
                self._log_descriptor = -1
            self._log_descriptor = os.open(self._log, os.O_RDONLY | os.O_CLOEXEC)
            return _salts_in(os.pread(self._log_descriptor, _LOG_HEADER.size, 0))
        return None

    def _identify(self) -> tuple[_Identity, ...]:
        return _identity(self._name), _identity(self._log_name), _identity(self._index_name)

    def _note_trouble(self) -> None:
        names = (self._name, self._log_name, self._index_name)
        pairs = zip(names, self._identify(), self._identities, strict=True)
        changed = next((name for name, now, before in pairs if now != before), self._name)
        self._trouble = (
            f"{changed}: removed or replaced while relaygw ran; no mail is taken or sent until "
            "relaygw is started again"
        )

    def _rescue(self, raw: Any, trouble: str) -> None:
        """Move what the lost log holds into the database; raise QueueDamaged when it cannot."""
        try:
            self._moved.unlink(missing_ok=True)
            if _identity(self._name) != self._identities[0] or not _move_all(raw):
                raise QueueDamaged(trouble)
            self._moved.touch(mode=0o600)
            _sync(self._moved.parent)
        except OSError as error:
            raise QueueDamaged(f"{trouble} ({error.strerror})") from error

    # --- closing -------------------------------------------------------------------------

    def finish(self, raw: Any) -> None:
        """Take the mark away if nobody else has the queue open; with the write lock.

        The caller closes all connections next, and this file last. When anything goes wrong the
        mark stays, and with it the log.
        """
        if not self._is_alone():
            return
        if _identity(self._name) != self._identities[0]:
            return  # another database is there, which must keep its log
        with contextlib.suppress(DriverError, OSError):
            raw.execute("PRAGMA user_version = 0")
            if _move_all(raw):
                self._close_anchor()
                self._moved.unlink(missing_ok=True)

    @property
    def has_mark(self) -> bool:
        """True when the database was found with a mark or has got one."""
        return self._is_marked or self._found_mark

    def close(self) -> None:
        """End this use of the file, after all other connections of it."""
        self._close_anchor()
        self._let_go()

    def _close_anchor(self) -> None:
        with self._anchoring:
            if self._anchor is not None:
                self._anchor.close()
                self._anchor = None

    def _let_go(self) -> None:
        for descriptor in (self._users, self._progress, self._log_descriptor):
            if descriptor >= 0:
                os.close(descriptor)
        self._users = self._progress = self._log_descriptor = -1


def mark_of(path: Path) -> int | None:
    """Return the salt that a database's log must have or come from, None without a mark.

    Looks into the file as it lies, without its log; raises QueueDamaged when it is no database.
    """
    try:
        with contextlib.closing(read_only(path, as_it_lies=True)) as connection:
            marked, of_schema, schema = _stamps(connection)
    except DriverError as error:
        raise QueueDamaged(damage(str(path), str(error))) from error
    return marked if marked != 0 and of_schema == schema else None


def _stamps(connection: Any) -> tuple[int, int, int]:
    """Return the salt of the mark, the schema's version of the mark, and that of now."""
    names = ("user_version", "application_id", "schema_version")
    marked, of_schema, schema = (
        connection.execute(f"PRAGMA {name}").fetchall()[0][0] for name in names
    )
    return marked % _WORD, of_schema, schema


def _signed(word: int) -> int:
    return word - _WORD if word >= _WORD // 2 else word


def _is_later(salt: int, mark: int) -> bool:
    """True when a log with this first salt is the marked one, or one that it became."""
    return (salt - mark) % _WORD < _MOST_RESTARTS


def _salts_of(log: Path) -> _Salts | None:
    try:
        with log.open("rb") as file:
            return _salts_in(file.read(_LOG_HEADER.size))
    except OSError:
        return None


def _salts_in(header: bytes) -> _Salts | None:
    """Return the salts in a log's header, None when it is none."""
    if len(header) < _LOG_HEADER.size:
        return None
    magic, _, _, _, first, second, _, _ = _LOG_HEADER.unpack(header)
    return (first, second) if magic in _LOG_MAGIC else None


def _frames(raw: Any) -> tuple[int, int, int]:
    """Return whether it is locked, the length of the log in pages, and how many are moved."""
    busy, frames, moved = raw.execute("PRAGMA wal_checkpoint(NOOP)").fetchall()[0]
    return busy, frames, moved


def _move_all(raw: Any) -> bool:
    """Move all of the log into the database, synced; False when somebody is in the way."""
    for _ in range(_MOVE_TRIES):
        busy, frames, moved = raw.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()[0]
        if busy == 0 and moved == frames:
            return True
        time.sleep(_MOVE_PATIENCE_S)
    return False


def _identity(name: str) -> _Identity:
    try:
        found = os.stat(name)  # noqa: PTH116 - three at each commit, and a Path costs as much
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
