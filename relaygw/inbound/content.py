"""Message content as it arrives: in bulk, up to CRLF.CRLF only, memory and time bounded.

Accepting bare CR or LF around the dot is how mail is smuggled (RFC 5321 section 4.1.1.4).
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import IO
from zlib import crc32

from relaygw.inbound.time_limits import MIN_BYTES_PER_S, TimeLimits
from relaygw.mail.content import READ_HEADER_BYTES, has_long_line, header_end, normalise_line_ends
from relaygw.mail.drop import LARGE_BYTES
from relaygw.mail.source_header import rename_late
from relaygw.policy.storms import Fingerprint
from relaygw.volume import Room

END_OF_DATA = b"\r\n.\r\n"
_LAST_LINE = b".\r\n"
MEMORY_BYTES = LARGE_BYTES
"""Content up to this size is committed with its message; larger content goes to a file."""
CHUNK_BYTES = 2**18
"""Content over `MEMORY_BYTES` is stored in chunks of this size, each in a short transaction.

The first has as many of these as the header takes: whoever reads it has the whole header.
"""
LONG_HEADER_BYTES = 64 * 1024
"""A longer header is read in a thread: a hostile one takes most of a second at its longest."""
_PIECE_BYTES = 128 * 1024  # what is worked up at once: a hostile piece stalls all sessions
_OVERRUN_FACTOR = 4  # a client that goes on and on after its limit is cut off
_OVERRUN_BYTES = 64 * 2**20
_NAMED_BYTES = 1024


class TooMuchData(Exception):
    """The client does not stop sending; the connection must be closed."""


class ReceivedContent:
    """One message's content: whole in `head` when small, else its start, with all of its header."""

    fingerprint: Fingerprint | None = None
    """Of content with a long header: read with that, in a thread, so that nobody waits for it."""

    def __init__(self, spool_directory: Path, room: Room | None = None) -> None:
        self._spool_directory = spool_directory
        self._room = room  # without: who hands it over has looked
        self._file: IO[bytes] | None = None
        self._parts: list[bytes] = []
        self._last_line_bytes = 0
        self.head = b""
        self.size_bytes = 0
        self.is_8bit = False
        self.has_long_line = False
        self.is_spooled = False  # into a file
        self.is_too_big = False
        self.error: OSError | None = None  # the spool file could not be written
        self.is_lost = False  # by one of these two: there is nothing left to store
        self.digest: bytes | None = None  # of all of it, see take_digest

    def add(self, data: bytes) -> None:
        """Append normalised content."""
        self.size_bytes += len(data)
        self.is_8bit = self.is_8bit or not data.isascii()
        if self._file is None:
            self._parts.append(data)
            if self.size_bytes > MEMORY_BYTES:
                self._reserve(self.size_bytes)
                # lives as long as this object: the file has no name, the kernel frees it
                self._file = tempfile.TemporaryFile(dir=self._spool_directory)  # noqa: SIM115
                self.is_spooled = True
                self._file.writelines(self._parts)
                self._parts = []
        else:
            self._reserve(len(data))
            self._file.write(data)
        carried_bytes = self._last_line_bytes
        self.has_long_line = self.has_long_line or has_long_line(data, carried_bytes=carried_bytes)
        line_start = data.rfind(b"\n") + 1
        self._last_line_bytes = len(data) - line_start + (0 if line_start else carried_bytes)

    def _reserve(self, more_bytes: int) -> None:
        if self._room is not None:
            self._room.reserve(self, more_bytes)

    def read_head(self, with_digest: bool = False) -> None:
        """Call after the last `add`, and only when its turn has come: it takes memory."""
        if self._file is not None:
            self._file.flush()
            self._file.seek(0)
            self.head = self._file.read(CHUNK_BYTES)
            # until its end is known, and some of the text is there for those who look at that
            while (
                len(self.head) < READ_HEADER_BYTES
                and header_end(self.head) > len(self.head) - CHUNK_BYTES // 2
                and (more := self._file.read(CHUNK_BYTES))
            ):
                self.head += more
        elif self._parts:
            self.head = b"".join(self._parts)
        self._parts = []
        if with_digest:
            self.take_digest()

    @property
    def has_long_header(self) -> bool:
        """True if the header is longer than may be looked through while others wait."""
        limit = LONG_HEADER_BYTES
        return len(self.head) > limit and header_end(self.head, 0, limit) == limit

    def take_digest(self) -> bytes:
        """Return the digest of all content, kept as well; call after `read_head`."""
        whole = sha256(self.head)
        if self._file is not None:
            at_byte = self._file.tell()
            while piece := self._file.read(CHUNK_BYTES):
                whole.update(piece)
            self._file.seek(at_byte)
        self.digest = whole.digest()
        return self.digest

    @property
    def name(self) -> str:
        """What this content is called, the same each time that it comes; call after `read_head`."""
        return f"content of {self.size_bytes} bytes, CRC {crc32(self.head[:_NAMED_BYTES]):08x}"

    def chunks(self, head: bytes, first_bytes: int = CHUNK_BYTES) -> Iterator[bytes]:
        """Yield spooled content, `head` in place of its own; the first chunk has `first_bytes`."""
        rest, wanted = head, first_bytes
        while True:
            if self._file is not None and len(rest) < wanted:
                rest += self._file.read(wanted - len(rest))
            if not rest:
                break
            yield rest[:wanted]
            rest, wanted = rest[wanted:], CHUNK_BYTES

    def close(self) -> None:
        """Free the memory and the file."""
        if self._file is not None:
            self._file.close()
        if self._room is not None:
            self._room.release(self)
        self._parts = []
        self.head = b""


def without_late_fields(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Yield `chunks` with X-Relaygw-Source renamed in the header; counted sizes stay."""
    held = next(chunks, b"")
    for chunk in chunks:
        joined = held + chunk  # a field may begin in one and end in the other
        end = joined.find(b"\r\n\r\n")
        block = joined if end < 0 else joined[: end + 2]
        joined = rename_late(block) + joined[len(block) :]
        yield joined[: len(held)]
        held = joined[len(held) :]
        if end >= 0:
            break
    yield held
    yield from chunks


class ContentReader:
    """Takes the bytes behind a DATA command as they arrive, up to the end of data.

    `work_up` turns what `feed` collected into content and may block: call it whenever `has_piece`,
    before the next `feed`, and at the end. What is over `limit_bytes`, or finds no room in the
    spool file, is thrown away; `content` says so.
    """

    def __init__(
        self, *, limit_bytes: int, spool_directory: Path, room: Room | None = None
    ) -> None:
        self.content = ReceivedContent(spool_directory, room)
        self._limit_bytes = limit_bytes
        self._raw_bytes = 0
        self._pieces: list[bytes] = []
        self._pieces_bytes = 0
        # the line before the content ended with the CRLF of the DATA command, so that
        # `.CRLF` alone ends empty content
        self._tail = b"\r\n"
        self._is_complete = False
        self.is_large = False  # a part was worked up already, so that the rest may block, too

    def feed(self, data: bytes) -> bytes | None:
        """Take `data`; return what follows its end, else None; raises TooMuchData."""
        tail = self._tail
        if (at := (tail + data[:4]).find(END_OF_DATA)) >= 0:  # it may have begun before
            end = at + len(END_OF_DATA) - len(tail)
        elif (at := data.find(END_OF_DATA)) >= 0:
            end = at + len(END_OF_DATA)
        else:
            self._tail = (tail + data[-4:])[-4:]
            self._keep(data)
            return None
        self._keep(data[:end])
        self._is_complete = True
        return data[end:]

    @property
    def has_piece(self) -> bool:
        """True when enough was collected to be worked up."""
        return self._pieces_bytes >= _PIECE_BYTES

    def _keep(self, data: bytes) -> None:
        self._raw_bytes += len(data)
        if self._raw_bytes - len(_LAST_LINE) > self._limit_bytes and not self.content.is_too_big:
            self.content.close()
            self.content.is_too_big = self.content.is_lost = True
        if self._raw_bytes > _OVERRUN_FACTOR * self._limit_bytes + _OVERRUN_BYTES:
            raise TooMuchData
        if self.content.is_lost:
            self._pieces, self._pieces_bytes = [], 0
        else:
            self._pieces.append(data)
            self._pieces_bytes += len(data)

    def work_up(self) -> None:
        """Add what was collected to the content, but for an end that what follows decides on."""
        if self.content.is_lost:
            return
        piece = b"".join(self._pieces)
        self._pieces, self._pieces_bytes = [], 0
        if self._is_complete:
            usable = piece[: -len(_LAST_LINE)]
        else:
            # so many bytes at the end may be the start of the end of data
            undecided = next((n for n in (4, 3, 2, 1) if piece.endswith(END_OF_DATA[:n])), 0)
            usable = piece[: len(piece) - undecided]
            self._pieces.append(piece[len(usable) :])
        # dot-stuffing, RFC 5321 section 4.5.2
        if usable.startswith(b".") and not self.is_large:
            usable = usable[1:]
        if b"\r\n." in usable:
            usable = usable.replace(b"\r\n.", b"\r\n")
        self.is_large = self.is_large or not self._is_complete
        try:
            self.content.add(normalise_line_ends(usable))
        except OSError as error:
            self.content.close()
            self.content.error, self.content.is_lost = error, True


class Arrival:
    """The wait for the content behind one 354, until `arrived`: no piece wakes the session."""

    def __init__(
        self, reader: ContentReader, loop: asyncio.AbstractEventLoop, limits: TimeLimits
    ) -> None:
        self.reader, self._limits = reader, limits
        self.arrived: asyncio.Future[None] = loop.create_future()
        self._loop = loop
        self._began_s = self._last_s = loop.time()
        self._bytes = 0

    def feed(self, data: bytes) -> bytes | None:
        """Take a piece; return what follows the content once that is complete."""
        self._bytes += len(data)
        self._last_s = self._loop.time()
        try:
            rest = self.reader.feed(data)
        except TooMuchData as error:
            self.give_up(error)
            return b""
        if rest is not None:
            self.arrived.set_result(None)
        return rest

    def give_up(self, error: BaseException) -> None:
        """End with an error, unless it has ended."""
        if not self.arrived.done():
            self.arrived.set_exception(error)

    @property
    def deadline_s(self) -> float:
        """Until when more must have come, on the loop's clock."""
        limits = self._limits
        slowest_s = limits.content_grace_s + self._bytes / MIN_BYTES_PER_S
        return min(
            self._last_s + limits.content_silence_s,
            self._began_s + min(limits.content_s, slowest_s),
        )
