"""The gate before every endpoint: who is asking, whether that one may, and with which body.

Nobody gets in unless `paths.is_free`. Whoever is only a viewer changes nothing. What a browser
sends to change something comes from a page of ours and has its token; programs, which no other
site can make send anything, need none.
"""

from __future__ import annotations

from urllib.parse import quote

from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Receive, Scope, Send

from relaygw.access import LoginBusy
from relaygw.errors import StoreUnavailable
from relaygw.web.error_answers import error_answer, store_answer
from relaygw.web.gate.bodies import (
    MAX_BODY_BYTES,
    MAX_LOGIN_BYTES,
    BadBody,
    Gone,
    read_body,
    replayed,
)
from relaygw.web.gate.csrf import SAFE_METHODS, has_token
from relaygw.web.gate.identity import Identity
from relaygw.web.gate.origins import is_foreign, is_from_browser
from relaygw.web.gate.paths import LOGIN, LOGOUT, MAX_PATH, is_for_programs, is_free, route_path
from relaygw.web.gate.principal import Principal, Role, set_principal

RETRY_AFTER_S = 60
_CHALLENGE = 'Basic realm="relaygw", charset="UTF-8"'


class _Refused(Exception):
    """A request that gets no further."""

    def __init__(self, status: int, text: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(text)
        self.status = status
        self.headers = headers


class Access:
    """Lets a request through to its endpoint, or answers it."""

    def __init__(self, app: ASGIApp, *, identity: Identity) -> None:
        self._app = app
        self._identity = identity

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or open one websocket."""
        connection = HTTPConnection(scope)
        answer: ASGIApp = self._app
        try:
            receive = await self._let_in(connection, receive)
        except (_Refused, BadBody) as refused:
            answer = error_answer(connection, refused.status, str(refused), refused.headers)
        except StoreUnavailable as error:
            answer = store_answer(connection, error)
        except Gone:
            return
        await answer(scope, receive, send)

    async def _let_in(self, connection: HTTPConnection, receive: Receive) -> Receive:
        """Return the `receive` for the endpoint; raises _Refused and what bodies raise."""
        path = route_path(connection.scope)
        is_safe = connection.scope.get("method", "GET") in SAFE_METHODS
        if not is_safe or connection.scope["type"] == "websocket":
            self._check_origin(connection)
        principal = None if is_free(path) else await self._principal(connection, path)
        if principal is not None:
            set_principal(connection, principal)
        if is_safe:
            return receive
        if principal is not None and principal.role < Role.OPERATOR and path != LOGOUT:
            raise _Refused(403, f"{principal.name} has the role viewer, which changes nothing")
        limit_bytes = MAX_LOGIN_BYTES if principal is None else MAX_BODY_BYTES
        body = await read_body(connection, receive, limit_bytes=limit_bytes)
        if principal is not None:
            _check_token(connection, principal, body)
        return replayed(body, receive)

    def _check_origin(self, connection: HTTPConnection) -> None:
        is_https = self._identity.forwarded.is_https(connection)
        if is_foreign(connection, is_https=is_https):
            raise _Refused(
                403,
                "this was sent by a page of another site; if it is yours, the proxy in between "
                "must hand on the Host field as the browser sent it",
            )

    async def _principal(self, connection: HTTPConnection, path: str) -> Principal:
        try:
            principal = await self._identity.principal(connection)
        except LoginBusy as busy:
            headers = {"Retry-After": str(RETRY_AFTER_S)}
            raise _Refused(429, f"{busy}; try again later", headers) from None
        if principal is None:
            raise _log_in_first(connection, path)
        return principal


def _check_token(connection: HTTPConnection, principal: Principal, body: bytes) -> None:
    """Ask for the token wherever a browser may have added the rights by itself."""
    is_needed = principal.how == "session" or (
        principal.how != "token" and is_from_browser(connection)
    )
    if is_needed and not has_token(connection, body, principal.csrf):
        raise _Refused(403, "this page is out of date: load it again, then repeat what you did")


def _log_in_first(connection: HTTPConnection, path: str) -> _Refused:
    """Return the answer for nobody: to a program a challenge, to a page the way to the login."""
    if is_for_programs(path):
        return _Refused(401, "log in first", {"WWW-Authenticate": _CHALLENGE})
    root_path = connection.scope.get("root_path", "")
    login = root_path + LOGIN
    if "hx-request" in connection.headers:
        return _Refused(401, "log in first", {"HX-Redirect": login})
    accepted = connection.headers.get("accept", "")
    if connection.scope["type"] == "websocket" or "text/event-stream" in accepted:
        return _Refused(401, "log in first")
    if connection.scope["method"] in ("GET", "HEAD"):
        wanted = _as_sent(connection.scope)
        login += f"?next={quote(wanted, safe='/')}" if len(wanted) <= MAX_PATH else ""
    return _Refused(303, "log in first", {"Location": login})


def _as_sent(scope: Scope) -> str:
    path: bytes = scope["raw_path"]
    query: bytes = scope["query_string"]
    return (path + b"?" + query if query else path).decode("latin-1")
