"""Where a request of a browser comes from: a page of ours, or some other site's.

A browser tells the origin of the page with everything that could change something (Fetch
Standard, section 3.2) and with each websocket. Programs tell none. A frame without an origin,
in which mail is shown, says `null`, and is none of ours.
"""

from __future__ import annotations

from urllib.parse import urlsplit

from starlette.requests import HTTPConnection

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
