"""The maildrop directory: made, locked, listened at, listed; and its files that are left alone.

Nothing in it is followed. All access is relative to the open directory: no name on the way to it
matters once it is open.
"""

from __future__ import annotations

import contextlib
import fcntl
import grp
import os
import pwd
import re
import socket
import stat
import time
from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from relaygw.errors import RelaygwError
from relaygw.mail.clock import is_settled
from relaygw.mail.drop import WAKE_PIPE, WRITING_PREFIX, is_complete
from relaygw.observe.maildrop import OURS, ReasonsFile
from relaygw.observe.maillog import MailLog
from relaygw.service_file import user_name

MAX_LISTED = 10_000
UNFINISHED_S = 86400.0  # a file that was begun and not finished for this long is removed
LOOK_AGAIN_S = 600.0  # a file set aside is looked at again after this: somebody may have mended it
MAX_FAILURES = 3  # errors over one file after which it is named, and counts as set aside
MAX_NAMED = 1000
"""Lines in the log: whoever fills the directory with rubbish must not fill the log, too."""
MAX_ASIDE = 100_000
_SWEEP_S = 3600.0
_TRUSTED_S = 30.0  # a file system may not tell each change by the time of its directory
_PIPE_BYTES = 65536  # all that fits
_UNFINISHED = re.compile(re.escape(WRITING_PREFIX) + r"[0-9a-fA-F]{32}")


class MaildropUnusable(RelaygwError):
    """No mail can be taken from the directory; the text says why and what to do."""


@dataclass(slots=True)
class Listing:
    """What lies in the maildrop."""

    drops: list[str] = field(default_factory=list)  # at most MAX_LISTED
    odd: list[tuple[str, str]] = field(default_factory=list)  # name and what is wrong, as many
    skipped: set[str] = field(default_factory=set)


class DropDirectory:
    """An open maildrop. Opening makes it and sets its mode, and where root opens it its `owner`.

    Raises MaildropUnusable.
    """

    def __init__(self, path: Path, group: str | None, *, owner: int | None = None) -> None:
        self.path = path
        self._swept_at_s = float("-inf")
        self._found_nothing: tuple[int, float] | None = None  # time of the directory, of the look
        self._pipe: int | None = None
        try:
            gid = grp.getgrnam(group).gr_gid if group is not None else None
        except KeyError:
            raise MaildropUnusable(
                f"maildrop.group: there is no group {group} on this machine; "
                "create it, or name another"
            ) from None
        try:
            _make(path)
            self.descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                self._set_up(gid, owner)
            except BaseException:
                os.close(self.descriptor)
                raise
        except OSError as error:
            who = f"-g {group} -m 3730" if group else "-m 3733"
            raise MaildropUnusable(
                f"maildrop {path}: {error.strerror or error}; no mail is accepted from there, "
                f"SMTP is not affected; run as root: install -d -o {user_name(os.geteuid())} "
                f"{who} {path}"
            ) from error
        self.reasons = ReasonsFile(self.descriptor)

    def _set_up(self, gid: int | None, owner: int | None) -> None:
        found = os.fstat(self.descriptor)
        if found.st_uid != os.geteuid() and os.geteuid() != 0:
            raise OSError(f"it belongs to {user_name(found.st_uid)}")
        mode = 0o3733 if gid is None else 0o3730
        if gid is None:  # a file gets the group of the directory, by which its owner reads it
            gid = _readers(found.st_gid, owner if os.geteuid() == 0 else None)
        try:
            if owner is not None and os.geteuid() == 0:
                os.fchown(self.descriptor, owner, -1)
            if found.st_gid != gid:
                os.fchown(self.descriptor, -1, gid)
            if stat.S_IMODE(found.st_mode) != mode:
                os.fchmod(self.descriptor, mode)
        except OSError as error:
            raise OSError(f"mode {mode:o}: {error.strerror}") from error

    def try_lock(self) -> bool:
        """Become the one that takes mail from here, until `close`; False: another one is."""
        try:
            fcntl.flock(self.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def is_current(self) -> bool:
        """False when the path leads elsewhere by now: the directory was removed or replaced."""
        try:
            return os.path.samestat(os.fstat(self.descriptor), self.path.stat())
        except OSError:
            return False

    def bind(self, name: str, *, mode: int) -> socket.socket:
        """Return a stream socket here that local users may reach; raises OSError."""
        bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            bound.setblocking(False)
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name, dir_fd=self.descriptor)
            bound.bind(str(self.path / name))
            # who may come here at all is up to the directory
            os.chmod(name, mode, dir_fd=self.descriptor)
        except OSError:
            bound.close()
            raise
        return bound

    def unbind(self, name: str, bound: socket.socket) -> None:
        """Close a socket; while the lock is held: the next front binds its own."""
        with contextlib.suppress(OSError):
            os.unlink(name, dir_fd=self.descriptor)
        bound.close()

    def listen(self) -> int:
        """Return the named pipe by which files are announced, until `close`; raises OSError.

        A pipe costs who writes to it one module less than a socket: a sendmail is a process a mail.
        """
        with contextlib.suppress(FileNotFoundError):
            os.unlink(WAKE_PIPE, dir_fd=self.descriptor)
        os.mkfifo(WAKE_PIPE, dir_fd=self.descriptor)
        # for writing, too, or it would be at its end whenever nobody else has it open
        flags = os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW
        pipe = os.open(WAKE_PIPE, flags, dir_fd=self.descriptor)
        try:
            os.fchmod(pipe, 0o622)
        except OSError:
            os.close(pipe)
            raise
        self._pipe = pipe
        return pipe

    def drain(self) -> None:
        """Take what was announced."""
        if self._pipe is not None:
            with contextlib.suppress(BlockingIOError):
                os.read(self._pipe, _PIPE_BYTES)
                self._found_nothing = None

    def is_unchanged(self) -> bool:
        """True when nothing lay here at the last look, and nothing has come since."""
        if self._found_nothing is None:
            return False
        changed_at_ns, looked_at_s = self._found_nothing
        is_known = time.monotonic() - looked_at_s < _TRUSTED_S
        return is_known and os.fstat(self.descriptor).st_mtime_ns == changed_at_ns

    def look(self, skip: Container[str], last: Container[str] = ()) -> Listing:
        """Return the files here but `skip`, `last` at the end; remove those never finished."""
        is_sweep = time.monotonic() - self._swept_at_s >= _SWEEP_S
        if is_sweep:
            self._swept_at_s = time.monotonic()
        changed_at_ns = os.fstat(self.descriptor).st_mtime_ns
        may_be_empty = is_settled(changed_at_ns)
        found = Listing()
        later: list[str] = []
        with os.scandir(self.descriptor) as entries:
            for entry in entries:
                name = entry.name
                may_be_empty = may_be_empty and name in OURS
                if is_complete(name):
                    if name in skip:
                        found.skipped.add(name)
                    elif len(found.drops) < MAX_LISTED:
                        (later if name in last else found.drops).append(name)
                elif _UNFINISHED.fullmatch(name):
                    found.odd += self._sweep(name) if is_sweep else ()
                elif name not in OURS and len(found.odd) < MAX_LISTED:
                    found.odd.append((name, "not a mail file name"))
        found.drops += later[: MAX_LISTED - len(found.drops)]
        self._found_nothing = (changed_at_ns, time.monotonic()) if may_be_empty else None
        return found

    def _sweep(self, name: str) -> Iterator[tuple[str, str]]:
        try:
            found = os.lstat(name, dir_fd=self.descriptor)
            if time.time() - found.st_mtime > UNFINISHED_S:
                os.unlink(name, dir_fd=self.descriptor)
        except FileNotFoundError:
            pass
        except OSError as error:
            yield name, f"incomplete and cannot be removed: {error.strerror}"

    def remove(self, names: Iterable[str]) -> list[tuple[str, str]]:
        """Remove files whose mail is stored; return those that stay, and why."""
        staying = []
        for name in names:
            try:
                os.unlink(name, dir_fd=self.descriptor)
            except FileNotFoundError:
                pass
            except OSError as error:
                staying.append((name, error.strerror or str(error)))
        return staying

    def close(self) -> None:
        """Stop listening and let another front take the mail."""
        if self._pipe is not None:
            with contextlib.suppress(OSError):
                os.unlink(WAKE_PIPE, dir_fd=self.descriptor)
            os.close(self._pipe)
        os.close(self.descriptor)


def _readers(gid: int, owner: int | None) -> int:
    """The group of a directory if its owner is in it, else the owner's own; None: this user."""
    if owner is None:
        return gid if gid in os.getgroups() else os.getegid()
    try:
        user = pwd.getpwuid(owner)
    except KeyError:
        return gid
    return gid if gid in os.getgrouplist(user.pw_name, user.pw_gid) else user.pw_gid


def _make(path: Path) -> None:
    """Create the directory; those above it may be entered by everyone."""
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    for directory in reversed(missing):
        with contextlib.suppress(FileExistsError):  # another front was faster
            directory.mkdir(mode=0o700)
            directory.chmod(0o755 if directory != path else 0o700)  # whatever the umask is


# --- what is left alone ---------------------------------------------------------------------


class SetAside:
    """Files left alone and why, one line each; `in`: passed over now. Outlives the directory."""

    def __init__(self, log: MailLog) -> None:
        self._log = log
        self._until_s: dict[str, float] = {}
        self._said: set[tuple[str, str]] = set()
        self._failures: dict[str, int] = {}
        self.unfinished: set[str] = set()
        self.stored: set[str] = set()  # mail is in the queue, the file could not be removed yet
        self.reasons: dict[str, str] = {}
        """Why files lie there, by name; for those who ask what became of their mail."""
        self.changes = 0  # of `reasons`

    def __contains__(self, name: object) -> bool:
        until_s = self._until_s.get(str(name))
        return until_s is not None and time.monotonic() < until_s

    def set_aside(self, path: Path, reason: str, pause_s: float | None = None) -> None:
        """Pass a file over for a while and say why."""
        self._pass_over(path.name, LOOK_AGAIN_S if pause_s is None else pause_s)
        if self.reasons.get(path.name) != reason:
            self.reasons[path.name] = reason
            self.changes += 1
        self.say(path, f"{reason}; left in place")

    def fail(self, path: Path, error: str) -> None:
        """Pass a file over, each time for twice as long from a second on; in the end say why."""
        count = self._failures[path.name] = self._failures.get(path.name, 0) + 1
        pause_s = min(2.0 ** (count - 1), LOOK_AGAIN_S)
        if count >= MAX_FAILURES:
            self.set_aside(path, f"failed {MAX_FAILURES} times: {error}", pause_s)
        else:
            self._pass_over(path.name, pause_s)
            self.say(path, f"{error}; tried again")

    def _pass_over(self, name: str, pause_s: float) -> None:
        self._until_s.pop(name, None)  # the newest stand last
        while len(self._until_s) >= MAX_ASIDE:
            self._forget(next(iter(self._until_s)))
        self._until_s[name] = time.monotonic() + pause_s

    def say(self, path: Path, reason: str) -> None:
        """Write a line about a file unless it was written before."""
        line = (str(path), reason)
        if line in self._said or len(self._said) > MAX_NAMED:
            return
        self._said.add(line)
        if len(self._said) > MAX_NAMED:
            self._log.note(
                "pickup", f"warning: more than {MAX_NAMED} such files; the others are not listed"
            )
        else:
            self._log.note("pickup", f"warning: {path}: {reason}")

    def forget(self, names: Iterable[str]) -> None:
        """Forget files that are gone, or as good as gone."""
        for name in names:
            self._forget(name)
            self.unfinished.discard(name)
            self.stored.discard(name)

    def keep(self, there: Container[str]) -> None:
        """Forget every file but those that are `there`."""
        for name in [name for name in self._until_s if name not in there]:
            self._forget(name)
        self.unfinished = {name for name in self.unfinished if name in there}

    def _forget(self, name: str) -> None:
        self._until_s.pop(name, None)
        self._failures.pop(name, None)
        self.changes += self.reasons.pop(name, None) is not None
