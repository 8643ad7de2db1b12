"""A content as a tree of its MIME parts, cut the way that readers cut it, in one bounded pass.

What is built to be expensive is refused by ContentInvalid. RFC 2045 and RFC 2046, section 5.1.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import NamedTuple

from relaygw.errors import ContentInvalid
from relaygw.mail.content import HeaderField, header_end, header_fields

ENCODING_FIELD = b"content-transfer-encoding"
BLANKS = b" \t\r\n"
_OF_TYPE = (b"charset", b"boundary")
_MAX_LEVELS = 100
_MAX_OF = {"parts": 10_000, "fields": 100_000, "lines that begin with two hyphens": 1_000_000}
_MEDIA_TYPE = re.compile(
    rb"([!#$%&'*+.0-9A-Za-z^_`{|}~-]+)/([!#$%&'*+.0-9A-Za-z^_`{|}~-]+)[ \t]*(?:[;(]|$)"
)
_SEGMENT = re.compile(rb'(?:[^;"]++|"(?:[^"\\]|\\.)*+"?)*+', re.DOTALL)
_COMMENT = re.compile(rb"\([^()]*\)")
_ENCODED = frozenset((b"base64", b"quoted-printable", b"uuencode", b"uue", b"yenc"))
_TEXT = (b"text", b"plain")
_MESSAGE = (b"message", b"rfc822")


class Parameter(NamedTuple):
    """One parameter of a Content-Type or Content-Disposition, as offsets into the value."""

    name: bytes  # in lower case, with the marks of RFC 2231
    value: bytes  # without quotes and folding
    start: int  # of the name
    end: int  # of the value; blanks follow


def read_parameters(value: bytes) -> Iterator[Parameter]:
    """Yield the parameters of a Content-Type or Content-Disposition, as lenient as readers are."""
    position = 0
    is_first = True
    while position <= len(value):
        match = _SEGMENT.match(value, position)
        assert match is not None  # it may be empty
        position = match.end() + 1
        name, sign, given = match[0].partition(b"=")
        if is_first or not sign:
            is_first = False
            if not match[0].isascii():
                raise ContentInvalid("holds 8-bit bytes outside of its parameters")
            continue
        start = match.start() + len(name) - len(name.lstrip(BLANKS))
        end = match.end() - len(given) + len(given.rstrip(BLANKS))
        name = name.strip(BLANKS)
        if not name.isascii():
            raise ContentInvalid("has a parameter whose name is not ASCII")
        text = given.replace(b"\r\n", b"").strip(b" \t")
        if text.startswith(b'"'):
            text = text[1:].removesuffix(b'"').replace(rb"\\", b"\\").replace(rb"\"", b'"')
        yield Parameter(name.lower(), text, start, max(start, end))


@dataclass(slots=True)
class Part:
    """A message or a part of one: where its header and its body lie in the content."""

    start: int
    head_end: int
    body_start: int  # behind the empty line
    fields: list[HeaderField]
    kind: tuple[bytes, bytes]
    is_message: bool  # has a MIME-Version of its own
    encoding: bytes = b""  # of the body; b"" when it has none, whatever the field says
    boundary: bytes = b""
    charset: str = ""
    oddity: str = ""  # why the body cannot be understood
    end: int = 0
    children: list[Part] = field(default_factory=list)

    @property
    def is_multipart(self) -> bool:
        """True for multipart/*, whether it has parts or not."""
        return self.kind[0] == b"multipart"


class MimeTree:
    """The parts of a normalised content, from the whole message, its `root`, downwards."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        self._open: list[Part] = []  # the parts around the current line, outermost first
        self._levels: dict[bytes, int] = {}  # of boundary: where in `_open` its multipart is
        self._counts = dict.fromkeys(_MAX_OF, 0)
        self.charset = ""  # the first that a part names
        self.root = self._begin(0, default=_TEXT, is_message=True)
        self._cut()

    def _count(self, what: str, number: int = 1) -> None:
        self._counts[what] += number
        if self._counts[what] > _MAX_OF[what]:
            raise ContentInvalid(f"it has more than {_MAX_OF[what]} {what}")

    def _cut(self) -> None:
        position = self._open[-1].body_start - 2
        while self._levels:
            found = self._content.find(b"\r\n--", max(position, 0))
            if found < 0:
                break
            level, is_last, position = self._delimiter(found + 2)
            if level is None:
                continue
            self._close(level + 1, found)
            multipart = self._open[level]
            if is_last:
                del self._levels[multipart.boundary]
                continue
            default = _MESSAGE if multipart.kind[1] == b"digest" else _TEXT
            multipart.children.append(self._begin(position, default=default, is_message=False))
            position = self._open[-1].body_start - 2
        self._close(0, len(self._content))

    def _delimiter(self, start: int) -> tuple[int | None, bool, int]:
        """Return of which open multipart a line delimits parts, if it is its last, and its end."""
        self._count("lines that begin with two hyphens")
        line_end = self._content.find(b"\r\n", start)
        end = len(self._content) if line_end < 0 else line_end
        line = self._content[start + 2 : end].rstrip(b" \t")
        level = self._levels.get(line)
        if level is not None:
            return level, False, min(end + 2, len(self._content))
        last = self._levels.get(line[:-2]) if line.endswith(b"--") else None
        # the line end may be the one in front of the next delimiter
        return last, True, end

    def _close(self, level: int, end: int) -> None:
        """End all parts from `level` on: an outer delimiter ends the inner ones too."""
        for place, part in enumerate(self._open[level:], level):
            part.end = max(part.body_start, end)
            if self._levels.get(part.boundary) == place:
                del self._levels[part.boundary]
        del self._open[level:]

    def _begin(self, start: int, *, default: tuple[bytes, bytes], is_message: bool) -> Part:
        """Open a part, and the message in it if it is one."""
        self._count("parts")
        if len(self._open) >= _MAX_LEVELS:
            raise ContentInvalid(f"its parts are nested more than {_MAX_LEVELS} levels deep")
        head_end, body_start = self._read_head(start)
        left = _MAX_OF["fields"] + 1 - self._counts["fields"]
        fields = list(islice(header_fields(self._content, start, head_end), left))
        self._count("fields", len(fields))
        part = Part(start, head_end, body_start, fields, default, is_message)
        self._read_type(part)
        part.encoding = self._encoding(part)
        self.charset = self.charset or part.charset
        level = len(self._open)
        self._open.append(part)
        if part.is_multipart and part.boundary and part.boundary not in self._levels:
            self._levels[part.boundary] = level
        elif part.kind == _MESSAGE and not part.encoding:
            part.children.append(self._begin(body_start, default=_TEXT, is_message=True))
        return part

    def _read_head(self, start: int) -> tuple[int, int]:
        """Return where the header of a part ends, and where its body begins.

        A delimiter ends one that has no empty line; text that comes first is body already.
        """
        at, position = start, max(start - 2, 0)
        while True:
            candidate = self._content.find(b"\r\n--", position)
            limit = len(self._content) if candidate < 0 else candidate + 2
            end = header_end(self._content, at, max(limit, at))
            has_blank = self._content.startswith(b"\r\n", end)
            if has_blank or candidate < 0 or self._delimiter(candidate + 2)[0] is not None:
                break
            at = position = candidate + 2
        first = next(header_fields(self._content, start, end), None)
        if end > start and (first is None or first.start != start):
            return start, start
        return end, end + 2 * has_blank

    def _values(self, part: Part, name: bytes) -> list[bytes]:
        return [
            self._content[found.value_start : found.value_end].replace(b"\r\n", b"").strip(b" \t")
            for found in part.fields
            if found.name.lower() == name
        ]

    def _read_type(self, part: Part) -> None:
        """Note what the Content-Type says; where there are several, all have to agree."""
        values = self._values(part, b"content-type")
        if not values:
            return
        value = values[0]
        media_type = _MEDIA_TYPE.match(value)
        lowered = value.lower()
        if media_type is not None:
            part.kind = (media_type[1].lower(), media_type[2].lower())
        elif b"multipart/" in lowered or b"message/" in lowered:
            part.oddity = "its Content-Type cannot be read"
        else:
            part.kind = _TEXT
        others = [other.lower() for other in values[1:] if other != value]
        if others and any(b"multipart/" in one or b"message/" in one for one in (lowered, *others)):
            part.oddity = "it has several types"
        try:
            found: dict[bytes, bytes] = {}
            for read_parameter in read_parameters(value):
                if read_parameter.name in _OF_TYPE:
                    found.setdefault(read_parameter.name, read_parameter.value)
        except ContentInvalid:
            return  # said when the field is written
        part.charset = found.get(b"charset", b"").decode("ascii", "replace")
        if part.is_multipart and not part.oddity:
            part.boundary = found.get(b"boundary", b"").rstrip(b" \t")
            if not part.boundary.isascii():
                raise ContentInvalid("the boundary of its parts is not ASCII")

    def _encoding(self, part: Part) -> bytes:
        """Return how a body is encoded, b"several" in doubt; an unknown name ("8-bit") is none."""
        names = {
            _COMMENT.sub(b"", value).strip(b' \t"').lower()
            for value in self._values(part, ENCODING_FIELD)
        }
        coded = {name for name in names if name in _ENCODED or name.startswith(b"x-")}
        if not coded:
            return b""
        return coded.pop() if len(names) == 1 else b"several"
