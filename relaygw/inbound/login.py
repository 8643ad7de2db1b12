"""AUTH PLAIN and LOGIN (RFC 4954, RFC 4616), and what a user who has logged in may do."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable
from typing import TYPE_CHECKING

from relaygw.inbound import replies
from relaygw.inbound.replies import Refusal
from relaygw.inbound.throttled_clients import LOGINS
from relaygw.mail.clock import clock_ms
from relaygw.passwords import LoginBusy, Passwords, Uses
from relaygw.policy.recipients import AddressPatterns
from relaygw.settings.listeners import User

if TYPE_CHECKING:
    from relaygw.inbound.session import Session

MAX_AUTH_LINE_BYTES = 12288  # RFC 4954 section 4
MAX_FAILED_LOGINS = 5  # of one connection


class Login:
    """One user of the configuration."""

    def __init__(self, user: User) -> None:
        self.name = user.name
        self._senders = AddressPatterns(user.senders) if user.senders else None

    def may_send_as(self, sender: str) -> bool:
        """True if the user may use this envelope sender; the null sender is nobody's."""
        return not sender or self._senders is None or self._senders.matches(sender)


class Authenticator:
    """Verifies logins of all listeners of one front process."""

    def __init__(self, users: Iterable[User], uses: Uses) -> None:
        listed = tuple(users)
        self._uses = uses
        self._logins = {user.name: Login(user) for user in listed}
        self.passwords = Passwords({user.name: user.password_hash for user in listed})

    async def log_in(self, name: str, password: bytes, *, guesser: str) -> Login | None:
        """Return the login, or None, after a while, counted for `guesser`. Raises LoginBusy."""
        is_right = await self.passwords.verify(name, password, guesser=guesser)
        if not is_right:
            return None
        self._uses["smtp", name] = clock_ms()
        return self._logins[name]


async def auth(session: Session, argument: bytes) -> None:
    """Answer AUTH: the session is its user's from now on. Raises Refusal."""
    mechanism, _, initial = argument.partition(b" ")
    if session.listener.authenticator is None:
        raise Refusal(replies.NOT_IMPLEMENTED)
    if not session.extended_smtp:
        raise Refusal(replies.HELO_FIRST)
    if session.login is not None:
        raise Refusal(replies.LOGIN_ALREADY)
    if session.connection.envelope.mail_from is not None:
        raise Refusal(replies.LOGIN_IN_MAIL)
    if not session.is_login_offered:
        raise Refusal(replies.AUTH_NEEDS_TLS)
    initial = initial.strip(b" \t")
    match mechanism.upper():
        case b"PLAIN":
            name, password = await _plain(session, initial)
        case b"LOGIN":
            name = _decoded(initial) if initial else await _ask(session, replies.SEND_USER)
            password = await _ask(session, replies.SEND_PASSWORD)
        case _:
            raise Refusal(replies.AUTH_UNKNOWN)
    await _verify(session, mechanism.upper().decode(), name, password)


async def _plain(session: Session, initial: bytes) -> tuple[bytes, bytes]:
    response = _decoded(initial) if initial else await _ask(session, replies.SEND_INITIAL)
    parts = response.split(b"\0")
    if len(parts) != 3 or not parts[1] or not parts[2]:
        raise Refusal(replies.AUTH_NOT_BASE64)
    identity, name, password = parts
    # nobody may act for another: such a login is no login, and looks like a wrong password
    return (name, password) if identity in (b"", name) else (b"", password)


async def _ask(session: Session, prompt: str) -> bytes:
    session.connection.say(prompt)
    line = await session.connection.read_line()
    if not line.endswith(b"\r\n"):
        session.connection.is_done = True  # as behind a command
        raise Refusal(replies.BARE_LF)
    line = line[:-2]
    if len(line) > MAX_AUTH_LINE_BYTES:
        raise Refusal(replies.AUTH_LINE_TOO_LONG)
    if line == b"*":
        raise Refusal(replies.AUTH_CANCELLED)
    return _decoded(line)


def _decoded(text: bytes) -> bytes:
    if text == b"=":  # RFC 4954: an empty initial response
        return b""
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error:
        raise Refusal(replies.AUTH_NOT_BASE64) from None


async def _verify(session: Session, mechanism: str, name: bytes, password: bytes) -> None:
    authenticator = session.listener.authenticator
    assert authenticator is not None
    user, peer = name.decode("utf-8", "replace"), session.connection.peer
    guesser = session.connection.client.guesser
    try:
        login = await authenticator.log_in(user, password, guesser=guesser)
    except LoginBusy as error:
        session.listener.note(f"warning: {peer}: SASL {mechanism} authentication deferred: {error}")
        session.listener.throttled.note(session.listener.name, guesser, LOGINS)
        _count_failure(session)
        session.connection.say(replies.LOGIN_BUSY)
        return
    if login is not None:
        session.log_in(login)
        session.connection.say(replies.LOGGED_IN)
        return
    # an unknown name may be a password in the wrong field
    shown = user if authenticator.passwords.is_known(user) else "(unknown)"
    session.listener.note(
        f"warning: {peer}: SASL {mechanism} authentication failed: sasl_username={shown}"
    )
    session.listener.observer.login_failed(session.connection.client.key)
    _count_failure(session)
    raise Refusal(replies.AUTH_FAILED)


def _count_failure(session: Session) -> None:
    """End a connection that tries again and again."""
    session.failed_logins += 1
    if session.failed_logins >= MAX_FAILED_LOGINS:
        session.connection.is_done = True
        raise Refusal(replies.TOO_MANY_LOGINS)
