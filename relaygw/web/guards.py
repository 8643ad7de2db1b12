"""Who may ask for what, before any endpoint runs, and the headers of every answer.

Captured mail holds what customers were meant to read. A web page in the browser of someone
on this machine can send requests here too, under a name of its own that leads to this
address (DNS rebinding), so the Host header decides; and nothing that is served may run,
be framed, be sniffed into another type or be kept in a cache.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from relaygw.settings.model import Mode, Settings

STRICT_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
HEALTH_PATHS = frozenset({"/healthz", "/livez", "/readyz"})
"""Paths that tell nothing of mail; probes reach them by whatever name they use."""

_HOST = re.compile(r"(?:\[([0-9a-fA-F:.]+)\]|([^\[\]:/@\s]+))(?::[0-9]*)?")


def refusal(settings: Settings) -> str | None:
    """Return why captured mail is not served under these settings, or None if it is.

    The settings' own check refuses to start on most of this; mail is not left to one lock.
    """
    if settings.mode is not Mode.SANDBOX:
        return (
            f"captured mail is not served in mode {settings.mode}: this version has no login; "
            "set mode: sandbox, or read it with relaygw queue show"
        )
    if not (settings.web.bind.is_loopback or settings.web.open):
        return (
            f"captured mail is not served on {settings.web.bind}: others could read it; "
            "set web.bind to 127.0.0.1:8025, or web.open: true if everyone there may"
        )
    return None


def host_name(value: str) -> str | None:
    """Return the name in a Host header (RFC 9110 section 7.2) without port and brackets."""
    match = _HOST.fullmatch(value.strip())
    return None if match is None else (match[1] or match[2]).lower()


class Guards:
    """Refuses what may not be asked, and puts the strict headers on every answer."""

    def __init__(self, app: ASGIApp, *, hosts: Iterable[str], refused: str | None) -> None:
        self._app = app
        self._hosts = frozenset(host.strip("[]").lower() for host in hosts)
        self._refused = refused

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return

        async def send_strict(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in STRICT_HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        answer = self._objection(scope) or self._app
        await answer(scope, receive, send_strict)

    def _objection(self, scope: Scope) -> PlainTextResponse | None:
        path = scope["path"]
        if path in HEALTH_PATHS:
            return None
        hosts = Headers(scope=scope).getlist("host")
        if len(hosts) != 1 or host_name(hosts[0]) not in self._hosts:
            return PlainTextResponse(
                "this server does not answer by the name in the Host header; "
                "add that name to web.hosts\n",
                status_code=421,
            )
        if self._refused is not None and path.startswith("/api/"):
            return PlainTextResponse(self._refused + "\n", status_code=403)
        return None
