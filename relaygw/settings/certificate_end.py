"""When a certificate ends, read from its PEM file (RFC 7468, RFC 5280 section 4.1).

The standard library tells that only of a certificate that it has verified, so not of one that
has expired.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

_PEM = re.compile(r"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.S)
_VERSION = 0xA0
_UTC_TIME = 0x17
_LONG_LENGTH = 0x80


def certificate_end(path: Path) -> datetime:
    """Return when the first certificate of a file ends; raises OSError, ValueError."""
    found = _PEM.search(path.read_text("ascii", errors="replace"))
    if found is None:
        raise ValueError(f"{path} holds no certificate in PEM form")
    try:
        return _end(ssl.PEM_cert_to_DER_cert(found[0]))
    except (IndexError, ValueError) as error:
        raise ValueError(f"{path} holds a certificate that cannot be read") from error


def _end(der: bytes) -> datetime:
    (_, certificate), *_ = _elements(der)
    (_, signed), *_ = _elements(certificate)
    fields = [content for tag, content in _elements(signed) if tag != _VERSION]
    _serial, _algorithm, _issuer, validity, *_ = fields
    _, (tag, end) = _elements(validity)
    text = end.decode("ascii")
    if tag == _UTC_TIME:  # two digits of the year: 50 and above are of the last century
        text = ("19" if text >= "50" else "20") + text
    return datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC)


def _elements(der: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield tag and content of each element, one after the other (X.690 section 8.1)."""
    position = 0
    while position < len(der):
        tag, length = der[position], der[position + 1]
        position += 2
        if length & _LONG_LENGTH:
            size = length - _LONG_LENGTH
            length = int.from_bytes(der[position : position + size])
            position += size
        yield tag, der[position : position + length]
        position += length
