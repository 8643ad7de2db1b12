"""What goes before the content of a mail, and what of its header stays behind.

Every mail to a provider comes through here; what is stored stays as it is.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass

from relaygw.mail.content import has_long_line, without_fields
from relaygw.policy.recipient_fields import NOTHING, FieldRule, FieldsFound
from relaygw.upstream.added_fields import Field, missing_fields

Content = bytes | Callable[[], AsyncIterator[bytes]]
"""Whole content, or what opens a stream of chunks of it (at most 1 MiB each)."""

_END = b"\r\n\r\n"
_MAX_HEADER_BYTES = 2**20
"""A longer header in a stream is not looked through; whole content has at most as much."""
_ASIDE_BYTES = 64 * 1024
"""A longer header is looked through in a thread: a hostile one takes most of a second."""
_TOO_LONG = FieldsFound(
    obstacle="its header has no end within 1 MiB, so nobody knows whom its fields name"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sifted:
    """Content as it goes to a provider; do not send it when `found` has an obstacle."""

    content: Content
    grown_bytes: int = 0  # how much longer it is than before
    is_8bit: bool = False  # what was added
    has_long_line: bool = False  # in what was added
    found: FieldsFound = NOTHING


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


async def _start(content: Callable[[], AsyncIterator[bytes]]) -> bytes:
    """Return the first chunks of a stream, until the header is in them or it is too long."""
    start = b""
    async for chunk in content():
        start += chunk
        if _END in start or len(start) > _MAX_HEADER_BYTES:
            break
    return start


def _changed_stream(
    added: bytes,
    content: Callable[[], AsyncIterator[bytes]],
    removed: Sequence[tuple[int, int]],
) -> Callable[[], AsyncIterator[bytes]]:
    """Return a stream of both without the `removed` ranges, which count from the first byte."""

    async def stream() -> AsyncIterator[bytes]:
        at = 0
        async for chunk in _behind(added, content):
            end = at + len(chunk)
            ranges = [
                (max(start, at) - at, min(stop, end) - at)
                for start, stop in removed
                if start < end and stop > at
            ]
            yield without_fields(chunk, ranges) if ranges else chunk
            at = end

    return stream


async def _behind(
    added: bytes, content: Callable[[], AsyncIterator[bytes]]
) -> AsyncIterator[bytes]:
    if added:
        yield added
    async for chunk in content():
        yield chunk
