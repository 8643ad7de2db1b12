"""What lies in the maildrop, for those who are asked: status, metrics, alerts.

The directory itself is looked at, also when no front runs. The front's file of reasons in it, where
anybody may put files, is believed when it belongs to root or to the directory's owner.
"""

from __future__ import annotations

import json
import os
import secrets
import stat
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice

from relaygw.mail.drop import QUEUE_SOCKET, REQUEST_SOCKET, WAKE_PIPE, WRITING_PREFIX, is_complete

REASONS = "reasons"  # name in the maildrop of the file that says why others are left alone
LATE_S = 60.0  # mail that waits for longer than this is in trouble: the front looks each second
MAX_LOOKED_AT = 10_000
"""Files beyond that are not counted: looking must stay cheap when thousands wait."""
MAX_REASONS = 1000
_MAX_REASON_CHARACTERS = 300
_MAX_REASONS_BYTES = 2**20
_NAMED = 3
_NO_MAIL = "not a mail file name"
OURS = frozenset({WAKE_PIPE, QUEUE_SOCKET, REQUEST_SOCKET, REASONS})
"""Names in the maildrop that are the front's own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftFile:
    """One file that the front does not take, and why."""

    name: str
    reason: str
    age_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftMail:
    """What lies in a maildrop now."""

    path: str
    waiting: int = 0  # to be taken
    late: int = 0  # of these, for more than LATE_S
    aside: int = 0  # left alone by the front, or never to be mail
    oldest_age_s: float = 0.0  # of all these
    named: tuple[LeftFile, ...] = ()  # three of those in trouble, the oldest first
    trouble: str | None = None  # why it cannot be read

    @property
    def summary(self) -> str | None:
        """What is wrong in a few words; None: nothing."""
        if self.trouble is not None:
            return f"the maildrop {self.path} cannot be read: {self.trouble}"
        parts = ((self.aside, "set aside"), (self.late, "waiting for more than a minute"))
        counts = [f"{number} {what}" for number, what in parts if number]
        if not counts:
            return None
        names = ", ".join(f"{file.name} ({file.reason})" for file in self.named)
        more = ", …" if self.aside + self.late > len(self.named) else ""
        return f"files in the maildrop {self.path}: {' and '.join(counts)}: {names}{more}"

    @property
    def remedy(self) -> str:
        """What to do about it."""
        if self.trouble is not None:
            return (
                "it must belong to the gateway's user, and only that user and root may read it; "
                "the gateway's log has the command"
            )
        if not self.aside:
            return (
                "the log shows why local mail is not accepted: no front runs, its queue or disk "
                "fails, or there is more than it can accept"
            )
        return (
            "check each file: fix it, and it is accepted within ten minutes, or remove it; it is "
            "not removed automatically"
        )


def look_at_maildrop(path: str | None, *, now_s: float | None = None) -> LeftMail | None:
    """Look at a maildrop, which may not be there; None: there is to be none. Blocks on its disk."""
    if path is None:
        return None
    now_s = time.time() if now_s is None else now_s
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            return _look(path, descriptor, now_s)
        finally:
            os.close(descriptor)
    except FileNotFoundError:
        return LeftMail(path=path)
    except OSError as error:
        return LeftMail(path=path, trouble=error.strerror or str(error))


def _look(path: str, directory: int, now_s: float) -> LeftMail:
    reasons = _read_reasons(directory)
    waiting: list[LeftFile] = []
    aside: list[LeftFile] = []
    for name, age_s in islice(_files(directory, now_s), MAX_LOOKED_AT):
        reason = reasons.get(name) if is_complete(name) else _NO_MAIL
        file = LeftFile(name=ascii(name)[1:-1], reason=reason or "not taken yet", age_s=age_s)
        (waiting if reason is None else aside).append(file)
    late = [file for file in waiting if file.age_s > LATE_S]
    in_trouble = sorted([*aside, *late], key=lambda file: -file.age_s)
    return LeftMail(
        path=path,
        waiting=len(waiting),
        late=len(late),
        aside=len(aside),
        oldest_age_s=max((file.age_s for file in (*waiting, *aside)), default=0.0),
        named=tuple(in_trouble[:_NAMED]),
    )


def _files(directory: int, now_s: float) -> Iterator[tuple[str, float]]:
    """Yield name and age of what is not on its way; the time of the last change cannot be set."""
    with os.scandir(directory) as entries:
        for entry in entries:
            if entry.name in OURS or entry.name.startswith(WRITING_PREFIX):
                continue
            try:
                changed_s = entry.stat(follow_symlinks=False).st_ctime
            except FileNotFoundError:  # it was just taken
                continue
            except OSError:  # another user's file system may be mounted there
                changed_s = now_s
            yield entry.name, max(0.0, now_s - changed_s)


def _read_reasons(directory: int) -> Mapping[str, str]:
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        with os.fdopen(os.open(REASONS, flags, dir_fd=directory), "rb") as stream:
            found = os.fstat(stream.fileno())
            owners = (0, os.fstat(directory).st_uid)
            if not stat.S_ISREG(found.st_mode) or found.st_uid not in owners:
                return {}
            reasons = json.loads(stream.read(_MAX_REASONS_BYTES))
    except (OSError, ValueError):
        return {}
    return reasons if isinstance(reasons, dict) else {}


class ReasonsFile:
    """The file of reasons, as the front that takes the mail keeps it."""

    def __init__(self, directory: int) -> None:
        self._directory = directory
        self.changes: int | None = None  # how many it tells of; None: a front before wrote it

    def write(self, reasons: dict[str, str]) -> None:
        """Replace it by the newest MAX_REASONS of `reasons`. Raises OSError: nothing changed."""
        newest = {
            name: reason[:_MAX_REASON_CHARACTERS]
            for name, reason in islice(reversed(reasons.items()), MAX_REASONS)
        }
        unfinished = f"{WRITING_PREFIX}{secrets.token_hex(16)}"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(unfinished, flags, 0o600, dir_fd=self._directory)
        try:
            with os.fdopen(descriptor, "w", encoding="ascii") as stream:
                json.dump(newest, stream)
            os.rename(unfinished, REASONS, src_dir_fd=self._directory, dst_dir_fd=self._directory)
        except BaseException:
            os.unlink(unfinished, dir_fd=self._directory)
            raise
