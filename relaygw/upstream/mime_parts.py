"""The parts of a content, cut the way that readers cut it: a header, a body, and parts in it.

RFC 2045 and RFC 2046, section 5.1.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import islice

from relaygw.errors import ContentInvalid
from relaygw.mail.content import header_end, header_fields

ENCODING_FIELD = b"content-transfer-encoding"
TYPE_FIELD = b"content-type"
VERSION_FIELD = b"mime-version"
BLANKS = b" \t\r\n"
MAX_PARAMETERS = 1000
Kind = tuple[bytes, bytes]
TEXT: Kind = (b"text", b"plain")
MESSAGE: Kind = (b"message", b"rfc822")
_MAX_BOUNDARY_BYTES = 200  # RFC 2046 has 70; a pattern is made of it
_MIME_FIELDS = frozenset(name.decode() for name in (ENCODING_FIELD, TYPE_FIELD, VERSION_FIELD))
_MEDIA_TYPE = re.compile(
    rb"([!#$%&'*+.0-9A-Za-z^_`{|}~-]+)/([!#$%&'*+.0-9A-Za-z^_`{|}~-]+)[ \t]*(?:[;(]|$)"
)
_WITH_PARTS = re.compile(rb"(?:multipart|message)/", re.IGNORECASE)
_COMMENT = re.compile(rb"\([^()]*\)")
_ENCODED = frozenset((b"base64", b"quoted-printable", b"uuencode", b"uue", b"yenc"))
PARAMETER = re.compile(rb';?(?:[^;"]++|"(?:[^"\\]|\\.)*+"?)*+', re.DOTALL)
"""What a value is cut into, with the semicolon in front; the first is the type itself."""


def read_parameter(parameter: bytes) -> tuple[bytes, bytes]:
    """Return name and value as lenient readers take them: without quotes, folding and blanks."""
    name, _, given = parameter.removeprefix(b";").partition(b"=")
    text = given.replace(b"\r\n", b"").strip(b" \t")
    if text.startswith(b'"'):
        text = text[1:].removesuffix(b'"').replace(rb"\\", b"\\").replace(rb"\"", b'"')
    return name.strip(BLANKS), text


@dataclass(frozen=True, kw_only=True)
class Part:
    """A message or a part of one: where its header and its body lie in the content."""

    start: int
    head_end: int
    body_start: int  # behind the empty line
    end: int
    is_message: bool  # has a MIME-Version of its own
    values: dict[bytes, list[bytes]]  # of MIME fields, unfolded, by name in lower case

    @cached_property
    def charset(self) -> str:
        """The charset that the Content-Type names, "" without one."""
        return self.parameter(b"charset").decode("ascii", "replace")

    def parameter(self, name: bytes) -> bytes:
        """The first value that the Content-Type has for a parameter, b"" without one."""
        for value in self.values.get(TYPE_FIELD, [])[:1]:
            for match in islice(PARAMETER.finditer(value), 1, MAX_PARAMETERS):
                given, text = read_parameter(match[0])
                if given.lower() == name:
                    return text
        return b""

    def kind(self) -> Kind | None:
        """The media type in lower case, None without one; ContentInvalid if it is in doubt."""
        types = self.values.get(TYPE_FIELD, [])
        match = _MEDIA_TYPE.match(types[0]) if types else None
        if any(map(_WITH_PARTS.search, types)) and (match is None or len(set(types)) > 1):
            raise ContentInvalid("it has several types, or a Content-Type that cannot be read")
        if match is None:
            return TEXT if types else None
        return match[1].lower(), match[2].lower()

    def encoding(self) -> bytes:
        """How the body is encoded, b"several" in doubt; an unknown name ("8-bit") is none."""
        values = self.values.get(ENCODING_FIELD, [])
        names = {_COMMENT.sub(b"", value).strip(b' \t"').lower() for value in values}
        coded = [name for name in names if name in _ENCODED or name.startswith(b"x-")]
        if len(names) > 1 and coded:
            return b"several"
        return b"".join(coded)


def read_part(content: bytes, start: int, end: int, *, is_message: bool) -> Part:
    """Read the header of a part of normalised content; text that comes first is body already."""
    head_end = header_end(content, start, end)
    first = next(header_fields(content, start, head_end), None)
    if first is None or first.start != start:
        head_end = start
    values: dict[bytes, list[bytes]] = {}
    for field in header_fields(content, start, head_end, names=_MIME_FIELDS):
        value = content[field.value_start : field.value_end].replace(b"\r\n", b"").strip(b" \t")
        values.setdefault(field.name.lower(), []).append(value)
    return Part(
        start=start,
        head_end=head_end,
        body_start=head_end + 2 * content.startswith(b"\r\n", head_end, end),
        end=end,
        is_message=is_message,
        values=values,
    )


def spans_of_parts(content: bytes, part: Part) -> Iterator[tuple[int, int]]:
    """Yield where the parts of a multipart begin and end, without the delimiters."""
    boundary = part.parameter(b"boundary").rstrip(b" \t")
    if not 0 < len(boundary) <= _MAX_BOUNDARY_BYTES:
        raise ContentInvalid(
            f"a multipart has no boundary, or one of more than {_MAX_BOUNDARY_BYTES} bytes"
        )
    start = None
    # the line end of the empty line may be that of the first delimiter
    for match in _delimiter(boundary).finditer(content, part.body_start - 2, part.end):
        if start is not None:
            yield start, max(start, match.start())
        if match[1]:
            return
        start = min(match.end() + 2, part.end)
    if start is not None:
        yield start, part.end


def _delimiter(boundary: bytes) -> re.Pattern[bytes]:
    return re.compile(rb"\r\n--%b(--)?[ \t]*+(?=\r\n|\Z)" % re.escape(boundary))
