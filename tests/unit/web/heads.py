"""Requests as an ASGI server would hand them over, for what looks at heads only."""

from __future__ import annotations

from typing import Any

from starlette.requests import HTTPConnection


def connection(
    *headers: tuple[str, str], path: str = "/", peer: str | None = "127.0.0.1", **scope: Any
) -> HTTPConnection:
    """Return a request; the Host is `mail.test` unless told otherwise."""
    names = [name.lower() for name, _ in headers]
    told = headers if "host" in names else (("host", "mail.test"), *headers)
    return HTTPConnection(
        {
            "type": "http",
            "method": "GET",
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "headers": [(name.lower().encode(), value.encode()) for name, value in told],
            "client": (peer, 40000) if peer else None,
            **scope,
        }
    )
