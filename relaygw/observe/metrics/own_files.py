"""The files that one process counts into.

They are mapped into memory, and a mapped page that has no room on the disk ends the process by
SIGBUS when it is written. So the room is taken before anything is counted: on a full disk that
fails as an error which the caller can live without.
"""

from __future__ import annotations

import os
from pathlib import Path

from prometheus_client import values

_ROOM_BYTES = {
    "counter": 2**19,  # about 2,000 numbers
    "histogram": 2**19,
    "gauge_livesum": 2**16,
    "gauge_max": 2**16,
}
KINDS = tuple(_ROOM_BYTES)
"""What the names of files begin with; before the process id stands a `_`."""


def count_in(directory: Path) -> None:
    """Let all that this process counts from now on go to files of its own in `directory`.

    Raises OSError when there is no room for them.
    """
    for kind, room_bytes in _ROOM_BYTES.items():
        take_room(directory / f"{kind}_{os.getpid()}.db", room_bytes)
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(directory)
    # the library chooses when it is imported, which was before the fork
    values.ValueClass = values.MultiProcessValue()  # type: ignore[no-untyped-call]


def take_room(path: Path, size_bytes: int) -> None:
    """Make `path` a file of at least that size whose blocks are all there; raises OSError."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        os.posix_fallocate(descriptor, 0, size_bytes)
    except OSError:
        path.unlink()
        raise
    finally:
        os.close(descriptor)
