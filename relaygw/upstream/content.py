"""Content as it goes to a provider; what is stored stays as it is.

First what goes in front of it, and what of its header stays behind: see `sift`. Then its form on
the wire: CRLF line ends, folded lines, stuffed dots, final dot. Stored content is normalised
already; the encoder repairs bare CR and LF all the same, because one that got through could end a
message early at the provider and start a forged one. RFC 5321 sections 4.5.2 (transparency) and
4.5.3.1.6 (line length, which does not count the dot that stuffing adds).
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from email.header import Header
from typing import NamedTuple

from relaygw.mail.content import (
    MAX_LINE_BYTES,
    has_long_line,
    normalise_line_ends,
    read_header,
    without_fields,
)
from relaygw.policy.recipient_fields import NOTHING, FieldRule, FieldsFound

Content = bytes | Callable[[], AsyncIterator[bytes]]
"""Whole content, or what opens a stream of chunks of it (at most 1 MiB each)."""
Field = tuple[str, str]
"""Name and value."""

_END = b"\r\n\r\n"
_MAX_HEADER_BYTES = 2**20
"""A longer header in a stream is not looked through; whole content has at most as much."""
_ASIDE_BYTES = 64 * 1024
"""A longer header is looked through in a thread: a hostile one takes most of a second."""
_CONTROL = re.compile(r"[\x00-\x1f\x7f]+")
_TOO_LONG = FieldsFound(
    obstacle="its header has no end within 1 MiB, so nobody knows whom its fields name"
)


class Sifted(NamedTuple):
    """Content as it goes to a provider; do not send it when `found` has an obstacle."""

    content: Content
    grown_bytes: int = 0  # how much longer it is than before
    is_8bit: bool = False  # what was added
    has_long_line: bool = False  # in what was added
    found: FieldsFound = NOTHING


async def chunks(content: Content, added: bytes = b"") -> AsyncIterator[bytes]:
    """Yield `added`, if any, and the content behind it, whole or as it streams."""
    if added:
        yield added
    if isinstance(content, bytes):
        yield content
    else:
        async for chunk in content():
            yield chunk


async def sift(
    content: Content, added: bytes, fields: Sequence[Field], rule: FieldRule | None
) -> Sifted:
    """Return `content` with `added` and those of `fields` that it lacks, less what `rule` removes.

    Without any of these the content is returned as it is.
    """
    found = NOTHING
    if fields or rule is not None:
        start = content if isinstance(content, bytes) else await _start(content)
        added += missing_fields(fields, start)
        if rule is not None:
            found = await _look(rule, added, start, is_whole=start is content)
    if not added and not found.removed:
        return Sifted(content=content, found=found)
    if isinstance(content, bytes):
        changed: Content = without_fields(added + content, found.removed)
    else:
        changed = _changed_stream(added, content, found.removed)
    return Sifted(
        content=changed,
        grown_bytes=len(added) - sum(end - start for start, end in found.removed),
        is_8bit=not added.isascii(),
        has_long_line=has_long_line(added),
        found=found,
    )


async def _look(rule: FieldRule, added: bytes, start: bytes, *, is_whole: bool) -> FieldsFound:
    """Look at the fields of `added` and of the header that `start` begins with."""
    end = start.find(_END)
    if end < 0 and not is_whole and len(start) > _MAX_HEADER_BYTES:
        return _TOO_LONG
    header = added + start
    if 0 <= end <= _ASIDE_BYTES:
        return rule.look(header)
    return await asyncio.to_thread(rule.look, header)


async def _start(content: Content) -> bytes:
    """Return the first chunks of a stream, until the header is in them or it is too long."""
    start = b""
    async for chunk in chunks(content):
        start += chunk
        if _END in start or len(start) > _MAX_HEADER_BYTES:
            break
    return start


def _changed_stream(
    added: bytes, content: Content, removed: Sequence[tuple[int, int]]
) -> Callable[[], AsyncIterator[bytes]]:
    """Return a stream of both without the `removed` ranges, which count from the first byte."""

    async def stream() -> AsyncIterator[bytes]:
        at = 0
        async for chunk in chunks(content, added):
            end = at + len(chunk)
            ranges = [
                (max(start, at) - at, min(stop, end) - at)
                for start, stop in removed
                if start < end and stop > at
            ]
            yield without_fields(chunk, ranges) if ranges else chunk
            at = end

    return stream


def missing_fields(fields: Iterable[Field], start: bytes) -> bytes:
    """Return those of `fields` whose name is not in the header at the `start` of a content."""
    wanted = frozenset(name.lower() for name, _ in fields)
    present = read_header(start, wanted).values if wanted else {}
    return b"".join(_line(name, value) for name, value in fields if name.lower() not in present)


def _line(name: str, value: str) -> bytes:
    shown = _CONTROL.sub(" ", value).strip()
    if not shown.isascii():
        shown = Header(shown, "utf-8", header_name=name).encode(linesep="\r\n")
    return f"{name}: {shown}\r\n".encode("ascii")


# --- on the wire


def encode_whole(content: bytes, *, fold: bool) -> bytes:
    """Return all that follows the 354 reply for `content`, final dot included."""
    encoder = ContentEncoder(fold=fold)
    body = encoder.encode(content)
    return body + encoder.finish()


class ContentEncoder:
    """Turns chunks of one message's content into wire bytes.

    `fold` breaks lines over 998 octets by CRLF and a space, as Postfix does, never inside a
    UTF-8 character. Leave it off when no line is that long: it walks line by line.
    """

    def __init__(self, *, fold: bool) -> None:
        self._fold = fold
        self._held = b""  # a CR that may be half a CRLF, or the unfinished line while folding
        self._at_line_start = True

    def encode(self, chunk: bytes) -> bytes:
        """Return wire bytes for `chunk`, less what cannot be decided yet."""
        content = self._held + chunk if self._held else chunk
        if content.endswith(b"\r"):
            content, self._held = content[:-1], b"\r"
        else:
            self._held = b""
        if not content:
            return b""
        content = normalise_line_ends(content)
        if self._fold:
            content = self._fold_lines(content)
        return self._stuff(content)

    def finish(self) -> bytes:
        """Return what is left, and the line with the final dot."""
        last = b"\r\n" if self._held.endswith(b"\r") else b""
        line = self._held.removesuffix(b"\r") + last
        tail = self._stuff(line)
        return (tail if self._at_line_start else tail + b"\r\n") + b".\r\n"

    def _stuff(self, content: bytes) -> bytes:
        if not content:
            return content
        stuffed = content.replace(b"\r\n.", b"\r\n..")
        if self._at_line_start and content.startswith(b"."):
            stuffed = b"." + stuffed
        self._at_line_start = content.endswith(b"\r\n")
        return stuffed

    def _fold_lines(self, content: bytes) -> bytes:
        *lines, rest = content.split(b"\r\n")
        pieces: list[bytes] = []
        for line in lines:
            pieces.extend(_split_line(line))
        # the unfinished line stays here, so that where it breaks does not depend on chunks
        *whole, rest = _split_line(rest)
        pieces.extend(whole)
        self._held = rest + self._held
        return b"".join([piece + b"\r\n" for piece in pieces])


def _split_line(line: bytes) -> list[bytes]:
    """Return `line` in pieces of at most MAX_LINE_BYTES; all but the first begin with a space."""
    if len(line) <= MAX_LINE_BYTES:
        return [line]
    pieces = []
    start, indent = 0, b""
    while len(line) - start > MAX_LINE_BYTES - len(indent):
        end = _character_start(line, start + MAX_LINE_BYTES - len(indent))
        pieces.append(indent + line[start:end])
        start, indent = end, b" "
    pieces.append(indent + line[start:])
    return pieces


def _character_start(line: bytes, position: int) -> int:
    """Return the nearest place at or before `position` that is not inside a UTF-8 character."""
    for place in range(position, position - 4, -1):
        if line[place] & 0xC0 != 0x80:
            return place
    return position
