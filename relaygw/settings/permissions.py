"""Whose file a secret may be, and who may read it: its owner and group, nobody else."""

from __future__ import annotations

import os
import pwd
import shlex
import stat
from collections.abc import Collection
from pathlib import Path

MAX_SECRET_BYTES = 65536


def loose_permissions(path: Path, *, owners: Collection[int] | None = None) -> str | None:
    """Return what is wrong when others than owner and group may read or write `path`.

    Another owner than `owners` (user ids) is wrong, too: who owns a file can open it to anyone,
    or put a key of his own in its place. A file that does not exist or cannot be looked at has
    nothing wrong.
    """
    try:
        status = path.stat()
    except OSError:
        return None
    problem = _loose(path, status)
    if problem is None and owners is not None and status.st_uid not in owners:
        own = " or ".join(_user_name(uid) for uid in sorted(owners))
        problem = (
            f"{path} belongs to {_user_name(status.st_uid)}, who could replace it, not to {own}; "
            f"run: chown {_user_name(max(owners))} {shlex.quote(str(path))}"
        )
    return problem


def _user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


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
