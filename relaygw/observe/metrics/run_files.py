"""The files of all processes of one supervisor: made at its start, tidied when one ends.

    STATE_DIR/metrics/          of all supervisors of a state directory
        5b1f…/                  of one of them: locked by it and all its processes
            counter_4711.db     what one process counts
            counter_0.db        what those that have ended counted
            folding             locked while a file of the second kind changes, and while read

The kernel lets a lock go with the last process that has it, so what nobody holds is over.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from relaygw.observe.metrics.ended import fold


def metrics_root(state_dir: Path) -> Path:
    """Return the directory below which all supervisors of a state directory have theirs."""
    return state_dir / "metrics"


class RunFiles:
    """The files of one supervisor's processes; raises OSError when they cannot be."""

    def __init__(self, state_dir: Path) -> None:
        root = metrics_root(state_dir)
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.directory = root / secrets.token_hex(6)
        self._ended: set[int] = set()
        with _locked(root, fcntl.LOCK_EX):  # another one may start at this moment
            for old in _subdirectories(root):
                if _is_over(old):
                    shutil.rmtree(old, ignore_errors=True)
            self.directory.mkdir(mode=0o700)
            # inherited by every process that is forked from here on
            self._alive = os.open(self.directory, os.O_RDONLY | os.O_CLOEXEC)
            fcntl.flock(self._alive, fcntl.LOCK_SH)
        (self.directory / "folding").touch(mode=0o600)

    def close(self) -> None:
        """Let go of the directory; the next supervisor removes it once no process has it."""
        os.close(self._alive)

    def end(self, pid: int) -> None:
        """Keep what a process counted that has ended, and drop what only holds while it runs.

        Never waits and never fails: what cannot be done now is done when the next one ends.
        """
        self._ended.add(pid)
        with contextlib.suppress(OSError):
            for path in self.directory.glob(f"gauge_live*_{pid}.db"):
                path.unlink()
        with (
            contextlib.suppress(OSError),
            _locked(self.directory / "folding", fcntl.LOCK_EX | fcntl.LOCK_NB),
        ):
            for one in sorted(self._ended):
                fold(self.directory, one)
                self._ended.discard(one)


@contextmanager
def files_to_read(state_dir: Path) -> Iterator[list[str]]:
    """Give the paths of all files that count now; they stay as they are within the block."""
    with contextlib.ExitStack() as stack:
        paths: list[str] = []
        for directory in _subdirectories(metrics_root(state_dir)):
            with contextlib.suppress(FileNotFoundError):
                if not _is_over(directory):
                    stack.enter_context(_locked(directory / "folding", fcntl.LOCK_SH))
                    paths += map(str, sorted(directory.glob("*.db")))
        yield paths


def _subdirectories(root: Path) -> list[Path]:
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        return sorted(path for path in root.iterdir() if path.is_dir())
    return []


def _is_over(directory: Path) -> bool:
    """True when no process has the directory any more."""
    try:
        with _locked(directory, fcntl.LOCK_EX | fcntl.LOCK_NB):
            return True
    except BlockingIOError:
        return False


@contextmanager
def _locked(path: Path, how: int) -> Iterator[None]:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, how)
        yield
    finally:
        os.close(descriptor)
