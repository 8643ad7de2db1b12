"""What root runs is done as the owner of the state directory, who cannot lead it astray.

That directory is the service's: its user may put a link or a pipe in the place of any file there,
and root would follow. So root becomes that user before anything in there is opened or made, and
is root again only for files that its caller has named. What is started meanwhile cannot become
root again: only this process keeps the right to, as its saved user id.
"""

from __future__ import annotations

import os
import pwd
import stat
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path

from relaygw.errors import StoreUnavailable
from relaygw.service_file import user_name


@dataclass(frozen=True, slots=True)
class _Rights:
    """With which a process acts."""

    uid: int
    gid: int
    groups: tuple[int, ...]

    def take(self) -> None:
        """Act with these, in all threads; root keeps the right to come back. Raises OSError."""
        if os.geteuid() != 0:
            os.setresuid(0, 0, 0)
        os.setgroups(self.groups)
        os.setresgid(self.gid, self.gid, self.gid)
        os.setresuid(self.uid, self.uid, 0)


_caller: _Rights | None = None
"""Root's own rights, while it acts as another user."""


def _own() -> _Rights:
    return _Rights(os.geteuid(), os.getegid(), tuple(os.getgroups()))


def _of_owner(found: os.stat_result) -> _Rights:
    try:
        entry = pwd.getpwuid(found.st_uid)
    except KeyError:  # as in a container, whose volumes have owners without a name
        return _Rights(found.st_uid, found.st_gid, ())
    return _of_user(entry)


def _of_user(entry: pwd.struct_passwd) -> _Rights:
    groups = os.getgrouplist(entry.pw_name, entry.pw_gid)
    return _Rights(entry.pw_uid, entry.pw_gid, tuple(groups))


def caller_uid() -> int:
    """Return the id of the user who runs this, whoever it acts as now."""
    return os.getuid() if _caller is None else _caller.uid


def become(found: os.stat_result) -> None:
    """Act as the owner of a file until `return_to_caller`, where this is root.

    Raises StoreUnavailable.
    """
    if found.st_uid != 0 and os.geteuid() == 0:
        _act_with(_of_owner(found))


def become_user(entry: pwd.struct_passwd) -> None:
    """Act as a user until `return_to_caller`, where this is root; see `become`."""
    if os.geteuid() == 0:
        _act_with(_of_user(entry))


def _act_with(rights: _Rights) -> None:
    global _caller
    caller, name = _own(), user_name(rights.uid)
    try:
        rights.take()
    except OSError as error:
        caller.take()
        raise StoreUnavailable(
            f"this is about the files of user {name}, and root cannot become that user here "
            f"({error.strerror}); run it as {name}"
        ) from error
    _caller = caller


def return_to_caller() -> None:
    """Act as the caller again."""
    global _caller
    if _caller is not None:
        _caller.take()
        _caller = None


def forget_caller() -> None:
    """Give up the right to become root again; for a process that serves strangers."""
    global _caller
    if _caller is not None:
        os.setresuid(os.geteuid(), os.geteuid(), os.geteuid())
        _caller = None


@contextmanager
def as_owner_of(path: Path) -> Iterator[None]:
    """Act as the owner of a directory of state, where this is root; raises StoreUnavailable."""
    before = _caller
    become_owner_of(path)
    try:
        yield
    finally:
        if before is None:
            return_to_caller()


@contextmanager
def as_caller() -> Iterator[None]:
    """Act as the caller again meanwhile: for files that the caller has named, and for nothing else.

    Nothing in a directory of state may be opened, and no program started that is not the system's.
    """
    global _caller
    caller, acting = _caller, _own()
    return_to_caller()
    try:
        yield
    finally:
        if caller is not None:
            acting.take()
            _caller = caller


@contextmanager
def as_reader_of(file: Path) -> Iterator[None]:
    """Act as the caller for a file that it has named, unless that lies with the acting user.

    There the links are that user's. Raises StoreUnavailable as `owner_of` does.
    """
    lies_with = os.geteuid()
    if _caller is not None:
        with as_caller():
            lies_with = owner_of(file.parent).st_uid
    with nullcontext() if lies_with == os.geteuid() else as_caller():
        yield


def become_owner_of(path: Path) -> None:
    """Act as the owner of a directory of state, which may be to be made: see `become`."""
    if os.geteuid() == 0:
        become(owner_of(path))


def owner_of(path: Path) -> os.stat_result:
    """Return the status, with the owner, of a directory, or of that which it will be made in.

    Raises StoreUnavailable where others than root and that owner could put another directory into
    its place: they would choose whom root becomes.
    """
    way, is_there = list[tuple[Path, os.stat_result]](), False
    try:
        for step in _way(path.absolute()):
            way.append(step)
        is_there = True
    except (FileNotFoundError, NotADirectoryError):
        pass
    except OSError as error:
        raise StoreUnavailable(f"{path}: {error.strerror}") from error
    last = next(found for _, found in reversed(way) if not stat.S_ISLNK(found.st_mode))
    for place, found in way:
        is_open = _is_open(found, last.st_gid) and not (is_there and found is last)
        if is_open or found.st_uid not in (0, last.st_uid):
            of, owner = user_name(found.st_uid), user_name(last.st_uid)
            what = f"{place} belongs to {of} and has mode {stat.S_IMODE(found.st_mode):04o}"
            remedy = f"run: chown -h root {place} && chmod go-w {place}"
            if stat.S_ISLNK(found.st_mode):  # root must not make it trusted: it may lead anywhere
                what = f"{place} is a link of {of} to {place.readlink()}"
                remedy = f"remove it, or give the directory itself in place of {path}"
            elsewise = f", or run this as {owner}" if last.st_uid != 0 else ""
            raise StoreUnavailable(
                f"{what}, so that others than {owner} could put another directory into the place "
                f"of {path}, which root would use; {remedy}{elsewise}"
            )
    return last


def _way(path: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """Yield each step of an absolute path and of the links in it; raises OSError where it ends."""
    for place in (*reversed(path.parents), path):
        found = place.lstat()
        yield place, found
        if stat.S_ISLNK(found.st_mode):
            with suppress(FileNotFoundError):
                place.stat()  # raises where links lead in a circle
            yield from _way(place.parent / place.readlink())


def _is_open(found: os.stat_result, gid: int) -> bool:
    """Return whether others than root and the owner may rename what is in a directory."""
    by = stat.S_IWOTH if found.st_gid in (0, gid) else stat.S_IWOTH | stat.S_IWGRP
    may_others = stat.S_ISDIR(found.st_mode) and found.st_mode & by
    return bool(may_others) and not found.st_mode & stat.S_ISVTX  # there names are their owners'
