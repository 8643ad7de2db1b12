"""Finds out who sends a request: by session, by password, by token, or that it does not matter.

A session counts everywhere. HTTP basic and bearer tokens count where programs ask (`/api`,
`/view`), so that what a reverse proxy's own password leaves in a browser's requests for pages is
neither believed nor counted as a guess.
"""

from __future__ import annotations

import base64
import binascii
import secrets

from starlette.concurrency import run_in_threadpool
from starlette.requests import HTTPConnection

from relaygw.settings.model import Mode, Settings
from relaygw.settings.web import WebToken, WebUser
from relaygw.store.protocol import Store
from relaygw.web.gate.csrf import csrf_token
from relaygw.web.gate.forwarded import Forwarded
from relaygw.web.gate.logins import Logins
from relaygw.web.gate.paths import is_for_programs, route_path
from relaygw.web.gate.principal import Principal, Role
from relaygw.web.gate.sessions import Sessions, cookie_of, token_of
from relaygw.web.gate.tokens import Tokens

ANYONE = "anyone"


def is_open(settings: Settings) -> bool:
    """True when captured mail is for whoever connects: a sandbox that nobody else reaches, or
    that is meant to be open.
    """
    web = settings.web
    is_sandbox = settings.mode is Mode.SANDBOX
    return is_sandbox and not web.has_logins and (web.bind.is_loopback or web.open)


class Identity:
    """Knows the users, tokens and sessions of one web role."""

    def __init__(self, store: Store, settings: Settings) -> None:
        web = settings.web
        self.is_open = is_open(settings)
        self.forwarded = Forwarded(web.proxies)
        self.logins = Logins(web.users)
        self.sessions = Sessions(store, web.users)
        self.has_users = bool(web.users)
        self._tokens = Tokens(web.tokens)
        self._csrf_key = secrets.token_bytes(32)  # where a browser has no session to make it of

    async def principal(self, connection: HTTPConnection) -> Principal | None:
        """Return who is asking. Raises LoginBusy, StoreUnavailable."""
        if self.is_open:
            csrf = csrf_token(self._csrf_key, ANYONE)
            return Principal(name=ANYONE, role=Role.OPERATOR, csrf=csrf, how="open")
        cookie = cookie_of(connection)
        if cookie is not None:
            user = await run_in_threadpool(self.sessions.user, cookie)
            if user is not None:
                csrf = csrf_token(token_of(cookie), user.name)
                return Principal(name=user.name, role=_role(user), csrf=csrf, how="session")
        if is_for_programs(route_path(connection.scope)):
            return await self._program(connection)
        return None

    async def _program(self, connection: HTTPConnection) -> Principal | None:
        scheme, _, given = connection.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            token = await self._tokens.holder(given.strip().encode())
            if token is None:
                return None
            return Principal(name=token.name, role=_role(token), csrf="", how="token")
        credentials = _basic(given) if scheme.lower() == "basic" else None
        if credentials is None:
            return None
        known = await self._by_password(connection, *credentials)
        if known is None:
            return None
        csrf = csrf_token(self._csrf_key, known.name)
        return Principal(name=known.name, role=_role(known), csrf=csrf, how="password")

    async def _by_password(
        self, connection: HTTPConnection, name: str, password: bytes
    ) -> WebUser | WebToken | None:
        if self._tokens.is_known(name):  # clients of Mailpit know no bearer tokens
            token = await self._tokens.holder(password)
            if token is not None and token.name == name:
                return token
        guesser = self.forwarded.guesser(connection)
        return await self.logins.log_in(name, password, guesser=guesser)


def _role(known: WebUser | WebToken) -> Role:
    return Role[known.role.upper()]


def _basic(given: str) -> tuple[str, bytes] | None:
    """Return name and password (RFC 7617), or None for what is neither."""
    try:
        name, colon, password = base64.b64decode(given.strip(), validate=True).partition(b":")
        return (name.decode(), password) if colon else None
    except (binascii.Error, UnicodeDecodeError, ValueError):
        return None
