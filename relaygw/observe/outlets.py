"""Where the lines of the log leave the process: stderr, a file, or the syslog daemon."""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
import stat
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Protocol

from relaygw.observe.events import Line

STDERR = 2
_AGAIN = "/proc/self/fd/{}"  # opening this gives a descriptor with a mode of its own
_GONE = {errno.EPIPE, errno.EBADF, errno.ECONNRESET, errno.ENOTCONN}
_FULL = {errno.EAGAIN, errno.ENOBUFS}
_CUT_BYTES = 1024  # RFC 3164: what every daemon takes
_FILE_FLAGS = os.O_APPEND | os.O_CREAT | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_FILE_MODE = 0o640
_MAIL = 2 << 3  # syslog's facility `mail`, in front of the severity


class OutletGone(Exception):
    """Nobody will ever read here again."""


class Outlet(Protocol):
    """Where records leave the process: a file, syslog, or what stderr is. Never waits."""

    def send(self, records: Sequence[bytes]) -> int:
        """Hand over records in order; return how many bytes of them were taken, at least one.

        Raises BlockingIOError when there is no room now, OutletGone when there will be none any
        more, another OSError when it does not work; then nothing was taken.
        """

    def wait(self, timeout_s: float) -> None:
        """Return when there may be room again, or after `timeout_s` at the latest."""

    def reopen(self) -> None:
        """Begin anew under the same name; raises OSError, and then all stays as it was."""

    def close(self) -> None:
        """Let go."""


class StderrOutlet:
    """Writes to stderr, whatever it is: a terminal, a pipe, a socket of the journal, a file.

    When its reader has gone, it is over. It is shared with other programs, so it is not made
    non-blocking itself: a pipe or terminal is opened once more for that, a socket is asked in each
    call.
    """

    def __init__(self, descriptor: int = STDERR) -> None:
        self._descriptor = descriptor
        self._way: _Way | None = None

    def send(self, records: Sequence[bytes]) -> int:
        """Write whole records of at most PIPE_BUF bytes at a time, which no other write splits."""
        if self._way is None:
            self._way = _way_to(self._descriptor)
        taken = 0
        while records:
            chunk, records = _first_chunk(records)
            try:
                written = self._way.write(chunk)
            except OSError as error:
                if error.errno in _GONE:
                    raise OutletGone(str(error)) from error
                if taken:
                    return taken
                raise
            taken += written
            if written < len(chunk):
                break
        return taken

    def wait(self, timeout_s: float) -> None:
        """Return when the reader has made room."""
        if any(what & select.POLLNVAL for _, what in _poll(self._descriptor, timeout_s)):
            time.sleep(timeout_s)

    def reopen(self) -> None:
        """Nothing to do: whoever started the gateway decides where stderr goes."""

    def close(self) -> None:
        """Let go of what was opened; the descriptor itself stays, for tracebacks."""
        if self._way is not None:
            self._way.close()
            self._way = None


@dataclass(frozen=True, slots=True)
class _Way:
    """How to write to a descriptor without waiting, and how to end that."""

    write: Callable[[bytes], int]
    close: Callable[[], None] = lambda: None


def _poll(descriptor: int, timeout_s: float) -> list[tuple[int, int]]:
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    return poll.poll(timeout_s * 1000)


def _first_chunk(records: Sequence[bytes]) -> tuple[bytes, Sequence[bytes]]:
    """Return the bytes of one write, and the records that are left."""
    size = count = 0
    for record in records:
        if count and size + len(record) > select.PIPE_BUF:
            break
        size += len(record)
        count += 1
    return b"".join(records[:count]), records[count:]


def _way_to(descriptor: int) -> _Way:
    try:
        kind = os.fstat(descriptor).st_mode
    except OSError:
        return _Way(lambda data: os.write(descriptor, data))  # closed: the write says so
    if stat.S_ISSOCK(kind):
        connection = socket.socket(fileno=os.dup(descriptor))
        return _Way(lambda data: connection.send(data, socket.MSG_DONTWAIT), connection.close)
    if stat.S_ISREG(kind):
        return _Way(lambda data: os.write(descriptor, data))
    try:
        again = os.open(
            _AGAIN.format(descriptor), os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
        )
    except OSError:
        # another user's; a terminal of theirs may still make us wait while it is stopped
        return _Way(lambda data: _write_if_ready(descriptor, data))
    return _Way(lambda data: os.write(again, data), lambda: os.close(again))


def _write_if_ready(descriptor: int, data: bytes) -> int:
    """Write where the kernel says that there is room, for PIPE_BUF bytes at least."""
    if not _poll(descriptor, 0):
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
    return os.write(descriptor, data)


class FileOutlet:
    """Appends to `path`, made with the first record; a line is never within one of another."""

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
            descriptor = os.open(self._path, os.O_WRONLY | os.O_EXCL | _FILE_FLAGS, _FILE_MODE)
        except FileExistsError:
            return os.open(self._path, os.O_WRONLY | _FILE_FLAGS, _FILE_MODE)
        os.fchmod(descriptor, _FILE_MODE)  # a collector in the group reads it, whatever the umask
        return descriptor

    def close(self) -> None:
        """Let go of the file; the next record opens it again."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


class SyslogOutlet:
    """Sends datagrams to the local daemon (RFC 3164, section 4.1), also after its restart."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._socket: socket.socket | None = None

    def send(self, records: Sequence[bytes]) -> int:
        """Send as many records as the daemon's socket has room for."""
        taken = 0
        for record in records:
            try:
                self._send_one(record)
            except OSError as error:
                if taken:
                    return taken
                if error.errno in _FULL:
                    raise BlockingIOError(error.errno, error.strerror) from error
                raise
            taken += len(record)
        return taken

    def _send_one(self, record: bytes) -> None:
        if self._socket is None:
            self.reopen()
        assert self._socket is not None
        try:
            self._socket.send(record)
        except OSError as error:
            if error.errno in _FULL:
                raise
            if error.errno == errno.EMSGSIZE:
                self._socket.send(record[:_CUT_BYTES])
                return
            self.reopen()  # a daemon that was restarted has a socket of its own
            self._socket.send(record)

    def wait(self, timeout_s: float) -> None:
        """Return when the daemon has made room."""
        connection = self._socket
        if connection is None:
            time.sleep(timeout_s)
            return
        with contextlib.suppress(OSError, ValueError):  # closed meanwhile by a reopen
            _poll(connection.fileno(), timeout_s)

    def reopen(self) -> None:
        """Connect to the socket that now has the name."""
        fresh = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        try:
            fresh.connect(str(self._path))
        except OSError:
            fresh.close()
            raise
        self.close()
        self._socket = fresh

    def close(self) -> None:
        """Let go of the socket."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None


# --- time, host, name of the program, process ----------------------------------------------

Framing = Callable[[Sequence[Line]], list[bytes]]
"""Makes one record of each line; what cannot be written as UTF-8 is spelled out."""


@lru_cache(maxsize=1)
def _stamp(second: int) -> str:
    return time.strftime("%b %e %H:%M:%S", time.localtime(second))


def in_a_file(*, hostname: str, name: str) -> Framing:
    """Return the framing that a syslog daemon would give each line in its own file."""
    host = hostname.partition(".")[0]

    def frame(lines: Sequence[Line]) -> list[bytes]:
        head, tail = f"{_stamp(int(time.time()))} {host} {name}/", f"[{os.getpid()}]: "
        return [_bytes(f"{head}{daemon}{tail}{text}\n") for daemon, _, text in lines]

    return frame


def bare(lines: Sequence[Line]) -> list[bytes]:
    """Frame nothing: a form such as JSON says everything itself."""
    return [_bytes(f"{text}\n") for _, _, text in lines]


def for_syslog(*, name: str) -> Framing:
    """Return the framing of a datagram to the local syslog daemon, which adds the host."""

    def frame(lines: Sequence[Line]) -> list[bytes]:
        head, tail = f"{_stamp(int(time.time()))} {name}/", f"[{os.getpid()}]: "
        return [
            _bytes(f"<{_MAIL + level}>{head}{daemon}{tail}{text}") for daemon, level, text in lines
        ]

    return frame


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "backslashreplace")
