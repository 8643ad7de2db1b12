"""Whether a request comes from a page of ours, or from some other site's.

A browser tells the origin of the page with everything that could change something (Fetch
Standard, section 3.2) and with each websocket. Programs tell none. A frame without an origin,
in which mail is shown, says `null`, and is none of ours.

A browser adds its cookie, and a password that it remembers, to whatever any page sends here. Only
a page of ours can also send the token: as the form field `csrf`, or in a header, which other
pages may not set.
"""

from __future__ import annotations

import hashlib
import hmac
from urllib.parse import parse_qs, urlsplit

from starlette.requests import HTTPConnection

HEADER = "x-csrf-token"
FIELD = "csrf"
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})
_MAX_FIELDS = 5000
_DEFAULT_PORT = {"http": 80, "https": 443}


def is_foreign(connection: HTTPConnection, *, is_https: bool) -> bool:
    """True when a browser says that another site's page, or none it knows, sends this."""
    if connection.headers.get("sec-fetch-site", "none").lower() not in ("same-origin", "none"):
        return True
    origins = connection.headers.getlist("origin")
    return bool(origins) and not (len(origins) == 1 and _is_ours(origins[0], connection, is_https))


def is_from_browser(connection: HTTPConnection) -> bool:
    """True when the sender is a page, for all that is known."""
    return any(name in connection.headers for name in ("origin", "sec-fetch-site"))


def _is_ours(origin: str, connection: HTTPConnection, is_https: bool) -> bool:
    """Compare with the Host header; a proxy in between must hand that on as it is."""
    ours = f"https://{connection.headers.get('host', '')}"
    try:
        told, own = urlsplit(origin), urlsplit(ours)
        told_port, own_port = told.port, own.port
    except ValueError:
        return False
    default = _DEFAULT_PORT.get(told.scheme)
    if default is None or (is_https and told.scheme != "https"):
        return False
    return told.hostname == own.hostname and (told_port or default) == (own_port or default)


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
