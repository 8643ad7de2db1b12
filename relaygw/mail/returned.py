"""Parts of a notice, and the one that gives back the mail that it is about."""

from __future__ import annotations

from base64 import encodebytes
from binascii import b2a_qp
from itertools import takewhile

from relaygw.mail.content import header_end, header_fields, normalise_line_ends

MAX_WHOLE_BYTES = 50_000  # of mail that is given back whole, as Postfix's bounce_size_limit
MAX_HEADER_BYTES = 32_768  # of its header, where only that is given back
EIGHT_BIT = "8bit"


def part(kind: str, description: str, body: bytes, encoding: str = "7bit") -> bytes:
    """Return a part with its header."""
    lines = f"Content-Type: {kind}\r\nContent-Description: {description}\r\n"
    return f"{lines}Content-Transfer-Encoding: {encoding}\r\n\r\n".encode("ascii") + body


def quoted(data: bytes) -> bytes:
    """Return data as quoted-printable with CRLF."""
    return normalise_line_ends(b2a_qp(data))


def returned_part(head: bytes, *, size_bytes: int, smtputf8: bool, may_be_whole: bool) -> bytes:
    """Return the part that is given back: the header, or all where it may be and is small."""
    is_whole = len(head) == size_bytes <= MAX_WHOLE_BYTES
    if may_be_whole and is_whole and b"\0" not in head:
        if head[: header_end(head)].isascii():
            encoding = "7bit" if head.isascii() else EIGHT_BIT
            return part("message/rfc822", "Undelivered message", head, encoding)
        if smtputf8:  # unlike the other type it may be encoded (RFC 6532, section 3.7)
            body = normalise_line_ends(encodebytes(head))
            return part("message/global", "Undelivered message", body, "base64")
    header = _short_header(head)  # one with raw bytes, which nothing permits, is encoded
    kind = "text/rfc822-headers"
    if smtputf8 and not header.isascii():
        kind = "message/global-headers"
    description = "Header of the message"
    is_plain = header.isascii() and b"\0" not in header
    if is_plain and all(len(line) <= 998 for line in header.split(b"\r\n")):
        return part(kind, description, header)
    return part(kind, description, quoted(header), "quoted-printable")


def _short_header(head: bytes) -> bytes:
    """Return the header, or the fields at its start that are short enough together."""
    end = header_end(head)
    if end <= MAX_HEADER_BYTES:
        return head[:end]
    ends = (field.end for field in header_fields(head, 0, end))
    return head[: max(takewhile(MAX_HEADER_BYTES.__ge__, ends), default=0)]
