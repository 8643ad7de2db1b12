"""Lifelines: a lock file per incarnation that says whether it still lives.

The kernel drops the lock when the process dies, however it dies, so that a successor on
the same host frees the dead one's leases at once instead of waiting for its heartbeat to
grow old. A file that another process holds the lock of is alive.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path


def lifeline_directory(state_dir: Path) -> Path:
    """Return the directory of the lock files."""
    return state_dir / "instances"


class Lifeline:
    """Held for the life of one incarnation."""

    def __init__(self, directory: Path, incarnation: str) -> None:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._path = directory / incarnation
        self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._descriptor, fcntl.LOCK_EX)

    def release(self) -> None:
        """End the incarnation: nobody needs to bury it."""
        with contextlib.suppress(FileNotFoundError):
            self._path.unlink()
        os.close(self._descriptor)


def dead_incarnations(directory: Path) -> list[str]:
    """Return the incarnations of this host that died without a word."""
    dead = []
    for path in sorted(directory.glob("*")):
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            dead.append(path.name)
        except BlockingIOError:
            pass
        finally:
            os.close(descriptor)
    return dead


def forget(directory: Path, incarnation: str) -> None:
    """Remove the lock file of a buried incarnation."""
    with contextlib.suppress(FileNotFoundError):
        (directory / incarnation).unlink()
