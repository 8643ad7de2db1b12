"""Logins of browsers: a random token in a cookie, its hash in the store.

Beside the token the cookie has a seal over the user's password hash, so that a new password ends
what was begun with the old one, and nobody who only reads the store can make a cookie. Role and
user are those of the settings, whenever a request comes. Methods block on the store.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from base64 import urlsafe_b64encode
from collections.abc import Iterable
from threading import Lock

from starlette.requests import HTTPConnection
from starlette.responses import Response

from relaygw.mail.clock import clock_ms
from relaygw.settings.web import WebUser
from relaygw.store.sessions import WebSession
from relaygw.store.store import Store

COOKIE = "relaygw_session"
IDLE_MS = 12 * 3_600_000
"""A session that is not used for so long has ended."""
LONGEST_MS = 7 * 86_400_000
"""No session lives longer, used or not."""
_SEEN_EVERY_MS = 60_000
_VALUE = re.compile(r"([A-Za-z0-9_-]{43})\.([A-Za-z0-9_-]{43})")


def cookie_of(connection: HTTPConnection) -> str | None:
    """Return the session cookie, None if there is none, or two that differ.

    A neighbour under the same name (another port, a parent domain) can put one beside ours.
    """
    sent = ";".join(connection.headers.getlist("cookie")).split(";")
    pairs = (pair.strip().partition("=") for pair in sent)
    values = {value for name, _, value in pairs if name == COOKIE}
    return values.pop() if len(values) == 1 else None


def set_cookie(response: Response, value: str, *, root_path: str, is_https: bool) -> None:
    """Let the browser keep a session until it closes."""
    response.set_cookie(
        COOKIE,
        value,
        path=root_path or "/",
        secure=is_https,
        httponly=True,
        samesite="strict",
    )


def forget_cookie(response: Response, *, root_path: str, is_https: bool) -> None:
    """Let the browser forget its session."""
    response.delete_cookie(
        COOKIE, path=root_path or "/", secure=is_https, httponly=True, samesite="strict"
    )


def token_of(cookie: str) -> bytes:
    """Return the secret of a session, from which its other secrets are made."""
    return cookie.partition(".")[0].encode()


class Sessions:
    """The sessions of `users`."""

    def __init__(self, store: Store, users: Iterable[WebUser]) -> None:
        self._store = store
        self._users = {user.name: user for user in users}
        self._lock = Lock()  # one that is being used must not come back when it has been ended

    def begin(self, user: WebUser) -> str:
        """Begin a session; return the value of its cookie."""
        token = secrets.token_urlsafe(32)
        now_ms = clock_ms()
        self._store.sessions.put(
            WebSession(
                token_hash=_hash(token),
                user_name=user.name,
                created_at_ms=now_ms,
                seen_at_ms=now_ms,
                expires_at_ms=now_ms + IDLE_MS,
            )
        )
        return f"{token}.{_seal(token, user)}"

    def user(self, cookie: str) -> WebUser | None:
        """Return whose session a cookie is, None if it has ended; that it is used is noted."""
        match = _VALUE.fullmatch(cookie)
        if match is None:
            return None
        token, seal = match.groups()
        session = self._store.sessions.get(_hash(token))
        now_ms = clock_ms()
        if session is None or now_ms >= session.expires_at_ms:
            return None
        user = self._users.get(session.user_name)
        if user is None or not hmac.compare_digest(seal, _seal(token, user)):
            return None
        if now_ms - session.seen_at_ms >= _SEEN_EVERY_MS:
            self._note_use(session, now_ms)
        return user

    def _note_use(self, session: WebSession, now_ms: int) -> None:
        with self._lock:
            if self._store.sessions.get(session.token_hash) is not None:
                self._store.sessions.put(_seen(session, now_ms))

    def end(self, cookie: str) -> None:
        """End the session of a cookie, if it is one."""
        match = _VALUE.fullmatch(cookie)
        if match is not None:
            with self._lock:
                self._store.sessions.drop(_hash(match[1]))


def _seen(session: WebSession, now_ms: int) -> WebSession:
    return WebSession(
        token_hash=session.token_hash,
        user_name=session.user_name,
        created_at_ms=session.created_at_ms,
        seen_at_ms=now_ms,
        expires_at_ms=min(now_ms + IDLE_MS, session.created_at_ms + LONGEST_MS),
    )


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def _seal(token: str, user: WebUser) -> str:
    sealed = hmac.new(token.encode(), user.password_hash.encode(), hashlib.sha256).digest()
    return urlsafe_b64encode(sealed).decode().rstrip("=")
