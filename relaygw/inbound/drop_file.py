"""Files of the maildrop, read so that their owners, who may still write to them, cannot hurt."""

from __future__ import annotations

import errno
import os
import re
import stat
import time
from collections import deque
from collections.abc import Container, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from relaygw.errors import EndsReaders
from relaygw.inbound.content import MEMORY_BYTES, ReceivedContent
from relaygw.mail.content import normalise_line_ends
from relaygw.mail.drop import COMPLETE_SUFFIX, FIRST_LINE, MAX_HEAD_BYTES
from relaygw.mail.dsn_request import NO_REQUEST, DsnRequest, read_request
from relaygw.observe.readings import ProcessReadings, Reader, unwatched
from relaygw.volume import NoRoom, Room

MAX_DROPS = 100
MAX_BYTES = 16 * 2**20
"""Content that is read at once; a quarter of what may wait to be written, the rest is for SMTP."""
SETTLE_S = 60.0  # a file that is not complete is damaged when it was not changed for this long
_LARGE_BYTES = MEMORY_BYTES // 2  # line ends may double it
_PIECE_BYTES = 128 * 1024
_TRAILER = re.compile(rb"\nrelaygw end (0|[1-9][0-9]{0,15})\n\Z")
_TRAILER_LIMIT_BYTES = 30
_OTHER_LINES = frozenset({b"from", b"cwd", b"notify", b"ret", b"envid"})
_ESCAPE = re.compile(rb"%([0-9A-F]{2})")
_OPEN_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_NOT_OURS_TO_READ = {
    errno.ELOOP: "a symbolic link",
    errno.ENXIO: "a socket or device",
    errno.ENODEV: "a device",
    errno.EACCES: "this user may not read it",
    errno.EPERM: "this user may not read it",
}
_OF_THE_MACHINE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.ENOMEM})
"""Errors that the next file would meet as well; every other one is about a single file."""


class Unfit(Exception):
    """The file will never be mail as it is; the text says why."""


class NotYet(Exception):
    """The file is not complete, but may be soon."""


class Unreadable(Exception):
    """The system does not let this one file be read now: a lease, a bad block; the text says it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Drop:
    """A message as the sendmail command left it."""

    name: str  # of the file
    uid: int
    sender: str | None  # "" is the null sender, None: none was given
    recipients: tuple[str, ...]
    content: ReceivedContent
    given_bytes: int = 0  # of the content as it was left
    cwd: str | None = None  # the caller's working directory
    dsn: DsnRequest = NO_REQUEST
    handed_over_ms: int | None = None  # as its owner lets the file say
    reading_name: str = ""  # of the file as it is: another one once it was mended

    @property
    def drop_id(self) -> str:
        """The part of the name that outlives the file."""
        return self.name.removesuffix(COMPLETE_SUFFIX)


class OpenDrop:
    """An open file whose size and trailer look right; raises Unfit, NotYet, Unreadable."""

    def __init__(
        self, name: str, descriptor: int, found: os.stat_result, *, limit_bytes: int
    ) -> None:
        self.name = name
        self._descriptor = descriptor
        self._found = found
        start = max(0, found.st_size - _TRAILER_LIMIT_BYTES)  # the rest is not read yet
        with _errors_of_one_file():
            end = os.pread(descriptor, found.st_size - start, start)
        trailer = _TRAILER.search(end)
        if trailer is None:
            raise self._damaged("its end is missing")
        self._trailer = trailer[0]
        self.content_bytes = int(trailer[1])
        self.is_large = self.content_bytes > _LARGE_BYTES  # so that others should not wait for it
        self._head_bytes = found.st_size - len(self._trailer) - self.content_bytes
        self._changed_ms = found.st_mtime_ns // 1_000_000
        self.reading_name = (
            f"maildrop file {name}, {self.content_bytes} bytes of {self._changed_ms}"
        )
        if self.content_bytes > limit_bytes:
            raise _too_large(limit_bytes)
        if not len(FIRST_LINE) < self._head_bytes <= MAX_HEAD_BYTES:
            raise self._damaged("the size at its end differs")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)

    def read(self, spool_directory: Path, room: Room | None = None) -> Drop:
        """Copy the file once and return what the copy says; blocks as long as its size takes.

        Raises Unfit, NotYet, Unreadable, NoRoom; OSError is trouble with the spool file.
        """
        recipients, others = self._parse(self._read(self._head_bytes))
        content = ReceivedContent(spool_directory, room)
        try:
            self._copy(content)
            # one byte more than was there: it must not have grown
            if self._read(len(self._trailer) + 1) != self._trailer:
                raise self._damaged("it changed while being read")
        except BaseException:
            content.close()
            raise
        return Drop(
            name=self.name,
            uid=self._found.st_uid,
            sender=others.get(b"from"),
            recipients=recipients,
            content=content,
            given_bytes=self.content_bytes,
            cwd=others.get(b"cwd"),
            dsn=read_request(
                notify=others.get(b"notify"), ret=others.get(b"ret"), envid=others.get(b"envid")
            ),
            handed_over_ms=self._changed_ms,
            reading_name=self.reading_name,
        )

    def _read(self, count: int) -> bytes:
        data = b""
        with _errors_of_one_file():
            while len(data) < count and (more := os.read(self._descriptor, count - len(data))):
                data += more
        return data

    def _parse(self, head: bytes) -> tuple[tuple[str, ...], dict[bytes, str]]:
        """Return the recipients, and the last value of each other line that is known."""
        if not head.startswith(FIRST_LINE):
            raise self._damaged("it does not begin like a drop file")
        if head.find(b"\n\n") != len(head) - 2:
            raise self._damaged("its head is damaged")
        recipients = []
        others: dict[bytes, str] = {}
        for line in head[len(FIRST_LINE) : -2].split(b"\n"):
            key, _, value = line.partition(b" ")
            if key == b"to":
                recipients.append(_decoded(value))
            elif key in _OTHER_LINES:
                others[key] = _decoded(value)
        if not recipients:
            raise self._damaged("it names no recipient")
        return tuple(recipients), others

    def _copy(self, content: ReceivedContent) -> None:
        """Read the content with its line ends normalised; the last line gets its end."""
        if not self.is_large:
            content.add(with_last_end(normalise_line_ends(self._read(self.content_bytes))))
            return
        left_bytes = self.content_bytes
        held = b""
        while left_bytes:
            piece = held + self._read(min(left_bytes, _PIECE_BYTES))
            if len(piece) == len(held):
                raise self._damaged("it was truncated while being read")
            left_bytes -= len(piece) - len(held)
            # a CR may be half of a line end
            held = b"\r" if left_bytes and piece.endswith(b"\r") else b""
            piece = normalise_line_ends(piece[:-1] if held else piece)
            content.add(piece if left_bytes else with_last_end(piece))

    def _damaged(self, reason: str) -> Exception:
        """Return NotYet for a file that was changed lately, Unfit for others."""
        age_s = time.time() - self._found.st_mtime
        if -SETTLE_S < age_s < SETTLE_S:
            return NotYet(reason)
        return Unfit(f"damaged: {reason}")


def open_drop(directory: int, name: str, *, limit_bytes: int) -> OpenDrop | None:
    """Open a file of up to `limit_bytes`, waiting for nothing, following nothing; None: it is gone.

    Raises Unfit, NotYet, Unreadable, and OSError for trouble of the machine.
    """
    with _errors_of_one_file():
        try:
            descriptor = os.open(name, _OPEN_FLAGS, dir_fd=directory)
        except FileNotFoundError:
            return None
    try:
        with _errors_of_one_file():
            found = os.fstat(descriptor)
        if found.st_nlink == 0:
            os.close(descriptor)
            return None
        if not stat.S_ISREG(found.st_mode):
            raise Unfit("not a regular file")
        if found.st_nlink != 1:
            raise Unfit("a hard link: the file has another name")
        if found.st_size > limit_bytes + MAX_HEAD_BYTES + _TRAILER_LIMIT_BYTES:
            raise _too_large(limit_bytes)
        return OpenDrop(name, descriptor, found, limit_bytes=limit_bytes)
    except BaseException:
        os.close(descriptor)
        raise


@dataclass(slots=True)
class DropBatch:
    """Files that were read together, within bounds of number and memory, by what became of them."""

    drops: list[Drop] = field(default_factory=list)
    large: list[str] = field(default_factory=list)  # to be read where nobody waits for it
    stored: list[str] = field(default_factory=list)  # their mail is in the queue already
    unfit: list[tuple[str, str]] = field(default_factory=list)
    unfinished: list[str] = field(default_factory=list)
    broken: list[tuple[str, Exception]] = field(default_factory=list)  # each alone: count it
    trouble: Exception | None = None  # of the machine, which every other file would meet


class DropReader:
    """Reads files of an open maildrop with up to `limit_bytes` of content each; blocks."""

    def __init__(
        self,
        directory: int,
        *,
        limit_bytes: int,
        spool_directory: Path,
        room: Room | None = None,
        readings: ProcessReadings | None = None,
    ) -> None:
        self._readings = readings or unwatched()
        self._directory = directory
        self._limit_bytes = limit_bytes
        self._spool_directory = spool_directory
        self._room = room

    def read_batch(self, names: deque[str], *, stored: Container[str] = ()) -> DropBatch:
        """Take names from the left of `names` and read their files, until the batch is full."""
        batch = DropBatch()
        while names and len(batch.drops) < MAX_DROPS and not batch.trouble:
            name = names.popleft()
            if name in stored:
                batch.stored.append(name)
                continue
            self._read(batch, name)
            if sum(drop.content.size_bytes for drop in batch.drops) >= MAX_BYTES:
                break
        return batch

    def read_large(self, name: str) -> DropBatch:
        """Read one file of any size, up to its first chunk in memory."""
        batch = DropBatch()
        self._read(batch, name, is_large_wanted=True)
        return batch

    def _read(self, batch: DropBatch, name: str, *, is_large_wanted: bool = False) -> None:
        try:
            opened = open_drop(self._directory, name, limit_bytes=self._limit_bytes)
            if opened is None:
                return
            with opened:
                if opened.is_large and not is_large_wanted:
                    batch.large.append(name)
                    return
                reader = Reader.LARGE if is_large_wanted else Reader.MAILDROP
                # its mail comes next
                with self._readings.reading(reader, opened.reading_name, is_last=False):
                    drop = opened.read(self._spool_directory, self._room)
                    drop.content.read_head()
            batch.drops.append(drop)
        except NotYet:
            batch.unfinished.append(name)  # looked at again in a second
        except EndsReaders as error:
            batch.unfit.append((name, f"{error}; it is read again when it has changed"))
        except Unfit as error:
            batch.unfit.append((name, str(error)))
        except NoRoom as error:
            batch.broken.append((name, error))  # smaller ones may have
        except (OSError, MemoryError) as error:
            batch.trouble = error
        except Exception as error:
            batch.broken.append((name, error))


@contextmanager
def _errors_of_one_file() -> Iterator[None]:
    """Turn an error of a call about one file into Unfit or Unreadable, unless it is the machine's.

    Its owner (a lease: EAGAIN) and the disk (EIO) can cause one; that must stop no other mail.
    """
    try:
        yield
    except OSError as error:
        if error.errno in _OF_THE_MACHINE:
            raise
        if error.errno in _NOT_OURS_TO_READ:
            raise Unfit(_NOT_OURS_TO_READ[error.errno]) from error
        is_leased = error.errno == errno.EAGAIN
        reason = "a program holds a lease on it" if is_leased else error.strerror or str(error)
        raise Unreadable(reason) from error


def _too_large(limit_bytes: int) -> Unfit:
    return Unfit(f"larger than {limit_bytes} bytes, the limit of the maildrop")


def with_last_end(data: bytes) -> bytes:
    """Return `data` with an end for its last line."""
    return data + b"\r\n" if data and not data.endswith(b"\n") else data


def _decoded(value: bytes) -> str:
    raw = _ESCAPE.sub(lambda match: bytes.fromhex(match[1].decode()), value)
    # what is not UTF-8 gets backslashes, which no address may have
    return raw.decode("utf-8", "backslashreplace")
