"""Who sends a request, and what that one may do; without the role viewer nobody gets past `access`.

HTTP basic and bearer tokens count where programs ask (`/api`, `/view`): what a reverse proxy's own
password leaves in requests for pages is neither believed nor counted as a guess. Failed logins, and
what tokens are used with, are kept in memory until they are written; bounded, whatever a holder of
a token sends.
"""

from __future__ import annotations

import base64
import re
import secrets
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import partial
from ipaddress import IPv4Network, IPv6Network
from typing import Literal

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection

from relaygw.clients import Address, client_key, guesser, is_trusted, parse_client
from relaygw.errors import StoreUnavailable
from relaygw.mail.clock import clock_ms
from relaygw.mail.words import printable
from relaygw.observe.history import History
from relaygw.passwords import Uses
from relaygw.settings.model import Settings
from relaygw.settings.section import Mode
from relaygw.settings.web import WebToken, WebUser
from relaygw.store.store import Store
from relaygw.store.visitors import TokenUse
from relaygw.web.gate.credentials import Logins, Sessions, Tokens, cookie_of, csrf_token, token_of
from relaygw.web.gate.guards import is_for_programs, route_path

_AGAIN_MS = 3_600_000  # a use that is known is written again after this
_MAX_KNOWN = 2000
_MAX_AGENT = 100
_VERSION = re.compile(r"/[^\s()]*")
_NUMBER = re.compile(r"\d[\d._]*")


class Visits:
    """Who came to one web role since the last write."""

    def __init__(self, history: History | None = None) -> None:
        self._history = history
        self._new: dict[tuple[str, str, str], TokenUse] = {}
        self._written_ms: OrderedDict[tuple[str, str, str], int] = OrderedDict()

    def failed(self, client: Address | None) -> None:
        """Note a wrong password or token."""
        if self._history is not None:
            self._history.login_failed("web", _network(client))

    def used(self, token: str, connection: HTTPConnection, client: Address | None) -> None:
        """Note what a token is used with."""
        now_ms = clock_ms()
        agent = agent_of(connection.headers.get("user-agent", ""))
        for kind, value in (("agent", agent), ("network", _network(client))):
            key = (token, kind, value)
            is_known = now_ms - self._written_ms.get(key, -_AGAIN_MS) < _AGAIN_MS
            if is_known or len(self._new) >= _MAX_KNOWN:
                continue
            self._written_ms[key] = now_ms
            self._written_ms.move_to_end(key)
            if len(self._written_ms) > _MAX_KNOWN:
                self._written_ms.popitem(last=False)
            times = {"first_seen_ms": now_ms, "last_seen_ms": now_ms}
            self._new[key] = TokenUse(token=token, kind=kind, value=value, **times)

    def take(self) -> list[TokenUse]:
        """Return the visits noted since the last call."""
        taken, self._new = self._new, {}
        return list(taken.values())

    def put_back(self, uses: Sequence[TokenUse]) -> None:
        """Take back what could not be written."""
        self._new = {**{(use.token, use.kind, use.value): use for use in uses}, **self._new}


def agent_of(header: str) -> str:
    """Return a user agent without its versions: an update is no stranger."""
    header = header[: 4 * _MAX_AGENT].encode("latin-1", "replace").decode("utf-8", "replace")
    told = _NUMBER.sub("#", _VERSION.sub("", header))
    return printable(" ".join(told.split()))[:_MAX_AGENT] or "(none)"


def _network(client: Address | None) -> str:
    return "unknown" if client is None else client_key(client)


_How = Literal["session", "password", "token", "open"]  # open: nobody has to log in here


class Role(IntEnum):
    """What somebody may do; each role may do what those before it may."""

    VIEWER = 1  # reads
    OPERATOR = 2  # deletes, tags, marks, releases to whom the lists allow
    ADMIN = 3  # releases to anyone

    @property
    def word(self) -> str:
        """It as relaygw.yaml has it."""
        return self.name.lower()


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """Who is asking."""

    name: str  # for the audit trail
    role: Role
    csrf: str  # goes into each form as a field of that name, or into the header X-CSRF-Token
    how: _How

    @property
    def is_admin(self) -> bool:
        """True for the role that may release to anyone."""
        return self.role is Role.ADMIN


def principal_of(connection: HTTPConnection) -> Principal | None:
    """Return who sends a request or opens a websocket; None only for what `is_free`."""
    found: Principal | None = connection.scope.get("state", {}).get("principal")
    return found


def require(connection: HTTPConnection, role: Role) -> Principal:
    """Return who is asking with `role` or more; HTTPException 401 for nobody, 403 for less."""
    principal = principal_of(connection)
    if principal is None:
        raise HTTPException(401, "log in first")
    if principal.role < role:
        raise HTTPException(
            403, f"{principal.name} has the role {principal.role.word}; this needs {role.word}"
        )
    return principal


def set_principal(
    connection: HTTPConnection, principal: Principal, has_session: Callable[[str], bool]
) -> None:
    """Say who is asking, and how to see whether that session goes on; only `access` does."""
    state = connection.scope.setdefault("state", {})
    state["principal"] = principal
    cookie = cookie_of(connection) if principal.how == "session" else None
    if cookie is not None:
        state["has_session"] = partial(has_session, cookie)


async def is_still_in(connection: HTTPConnection) -> bool:
    """False once the session that a connection was let in by has ended."""
    has_session: Callable[[], bool] | None = connection.scope["state"].get("has_session")
    try:
        return has_session is None or await run_in_threadpool(has_session)
    except StoreUnavailable:  # there is nothing to tell either
        return True


_MAX_HOPS = 20


class Forwarded:
    """What reverse proxies say of a request, believed from those in `web.proxies` only.

    X-Forwarded-For is read from the right, as far as proxies wrote it; X-Forwarded-Proto is the
    word of the last one.
    """

    def __init__(self, proxies: Iterable[IPv4Network | IPv6Network]) -> None:
        self._proxies = tuple(proxies)

    def client(self, connection: HTTPConnection) -> Address | None:
        """Return the address of who asks; None for one that is not known."""
        client = _peer(connection)
        told = ",".join(connection.headers.getlist("x-forwarded-for"))
        for text in reversed(told.rsplit(",", _MAX_HOPS)[-_MAX_HOPS:]):
            hop = _parsed(text.strip())
            if hop is None or client is None or not is_trusted(client, self._proxies):
                break
            client = hop
        return client

    def guesser(self, connection: HTTPConnection) -> str:
        """Return for whom wrong passwords are counted: the address, of IPv6 the /64."""
        client = self.client(connection)
        return guesser(client) if client is not None else "unknown"

    def is_https(self, connection: HTTPConnection) -> bool:
        """True when the browser speaks TLS, as far as a proxy that is believed says so."""
        if connection.url.scheme in ("https", "wss"):
            return True
        peer = _peer(connection)
        if peer is None or not is_trusted(peer, self._proxies):
            return False
        told = ",".join(connection.headers.getlist("x-forwarded-proto"))
        return told.rpartition(",")[2].strip().lower() == "https"


def _peer(connection: HTTPConnection) -> Address | None:
    return _parsed(connection.client.host) if connection.client else None


def _parsed(text: str) -> Address | None:
    host = text[1:].partition("]")[0] if text.startswith("[") else text
    if host.count(":") == 1:  # some proxies write the port, too
        host = host.partition(":")[0]
    try:
        return parse_client(host)
    except ValueError:
        return None


ANYONE = "anyone"


def is_open(settings: Settings) -> bool:
    """True for a sandbox that nobody else reaches, or that is meant to be open."""
    web = settings.web
    is_sandbox = settings.mode is Mode.SANDBOX
    return is_sandbox and not web.has_logins and (web.bind.is_loopback or web.open)


class Identity:
    """Knows the users, tokens and sessions of one web role."""

    def __init__(
        self,
        store: Store,
        settings: Settings,
        uses: Uses,
        visits: Visits | None = None,
        form_key: bytes | None = None,
    ) -> None:
        web = settings.web
        self.is_open = is_open(settings)
        self.forwarded = Forwarded(web.proxies)
        self.logins = Logins(web.users)
        self.sessions = Sessions(store, web.users)
        self.has_users = bool(web.users)
        self._tokens = Tokens(web.tokens)
        self._uses = uses
        self._visits = visits or Visits()
        # where a browser has no session to make it of
        self._csrf_key = form_key or secrets.token_bytes(32)

    async def principal(self, connection: HTTPConnection) -> Principal | None:
        """Return who is asking. Raises LoginBusy, StoreUnavailable."""
        if self.is_open:
            csrf = csrf_token(self._csrf_key, ANYONE)
            return Principal(name=ANYONE, role=Role.OPERATOR, csrf=csrf, how="open")
        cookie = cookie_of(connection)
        if cookie is not None:
            user = await run_in_threadpool(self.sessions.user, cookie)
            if user is not None:
                return self._principal(user, csrf_token(token_of(cookie), user.name), "session")
        if is_for_programs(route_path(connection.scope)):
            return await self._program(connection)
        return None

    def failed(self, connection: HTTPConnection) -> None:
        """Note a failed login, by who tries."""
        self._visits.failed(self.forwarded.client(connection))

    async def _program(self, connection: HTTPConnection) -> Principal | None:
        scheme, _, given = connection.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            token = await self._tokens.holder(given.strip().encode())
            if token is None:
                self.failed(connection)
                return None
            self._visits.used(token.name, connection, self.forwarded.client(connection))
            return self._principal(token, "", "token")
        if scheme.lower() != "basic":
            return None
        try:
            told, colon, password = base64.b64decode(given.strip(), validate=True).partition(b":")
            name = told.decode()
        except ValueError:  # neither base64 nor UTF-8
            return None
        known = await self._by_password(connection, name, password) if colon else None
        if known is None:
            self.failed(connection)
            return None
        if isinstance(known, WebToken):
            self._visits.used(known.name, connection, self.forwarded.client(connection))
        return self._principal(known, csrf_token(self._csrf_key, known.name), "password")

    async def _by_password(
        self, connection: HTTPConnection, name: str, password: bytes
    ) -> WebUser | WebToken | None:
        if self._tokens.is_known(name):  # clients of Mailpit know no bearer tokens
            token = await self._tokens.holder(password)
            if token is not None and token.name == name:
                return token
        guesser = self.forwarded.guesser(connection)
        return await self.logins.log_in(name, password, guesser=guesser)

    def _principal(self, known: WebUser | WebToken, csrf: str, how: _How) -> Principal:
        kind = "web" if isinstance(known, WebUser) else "token"
        self._uses[kind, known.name] = clock_ms()
        return Principal(name=known.name, role=Role[known.role.upper()], csrf=csrf, how=how)
