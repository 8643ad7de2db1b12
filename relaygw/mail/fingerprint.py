"""What two copies of a mail have in common: their content without what differs in each.

Left out are all fields but those that people read (so Message-ID, Date, Received and signatures),
MIME boundaries and Content-IDs, tokens in links, hexadecimal words such as UUIDs, and blanks at the
end. Numbers stay: mail about two orders is never the same. Time grows with the size alone.
"""

from __future__ import annotations

import re
from binascii import Error, a2b_base64
from hashlib import blake2b

from relaygw.mail.content import header_fields

MAX_BYTES = 65_536
"""Of larger content, what stands behind this is not looked at."""
_READ = ("subject", "from", "to", "cc", "reply-to")
_BASE64 = re.compile(
    rb"(?:^[A-Za-z0-9+/]{40,1000}={0,2}(?:\r\n|\Z))+(?:[A-Za-z0-9+/]{1,1000}={0,2}(?:\r\n|\Z))?",
    re.M,
)
_LINK = re.compile(rb"https?://[^\s\"'<>]+")
_WORD_OF_LINK = re.compile(rb"[A-Za-z0-9_-]{8,}")
_BOUNDARY = re.compile(rb"\r\n--[^\r\n]+")
_PART_NAMES = {
    b"boundary=": re.compile(rb"boundary=[^\r\n;]*", re.I),
    b"cid:": re.compile(rb"cid:[^\s\"'<>]+", re.I),
    b"content-id:": re.compile(rb"\r\ncontent-id:[^\r\n]*", re.I),
}
_HEX = re.compile(rb"[0-9A-Fa-f-]{16,}")
_LONG_WORD = 32


def fingerprint(content: bytes, header_bytes: int) -> bytes:
    """Return 16 bytes that are the same for copies of a mail; of normalised content."""
    end = min(header_bytes, MAX_BYTES)
    known = blake2b(digest_size=16)
    for field in header_fields(content, 0, end, names=_READ):
        words = b" ".join(content[field.value_start : field.value_end].split())
        known.update(b"%b:%b\n" % (field.name.lower(), words))
    is_base64 = b"base64" in content[: header_bytes + MAX_BYTES].lower()
    body = content[header_bytes : header_bytes + MAX_BYTES]
    known.update(_without_tokens(_BASE64.sub(_decoded, body) if is_base64 else body))
    return known.digest()


def _without_tokens(body: bytes) -> bytes:
    if b"=\r\n" in body or b"=3D" in body:  # quoted-printable: lines break elsewhere in each
        body = body.replace(b"=\r\n", b"").replace(b"=3D", b"=")
    body = _LINK.sub(_without_words, body)
    body = _BOUNDARY.sub(b"\r\n--", body)
    small = body.lower()
    for name, field in _PART_NAMES.items():
        if name in small:
            body = field.sub(b"", body)
    return _HEX.sub(_unless_number, body).rstrip()


def _decoded(found: re.Match[bytes]) -> bytes:
    try:
        return a2b_base64(found[0])
    except Error:
        return found[0]


def _without_words(found: re.Match[bytes]) -> bytes:
    return _WORD_OF_LINK.sub(_unless_plain, found[0])


def _unless_plain(found: re.Match[bytes]) -> bytes:
    word = found[0]
    is_plain = word.isdigit() or not any(48 <= byte <= 57 for byte in word)
    return word if is_plain and len(word) < _LONG_WORD else b"*"


def _unless_number(found: re.Match[bytes]) -> bytes:
    word = found[0].replace(b"-", b"")
    return b"*" if len(word) >= 16 and not word.isdigit() else found[0]
