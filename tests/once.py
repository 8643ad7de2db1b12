"""What is made once for all processes that run tests, by the first that needs it."""

from __future__ import annotations

import atexit
import fcntl
import os
import shutil
import tempfile
import threading
from collections.abc import Callable
from functools import cache
from pathlib import Path

_MEMORY = Path("/dev/shm")
_ROOM_BYTES = 2 * 2**30
_NAMED_BY = "TESTS_ONCE_DIRECTORY"
_ONE_MAKES = threading.Lock()  # alembic keeps what it works on in one place


def fast_place() -> str:
    """Return a directory in memory where there is one with room: no sync waits for a disk."""
    if not os.access(_MEMORY, os.W_OK) or shutil.disk_usage(_MEMORY).free < _ROOM_BYTES:
        return "/tmp"
    if os.statvfs(_MEMORY).f_flag & os.ST_NOEXEC:  # as containers have it
        return "/tmp"
    return str(_MEMORY)


@cache
def directory() -> Path:
    """Return a directory that ends with the first process that asks; those it starts share it."""
    if _NAMED_BY in os.environ:
        return Path(os.environ[_NAMED_BY])
    made = Path(tempfile.mkdtemp(prefix="relaygw-once-", dir=fast_place()))
    made.chmod(0o755)  # the server of PostgreSQL runs as a user of its own
    os.mkfifo(made / "alive")
    os.open(made / "alive", os.O_RDWR)
    os.environ[_NAMED_BY] = str(made)
    atexit.register(_remove, made, os.getpid())
    return made


def _remove(made: Path, owner: int) -> None:
    if os.getpid() == owner:
        shutil.rmtree(made)


def lifeline() -> int:
    """Return a descriptor that can be read once the process with the directory has ended."""
    return os.open(directory() / "alive", os.O_RDONLY | os.O_NONBLOCK)


def made(name: str, make: Callable[[Path], None]) -> Path:
    """Return what `make` puts at a path; who asks at the same time waits for it."""
    place = directory() / name
    with _ONE_MAKES, (directory() / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not place.exists():
            make(unfinished := directory() / f"{name}.unfinished")
            unfinished.rename(place)
    return place
