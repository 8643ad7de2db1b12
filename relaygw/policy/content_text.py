"""The text of a mail, for the content check."""

from __future__ import annotations

import binascii
import re
from collections.abc import Iterator
from html import unescape
from itertools import islice

from relaygw.mail.content import header_fields

_MAX_FIELDS, _MAX_FIELD_BYTES = 20, 64 * 1024  # in which a part says what it is
MAX_CONTENT_BYTES = 256 * 1024
MAX_TEXT_CHARACTERS = 128 * 1024
_MAX_PARTS = 100
# a line of hyphens in a text begins no part: a header has to follow
_EDGE = re.compile(
    rb"\r\n--[^\r\n]*+\r\n(?=(?:Content-[a-z-]++|MIME-Version|X-[a-z-]++)[ \t]*+:)", re.IGNORECASE
)
_ENCODING = re.compile(rb"^Content-Transfer-Encoding[ \t]*+:\s*+([a-z0-9-]+)", re.I | re.M)
_TYPE = re.compile(rb"^Content-Type[ \t]*+:\s*+([a-z0-9]++)(/[a-z0-9.+-]++)?", re.I | re.M)
_CHARSET = re.compile(rb"charset[ \t]*+=[ \t\"]*+([a-z0-9._-]{1,40})", re.I)
_CHARSETS = re.compile(r"utf-?(8|16|16[lb]e)|us-ascii|iso-8859-\d+|windows-\d+|cp\d+", re.I)
_OF_PARTS = frozenset(("content-type", "content-transfer-encoding"))
_READ_TYPES = frozenset((b"text", b"message", b"multipart"))
_READ_DATA = frozenset((b"/json", b"/xml", b"/x-pem-file", b"/x-sh", b"/sql", b"/x-yaml"))
_STYLE = re.compile(r"<(style|script)\b(?:[^<]++|<(?!/\1))*+", re.IGNORECASE)
_BREAK = re.compile(
    r"</?(?:br|p|div|tr|li|ul|ol|h[1-6]|table|blockquote|pre|title)\b[^<>]*+>", re.I
)
_CELL = re.compile(r"</?t[dh]\b[^<>]*+>", re.I)
_TAG = re.compile(r"<[/!a-z][^<>]*+>", re.I)
_BLANKS = re.compile(r"\s++")
_SPACES = re.compile(r"  ++")
_LONG_NUMBER = re.compile(r"&#(?:[0-9]{8,}|[xX][0-9a-fA-F]{8,});?")  # Python refuses very long ones
_ODD_BLANKS = (
    dict.fromkeys("\xa0\u2007\u2009\u202f\u2002\u2003", " ")
    | dict.fromkeys("\u200b\u200c\u200d\u2060\ufeff\xad", "")
    | dict.fromkeys("\u2010\u2011\u2012\u2013", "-")
)


def texts_of(content: bytes, header_end: int, subject: str) -> Iterator[str]:
    """Yield the subject and the texts of a mail that are looked at, decoded."""
    content = content[: header_end + MAX_CONTENT_BYTES]
    edges = islice(_EDGE.finditer(content, header_end), _MAX_PARTS)
    starts = [0, *(edge.end() for edge in edges)]
    left = MAX_TEXT_CHARACTERS
    yield subject
    for start, end in zip(starts, [*starts[1:], len(content)], strict=True):
        blank = header_end if start == 0 else content.find(b"\r\n\r\n", start, end)
        body = blank if blank >= 0 else end
        fields = islice(header_fields(content, start, body, names=_OF_PARTS), _MAX_FIELDS)
        header = b"".join([content[field.start : field.end][:_MAX_FIELD_BYTES] for field in fields])
        text = _text_of(header, content[body:end], left)
        left -= len(text)
        if text:
            yield plain_text(text)
        if left <= 0:
            return


def _text_of(header: bytes, body: bytes, limit: int) -> str:
    kind = _TYPE.search(header)
    main, sub = (kind[1].lower(), (kind[2] or b"").lower()) if kind else (b"text", b"/plain")
    if main not in _READ_TYPES and sub not in _READ_DATA:
        return ""
    encoding = _ENCODING.search(header)
    match encoding[1].lower() if encoding else b"":
        case b"base64":
            data = body[: limit * 2].partition(b"\r\n--")[0].translate(None, b"\r\n\t ")
            try:
                body = binascii.a2b_base64(data[: len(data) // 4 * 4])
            except binascii.Error:
                return ""
        case b"quoted-printable":
            body = binascii.a2b_qp(body[: limit * 3])
    charset = _CHARSET.search(header)
    name = charset[1].decode("ascii") if charset else "utf-8"
    try:
        text = body[: limit * 2].decode(name if _CHARSETS.fullmatch(name) else "utf-8", "replace")
    except LookupError:
        text = body[: limit * 2].decode("latin-1")
    text = text[:limit]
    return _text_of_html(text) if sub == b"/html" or (sub != b"/plain" and "</" in text) else text


def _text_of_html(page: str) -> str:
    """Return the words of a page, a line for each block, and its addresses of the web gone."""
    text = _BLANKS.sub(" ", _STYLE.sub(" ", page))
    text = _TAG.sub("", _CELL.sub(" ", _BREAK.sub("\n", text)))
    text = _SPACES.sub(" ", text)
    return unescape(_LONG_NUMBER.sub(" ", text)) if "&" in text else text


def plain_text(text: str) -> str:
    """Return a text with the usual line ends and blanks."""
    text = text.replace("\r\n", "\n")
    if not text.isascii():
        for odd, usual in _ODD_BLANKS.items():
            if odd in text:
                text = text.replace(odd, usual)
    return text
