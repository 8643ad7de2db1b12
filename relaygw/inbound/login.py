"""AUTH PLAIN and LOGIN (RFC 4954, RFC 4616)."""

from __future__ import annotations

import base64
import binascii

from relaygw.access.passwords import LoginBusy
from relaygw.inbound import replies
from relaygw.inbound.dialogue import Dialogue, Refusal
from relaygw.policy.admission import may_log_in

MAX_AUTH_LINE_BYTES = 12288  # RFC 4954 section 4
MAX_FAILED_LOGINS = 5  # of one connection


def is_login_offered(session: Dialogue) -> bool:
    """True when the client could log in now: never where its password could be overheard."""
    return session.front.authenticator is not None and may_log_in(
        is_local=session.client.is_local, is_encrypted=session.is_encrypted
    )


async def auth(session: Dialogue, argument: bytes) -> None:
    """Log in."""
    mechanism, _, initial = argument.partition(b" ")
    _check_state(session)
    exchange = {b"PLAIN": _plain, b"LOGIN": _login}.get(mechanism.upper())
    if exchange is None:
        raise Refusal(replies.AUTH_UNKNOWN)
    name, password = await exchange(session, initial.strip(b" \t"))
    await _verify(session, mechanism.upper().decode(), name, password)


def _check_state(session: Dialogue) -> None:
    if session.front.authenticator is None:
        raise Refusal(replies.NOT_IMPLEMENTED)
    if session.protocol != "ESMTP":
        raise Refusal(replies.BAD_SEQUENCE.format(expected="send EHLO first"))
    if session.login is not None:
        raise Refusal(replies.BAD_SEQUENCE.format(expected="already authenticated"))
    if session.transaction is not None:
        raise Refusal(replies.BAD_SEQUENCE.format(expected="AUTH not permitted during mail"))
    if not is_login_offered(session):
        raise Refusal(replies.AUTH_NEEDS_TLS)


async def _plain(session: Dialogue, initial: bytes) -> tuple[bytes, bytes]:
    response = _decoded(initial) if initial else await _ask(session, replies.SEND_INITIAL)
    parts = response.split(b"\0")
    if len(parts) != 3 or not parts[1] or not parts[2]:
        raise Refusal(replies.AUTH_NOT_BASE64)
    identity, name, password = parts
    # nobody may act for another: such a login is no login, and looks like a wrong password
    return (name, password) if identity in (b"", name) else (b"", password)


async def _login(session: Dialogue, initial: bytes) -> tuple[bytes, bytes]:
    name = _decoded(initial) if initial else await _ask(session, replies.SEND_USER)
    return name, await _ask(session, replies.SEND_PASSWORD)


async def _ask(session: Dialogue, prompt: str) -> bytes:
    session.say(prompt)
    line = (await session.read_line()).rstrip(b"\r\n")
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


async def _verify(session: Dialogue, mechanism: str, name: bytes, password: bytes) -> None:
    authenticator = session.front.authenticator
    assert authenticator is not None
    user = name.decode("utf-8", "replace")
    try:
        login = await authenticator.log_in(user, password, guesser=session.client.guesser)
    except LoginBusy as error:
        session.front.log.note(
            "smtpd", f"warning: {session.peer}: SASL {mechanism} authentication put off: {error}"
        )
        _count_failure(session)
        session.say(replies.LOGIN_BUSY)
        return
    if login is not None:
        session.log_in(login)
        session.say(replies.LOGGED_IN)
        return
    # an unknown name may be a password in the wrong field
    shown = user if authenticator.is_known(user) else "(unknown)"
    session.front.log.note(
        "smtpd",
        f"warning: {session.peer}: SASL {mechanism} authentication failed: sasl_username={shown}",
    )
    _count_failure(session)
    raise Refusal(replies.AUTH_FAILED)


def _count_failure(session: Dialogue) -> None:
    """End a connection that tries again and again."""
    session.failed_logins += 1
    if session.failed_logins >= MAX_FAILED_LOGINS:
        session.is_done = True
        raise Refusal(replies.TOO_MANY_LOGINS)
