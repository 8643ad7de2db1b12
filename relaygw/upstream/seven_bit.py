"""8-bit content rewritten as 7 bit MIME, for providers without 8BITMIME (or SMTPUTF8).

Only fields and parts that hold 8-bit bytes are touched; the bytes of a body stay the same once
decoded. A message in a message may not be encoded and is rewritten by the same rules. Text around
the parts of a multipart is ignored by readers: its 8-bit bytes become question marks. A DKIM
signature over what was rewritten counts as none (RFC 6376 section 6.1); a part under
multipart/signed is never rewritten (RFC 1847 section 2.1). Slow: call it in a thread; what is built
to be expensive is refused. RFC 2045, RFC 2046, RFC 2047, RFC 2231, RFC 6152 section 3.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections import Counter
from contextlib import suppress
from functools import cached_property

from relaygw.errors import ContentInvalid
from relaygw.mail.content import header_fields, normalise_line_ends
from relaygw.mail.mime_tree import (
    ENCODING_FIELD,
    MAX_BOUNDARY_BYTES,
    MAX_LEVELS,
    MESSAGE,
    TYPE_FIELD,
    VERSION_FIELD,
    Limit,
    Part,
    read_tree,
)
from relaygw.upstream.seven_bit_fields import convert_field

_MAX_PARTS = 10_000
_MAX_OF = {"fields": 100_000, "bytes to rewrite in its fields": 4 * 2**20}
_EXCEEDED = {
    Limit.PARTS: f"it has more than {_MAX_PARTS} parts",
    Limit.LEVELS: f"its parts are nested more than {MAX_LEVELS} levels deep",
    Limit.LINES: "it has too many lines that begin as a delimiter would",
}
_SLICE_BYTES = 57 * 2**14  # what is encoded at once: whole lines of base64, and others may run

_QUESTION_MARKS = bytes(range(128)) + b"?" * 128
_PLAIN = bytes(byte for byte in range(32, 127) if byte != 61) + b"\t\r\n"  # in quoted-printable
_WITH_PARTS = re.compile(rb"(?:multipart|message)/", re.IGNORECASE)
_GLOBAL = re.compile(r"message/global(-headers|-delivery-status|-disposition-notification)?")
_CHARSET = re.compile(rb';[ \t\r\n]*+charset[ \t]*+=[ \t]*+"?([\w.:-]{1,40})', re.IGNORECASE)


def to_seven_bit(content: bytes) -> bytes:
    """Return `content` as ASCII with CRLF line ends; raises ContentInvalid."""
    content = normalise_line_ends(content)
    if content.isascii():
        return content
    converted = _Rewriter(content).run()
    if not converted.isascii():
        raise ContentInvalid("a line of its header that is no field holds 8-bit bytes")
    return converted


class _Rewriter:
    def __init__(self, content: bytes) -> None:
        self._content = content
        self._tree = read_tree(content, max_parts=_MAX_PARTS, with_messages=True)
        self._counts = Counter[str]()
        self._written: list[bytes] = []

    def run(self) -> bytes:
        self._part(self._tree.root)
        return b"".join(self._written)

    @cached_property
    def _charset(self) -> str:
        """The first charset that the content names, "" if it names none."""
        match = _CHARSET.search(self._content)
        return "" if match is None else match[1].decode("ascii")

    def _count(self, what: str, number: int = 1) -> None:
        self._counts[what] += number
        if self._counts[what] > _MAX_OF[what]:
            raise ContentInvalid(f"it has more than {_MAX_OF[what]} {what}")

    def _copy(self, start: int, end: int) -> None:
        self._written.append(self._content[start:end])

    def _part(self, part: Part) -> None:
        if self._content[part.start : part.end].isascii():
            self._copy(part.start, part.end)
        elif self._is_done_by_header(part):
            return
        elif self._tree.exceeded:
            raise ContentInvalid(_EXCEEDED[next(iter(self._tree.exceeded))])
        elif _type(part).startswith("multipart/"):
            self._multipart(part)
        elif part.content_type == MESSAGE and not part.claimed_encoding:
            self._head(part, encoding=b"7bit")
            self._copy(part.head_end, part.body_start)
            self._part(part.parts[0])
        else:
            self._leaf(part)

    def _is_done_by_header(self, part: Part) -> bool:
        """Write a part with its body as it is, if only the header has 8-bit bytes."""
        body = self._content[part.body_start : part.end]
        if not body.isascii():
            return False
        self._head(part, encoding=None)
        self._written += (self._content[part.head_end : part.body_start], body)
        return True

    # --- bodies

    def _multipart(self, part: Part) -> None:
        if part.claimed_encoding:
            raise ContentInvalid("a multipart claims to be encoded and holds 8-bit bytes")
        if part.content_type == "multipart/signed":
            raise ContentInvalid("it is signed, and rewriting it would break the signature")
        if not part.boundary:
            raise ContentInvalid(
                f"a multipart has no boundary, or one of more than {MAX_BOUNDARY_BYTES} bytes"
            )
        if not part.parts:
            raise ContentInvalid("a multipart has no part that its boundary delimits")
        self._head(part, encoding=b"7bit")
        position = part.head_end
        for inner in part.parts:
            # delimiter lines, and text around the parts that readers ignore
            self._written.append(self._content[position : inner.start].translate(_QUESTION_MARKS))
            self._part(inner)
            position = inner.end
        self._written.append(self._content[position : part.end].translate(_QUESTION_MARKS))

    def _leaf(self, part: Part) -> None:
        if part.content_type.startswith("message/") and not _GLOBAL.fullmatch(part.content_type):
            raise ContentInvalid(f"a part of type {part.content_type[:48]} may not be encoded")
        body = self._content[part.body_start : part.end]
        claim = part.claimed_encoding
        if claim == "quoted-printable":
            body = binascii.a2b_qp(body)
        elif claim:
            raise ContentInvalid(f"a part claims {claim[:20]} and holds 8-bit bytes")
        is_text = part.content_type.startswith("text/") or bool(claim)
        encoding, encoded = _encode(body, is_text=is_text)
        self._head(part, encoding=encoding, body=body)
        # there is no empty line where text came first, without a header in front of it
        self._written += (b"\r\n", encoded)

    # --- headers

    def _head(self, part: Part, *, encoding: bytes | None, body: bytes = b"") -> None:
        """Write the header: 8-bit fields in ASCII, and how the body is encoded; None: as before."""
        position = part.start
        for field in header_fields(self._content, part.start, part.head_end):
            self._count("fields")
            if encoding is not None and field.name.lower() == ENCODING_FIELD:
                self._copy(position, field.value_start)
                self._written.append(b" %b\r\n" % encoding)
            elif not self._content[field.start : field.end].isascii():
                self._count("bytes to rewrite in its fields", field.end - field.start)
                converted = convert_field(self._content, field, part.charset or self._charset)
                self._copy(position, field.start)
                self._written.append(converted)
            else:
                continue
            position = field.end
        self._copy(position, part.head_end)
        if encoding is not None:
            self._written.append(_missing_fields(part, encoding, body))


def _type(part: Part) -> str:
    """Return the media type of a part; ContentInvalid if it is in doubt."""
    types = part.values.get(TYPE_FIELD, [])
    is_clear = part.content_type.startswith(("multipart/", "message/")) and len(set(types)) == 1
    if not is_clear and any(_WITH_PARTS.search(value.partition(b";")[0]) for value in types):
        raise ContentInvalid("it has several types, or a Content-Type that cannot be read")
    return part.content_type


def _missing_fields(part: Part, encoding: bytes, body: bytes) -> bytes:
    lines = b""
    if part.is_message and VERSION_FIELD not in part.values:
        lines += b"MIME-Version: 1.0\r\n"
    if encoding == b"7bit":
        return lines
    if TYPE_FIELD not in part.values:
        charset = b"unknown-8bit"
        with suppress(UnicodeDecodeError):
            body.decode("utf-8")
            charset = b"utf-8"
        lines += b"Content-Type: text/plain; charset=%b\r\n" % charset
    if ENCODING_FIELD not in part.values:
        lines += b"Content-Transfer-Encoding: %b\r\n" % encoding
    return lines


def _encode(body: bytes, *, is_text: bool) -> tuple[bytes, bytes]:
    """Return an encoding of a body, the shorter one for text, and the body in it."""
    # two more bytes for each that is not plain, and about every 73 a line end
    quoted_bytes = (len(body) + 2 * len(body.translate(None, _PLAIN))) * 76 // 73
    is_shorter = quoted_bytes <= len(body) * 4 // 3 * 78 // 76 + 8
    if is_text and is_shorter and len(body) <= _SLICE_BYTES and body == normalise_line_ends(body):
        # soft line ends are written as the first line end is, a bare LF if there is none
        quoted = normalise_line_ends(binascii.b2a_qp(body, istext=True))
        if b"=\r\n--" not in quoted:  # such a line could be taken for a delimiter
            return b"quoted-printable", quoted
    encoded = b"".join(
        base64.encodebytes(body[start : start + _SLICE_BYTES]).replace(b"\n", b"\r\n")
        for start in range(0, len(body), _SLICE_BYTES)
    )
    # the line end of the last line is that of the delimiter behind it, but for a whole message
    return b"base64", encoded if body.endswith(b"\r\n") else encoded.removesuffix(b"\r\n")
