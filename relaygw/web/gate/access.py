"""The gate before every endpoint: who is asking, whether that one may, and with which body.

Bodies are read whole before anything is done: small, in time, or not at all. A browser tells the
origin of a page with all that could change something (Fetch Standard, section 3.2) and with each
websocket; programs tell none, a frame in which mail is shown says `null` and is none of ours. To
whatever any page sends here a browser adds its cookie; only a page of ours can also send the token:
as the form field `csrf`, or in a header.
"""

from __future__ import annotations

import asyncio
import hmac
from urllib.parse import parse_qs, quote, urlsplit

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, HTTPConnection, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from relaygw.errors import StoreUnavailable
from relaygw.passwords import LoginBusy
from relaygw.web.gate.guards import LOGIN, LOGOUT, MAX_PATH, is_for_programs, is_free, route_path
from relaygw.web.gate.identity import Identity, Principal, Role, set_principal
from relaygw.web.page import error_answer

MAX_BODY_BYTES = 2**20
MAX_LOGIN_BYTES = 8192  # of a body that somebody sends whom nobody knows
BODY_S = 30.0  # how long a body may take
RETRY_AFTER_S = 60
_FOREIGN = (
    "this was sent by a page of another site; if it is yours, the proxy in between must pass on "
    "the Host field unchanged"
)
_CHALLENGE = 'Basic realm="relaygw", charset="UTF-8"'


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
        except (HTTPException, StoreUnavailable) as error:
            answer = error_answer(connection, error)
        except ClientDisconnect:
            return  # there is nobody to answer
        await answer(scope, receive, send)

    async def _let_in(self, connection: HTTPConnection, receive: Receive) -> Receive:
        path = route_path(connection.scope)
        is_safe = connection.scope.get("method", "GET") in SAFE_METHODS
        if not is_safe or connection.scope["type"] == "websocket":
            is_https = self._identity.forwarded.is_https(connection)
            if is_foreign(connection, is_https=is_https):
                raise HTTPException(403, _FOREIGN)
        if is_free(path):
            if is_safe:
                return receive
            body = await _read_body(connection, receive, limit_bytes=MAX_LOGIN_BYTES)
            return _replayed(body, receive)
        principal = await self._principal(connection, path)
        set_principal(connection, principal, self._identity.sessions.has)
        if is_safe:
            return receive
        if principal.role < Role.OPERATOR and path != LOGOUT:
            raise HTTPException(403, f"{principal.name} has the role viewer, which changes nothing")
        body = await _read_body(connection, receive, limit_bytes=MAX_BODY_BYTES)
        _check_token(connection, principal, body)
        return _replayed(body, receive)

    async def _principal(self, connection: HTTPConnection, path: str) -> Principal:
        try:
            principal = await self._identity.principal(connection)
        except LoginBusy as busy:
            headers = {"Retry-After": str(RETRY_AFTER_S)}
            raise HTTPException(429, f"{busy}; try again later", headers) from None
        if principal is None:
            raise _log_in_first(connection, path)
        return principal


def _check_token(connection: HTTPConnection, principal: Principal, body: bytes) -> None:
    """Ask for the token wherever a browser may have added the rights by itself."""
    is_needed = principal.how == "session" or (
        principal.how != "token" and is_from_browser(connection)
    )
    if is_needed and not has_token(connection, body, principal.csrf):
        raise HTTPException(403, "this page is out of date: reload it, then repeat your action")


def _log_in_first(connection: HTTPConnection, path: str) -> HTTPException:
    if is_for_programs(path):
        return HTTPException(401, "log in first", {"WWW-Authenticate": _CHALLENGE})
    root_path = connection.scope.get("root_path", "")
    login = root_path + LOGIN
    if "hx-request" in connection.headers:
        return HTTPException(401, "log in first", {"HX-Redirect": login})
    accepted = connection.headers.get("accept", "")
    if connection.scope["type"] == "websocket" or "text/event-stream" in accepted:
        return HTTPException(401, "log in first")
    if connection.scope["method"] in ("GET", "HEAD"):
        sent, query = connection.scope["raw_path"], connection.scope["query_string"]
        wanted = (sent + b"?" + query if query else sent).decode("latin-1")
        login += f"?next={quote(wanted, safe='/')}" if len(wanted) <= MAX_PATH else ""
    return HTTPException(303, "log in first", {"Location": login})


async def _read_body(connection: HTTPConnection, receive: Receive, *, limit_bytes: int) -> bytes:
    too_large = HTTPException(413, f"the body is larger than {limit_bytes} bytes")
    told = connection.headers.get("content-length", "0")
    if not (told.isascii() and told.isdigit() and len(told) < 20) or int(told) > limit_bytes:
        raise too_large
    chunks: list[bytes] = []
    size_bytes = 0
    try:
        async with asyncio.timeout(BODY_S):
            async for chunk in Request(connection.scope, receive).stream():
                chunks.append(chunk)
                size_bytes += len(chunk)
                if size_bytes > limit_bytes:
                    raise too_large
            return b"".join(chunks)
    except TimeoutError:
        # a body that comes too late would be taken for the next request; too large a one is read
        # to its end by the server, so that the client gets to read the answer
        late = f"the body took longer than {BODY_S:.0f} s"
        raise HTTPException(408, late, {"Connection": "close"}) from None


def _replayed(body: bytes, receive: Receive) -> Receive:
    """Return a `receive` that gives a body that was read, then what comes after it."""
    read: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def again() -> Message:
        return read.pop() if read else await receive()

    return again


HEADER = "x-csrf-token"
FIELD = "csrf"
FORM = "application/x-www-form-urlencoded"
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


def has_token(connection: HTTPConnection, body: bytes, expected: str) -> bool:
    """True when the header or the form of a request has the token."""
    given = connection.headers.get(HEADER) or form_field(connection, body, FIELD)
    return hmac.compare_digest(given.encode(), expected.encode())


def form_field(connection: HTTPConnection, body: bytes, name: str) -> str:
    """Return a field of a urlencoded form, "" where there is none of that name."""
    content_type = connection.headers.get("content-type", "").partition(";")[0].strip().lower()
    if content_type != FORM:
        return ""
    try:
        fields = parse_qs(body.decode(), keep_blank_values=True, max_num_fields=_MAX_FIELDS)
    except ValueError:
        return ""
    return fields.get(name, [""])[0]
