"""A log file. Processes of a host append to the same one; a line of one is never in another's."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Sequence
from pathlib import Path

_FLAGS = os.O_APPEND | os.O_CREAT | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_MODE = 0o640


class FileOutlet:
    """Appends to `path`, which is created when it is missing; opened with the first record."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor: int | None = None
        self._may_be_torn = False  # a write failed: the file may end within a line

    def send(self, records: Sequence[bytes]) -> int:
        """Append records by one write; a record that did not fit counts as not taken."""
        if self._descriptor is None:
            self._descriptor = self._open()
        head = b"\n" if self._may_be_torn and self._ends_within_a_line() else b""
        data = head + b"".join(records)
        try:
            written = os.write(self._descriptor, data)
        except OSError:
            self._may_be_torn = True
            raise
        self._may_be_torn = written < len(data)
        if not self._may_be_torn:
            return written - len(head)
        return self._whole_records(records, written - len(head))

    def _whole_records(self, records: Sequence[bytes], room_bytes: int) -> int:
        """Return the bytes of the records that are whole in `room_bytes`; raise if none is."""
        taken = 0
        for record in records:
            if taken + len(record) > room_bytes:
                break
            taken += len(record)
        if not taken:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._path))
        return taken

    def _ends_within_a_line(self) -> bool:
        """True unless the last byte is a line end; only looked at when a write has failed."""
        try:
            # the same file, even when its name is another's by now
            reading = os.open(f"/proc/self/fd/{self._descriptor}", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return True
        try:
            size = os.fstat(reading).st_size
            return size > 0 and os.pread(reading, 1, size - 1) != b"\n"
        except OSError:
            return True
        finally:
            os.close(reading)

    def wait(self, timeout_s: float) -> None:
        """A file never says when there is room again."""
        time.sleep(timeout_s)

    def reopen(self) -> None:
        """Go on in the file that now has the name."""
        fresh = self._open()
        self.close()
        self._descriptor, self._may_be_torn = fresh, False

    def _open(self) -> int:
        try:
            descriptor = os.open(self._path, os.O_WRONLY | os.O_EXCL | _FLAGS, _MODE)
        except FileExistsError:
            return os.open(self._path, os.O_WRONLY | _FLAGS, _MODE)
        os.fchmod(descriptor, _MODE)  # a collector in the group reads it, whatever the umask
        return descriptor

    def close(self) -> None:
        """Let go of the file; the next record opens it again."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
