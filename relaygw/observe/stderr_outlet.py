"""stderr, whatever it is: a terminal, a pipe, a socket of the journal, a file.

The descriptor is shared with other programs, so it is not made non-blocking itself: a pipe or
terminal is opened once more for that, a socket is asked in each call.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import stat
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from relaygw.observe.outlet import OutletGone

STDERR = 2
_AGAIN = "/proc/self/fd/{}"  # opening this gives a descriptor with a mode of its own
_GONE = {errno.EPIPE, errno.EBADF, errno.ECONNRESET, errno.ENOTCONN}


class StderrOutlet:
    """Writes to a descriptor that nothing replaces: when its reader has gone, it is over."""

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
        poll = select.poll()
        poll.register(self._descriptor, select.POLLOUT)
        if any(what & select.POLLNVAL for _, what in poll.poll(timeout_s * 1000)):
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


def _first_chunk(records: Sequence[bytes]) -> tuple[bytes, Sequence[bytes]]:
    """Return what goes into one write, and the records that are left."""
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
            _AGAIN.format(descriptor),
            os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC,
        )
    except OSError:
        # another user's; a terminal of theirs may still make us wait while it is stopped
        return _Way(lambda data: _write_if_ready(descriptor, data))
    return _Way(lambda data: os.write(again, data), lambda: os.close(again))


def _write_if_ready(descriptor: int, data: bytes) -> int:
    """Write where the kernel says that there is room, for PIPE_BUF bytes at least."""
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    if not poll.poll(0):
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
    return os.write(descriptor, data)
