"""One lock around every write transaction of a SQLite queue, across processes.

SQLite's own busy wait is unfair: a neighbour that writes hard makes the front wait for
seconds. Here the front takes the turnstile and then the lock; everyone else first queues
at a gate of their own, so that at most one of them stands at the turnstile with the front.
flock is given back by the kernel when a process dies, however it dies.
"""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class WriteLock:
    """Exclusive among threads and processes; `first_in_line` is for the front."""

    def __init__(self, directory: Path, *, first_in_line: bool) -> None:
        self._first_in_line = first_in_line
        self._thread_lock = threading.Lock()
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
        self._gate, self._turnstile, self._lock = (
            os.open(directory / name, flags, 0o600) for name in ("gate", "turnstile", "lock")
        )

    def close(self) -> None:
        """Close the lock files; the files stay, others may hold them."""
        for descriptor in (self._gate, self._turnstile, self._lock):
            os.close(descriptor)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the lock for the length of a with block."""
        with self._thread_lock:
            if not self._first_in_line:
                fcntl.flock(self._gate, fcntl.LOCK_EX)
            try:
                fcntl.flock(self._turnstile, fcntl.LOCK_EX)
                try:
                    fcntl.flock(self._lock, fcntl.LOCK_EX)
                finally:
                    fcntl.flock(self._turnstile, fcntl.LOCK_UN)
                try:
                    yield
                finally:
                    fcntl.flock(self._lock, fcntl.LOCK_UN)
            finally:
                if not self._first_in_line:
                    fcntl.flock(self._gate, fcntl.LOCK_UN)
