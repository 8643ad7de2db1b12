"""Tokens that only pages of ours know, so that no other page changes anything in a user's name.

A browser adds its cookie, and a password that it remembers, to whatever any page sends here. Only
a page of ours can also send the token: as the form field `csrf`, or in a header, which other
pages may not set.
"""

from __future__ import annotations

import hashlib
import hmac
from urllib.parse import parse_qs

from starlette.requests import HTTPConnection

HEADER = "x-csrf-token"
FIELD = "csrf"
_MAX_FIELDS = 5000
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})


def csrf_token(key: bytes, name: str) -> str:
    """Return the token for whoever `key`, a secret, and `name` stand for."""
    return hmac.new(key, b"csrf\0" + name.encode(), hashlib.sha256).hexdigest()


def has_token(connection: HTTPConnection, body: bytes, expected: str) -> bool:
    """True when the header or the form of a request has the token."""
    given = connection.headers.get(HEADER) or form_field(connection, body, FIELD)
    return hmac.compare_digest(given.encode(), expected.encode())


def form_field(connection: HTTPConnection, body: bytes, name: str) -> str:
    """Return a field of a urlencoded form, "" where there is none of that name."""
    content_type = connection.headers.get("content-type", "").partition(";")[0].strip().lower()
    if content_type != "application/x-www-form-urlencoded":
        return ""
    try:
        fields = parse_qs(body.decode(), keep_blank_values=True, max_num_fields=_MAX_FIELDS)
    except ValueError:
        return ""
    return fields.get(name, [""])[0]
