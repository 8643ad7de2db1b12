"""Passwords of people (`web.users`), their sessions, and tokens of programs (`web.tokens`).

No name is ever locked, so nobody is kept out by a guesser: the more failures at a name, the later
each try is looked at. A session is a random token in a cookie, its hash in the store. By the seal
over the user's password hash beside it a new password ends what was begun with the old one, and
nobody who only reads the store can make a cookie.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
import math
import re
import secrets
import time
from base64 import urlsafe_b64encode
from collections import OrderedDict, deque
from collections.abc import Iterable
from dataclasses import replace
from threading import Lock

from starlette.requests import HTTPConnection

from relaygw.errors import SettingsError
from relaygw.mail.clock import clock_ms
from relaygw.passwords import LoginBusy, Passwords
from relaygw.settings.web import MIN_TOKEN_LENGTH, WebToken, WebUser
from relaygw.store.sessions import WebSession
from relaygw.store.store import Store

MAX_PASSWORD_BYTES = 1024
READ_AGAIN_S = 30.0  # how long after the last time the tokens are not read again, whoever asks
WITHIN_S = 600.0
FREE_FAILURES = 5
MAX_DELAY_S = 8.0
_FIRST_DELAY_S = 0.5
_COUNTED = 16
MAX_NAMES = 10_000
_log = logging.getLogger("relaygw.web")


class NameDelays:
    """Counts failures by name; names that are nobody's are counted alike."""

    def __init__(self) -> None:
        self._failures: OrderedDict[str, deque[float]] = OrderedDict()

    def delay_s(self, name: str) -> float:
        """Return how long the next try at a name has to wait."""
        since_s = time.monotonic() - WITHIN_S
        recent = sum(at_s > since_s for at_s in self._failures.get(name, ()))
        if recent < FREE_FAILURES:
            return 0.0
        return min(MAX_DELAY_S, _FIRST_DELAY_S * 2.0 ** (recent - FREE_FAILURES))

    def count_failure(self, name: str) -> None:
        """Note a failure."""
        self._failures.setdefault(name, deque(maxlen=_COUNTED)).append(time.monotonic())
        self._failures.move_to_end(name)
        while len(self._failures) > MAX_NAMES:
            self._failures.popitem(last=False)


class Logins:
    """Verifies passwords for one web role."""

    def __init__(self, users: Iterable[WebUser]) -> None:
        self._users = {user.name: user for user in users}
        hashes = {name: user.password_hash for name, user in self._users.items()}
        self._passwords = Passwords(hashes) if hashes else None
        self._delays = NameDelays()

    async def log_in(self, name: str, password: bytes, *, guesser: str) -> WebUser | None:
        """Return the user, or None after a while, counted for `guesser`; raises LoginBusy."""
        if self._passwords is None or len(password) > MAX_PASSWORD_BYTES:
            return None
        if not self._passwords.is_remembered(name, password):
            await asyncio.sleep(self._delays.delay_s(name))
        # an unknown name may be a password in the wrong field
        shown = name if self._passwords.is_known(name) else "(unknown)"
        try:
            is_right = await self._passwords.verify(name, password, guesser=guesser)
        except LoginBusy as error:
            _log.warning("login of %s from %s deferred: %s", shown, guesser, error)
            raise
        if is_right:
            return self._users[name]
        self._delays.count_failure(name)
        _log.warning("login of %s from %s failed", shown, guesser)
        return None


class Tokens:
    """The tokens of programs, as keyed hashes, read once and again when none fits.

    A token that can be guessed, or was never read, lets nobody in, and the log says why; one that
    cannot be read any more stays as it was, for anybody can have it read.
    """

    def __init__(self, tokens: Iterable[WebToken]) -> None:
        self._tokens = tuple(tokens)
        self._key = secrets.token_bytes(32)
        self._holders: dict[bytes, WebToken] = {}
        self._read_at_s = -math.inf
        self._reading = asyncio.Lock()

    def is_known(self, name: str) -> bool:
        """True if there is a token of that name."""
        return any(token.name == name for token in self._tokens)

    async def holder(self, given: bytes) -> WebToken | None:
        """Return the token that was given, or None."""
        digest = self._digest(given)
        if self._tokens and digest not in self._holders:
            async with self._reading:
                now_s = time.monotonic()
                if now_s >= self._read_at_s + READ_AGAIN_S:
                    self._holders = await asyncio.to_thread(self._read)
                    self._read_at_s = now_s
        return self._holders.get(digest)

    def _read(self) -> dict[bytes, WebToken]:
        holders: dict[bytes, WebToken] = {}
        for token in self._tokens:
            try:
                secret = token.token.read()
            except SettingsError as error:
                before = {
                    digest: holder for digest, holder in self._holders.items() if holder is token
                }
                effect = "stays as it was" if before else "lets nobody log in"
                _log.warning("web.tokens: %s %s: %s", token.name, effect, error)
                holders |= before
                continue
            if len(secret) >= MIN_TOKEN_LENGTH:
                holders[self._digest(secret.encode())] = token
                continue
            _log.warning(
                "web.tokens: %s lets nobody log in: the token has %d characters; make one of %d "
                "or more, e.g. by: openssl rand -hex 20",
                *(token.name, len(secret), MIN_TOKEN_LENGTH),
            )
        return holders

    def _digest(self, secret: bytes) -> bytes:
        return hashlib.blake2b(secret, key=self._key).digest()


COOKIE = "relaygw_session"
IDLE_MS = 12 * 3_600_000  # a session that is not used for so long has ended
LONGEST_MS = 7 * 86_400_000  # no session lives longer, used or not
_SEEN_EVERY_MS = 60_000
_VALUE = re.compile(r"([A-Za-z0-9_-]{43})\.([A-Za-z0-9_-]{43})")


def cookie_of(connection: HTTPConnection) -> str | None:
    """Return the session cookie, None if there is none, or two: a neighbour can set one."""
    sent = ";".join(connection.headers.getlist("cookie")).split(";")
    pairs = (pair.strip().partition("=") for pair in sent)
    values = {value for name, _, value in pairs if name == COOKIE}
    return values.pop() if len(values) == 1 else None


def token_of(cookie: str) -> bytes:
    """Return the secret of a session, from which its other secrets are made."""
    return cookie.partition(".")[0].encode()


def csrf_token(key: bytes, name: str) -> str:
    """Return the token for whoever `key`, a secret, and `name` stand for."""
    return hmac.new(key, b"csrf\0" + name.encode(), hashlib.sha256).hexdigest()


class Sessions:
    """The sessions of `users`."""

    def __init__(self, store: Store, users: Iterable[WebUser]) -> None:
        self._store = store
        self._users = {user.name: user for user in users}
        self._lock = Lock()  # one that is being used must not come back when it has been ended

    def begin(self, user: WebUser) -> str:
        """Begin a session; return the value of its cookie."""
        token, now_ms = secrets.token_urlsafe(32), clock_ms()
        session = WebSession(
            token_hash=_hash(token),
            user_name=user.name,
            created_at_ms=now_ms,
            seen_at_ms=now_ms,
            expires_at_ms=now_ms + IDLE_MS,
        )
        self._store.sessions.put(session)
        return f"{token}.{_seal(token, user)}"

    def user(self, cookie: str) -> WebUser | None:
        """Return whose session a cookie is, None if it has ended; that it is used is noted."""
        found, now_ms = self._found(cookie), clock_ms()
        if found is None:
            return None
        session, user = found
        if now_ms - session.seen_at_ms >= _SEEN_EVERY_MS:
            until_ms = min(now_ms + IDLE_MS, session.created_at_ms + LONGEST_MS)
            used = replace(session, seen_at_ms=now_ms, expires_at_ms=until_ms)
            with self._lock:
                if self._store.sessions.get(session.token_hash) is not None:
                    self._store.sessions.put(used)
        return user

    def has(self, cookie: str) -> bool:
        """True while the session of a cookie has not ended; to ask is no use of it."""
        return self._found(cookie) is not None

    def _found(self, cookie: str) -> tuple[WebSession, WebUser] | None:
        match = _VALUE.fullmatch(cookie)
        if match is None:
            return None
        token, seal = match.groups()
        session = self._store.sessions.get(_hash(token))
        if session is None or clock_ms() >= session.expires_at_ms:
            return None
        user = self._users.get(session.user_name)
        if user is None or not hmac.compare_digest(seal, _seal(token, user)):
            return None
        return session, user

    def end(self, cookie: str) -> None:
        """End the session of a cookie, if it is one."""
        if match := _VALUE.fullmatch(cookie):
            with self._lock:
                self._store.sessions.drop(_hash(match[1]))


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def _seal(token: str, user: WebUser) -> str:
    sealed = hmac.new(token.encode(), user.password_hash.encode(), hashlib.sha256).digest()
    return urlsafe_b64encode(sealed).decode().rstrip("=")
