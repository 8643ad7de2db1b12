"""8-bit content rewritten as 7 bit MIME, for providers without 8BITMIME (or SMTPUTF8).

Works on the bytes: only fields and parts that hold 8-bit bytes are touched, all others stay byte
by byte. Fields: see seven_bit_fields. A body becomes quoted-printable or base64, whichever is
shorter for text, base64 for the rest, whatever charset it claims, so that its bytes stay the same
once decoded. A message in a message (message/rfc822), which may not be encoded, is rewritten by the
same rules. Text before the first and behind the last part of a multipart is no part and ignored by
readers: its 8-bit bytes become question marks.

A DKIM signature over what was rewritten does not hold any more, and counts as none (RFC 6376
section 6.1); a part under multipart/signed is the sender's word, and is never rewritten (RFC 1847
section 2.1). ContentInvalid says what cannot be rewritten and why.

Pure and slow: call it in a thread. Time grows with the size alone; what is built to be expensive is
refused. RFC 2045, RFC 2046, RFC 2047, RFC 2231, RFC 6152 section 3.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from relaygw.errors import ContentInvalid
from relaygw.mail.content import HeaderField, header_end, header_fields, normalise_line_ends
from relaygw.upstream.seven_bit_fields import convert_field, read_parameters

MAX_LEVELS = 100
MAX_PARTS = 10_000
MAX_DELIMITER_LOOKS = 1_000_000
"""Lines that begin with two hyphens."""
MAX_FIELDS = 100_000
MAX_FIELD_BYTES = 4 * 2**20
"""Of all fields that hold 8-bit bytes."""
_SLICE_BYTES = 57 * 2**14  # what is encoded at once: whole lines of base64, and others may run

_EIGHT_BIT = re.compile(rb"[\x80-\xff]")
_MEDIA_TYPE = re.compile(
    rb"([!#$%&'*+.0-9A-Za-z^_`{|}~-]+)/([!#$%&'*+.0-9A-Za-z^_`{|}~-]+)[ \t]*(?:[;(]|$)"
)
_COMMENT = re.compile(rb"\([^()]*\)")
_QUESTION_MARKS = bytes(range(128)) + b"?" * 128
_PLAIN = bytes(byte for byte in range(32, 127) if byte != 61) + b"\t\r\n"  # in quoted-printable
_IDENTITY = frozenset((b"", b"7bit", b"8bit", b"binary"))
_ENCODED = frozenset((b"base64", b"quoted-printable", b"uuencode", b"uue", b"yenc"))
_GLOBAL = re.compile(rb"global(-headers|-delivery-status|-disposition-notification)?")


def to_seven_bit(content: bytes) -> bytes:
    """Return `content` as ASCII with CRLF line ends; raises ContentInvalid."""
    content = normalise_line_ends(content)
    if content.isascii():
        return content
    converted = b"".join(_Rewriter(content, _Splitter(content).root).run())
    if not converted.isascii():  # the last line of defence: the provider would reject or cut it
        raise ContentInvalid("it has 8-bit bytes that could not be rewritten")
    return converted


@dataclass(slots=True)
class _Part:
    """A message or a part of one: where its header and its body lie in the content."""

    start: int
    head_end: int
    body_start: int  # behind the empty line
    fields: list[HeaderField]
    kind: tuple[bytes, bytes]
    is_message: bool  # has a MIME-Version of its own
    boundary: bytes = b""
    charset: str = ""
    oddity: str = ""  # why the body cannot be understood
    end: int = 0
    children: list[_Part] = field(default_factory=list)

    @property
    def is_multipart(self) -> bool:
        return self.kind[0] == b"multipart"


class _Splitter:
    """Cuts a content into parts, in one pass over its delimiter lines (RFC 2046 section 5.1)."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        self._open: list[_Part] = []  # the parts around the current line, outermost first
        self._levels: dict[bytes, int] = {}  # of boundary: where in `_open` its multipart is
        self._counts = {"parts": 0, "fields": 0, "lines that begin with two hyphens": 0}
        self.root = self._begin(0, default=(b"text", b"plain"), is_message=True)
        self._run()

    def _count(self, what: str, most: int, number: int = 1) -> None:
        self._counts[what] += number
        if self._counts[what] > most:
            raise ContentInvalid(f"it has more than {most} {what}")

    def _run(self) -> None:
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
            is_digest = multipart.kind[1] == b"digest"
            default = (b"message", b"rfc822") if is_digest else (b"text", b"plain")
            multipart.children.append(self._begin(position, default=default, is_message=False))
            position = self._open[-1].body_start - 2
        self._close(0, len(self._content))

    def _delimiter(self, start: int) -> tuple[int | None, bool, int]:
        """Return of which open multipart a line delimits parts, if it is its last, and its end."""
        self._count("lines that begin with two hyphens", MAX_DELIMITER_LOOKS)
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
        for part in self._open[level:]:
            part.end = max(part.body_start, end)
            if self._levels.get(part.boundary) is not None:
                place = self._levels[part.boundary]
                if self._open[place] is part:
                    del self._levels[part.boundary]
        del self._open[level:]

    def _begin(self, start: int, *, default: tuple[bytes, bytes], is_message: bool) -> _Part:
        """Open a part, and the message in it if it is one."""
        self._count("parts", MAX_PARTS)
        if len(self._open) >= MAX_LEVELS:
            raise ContentInvalid(f"its parts are nested more than {MAX_LEVELS} levels deep")
        head_end, body_start = self._read_head(start)
        fields = list(header_fields(self._content, start, head_end))
        self._count("fields", MAX_FIELDS, len(fields))
        part = _Part(start, head_end, body_start, fields, default, is_message)
        self._read_type(part)
        level = len(self._open)
        self._open.append(part)
        if part.is_multipart and part.boundary and part.boundary not in self._levels:
            self._levels[part.boundary] = level
        elif (
            part.kind == (b"message", b"rfc822") and _encoding_of(self._content, part) in _IDENTITY
        ):
            inner = self._begin(body_start, default=(b"text", b"plain"), is_message=True)
            part.children.append(inner)
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
            if self._content.startswith(b"\r\n", end):
                break
            if candidate < 0 or self._delimiter(candidate + 2)[0] is not None:
                break
            at = position = candidate + 2
        has_blank = self._content.startswith(b"\r\n", end)
        first = next(header_fields(self._content, start, end), None)
        if end > start and (first is None or first.start != start):
            return start, start
        return end, end + 2 * has_blank

    def _read_type(self, part: _Part) -> None:
        """Note what the Content-Type says; where there are several, all have to agree."""
        values = [
            _value(self._content, found)
            for found in part.fields
            if found.name.lower() == b"content-type"
        ]
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
            part.kind = (b"text", b"plain")
        others = [other.lower() for other in values[1:] if other != value]
        if others and any(b"multipart/" in one or b"message/" in one for one in (lowered, *others)):
            part.oddity = "it has several types"
        self._read_parameters(part, value)

    def _read_parameters(self, part: _Part, value: bytes) -> None:
        try:
            found = {one.name: one.value for one in reversed(list(read_parameters(value)))}
        except ContentInvalid:
            return  # said when the field is written
        part.charset = found.get(b"charset", b"").decode("ascii", "replace")
        if part.is_multipart and not part.oddity:
            part.boundary = found.get(b"boundary", b"").rstrip(b" \t")
            if not part.boundary.isascii():
                raise ContentInvalid("the boundary of its parts is not ASCII")


def _value(content: bytes, found: HeaderField) -> bytes:
    return content[found.value_start : found.value_end].replace(b"\r\n", b"").strip(b" \t")


def _encodings(content: bytes, part: _Part) -> list[HeaderField]:
    return [one for one in part.fields if one.name.lower() == b"content-transfer-encoding"]


def _encoding_of(content: bytes, part: _Part) -> bytes:
    """Return how a body is encoded; b"" when it is not, whatever the field says.

    Readers take a name that nobody knows ("utf-8", "8-bit") for no encoding.
    """
    names = {
        _COMMENT.sub(b"", _value(content, one)).strip(b' \t"').lower()
        for one in _encodings(content, part)
    }
    coded = {name for name in names if name in _ENCODED or name.startswith(b"x-")}
    if not coded:
        return b""
    return coded.pop() if len(names) == 1 else b"several"


class _Rewriter:
    """Yields the pieces of the rewritten content."""

    def __init__(self, content: bytes, root: _Part) -> None:
        self._content = content
        self._root = root
        self._known_from = self._known_to = 0  # no 8-bit byte lies between these two
        self._field_bytes = 0
        self._charset = next((part.charset for part in _all(root) if part.charset), "")

    def run(self) -> Iterator[bytes]:
        return self._part(self._root)

    def _is_eight_bit(self, start: int, end: int) -> bool:
        """True if there is an 8-bit byte; each byte is looked at once if it is asked in order."""
        if not self._known_from <= start <= self._known_to:
            self._known_from = self._known_to = start
        if self._known_to < end:
            found = _EIGHT_BIT.search(self._content, self._known_to, end)
            self._known_to = end if found is None else found.start()
        return self._known_to < end

    def _part(self, part: _Part) -> Iterator[bytes]:
        if not self._is_eight_bit(part.start, part.end):
            yield self._content[part.start : part.end]
            return
        is_head_eight_bit = self._is_eight_bit(part.start, part.head_end)
        if not self._is_eight_bit(part.body_start, part.end):
            yield from self._head(part, is_head_eight_bit, encoding=None)
            yield self._content[part.head_end : part.end]
        elif part.children:
            yield from self._composite(part, is_head_eight_bit)
        else:
            yield from self._leaf(part, is_head_eight_bit)

    # --- bodies

    def _composite(self, part: _Part, is_head_eight_bit: bool) -> Iterator[bytes]:
        if part.oddity:
            raise ContentInvalid(part.oddity)
        if _encoding_of(self._content, part):
            raise ContentInvalid("a multipart claims to be encoded and holds 8-bit bytes")
        first = part.children[0]
        if part.kind == (b"multipart", b"signed") and self._is_eight_bit(first.start, first.end):
            raise ContentInvalid("it is signed, and rewriting it would break the signature")
        yield from self._head(part, is_head_eight_bit, encoding=b"7bit")
        yield self._content[part.head_end : part.body_start]
        position = part.body_start
        for child in part.children:
            # delimiter lines, and text around the parts that readers ignore
            yield self._content[position : child.start].translate(_QUESTION_MARKS)
            yield from self._part(child)
            position = child.end
        yield self._content[position : part.end].translate(_QUESTION_MARKS)

    def _leaf(self, part: _Part, is_head_eight_bit: bool) -> Iterator[bytes]:
        if part.oddity:
            raise ContentInvalid(part.oddity)
        if part.is_multipart:
            raise ContentInvalid("a multipart has no part that its boundary delimits")
        if part.kind[0] == b"message" and not _GLOBAL.fullmatch(part.kind[1]):
            shown = part.kind[1].decode("ascii")[:40]
            raise ContentInvalid(f"a part of type message/{shown} may not be encoded")
        claimed = _encoding_of(self._content, part)
        body = self._content[part.body_start : part.end]
        if claimed == b"quoted-printable":
            body = binascii.a2b_qp(body)
        elif claimed:
            shown = claimed.decode("ascii", "replace")[:20]
            raise ContentInvalid(f"a part claims {shown} and holds 8-bit bytes")
        encoding, encoded = _encode(body, is_text=part.kind[0] == b"text" or bool(claimed))
        yield from self._head(part, is_head_eight_bit, encoding=encoding, body=body)
        if part.body_start == part.head_end:
            yield b"\r\n"  # text came first, without a header in front of it
        else:
            yield self._content[part.head_end : part.body_start]
        yield encoded

    # --- headers

    def _head(
        self, part: _Part, is_eight_bit: bool, *, encoding: bytes | None, body: bytes = b""
    ) -> Iterator[bytes]:
        """Yield the header: its 8-bit fields in ASCII, and how the body is encoded now.

        `encoding` None: the body stays as it is.
        """
        changed = _encodings(self._content, part)
        position = part.start
        for found in part.fields:
            if encoding is not None and found in changed:
                yield self._ascii(position, found.value_start)
                yield b" %b\r\n" % encoding
            elif is_eight_bit and not self._content[found.start : found.end].isascii():
                yield self._ascii(position, found.start)
                yield self._converted(found, part.charset or self._charset)
            else:
                continue
            position = found.end
        yield self._ascii(position, part.head_end)
        if encoding is not None:
            yield self._missing(part, encoding, body, has_encoding=bool(changed))

    def _ascii(self, start: int, end: int) -> bytes:
        kept = self._content[start:end]
        if not kept.isascii():
            raise ContentInvalid("a line of its header that is no field holds 8-bit bytes")
        return kept

    def _converted(self, found: HeaderField, charset: str) -> bytes:
        self._field_bytes += found.end - found.start
        if self._field_bytes > MAX_FIELD_BYTES:
            raise ContentInvalid(f"its fields have more than {MAX_FIELD_BYTES} bytes to rewrite")
        return convert_field(
            self._content[found.start : found.end],
            name=found.name,
            value_at=found.value_start - found.start,
            declared=charset,
        )

    def _missing(self, part: _Part, encoding: bytes, body: bytes, *, has_encoding: bool) -> bytes:
        """Return the fields that a rewritten body needs and the header lacks."""
        names = {found.name.lower() for found in part.fields}
        lines = b""
        if part.is_message and b"mime-version" not in names:
            lines += b"MIME-Version: 1.0\r\n"
        if encoding == b"7bit":
            return lines
        if b"content-type" not in names:
            lines += b"Content-Type: text/plain; charset=%b\r\n" % _charset_of(body)
        if not has_encoding:
            lines += b"Content-Transfer-Encoding: %b\r\n" % encoding
        return lines


def _all(part: _Part) -> Iterator[_Part]:
    yield part
    for child in part.children:
        yield from _all(child)


def _charset_of(body: bytes) -> bytes:
    try:
        body.decode("utf-8")
    except UnicodeDecodeError:
        return b"unknown-8bit"
    return b"utf-8"


def _encode(body: bytes, *, is_text: bool) -> tuple[bytes, bytes]:
    """Return the shorter encoding of a body, and the body in it; text may be quoted-printable."""
    # two more bytes for each that is not plain, and about every 73 a line end
    quoted_bytes = (len(body) + 2 * len(body.translate(None, _PLAIN))) * 76 // 73
    if is_text and quoted_bytes <= len(body) * 4 // 3 * 78 // 76 + 8:
        quoted = _quoted_printable(body)
        if b"=\r\n--" not in quoted:  # such a line could be taken for a delimiter
            return b"quoted-printable", quoted
    lines = (
        base64.encodebytes(body[start : start + _SLICE_BYTES]).replace(b"\n", b"\r\n")
        for start in range(0, len(body), _SLICE_BYTES)
    )
    encoded = b"".join(lines)
    # the line end of the last line is that of the delimiter behind it, but for a whole message
    return b"base64", encoded if body.endswith(b"\r\n") else encoded.removesuffix(b"\r\n")


def _quoted_printable(body: bytes) -> bytes:
    pieces = []
    start = 0
    while start < len(body):
        end = min(start + _SLICE_BYTES, len(body))
        if end < len(body):
            line_end = body.rfind(b"\r\n", start, end) + 2
            end = line_end if line_end > start + 1 else end - (body[end - 1 : end] == b"\r")
        pieces.append(_quoted_lines(body[start:end]))
        if not body.endswith(b"\r\n", start, end) and end < len(body):
            pieces.append(b"=\r\n")
        start = end
    return b"".join(pieces)


def _quoted_lines(lines: bytes) -> bytes:
    # soft line ends are written as the first line end is, a bare LF if there is none
    quoted = binascii.b2a_qp(lines, istext=True)
    return normalise_line_ends(quoted)
