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
from collections.abc import Iterator

from relaygw.errors import ContentInvalid
from relaygw.mail.content import HeaderField, normalise_line_ends
from relaygw.upstream.mime_parts import ENCODING_FIELD, MimeTree, Part
from relaygw.upstream.seven_bit_fields import convert_field

_MAX_FIELD_BYTES = 4 * 2**20  # of all fields that hold 8-bit bytes
_SLICE_BYTES = 57 * 2**14  # what is encoded at once: whole lines of base64, and others may run

_EIGHT_BIT = re.compile(rb"[\x80-\xff]")
_QUESTION_MARKS = bytes(range(128)) + b"?" * 128
_PLAIN = bytes(byte for byte in range(32, 127) if byte != 61) + b"\t\r\n"  # in quoted-printable
_GLOBAL = re.compile(rb"global(-headers|-delivery-status|-disposition-notification)?")


def to_seven_bit(content: bytes) -> bytes:
    """Return `content` as ASCII with CRLF line ends; raises ContentInvalid."""
    content = normalise_line_ends(content)
    if content.isascii():
        return content
    converted = b"".join(_Rewriter(content).run())
    if not converted.isascii():  # the last line of defence: the provider would reject or cut it
        raise ContentInvalid("it has 8-bit bytes that could not be rewritten")
    return converted


class _Rewriter:
    def __init__(self, content: bytes) -> None:
        self._content = content
        self._tree = MimeTree(content)
        self._known_from = self._known_to = 0  # no 8-bit byte lies between these two
        self._field_bytes = 0

    def run(self) -> Iterator[bytes]:
        return self._part(self._tree.root)

    def _is_eight_bit(self, start: int, end: int) -> bool:
        """True if there is an 8-bit byte; each byte is looked at once if it is asked in order."""
        if not self._known_from <= start <= self._known_to:
            self._known_from = self._known_to = start
        if self._known_to < end:
            found = _EIGHT_BIT.search(self._content, self._known_to, end)
            self._known_to = end if found is None else found.start()
        return self._known_to < end

    def _part(self, part: Part) -> Iterator[bytes]:
        if not self._is_eight_bit(part.start, part.end):
            yield self._content[part.start : part.end]
        elif not self._is_eight_bit(part.body_start, part.end):
            yield from self._head(part, encoding=None)
            yield self._content[part.head_end : part.end]
        elif part.oddity:
            raise ContentInvalid(part.oddity)
        elif part.children:
            yield from self._composite(part)
        else:
            yield from self._leaf(part)

    # --- bodies

    def _composite(self, part: Part) -> Iterator[bytes]:
        if part.encoding:
            raise ContentInvalid("a multipart claims to be encoded and holds 8-bit bytes")
        first = part.children[0]
        if part.kind == (b"multipart", b"signed") and self._is_eight_bit(first.start, first.end):
            raise ContentInvalid("it is signed, and rewriting it would break the signature")
        yield from self._head(part, encoding=b"7bit")
        yield self._content[part.head_end : part.body_start]
        position = part.body_start
        for child in part.children:
            # delimiter lines, and text around the parts that readers ignore
            yield self._content[position : child.start].translate(_QUESTION_MARKS)
            yield from self._part(child)
            position = child.end
        yield self._content[position : part.end].translate(_QUESTION_MARKS)

    def _leaf(self, part: Part) -> Iterator[bytes]:
        if part.is_multipart:
            raise ContentInvalid("a multipart has no part that its boundary delimits")
        if part.kind[0] == b"message" and not _GLOBAL.fullmatch(part.kind[1]):
            shown = part.kind[1].decode("ascii")[:40]
            raise ContentInvalid(f"a part of type message/{shown} may not be encoded")
        body = self._content[part.body_start : part.end]
        if part.encoding == b"quoted-printable":
            body = binascii.a2b_qp(body)
        elif part.encoding:
            shown = part.encoding.decode("ascii", "replace")[:20]
            raise ContentInvalid(f"a part claims {shown} and holds 8-bit bytes")
        is_text = part.kind[0] == b"text" or bool(part.encoding)
        encoding, encoded = _encode(body, is_text=is_text)
        yield from self._head(part, encoding=encoding, body=body)
        if part.body_start == part.head_end:
            yield b"\r\n"  # text came first, without a header in front of it
        else:
            yield self._content[part.head_end : part.body_start]
        yield encoded

    # --- headers

    def _head(self, part: Part, *, encoding: bytes | None, body: bytes = b"") -> Iterator[bytes]:
        """Yield the header: 8-bit fields in ASCII, and how the body is encoded; None: as before."""
        position = part.start
        for found in part.fields:
            if encoding is not None and found.name.lower() == ENCODING_FIELD:
                yield self._ascii(position, found.value_start)
                yield b" %b\r\n" % encoding
            elif not self._content[found.start : found.end].isascii():
                yield self._ascii(position, found.start)
                yield self._converted(found, part.charset or self._tree.charset)
            else:
                continue
            position = found.end
        yield self._ascii(position, part.head_end)
        if encoding is not None:
            yield _missing_fields(part, encoding, body)

    def _ascii(self, start: int, end: int) -> bytes:
        kept = self._content[start:end]
        if not kept.isascii():
            raise ContentInvalid("a line of its header that is no field holds 8-bit bytes")
        return kept

    def _converted(self, found: HeaderField, charset: str) -> bytes:
        self._field_bytes += found.end - found.start
        if self._field_bytes > _MAX_FIELD_BYTES:
            raise ContentInvalid(f"its fields have more than {_MAX_FIELD_BYTES} bytes to rewrite")
        return convert_field(self._content, found, charset)


def _missing_fields(part: Part, encoding: bytes, body: bytes) -> bytes:
    names = {found.name.lower() for found in part.fields}
    lines = b""
    if part.is_message and b"mime-version" not in names:
        lines += b"MIME-Version: 1.0\r\n"
    if encoding == b"7bit":
        return lines
    if b"content-type" not in names:
        try:
            body.decode("utf-8")
            charset = b"utf-8"
        except UnicodeDecodeError:
            charset = b"unknown-8bit"
        lines += b"Content-Type: text/plain; charset=%b\r\n" % charset
    if ENCODING_FIELD not in names:
        lines += b"Content-Transfer-Encoding: %b\r\n" % encoding
    return lines


def _encode(body: bytes, *, is_text: bool) -> tuple[bytes, bytes]:
    """Return the shorter encoding of a body, and the body in it; text may be quoted-printable."""
    # two more bytes for each that is not plain, and about every 73 a line end
    quoted_bytes = (len(body) + 2 * len(body.translate(None, _PLAIN))) * 76 // 73
    if is_text and quoted_bytes <= len(body) * 4 // 3 * 78 // 76 + 8:
        quoted = _quoted_printable(body)
        if b"=\r\n--" not in quoted:  # such a line could be taken for a delimiter
            return b"quoted-printable", quoted
    encoded = b"".join(
        base64.encodebytes(body[start : start + _SLICE_BYTES]).replace(b"\n", b"\r\n")
        for start in range(0, len(body), _SLICE_BYTES)
    )
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
        # soft line ends are written as the first line end is, a bare LF if there is none
        pieces.append(normalise_line_ends(binascii.b2a_qp(body[start:end], istext=True)))
        if not body.endswith(b"\r\n", start, end) and end < len(body):
            pieces.append(b"=\r\n")
        start = end
    return b"".join(pieces)
