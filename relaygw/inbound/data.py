"""Reading message content: bulk, CRLF.CRLF only, memory bounded.

RFC 5321 section 4.1.1.4: the end of data is CRLF.CRLF and nothing else; accepting bare
CR or LF around the dot is how mail is smuggled. Content is unstuffed by CRLF lines, then
bare line ends are normalised. Small content stays in memory, large content goes to an
unlinked file on the state volume.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from relaygw.mail.content import has_long_line, normalise_line_ends

END_OF_DATA = b"\r\n.\r\n"
_LAST_LINE = b".\r\n"
MEMORY_BYTES = 2**20
"""Content up to this size is committed with its message; larger content goes to a file."""
CHUNK_BYTES = 2**20
_OVERRUN_FACTOR = 4  # a client that goes on and on after its limit is cut off


class TooMuchData(Exception):
    """The client does not stop sending; the connection must be closed."""


class ReceivedContent:
    """One message's content: whole in `head` when small, the rest in a file else."""

    def __init__(self, spool_directory: Path) -> None:
        self._spool_directory = spool_directory
        self._file: IO[bytes] | None = None
        self._parts: list[bytes] = []
        self._last_line_bytes = 0
        self.head = b""
        self.size_bytes = 0
        self.is_8bit = False
        self.has_long_line = False
        self.is_too_big = False
        self.raw_bytes = 0  # as read from the connection, the end of data included

    @property
    def is_spooled(self) -> bool:
        """True when the content is in a file."""
        return self._file is not None

    def add(self, data: bytes) -> None:
        """Append normalised content."""
        self.size_bytes += len(data)
        self.is_8bit = self.is_8bit or not data.isascii()
        if self._file is not None:
            self._file.write(data)
        else:
            self._parts.append(data)
            if self.size_bytes > MEMORY_BYTES:
                self._spool()
        self.has_long_line = self.has_long_line or has_long_line(
            data, carried_bytes=self._last_line_bytes
        )
        line_start = data.rfind(b"\n") + 1
        self._last_line_bytes = (
            len(data) - line_start + (0 if line_start else self._last_line_bytes)
        )

    def set_whole(self, data: bytes) -> None:
        """Take normalised content that arrived in one piece; the usual, short way."""
        self.head = data
        self.size_bytes = len(data)
        self.is_8bit = not data.isascii()
        self.has_long_line = has_long_line(data)

    def finish(self) -> None:
        """Call after the last `add`."""
        if self._file is None:
            self.head = b"".join(self._parts)
        else:
            self._file.flush()
            self._file.seek(0)
            self.head = self._file.read(CHUNK_BYTES)
        self._parts = []

    def _spool(self) -> None:
        # lives as long as this object: the file has no name, the kernel frees it
        self._file = tempfile.TemporaryFile(dir=self._spool_directory)  # noqa: SIM115
        self._file.writelines(self._parts)
        self._parts = []

    def chunks(self, head: bytes) -> Iterator[bytes]:
        """Yield spooled content in chunks of at most CHUNK_BYTES, `head` in place of its own."""
        rest = head
        while True:
            while len(rest) >= CHUNK_BYTES:
                yield rest[:CHUNK_BYTES]
                rest = rest[CHUNK_BYTES:]
            more = self._file.read(CHUNK_BYTES) if self._file is not None else b""
            if not more:
                break
            rest += more
        if rest:
            yield rest

    def close(self) -> None:
        """Free the memory and the file."""
        if self._file is not None:
            self._file.close()
        self._parts = []
        self.head = b""


async def read_content(
    reader: asyncio.StreamReader, *, limit_bytes: int, spool_directory: Path
) -> ReceivedContent:
    """Read up to and including the end of data.

    Over `limit_bytes` the rest is read and thrown away, and `is_too_big` is set. Raises
    TooMuchData when the client goes on far beyond that, IncompleteReadError when it left.
    """
    content = ReceivedContent(spool_directory)
    try:
        piece, is_last = await _read_start(reader)
        if not is_last:
            more, is_last = await _read_piece(reader)
            piece += more
        if is_last and len(piece) <= min(limit_bytes, MEMORY_BYTES):
            content.raw_bytes = len(piece) + len(_LAST_LINE)
            content.set_whole(_unstuff(piece, at_line_start=True))
        else:
            await _read_on(reader, content, piece, is_last=is_last, limit_bytes=limit_bytes)
    except BaseException:
        content.close()
        raise
    return content


async def _read_start(reader: asyncio.StreamReader) -> tuple[bytes, bool]:
    """Read until the end of data can no longer overlap the first bytes.

    The line before the content ended with the CRLF of the DATA command, so `.CRLF` alone
    ends empty content, and the search for CRLF.CRLF must not start in its middle.
    """
    start = await reader.readexactly(3)
    if start == _LAST_LINE:
        return b"", True
    while not start.endswith(END_OF_DATA):
        overlap = next((n for n in (4, 3, 2, 1) if start.endswith(END_OF_DATA[:n])), 0)
        if not overlap:
            return start, False
        start += await reader.readexactly(len(END_OF_DATA) - overlap)
    return start[:-3], True


async def _read_piece(reader: asyncio.StreamReader) -> tuple[bytes, bool]:
    """Read up to the end of data, or as much as surely lies before it."""
    try:
        piece = await reader.readuntil(END_OF_DATA)
    except asyncio.LimitOverrunError as error:
        return await reader.readexactly(error.consumed), False
    return piece[:-3], True


async def _read_on(
    reader: asyncio.StreamReader,
    content: ReceivedContent,
    piece: bytes,
    *,
    is_last: bool,
    limit_bytes: int,
) -> None:
    raw_bytes = 0
    held = b""  # a CR or CRLF at the end of a piece: what follows decides
    at_line_start = True
    while True:
        raw_bytes += len(piece)
        if raw_bytes > limit_bytes and not content.is_too_big:
            content.close()
            content.is_too_big = True
        if raw_bytes > _OVERRUN_FACTOR * limit_bytes + 64 * 2**20:
            raise TooMuchData
        if not content.is_too_big:
            piece = held + piece
            held = b"" if is_last else _held_back(piece)
            usable = piece[: len(piece) - len(held)]
            content.add(_unstuff(usable, at_line_start=at_line_start))
            at_line_start = at_line_start and not usable
        if is_last:
            break
        piece, is_last = await _read_piece(reader)
    content.raw_bytes = raw_bytes + len(_LAST_LINE)
    if not content.is_too_big:
        content.finish()


def _held_back(piece: bytes) -> bytes:
    if piece.endswith(b"\r\n"):
        return piece[-2:]
    return piece[-1:] if piece.endswith(b"\r") else b""


def _unstuff(data: bytes, *, at_line_start: bool) -> bytes:
    """Undo dot-stuffing (RFC 5321 section 4.5.2), then normalise line ends."""
    if at_line_start and data.startswith(b"."):
        data = data[1:]
    if b"\r\n." in data:
        data = data.replace(b"\r\n.", b"\r\n")
    return normalise_line_ends(data)
