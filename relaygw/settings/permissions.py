"""Who may read a file that holds a secret: its owner and group, nobody else."""

from __future__ import annotations

import os
import shlex
import stat
from pathlib import Path

MAX_SECRET_BYTES = 65536


def loose_permissions(path: Path) -> str | None:
    """Return what is wrong when others than owner and group may read or write `path`.

    A file that does not exist or cannot be looked at has nothing wrong.
    """
    try:
        status = path.stat()
    except OSError:
        return None
    return _loose(path, status)


def _loose(path: Path, status: os.stat_result) -> str | None:
    if status.st_mode & (stat.S_IROTH | stat.S_IWOTH):
        mode = stat.S_IMODE(status.st_mode)
        return (
            f"everyone on this machine may read or write {path} (mode {mode:04o}); "
            f"run: chmod o-rwx {shlex.quote(str(path))}"
        )
    return None


def secret_file_problem(path: Path, status: os.stat_result) -> str | None:
    """Return why an opened file with `status` cannot serve as a secret, or None."""
    if not stat.S_ISREG(status.st_mode):
        return f"{path} is not a regular file; write the path of a file"
    if status.st_size > MAX_SECRET_BYTES:
        return f"{path} is too long for a secret; store one line in it"
    return _loose(path, status)
