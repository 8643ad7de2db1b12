"""The parts of a message (RFC 2045, RFC 2046) as offsets into its content.

Found in one pass, in time that grows with the size alone. What goes beyond a limit is not looked
at, and the tree says so. A header ends before an empty line, or before the next delimiter; where
text comes first there is none. Of two boundaries that a line could belong to the outer one counts.
"""

from __future__ import annotations

import binascii
import re
from dataclasses import dataclass, field
from enum import Enum
from functools import cached_property
from itertools import islice
from typing import NamedTuple

from relaygw.mail.content import READ_HEADER_BYTES, field_matches
from relaygw.mail.mime_header import (
    MAX_FIELDS,
    decode_base64,
    decode_text,
    decode_words,
    read_fields,
    read_parameters,
    unfolded,
)

ENCODING_FIELD = b"content-transfer-encoding"
TYPE_FIELD = b"content-type"
VERSION_FIELD = b"mime-version"
DISPOSITION_FIELD = b"content-disposition"
ID_FIELD = b"content-id"
TEXT = "text/plain"
MESSAGE = "message/rfc822"
MAX_LEVELS = 100
MAX_BOUNDARY_BYTES = 1000  # RFC 2046 has 70
MAX_DELIMITER_LOOKS = 200_000  # lines that begin as a delimiter would
_FIELDS = frozenset(
    name.decode()
    for name in (TYPE_FIELD, ENCODING_FIELD, VERSION_FIELD, DISPOSITION_FIELD, ID_FIELD)
)
# a header may begin with the line that separates messages of a mailbox
_HEADER_START = re.compile(rb"(?:>?From [^\r\n]*+\r\n)?[!-9;-~]++[ \t]*+:")
_MEDIA_TYPE = re.compile(
    rb"([a-z0-9][a-z0-9!#$&^_.+-]{0,126}/[a-z0-9][a-z0-9!#$&^_.+-]{0,126})[ \t]*+(?:[;(]|\Z)",
    re.IGNORECASE,
)
_ENCODED = frozenset(("base64", "quoted-printable", "uuencode", "uue", "yenc"))
_COMMENT = re.compile(rb"\([^()]*\)")
_BYTES_A_CHARACTER = 4
# bytes of content for one decoded byte, with line ends; quoted-printable may be nothing but these
_RAW_BYTES = {"base64": 1.5, "quoted-printable": 4}


class Limit(Enum):
    """A limit that a message goes beyond."""

    PARTS = "parts"
    LEVELS = "levels"
    LINES = "lines"  # that begin as a delimiter would


@dataclass(eq=False, kw_only=True)
class Part:
    """A message or a part of one: where it lies in the content, and what its header says."""

    part_id: str  # "0" for the message itself, "2" for its second part, "2.1" below that
    level: int  # 0 for the message itself
    content_type: str  # in lower case; text/plain if it cannot be read
    is_message: bool  # the whole message, or one that is attached
    start: int
    head_end: int
    body_start: int  # behind the empty line
    end: int
    values: dict[bytes, list[bytes]]  # of MIME fields, unfolded, by name in lower case
    parameters: dict[str, str]  # of the Content-Type
    boundary: bytes = b""  # empty: not a usable multipart
    common: bytes = b""  # with which its delimiters and those of multiparts around it begin
    parts: list[Part] = field(default_factory=list)

    def field_value(self, name: bytes) -> bytes:
        """Return the first value of a MIME field, b"" without one."""
        return self.values.get(name, [b""])[0]

    @property
    def is_body(self) -> bool:
        """True for text that is read, not filed."""
        return self.content_type in ("text/plain", "text/html") and self.disposition != "attachment"

    @property
    def charset(self) -> str:
        """The charset that the Content-Type names, "" without one."""
        return self.parameters.get("charset", "")

    @property
    def encoding(self) -> str:
        """The first Content-Transfer-Encoding, "" without one."""
        return _encoding(self.field_value(ENCODING_FIELD))

    @property
    def claimed_encoding(self) -> str:
        """How the body claims to be encoded, "several" in doubt; an unknown name is none."""
        names = set(map(_encoding, self.values.get(ENCODING_FIELD, [])))
        claims = [name for name in names if name in _ENCODED or name.startswith("x-")]
        return "several" if claims and len(names) > 1 else "".join(claims)

    @cached_property
    def _disposition(self) -> tuple[str, dict[str, str]]:
        return read_parameters(self.field_value(DISPOSITION_FIELD))

    @property
    def disposition(self) -> str:
        """The Content-Disposition in lower case, without its parameters, "" without one."""
        return self._disposition[0]

    @property
    def has_disposition_parameters(self) -> bool:
        """True if the Content-Disposition has parameters."""
        return bool(self._disposition[1])

    @cached_property
    def file_name(self) -> str:
        """The name that the header gives it, as it stands there, "" without one."""
        name = self._disposition[1].get("filename") or self.parameters.get("name", "")
        return decode_words(name)

    @property
    def content_id(self) -> str:
        """The Content-ID without angle brackets, "" without one."""
        return decode_text(self.field_value(ID_FIELD), "").strip("<> ")


def _encoding(value: bytes) -> str:
    return _COMMENT.sub(b"", value).strip(b' \t"').lower().decode("ascii", "replace")


@dataclass(kw_only=True)
class MimeTree:
    """A message in parts; `parts` has all but the root, in the order of the content."""

    content: bytes
    root: Part
    parts: list[Part] = field(default_factory=list)
    exceeded: set[Limit] = field(default_factory=set)
    left_out: list[str] = field(default_factory=list)  # in words, by who shows the message

    @cached_property
    def message_fields(self) -> list[tuple[str, str]]:
        """Name and value of the fields of the message's header, in order."""
        return read_fields(self.content[: min(self.root.head_end, READ_HEADER_BYTES)])

    def first(self, name: str) -> str:
        """Return the first value of a field of the message's header, "" without one."""
        name = name.lower()
        return next((value for key, value in self.message_fields if key.lower() == name), "")

    @cached_property
    def leaves(self) -> list[Part]:
        """The parts that have no others in them."""
        return [part for part in (self.root, *self.parts) if not part.parts]

    def body(self, part: Part, *, limit_bytes: int | None = None) -> bytes:
        """Return the decoded bytes of a leaf, of at most `limit_bytes` before decoding."""
        end = part.end if limit_bytes is None else min(part.end, part.body_start + limit_bytes)
        raw = self.content[part.body_start : end]
        if part.encoding == "base64":
            return decode_base64(raw)
        if part.encoding == "quoted-printable":
            return binascii.a2b_qp(raw)
        return raw

    def text(self, part: Part, *, limit_characters: int) -> tuple[str, bool]:
        """Return a leaf as text of at most `limit_characters`, and whether there is more of it."""
        # cut before it is decoded: one sign outside of Latin makes each character four bytes
        limit_bytes = limit_characters * _BYTES_A_CHARACTER
        raw_bytes = int(limit_bytes * _RAW_BYTES.get(part.encoding, 1))
        body = self.body(part, limit_bytes=raw_bytes)
        text = decode_text(body[:limit_bytes], part.charset)
        has_more = part.end - part.body_start > raw_bytes or len(body) > limit_bytes
        return text[:limit_characters], has_more or len(text) > limit_characters


def read_tree(content: bytes, *, max_parts: int, with_messages: bool) -> MimeTree:
    """Find the parts of normalised content; raises nothing.

    `with_messages`: attached messages have parts, too, and those of a digest are messages.
    """
    return _Reader(content, max_parts, with_messages=with_messages).read()


class _Delimiter(NamedTuple):
    start: int  # of the line end in front of it
    end: int  # before its own line end
    multipart: Part
    is_last: bool


class _Reader:
    def __init__(self, content: bytes, max_parts: int, *, with_messages: bool) -> None:
        self._content = content
        self._max_parts = max_parts
        self._with_messages = with_messages
        # the multiparts that a delimiter may come of, by boundary, the outermost first
        self._open: dict[bytes, Part] = {}
        self._looks = 0
        self._empty_line = -1  # the first one behind the place where it was looked for last
        root = self._read_part("0", 0, TEXT, level=0, is_message=True)
        self._tree = MimeTree(content=content, root=root)

    def read(self) -> MimeTree:
        position = self._enter_part(self._tree.root)
        while (found := self._find_delimiter(position, len(self._content))) is not None:
            self._end_parts(found)
            position = found.end
            if not found.is_last:
                start = min(found.end + 2, len(self._content))
                position = self._add_part(start, found.multipart, is_message=False)
        return self._tree

    def _find_delimiter(self, position: int, limit: int) -> _Delimiter | None:
        """Return the first delimiter of an open multipart that begins between these offsets.

        Its line end may be that of an empty line.
        """
        while self._open:
            start = self._content.find(self._innermost().common, position, limit)
            if start < 0:
                return None
            self._looks += 1
            if self._looks > MAX_DELIMITER_LOOKS:
                self._stop_reading(Limit.LINES)
            end = self._content.find(b"\r\n", start + 4)
            position = len(self._content) if end < 0 else end
            line = self._content[start + 4 : position].rstrip(b" \t")
            whole, cut = self._open.get(line), self._open.get(line.removesuffix(b"--"))
            is_whole = whole is not None and (cut is None or whole.level <= cut.level)
            multipart = whole if is_whole else cut
            if multipart is not None:
                return _Delimiter(start, position, multipart, is_last=not is_whole)
        return None

    def _end_parts(self, found: _Delimiter) -> None:
        """End what a delimiter ends: the part in front of it and those within."""
        part = found.multipart
        while part.parts:
            part = part.parts[-1]
            part.end = min(part.end, max(part.start, found.start))
            part.body_start = min(part.body_start, part.end)
        self._close_multiparts(found.multipart.level + (not found.is_last))

    def _add_part(self, start: int, parent: Part, *, is_message: bool) -> int:
        """Read a part; return where the next delimiter is looked for."""
        if len(self._tree.parts) == self._max_parts:
            self._stop_reading(Limit.PARTS)
            return start
        outer = f"{parent.part_id}." if parent.level else ""
        is_digest = self._with_messages and parent.content_type == "multipart/digest"
        part = self._read_part(
            f"{outer}{len(parent.parts) + 1}",
            start,
            MESSAGE if is_digest else TEXT,
            level=parent.level + 1,
            is_message=is_message,
        )
        parent.parts.append(part)
        self._tree.parts.append(part)
        return self._enter_part(part)

    def _read_part(
        self, part_id: str, start: int, default: str, *, level: int, is_message: bool
    ) -> Part:
        head_end, body_start = self._header_end(start)
        values: dict[bytes, list[bytes]] = {}
        found = field_matches(self._content, start, head_end, _FIELDS)
        for match in islice(found, MAX_FIELDS):
            values.setdefault(match[1].lower(), []).append(unfolded(match[2]))
        types = values.get(TYPE_FIELD)
        known = _MEDIA_TYPE.match(types[0]) if types else None
        part = Part(
            part_id=part_id,
            level=level,
            content_type=known[1].decode("ascii").lower() if known else TEXT if types else default,
            is_message=is_message,
            start=start,
            head_end=head_end,
            body_start=body_start,
            end=len(self._content),
            values=values,
            parameters=read_parameters(types[0])[1] if types else {},
        )
        if part.content_type.startswith("multipart/"):
            boundary = part.parameters.get("boundary", "").encode()
            part.boundary = boundary if len(boundary) <= MAX_BOUNDARY_BYTES else b""
        return part

    def _header_end(self, start: int) -> tuple[int, int]:
        """Return where the header of a part is over, and where its body begins."""
        if self._content.startswith(b"\r\n", start):
            return start, start + 2
        if not _HEADER_START.match(self._content, start):
            return start, start
        if self._empty_line < start:
            found = self._content.find(b"\r\n\r\n", start)
            self._empty_line = len(self._content) if found < 0 else found
        delimiter = self._find_delimiter(start - 2, self._empty_line)
        if delimiter is not None:
            end = max(start, delimiter.start)
            return end, end
        size = len(self._content)
        return min(self._empty_line + 2, size), min(self._empty_line + 4, size)

    def _enter_part(self, part: Part) -> int:
        """Look for parts of a part; return where the next delimiter is looked for."""
        is_multipart = part.boundary != b"" and part.boundary not in self._open
        has_message = (
            self._with_messages and part.content_type == MESSAGE and not part.claimed_encoding
        )
        if (is_multipart or has_message) and part.level == MAX_LEVELS:
            self._tree.exceeded.add(Limit.LEVELS)
        elif has_message:
            return self._add_part(part.body_start, part, is_message=True)
        elif is_multipart:
            start = b"\r\n--" + part.boundary
            part.common = self._innermost().common if self._open else start
            while not start.startswith(part.common):
                part.common = part.common[:-1]
            self._open[part.boundary] = part
        return part.body_start - 2

    def _close_multiparts(self, level: int) -> None:
        """Close the multiparts from this level on: an outer delimiter ends the inner ones, too."""
        while self._open and self._innermost().level >= level:
            self._open.popitem()

    def _innermost(self) -> Part:
        return next(reversed(self._open.values()))

    def _stop_reading(self, limit: Limit) -> None:
        self._tree.exceeded.add(limit)
        self._open.clear()
