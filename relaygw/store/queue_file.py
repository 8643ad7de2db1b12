"""The file of a SQLite queue as those use it who have it open: see `log_check`.

SQLite removes the log when the last connection ends. So each process has one more, for reading
only, which ends last and may not remove anything.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import threading
import time
import zlib
from pathlib import Path
from typing import Any, Final

from relaygw.errors import QueueDamaged, StoreUnavailable
from relaygw.store import log_check, queue_lock

_FRAME_HEADER_BYTES = 24  # https://sqlite.org/fileformat.html#the_wal_file_format
_SALTS_AT = 16  # in the log's header
_DESCRIPTORS = "/proc/self/fd"
_MOVE_TRIES = 20
_MOVE_PATIENCE_S = 0.005

_Identity = tuple[int, int] | None


class QueueFile:
    """One user of a queue's file; raises QueueDamaged when mail may be missing in it."""

    def __init__(self, path: Path) -> None:
        directory = queue_lock.lock_directory_of(path)
        self.path: Final = path
        self._log = log_check.log_of(path)
        # text: three looks at each commit
        index = log_check.index_of(path)
        self._name, self._log_name, self._index_name = map(str, (path, self._log, index))
        self._moved = directory / "moved"
        self._anchor: Any = None
        self._is_marked = False
        self._file_mark = 0  # what the database file says, whatever the log has
        self._found_mark = False
        self._tries = _MOVE_TRIES
        self._page_bytes = 0
        self._boot = log_check.this_boot()
        self._trouble: str | None = None
        self._is_rescued = False  # what the lost log held is in the database: a restart goes on
        self._identities: tuple[_Identity, ...] = ()
        self._anchoring = threading.Lock()
        self._users = self._progress = self._log_descriptor = -1
        try:
            self._users = queue_lock.open_users(path)
            self._progress = queue_lock.open_lock_file(path, "progress")
            while not self._begin():
                pass
        except OSError as error:
            self._let_go()
            raise StoreUnavailable(f"{directory}: {error.strerror}") from error
        except BaseException:
            self._let_go()
            raise

    def _begin(self) -> bool:
        """Lock and check it; False: somebody came between, who may have put another in its place.

        A lock is given up before it becomes another one.
        """
        is_alone = queue_lock.is_alone(self._users)
        if not is_alone:
            queue_lock.share(self._users, self.path)
        finding = log_check.check_log(self.path, is_alone=is_alone)
        if finding.state is not log_check.LogState.WHOLE:
            raise QueueDamaged(finding.problem)
        self._found_mark = finding.is_marked
        return queue_lock.is_shared(self._users)

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
                anchor = log_check.read_only(self.path)
                # to the end: a statement that is not done would keep the log from starting anew
                anchor.execute("SELECT 1 FROM sqlite_schema LIMIT 1").fetchall()
                if _is_only_read(self._index_name):
                    anchor.close()
                    raise StoreUnavailable(
                        f"{self._index_name}: it could be opened for reading only; it is opened "
                        "again with the next mail"
                    )
                # in the log alone it counts as well: it is in the database once the log is moved
                self._found_mark = self._found_mark or log_check.stamps_of(anchor)[0] != 0
                self._anchor = anchor
                self._identities = self._identify()
        self.may_connect()

    def require_log(self, raw: Any) -> None:
        """Have the mark in the database before something is written; with the write lock."""
        if self._trouble is not None:
            return
        is_begun = not log_check.HAS_FRAME_COUNT or frames_of(raw) > 0
        if is_begun and self._is_marked and self._has_marked_log():
            return
        if self._is_marked and self._identify() != self._identities:
            return  # the commit tells
        self._is_marked = False
        with contextlib.suppress(log_check.DriverError):  # others write the file
            self._file_mark = log_check.mark_of(self.path) or 0
        marked, of_schema, schema = log_check.stamps_of(raw)
        if not is_begun or self._open_log() is None:
            # SQLite may go on with salts by chance: the log gets them here, not with mail
            self._note(log_check.ANY_SALTS)
            os.fsync(self._progress)
            raw.execute(f"PRAGMA user_version = {_signed(marked)}")
        salts = self._open_log()
        if salts is None:
            raise StoreUnavailable(f"{self._log}: the log of the queue cannot be read")
        if marked == 0 or of_schema != schema or not log_check.is_later(salts[0], marked):
            # synced before the mark: a length that is of another log would tell of a loss
            self._note(salts)
            os.fsync(self._progress)
            raw.execute(f"PRAGMA application_id = {schema}")
            raw.execute(f"PRAGMA user_version = {_signed(salts[0] or 1)}")
            if log_check.HAS_FRAME_COUNT:
                self._note_progress(frames_of(raw))
        else:
            self._is_marked = self._has_marked_log()  # by another process
        if not self._is_marked and _move_all(raw, tries=self._tries):
            self._is_marked = True
            self._file_mark = log_check.stamps_of(raw)[0]
        self._tries = 1  # a long reader may be in the way; writers do not wait for it each time
        if self._is_marked:
            self._moved.unlink(missing_ok=True)

    def note_commit(self, raw: Any) -> None:
        """Make sure that a synced commit is where the next process looks; with the write lock.

        When the log is gone, all of it is moved into the database; QueueDamaged where that fails:
        nothing must be acknowledged then.
        """
        has_trouble = self._trouble is not None and not self._is_over()
        if not has_trouble and self._file_mark != 0:
            if self._identify() == self._identities:
                if log_check.HAS_FRAME_COUNT:
                    # it is committed, whatever becomes of the note, which may be older than the log
                    with contextlib.suppress(OSError):
                        self._note_progress(frames_of(raw))
                elif not self._has_marked_log():  # whether it would be begun anew was not known
                    self.require_log(raw)
                return
            self._note_trouble()
        if self._trouble is not None:
            self._rescue(raw, self._trouble)

    def sync_log(self) -> None:
        """Make durable what is committed, without the write lock; raises OSError."""
        descriptor = os.open(self._log, os.O_RDONLY | os.O_CLOEXEC)  # others may reopen ours
        try:
            os.fdatasync(descriptor)
        finally:
            os.close(descriptor)

    def refuse_if_broken(self) -> None:
        """Raise QueueDamaged while a file of the queue is removed or replaced."""
        if self._trouble is not None and not self._is_over():
            raise QueueDamaged(self._trouble)

    def _is_over(self) -> bool:
        """True for the trouble of a directory that was renamed away and back; forget it."""
        is_over = not self._is_rescued and self._identify() == self._identities
        if is_over:
            self._trouble = None  # nothing was acknowledged meanwhile
        return is_over

    def _open_log(self) -> log_check.Salts | None:
        """Open the log, by which nobody holds locks, for a look at each commit."""
        with contextlib.suppress(OSError):
            if self._log_descriptor >= 0:
                os.close(self._log_descriptor)
                self._log_descriptor = -1
            flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
            self._log_descriptor = os.open(self._log, flags)
            header = os.pread(self._log_descriptor, log_check.LOG_HEADER_BYTES, 0)
            self._page_bytes = int.from_bytes(header[8:12])
            return log_check.salts_in(header)
        return None

    def _has_marked_log(self) -> bool:
        """True when the log is one that the mark in the database file tells of."""
        first = int.from_bytes(os.pread(self._log_descriptor, 4, _SALTS_AT))
        return self._file_mark != 0 and log_check.is_later(first, self._file_mark)

    def _note(self, salts: log_check.Salts) -> None:
        """Write down that nothing is needed of a log that begins."""
        noted = log_check.PROGRESS.pack(*salts, 0, 0, 0, 0, self._file_mark)
        os.pwrite(self._progress, noted, 0)

    def _note_progress(self, frames: int) -> None:
        """Write down how far the log is."""
        salts = os.pread(self._log_descriptor, 8, _SALTS_AT)
        frame_bytes = _FRAME_HEADER_BYTES + self._page_bytes
        at = log_check.LOG_HEADER_BYTES + (frames - 1) * frame_bytes
        frame = os.pread(self._log_descriptor, frame_bytes, at)
        checksum = zlib.crc32(memoryview(frame)[_FRAME_HEADER_BYTES:])
        last = frames.to_bytes(8) + frame[:4] + checksum.to_bytes(4) + self._boot.to_bytes(4)
        os.pwrite(self._progress, salts + last + self._file_mark.to_bytes(4), 0)

    def _identify(self) -> tuple[_Identity, ...]:
        return _identity(self._name), _identity(self._log_name), _identity(self._index_name)

    def _note_trouble(self) -> None:
        names = (self._name, self._log_name, self._index_name)
        pairs = zip(names, self._identify(), self._identities, strict=True)
        changed = next((name for name, now, before in pairs if now != before), self._name)
        self._trouble = (
            f"{changed}: removed or replaced while relaygw ran; no mail is accepted or sent until "
            f"{'this file is back' if changed == self._name else 'relaygw is restarted'}"
        )

    def _rescue(self, raw: Any, trouble: str) -> None:
        """Move what the lost log holds into the database; raise QueueDamaged when it cannot."""
        try:
            self._moved.unlink(missing_ok=True)
            if _identity(self._name) != self._identities[0]:
                raise QueueDamaged(trouble)
            self._is_rescued = True
            if not _move_all(raw):
                raise QueueDamaged(trouble)
            is_log_there = _identity(self._log_name) == self._identities[1]
            descriptor = queue_lock.open_lock_file(self.path, self._moved.name)
            words = log_check.WITH_LOG if is_log_there else log_check.WITHOUT_LOG
            mark = log_check.stamps_of(raw)[0]
            os.write(descriptor, log_check.moved_words(words, mark))
            os.fsync(descriptor)
            os.close(descriptor)
            log_check.sync(self._moved.parent)
        except OSError as error:
            raise QueueDamaged(f"{trouble} ({error.strerror})") from error

    # --- closing -------------------------------------------------------------------------

    def end_reading(self) -> None:
        """Let the last connection remove a log that no mark needs; before all others are closed."""
        with contextlib.suppress(log_check.DriverError):
            is_marked = self._anchor is not None and log_check.stamps_of(self._anchor)[0] != 0
            if not self.has_mark and not is_marked:
                self._close_anchor()

    def finish(self, raw: Any) -> None:
        """Take the mark away if nobody else has the queue open; with the write lock.

        The caller closes all connections next, this file last. On any failure mark and log stay.
        """
        if not queue_lock.is_alone(self._users):
            return
        if not self._identities or self._is_another_there():
            return  # which would lose its log, or put an old one into the database
        with contextlib.suppress(log_check.DriverError, OSError, StoreUnavailable):
            self.require_log(raw)  # as before everything that is written
            raw.execute("PRAGMA user_version = 0")
            if _move_all(raw):
                self._close_anchor()
                self._moved.unlink(missing_ok=True)

    def _is_another_there(self) -> bool:
        database, log, _ = self._identities
        if _identity(self._log_name) != log and log_check.salts_of(self._log) is not None:
            return True
        return _identity(self._name) != database

    @property
    def log_changed_at_ns(self) -> int:
        """When the log was written to last, 0 where there is none."""
        try:
            return self._log.stat().st_mtime_ns
        except OSError:
            return 0

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


def _signed(word: int) -> int:
    return word - log_check.WORD if word >= log_check.WORD // 2 else word


def _move_all(raw: Any, *, tries: int = _MOVE_TRIES) -> bool:
    """Move all of the log into the database, synced; False when somebody is in the way."""
    for number in range(tries):
        if number:
            time.sleep(_MOVE_PATIENCE_S)
        busy, frames, moved = raw.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()[0]
        if busy == 0 and moved == frames:
            return True
    return False


def _identity(name: str) -> _Identity:
    try:
        found = os.stat(name)  # noqa: PTH116 - three at each commit, and a Path costs as much
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _is_only_read(name: str) -> bool:
    """Return whether this process has a file open, for reading only.

    SQLite opens the index of a log so when it cannot open it otherwise, for all its connections: no
    descriptor or an error of the moment would let a process write nothing until its end.
    """
    its = _identity(name)
    with contextlib.suppress(OSError):
        for entry in os.listdir(_DESCRIPTORS):  # noqa: PTH208
            with contextlib.suppress(OSError):
                found = os.fstat(int(entry))
                if (found.st_dev, found.st_ino) == its:
                    return fcntl.fcntl(int(entry), fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY
    return False


def frames_of(raw: Any) -> int:
    """Return the length of the log in pages."""
    _, frames, _ = raw.execute(log_check.FRAME_COUNT).fetchall()[0]
    return int(frames)
