"""Ports for servers that must be told theirs before they start, or keep it over a restart."""

from __future__ import annotations

import fcntl
import os
import random
import socket
import tempfile
from functools import cache
from pathlib import Path

_given: set[int] = set()


@cache
def _taken() -> int:
    """Return a file whose byte N is locked by the process that port N was given to."""
    path = Path(tempfile.gettempdir()) / f"relaygw-ports-{os.geteuid()}"
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


def _take(port: int) -> bool:
    """Return False for a port that this or another process was given."""
    if port in _given:
        return False
    try:
        fcntl.lockf(_taken(), fcntl.LOCK_EX | fcntl.LOCK_NB, 1, port)
    except OSError:
        return False
    _given.add(port)
    return True


def free_port() -> int:
    """Return a loopback port on which nothing listens now, each only once to a user.

    Outside of the range that clients and servers on port 0 are given, so that nobody gets it
    while whoever asked is not yet, or no more, listening.
    """
    while True:
        port = random.randint(10_000, 30_000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        if _take(port):
            return port
