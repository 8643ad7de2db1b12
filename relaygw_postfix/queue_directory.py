"""The queue directory of a Postfix that is stopped: its files, read one by one, and moved aside.

As long as it is locked no Postfix starts on it: the lock is that of its master.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from relaygw.errors import RelaygwError
from relaygw.state_owner import as_caller
from relaygw_postfix.queue_file import DamagedQueueFile, QueuedMail, read_queue_file

HOLD, MAILDROP = "hold", "maildrop"
QUEUES = ("active", "incoming", "deferred", MAILDROP, HOLD)
IMPORTED = "imported"
_LOCK = "pid/master.pid"
_NAME = re.compile(r"[0-9A-Za-z_]{5,255}")
_MARGIN_BYTES = 16 * 2**20  # of an envelope
_OPEN_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_LOCK_FLAGS = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC
_BUSY = (errno.EAGAIN, errno.EACCES)


class NotAQueue(RelaygwError):
    """A directory is not a queue directory that can be worked on; the text says what to do."""


class PostfixRuns(RelaygwError):
    """A Postfix works on the queue directory."""


class Unfinished(RelaygwError):
    """A file was being written when Postfix ended, and nobody was told that it was taken."""


class InUse(RelaygwError):
    """A process of Postfix still has the file in hand."""


@dataclass(slots=True)
class QueueDirectory:
    """A queue directory, such as /var/spool/postfix."""

    path: Path
    _touched: set[Path] = field(default_factory=set)

    @as_caller()
    def check(self) -> None:
        """Raise NotAQueue unless this is one, all on one file system."""
        found = [self.path / name for name in QUEUES if (self.path / name).is_dir()]
        if not found:
            raise NotAQueue(
                f"{self.path}: is not a queue directory, it has none of {', '.join(QUEUES)}; "
                "`postconf -h queue_directory` prints where it is"
            )
        for path in found:
            if path.stat().st_dev != self.path.stat().st_dev:
                raise NotAQueue(
                    f"{path}: is on another file system than {self.path}, so its files cannot be "
                    f"moved to {self.path / IMPORTED}; copy the queue directory into one place"
                )

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep Postfix from starting. Raises PostfixRuns, and OSError where nobody may write."""
        lock = self.path / _LOCK
        with as_caller():
            lock.parent.mkdir(exist_ok=True)
            descriptor = os.open(lock, _LOCK_FLAGS | os.O_CREAT, 0o600)
        try:
            if _is_locked(descriptor):
                raise self._runs(os.read(descriptor, 100))
            with as_caller():
                (self.path / IMPORTED).mkdir(mode=0o700, exist_ok=True)
            yield
        finally:
            os.close(descriptor)

    @as_caller()
    def is_running(self) -> bool:
        """Return whether a Postfix works on it."""
        try:
            descriptor = os.open(self.path / _LOCK, _LOCK_FLAGS)
        except FileNotFoundError:
            return False
        try:
            return _is_locked(descriptor)
        finally:
            os.close(descriptor)

    def _runs(self, content: bytes) -> PostfixRuns:
        words = content.decode("ascii", "replace").split()
        process = f" (process {words[0]})" if words else ""
        return PostfixRuns(
            f"{self.path}: Postfix runs here{process} and would send the same mail; stop it, "
            "`postfix stop`, and import again"
        )

    def files(self) -> Iterator[QueueFile]:
        """Yield all files, queue by queue; those that are held come last."""
        for queue in QUEUES:
            with as_caller():
                directory = self.path / queue
                paths = list(_walk(directory)) if directory.is_dir() else []
            for path in paths:
                yield QueueFile(queue, path)

    @as_caller()
    def count(self, name: str) -> int:
        """Return how many files there are in another directory of Postfix's, hashed or not."""
        directory = self.path / name
        return sum(1 for _ in _walk(directory)) if directory.is_dir() else 0

    @as_caller()
    def set_aside(self, file: QueueFile) -> Path:
        """Move a file where Postfix does not look; durable after `sync`."""
        directory = self.path / IMPORTED / file.queue
        directory.mkdir(mode=0o700, exist_ok=True)
        target = directory / file.path.name
        number = 1
        while target.exists():  # a short queue id is used again
            number += 1
            target = directory / f"{file.path.name}.{number}"
        file.path.rename(target)
        self._touched |= {directory.parent, directory, file.path.parent}
        return target

    @as_caller()
    def sync(self) -> None:
        """Make moves durable."""
        for directory in self._touched:
            descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        self._touched.clear()


def _is_locked(descriptor: int) -> bool:
    """Take the lock that processes of Postfix use on Linux; return whether another one has it."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in _BUSY:
            raise
        return True
    return False


def _walk(directory: Path) -> Iterator[Path]:
    with os.scandir(directory) as found:
        entries = sorted(found, key=lambda dir_entry: dir_entry.name)
    for entry in entries:
        if len(entry.name) == 1 and entry.is_dir(follow_symlinks=False):  # hashed
            yield from _walk(Path(entry.path))
        else:
            yield Path(entry.path)


@dataclass(frozen=True, slots=True)
class QueueFile:
    """A file of a queue."""

    queue: str
    path: Path

    @as_caller()
    def read(self, *, limit_bytes: int, is_running: bool) -> QueuedMail:
        """Return its mail.

        Raises DamagedQueueFile, Unfinished, InUse, FileNotFoundError, and other OSErrors. Of a
        Postfix that `is_running` files are looked at as they are.
        """
        if not _NAME.fullmatch(self.path.name):
            raise DamagedQueueFile("its name is not a queue file name")
        try:
            descriptor = os.open(self.path, _OPEN_FLAGS)
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.ENXIO):
                raise DamagedQueueFile("is not a regular file") from error
            raise
        with os.fdopen(descriptor, "rb") as stream:
            about = os.fstat(descriptor)
            if not stat.S_ISREG(about.st_mode):
                raise DamagedQueueFile("is not a regular file")
            if not is_running and _is_locked(descriptor):
                raise InUse("is still being delivered by a Postfix process; wait, and import again")
            if not about.st_mode & stat.S_IXUSR:  # how Postfix marks that all of it is there
                raise Unfinished(
                    "is incomplete, and its acceptance was never confirmed to the sender"
                )
            if about.st_size > limit_bytes + _MARGIN_BYTES:
                raise DamagedQueueFile(f"larger than max_message_size, {limit_bytes} bytes")
            return read_queue_file(stream.read(), is_maildrop=self.queue == MAILDROP)
