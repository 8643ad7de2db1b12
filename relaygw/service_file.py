"""The running gateway of a state directory: its process id, and whether it is being drained.

`service.pid` is locked by the supervisor for as long as it lives, so a number that an old one
left behind means nothing. `draining` makes /readyz say no before the gateway stops.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path


def draining_mark(state_dir: Path) -> Path:
    """Return the file that is there while a gateway is being drained."""
    return state_dir / "draining"


class ServiceFile:
    """Held by a supervisor for its life."""

    def __init__(self, state_dir: Path) -> None:
        self._descriptor: int | None = None
        with contextlib.suppress(OSError):  # only `relaygw drain` needs it
            state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
            draining_mark(state_dir).unlink(missing_ok=True)
            path = state_dir / "service.pid"
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(descriptor, 0)
            os.write(descriptor, f"{os.getpid()}\n".encode())
            self._descriptor = descriptor


def running_service(state_dir: Path) -> int | None:
    """Return the process id of the gateway that runs on a state directory, if one does."""
    try:
        descriptor = os.open(state_dir / "service.pid", os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return int(os.read(descriptor, 32).strip() or b"0") or None
    finally:
        os.close(descriptor)
    return None
