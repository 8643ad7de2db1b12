"""Locks of a SQLite queue: of those who have it open, and of those who move much at once."""

from __future__ import annotations

import fcntl
import logging
import os
import threading
import time
from pathlib import Path

from relaygw.errors import StoreUnavailable

_log = logging.getLogger("relaygw.store")

PATIENCE_S = 60.0  # with somebody who has a queue alone: a look at a long log takes its time
TOLD_AFTER_S = 1.0
_LONGEST_LOOK_S = 0.05
_KERNEL_LOCKS = Path("/proc/locks")


def lock_directory_of(path: Path) -> Path:
    """Return the directory that holds the lock files of a database."""
    return path.with_name(path.name + ".locks")


def open_lock_file(path: Path, name: str) -> int:
    """Open a lock file of a database, which is made where there is none; raises OSError."""
    directory = lock_directory_of(path)
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    return os.open(directory / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


def open_users(path: Path) -> int:
    """Return the file that all have locked who have a queue open; raises StoreUnavailable."""
    if path.is_symlink():
        raise StoreUnavailable(
            f"{path}: is a symbolic link, and SQLite keeps the log beside the file it points to; "
            f"write that into queue.url: sqlite:///{path.resolve()}"
        )
    try:
        return open_lock_file(path, "users")
    except OSError as error:
        raise StoreUnavailable(f"{error.filename}: {error.strerror}") from error


def is_alone(users: int) -> bool:
    """Lock a queue, by the descriptor of its file `users`; False: others use it."""
    return _is_locked(users, fcntl.LOCK_EX)


def is_shared(users: int) -> bool:
    """Lock a queue beside others; False: somebody has it alone, and no lock is held."""
    return _is_locked(users, fcntl.LOCK_SH)


def _is_locked(users: int, how: int) -> bool:
    try:
        fcntl.flock(users, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def share(users: int, path: Path) -> None:
    """Lock a queue beside others, when nobody has it alone any more; raises StoreUnavailable.

    It blocks, so that no event loop may serve meanwhile, nor a handler keep TERM from ending it.
    """
    begun_s, look_s, is_told = time.monotonic(), 0.001, False
    while not is_shared(users):
        waited_s = time.monotonic() - begun_s
        if waited_s >= PATIENCE_S:
            raise StoreUnavailable(
                f"{path}: {_holder(users)} has had the queue locked for {PATIENCE_S:.0f} s "
                "(relaygw db restore, recover or check do so); try again when it is done"
            )
        if waited_s >= TOLD_AFTER_S and not is_told:
            is_told = True
            _log.warning(
                f"{path}: {_holder(users)} has locked the queue (relaygw db restore, recover or "
                f"check do so); waiting for it, {PATIENCE_S:.0f} s at most"
            )
        time.sleep(look_s)
        look_s = min(look_s * 2, _LONGEST_LOOK_S)


def _holder(users: int) -> str:
    """Return who has a queue alone, as far as the kernel tells."""
    inode = str(os.fstat(users).st_ino)
    for line in _KERNEL_LOCKS.read_text().splitlines() if _KERNEL_LOCKS.exists() else ():
        _, kind, _, how, process, file, *_ = line.split()
        if (kind, how, file.rpartition(":")[2]) == ("FLOCK", "WRITE", inode):
            return f"process {process}"
    return "another process"


class FileLock:
    """A lock among threads and processes: `name` among the lock files of the database `path`."""

    def __init__(self, path: Path, name: str) -> None:
        """Raises OSError."""
        self._file = open_lock_file(path, name)
        self._thread_lock = threading.Lock()

    def close(self) -> None:
        """Close the file; it stays, others may hold it."""
        os.close(self._file)

    def __enter__(self) -> None:
        self._thread_lock.acquire()
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX)
        except BaseException:
            self._thread_lock.release()
            raise

    def __exit__(self, *_: object) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_UN)
        finally:
            self._thread_lock.release()
