"""The syslog daemon of this host, by datagrams to its local socket (RFC 3164, section 4.1)."""

from __future__ import annotations

import contextlib
import errno
import select
import socket
import time
from collections.abc import Sequence
from pathlib import Path

_FULL = {errno.EAGAIN, errno.ENOBUFS}
_CUT_BYTES = 1024  # RFC 3164: what every daemon takes


class SyslogOutlet:
    """Sends each record as one datagram; connects again when the daemon has been restarted."""

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
        poll = select.poll()
        with contextlib.suppress(OSError, ValueError):  # closed meanwhile by a reopen
            poll.register(connection, select.POLLOUT)
            poll.poll(timeout_s * 1000)

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
