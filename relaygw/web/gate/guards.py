"""What is refused before anybody is asked who he is: hosts, modes, paths; headers of every answer.

The Host header decides, since a page in a browser on this machine can send requests here under a
name of its own (DNS rebinding); and nothing that is served may run, be framed, be sniffed into
another type or be kept in a cache.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import HTTPConnection
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from relaygw.clients import Address, is_trusted
from relaygw.settings.model import Settings
from relaygw.settings.section import Mode
from relaygw.settings.web import Web

STRICT_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
HEALTH_PATHS = frozenset({"/healthz", "/livez", "/readyz"})  # by whatever name a probe uses

PAGE_HEADERS = {  # what a page of ours has in the place of the strictest headers
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
        "connect-src 'self'; frame-src 'self'; form-action 'self'; base-uri 'none'; "
        "frame-ancestors 'none'"
    ),
    # with no-referrer a browser sends forms of ours with `Origin: null` (Fetch, section 3.2)
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    # names of hosts in a mail are not looked up just because its links are listed
    "X-DNS-Prefetch-Control": "off",
}
NOT_FOUND = "404 page not found"

_HOST = re.compile(r"(?:\[([0-9a-fA-F:.]+)\]|([^\[\]:/@\s]+))(?::[0-9]*)?")


def refusal(settings: Settings) -> str | None:
    """Return why pages and API are not served under these settings, or None if they are."""
    web = settings.web
    if web.has_logins:
        return None
    if settings.mode is not Mode.SANDBOX:
        return (
            f"pages and API are not served in mode {settings.mode} without a login: add "
            "web.users, or use relaygw status and relaygw queue"
        )
    if not (web.bind.is_loopback or web.open):
        return (
            f"pages and API are not served on {web.bind}: others could read mail; add web.users, "
            "or set web.bind to 127.0.0.1:8025, or web.open: true if everyone there may"
        )
    return None


def host_name(value: str) -> str | None:
    """Return the name in a Host header (RFC 9110 section 7.2) without port and brackets."""
    match = _HOST.fullmatch(value.strip())
    return None if match is None else (match[1] or match[2]).lower()


ClientOf = Callable[[HTTPConnection], Address | None]


class Guards:
    """Refuses what may not be asked, sets `base_path`, puts the strict headers on every answer."""

    def __init__(self, app: ASGIApp, *, web: Web, refused: str | None, client: ClientOf) -> None:
        self._app = app
        self._hosts = frozenset(host.strip("[]").lower() for host in web.hosts)
        self._networks, self._client = web.networks, client
        self._refused = refused
        self._root_path = web.base_path.rstrip("/")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or open one websocket."""
        if scope["type"] not in ("http", "websocket"):
            return

        async def send_strict(message: Message) -> None:
            if message["type"].endswith(".response.start"):
                headers = MutableHeaders(scope=message)
                for name, value in STRICT_HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        answer = self._objection(scope) or self._app
        if self._is_below(scope["path"]):
            scope = {**scope, "root_path": self._root_path}
        await answer(scope, receive, send_strict)

    def _is_below(self, path: str) -> bool:
        return path.startswith(self._root_path + "/")

    def _is_near(self, scope: Scope) -> bool:
        client = self._client(HTTPConnection(scope))
        return client is not None and is_trusted(client, self._networks)

    def _objection(self, scope: Scope) -> Response | None:
        path, headers = scope["path"], Headers(scope=scope)
        if "transfer-encoding" in headers and "content-length" in headers:
            # a proxy in front may have read another body (RFC 9112 section 6.3)
            return PlainTextResponse(
                "a request must have one length\n", status_code=400, headers={"Connection": "close"}
            )
        # probes look at the root, wherever a proxy shows the rest
        if path in HEALTH_PATHS or path.removeprefix(self._root_path) in HEALTH_PATHS:
            return None
        if self._networks and not self._is_near(scope):
            return PlainTextResponse(
                "pages and API are not available from this network (web.networks)\n",
                status_code=403,
            )
        hosts = headers.getlist("host")
        if len(hosts) != 1 or host_name(hosts[0]) not in self._hosts:
            return PlainTextResponse(
                "this server does not answer to the name in the Host header; "
                "add that name to web.hosts\n",
                status_code=421,
            )
        if self._refused is not None:
            return PlainTextResponse(self._refused + "\n", status_code=403)
        if path in ("/", self._root_path) and not self._is_below(path):
            return RedirectResponse(self._root_path + "/", status_code=307)
        return None if self._is_below(path) else PlainTextResponse(NOT_FOUND, status_code=404)


LOGIN, LOGOUT = "/login", "/logout"
_MACHINE = ("/api/", "/view/", "//view/", "/metrics")  # two slashes: see openapi.py
# what a browser takes for another host, or drops before it looks, is no path here
_OWN_PATH = re.compile(r"/(?:[!-.0-\[\]-~][!-\[\]-~]*)?")
_STEPS_UP = re.compile(r"/(?:\.|%2e){1,2}(?:/|$)", re.IGNORECASE)
DOCS = "/api/docs"  # a page for people among what is for programs
MAX_PATH = 2000  # characters of a path that is kept until after a login


def route_path(scope: Scope) -> str:
    """Return the path of a request without `web.base_path`."""
    path: str = scope["path"]
    return path.removeprefix(scope.get("root_path", ""))


def is_free(path: str) -> bool:
    """True for what everybody may ask for: the login page and what it is made of, health."""
    return path == LOGIN or path in HEALTH_PATHS or path.startswith("/static/")


def is_for_programs(path: str) -> bool:
    """True where programs log in by HTTP basic or a token, and nobody is sent to a page."""
    return path.startswith(_MACHINE) and path != DOCS


def own_path(text: str, root_path: str) -> str:
    """Return `text` if it is a path of ours to go to after a login, else the first page.

    Never another host, however a browser reads it, and nothing that breaks a header.
    """
    is_path = len(text) <= MAX_PATH and _OWN_PATH.fullmatch(text) is not None
    # a browser takes these for steps out of the root path, also when they are encoded
    is_path = is_path and not _STEPS_UP.search(text.partition("?")[0])
    below = text.removeprefix(root_path) if is_path and text.startswith(root_path + "/") else "/"
    gate = below.partition("?")[0].partition("#")[0]
    return root_path + ("/" if gate in (LOGIN, LOGOUT) else below)
