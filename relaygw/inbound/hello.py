"""The beginning of a session: EHLO, HELO, STARTTLS (RFC 3207)."""

from __future__ import annotations

import re

from relaygw.inbound import replies
from relaygw.inbound.dialogue import Dialogue, Refusal
from relaygw.inbound.login import is_login_offered

_HELO = re.compile(rb"[!-~]{1,255}")


async def ehlo(session: Dialogue, argument: bytes) -> None:
    """Greet, and say what is possible now."""
    _greeted(session, argument, protocol="ESMTP", usage="EHLO hostname")
    limit = session.front.listener.max_message_size
    starttls = "250-STARTTLS\r\n" if is_starttls_offered(session) else ""
    auth = "250-AUTH PLAIN LOGIN\r\n" if is_login_offered(session) else ""
    session.say(
        f"250-{session.hostname}\r\n250-PIPELINING\r\n250-SIZE {limit}\r\n{starttls}{auth}"
        "250-ENHANCEDSTATUSCODES\r\n250-8BITMIME\r\n250 SMTPUTF8"
    )


async def helo(session: Dialogue, argument: bytes) -> None:
    """Greet a client of the old protocol."""
    _greeted(session, argument, protocol="SMTP", usage="HELO hostname")
    session.say(f"250 {session.hostname}")


def _greeted(session: Dialogue, argument: bytes, *, protocol: str, usage: str) -> None:
    if not _HELO.fullmatch(argument):
        raise Refusal(replies.BAD_ARGUMENT.format(usage=usage))
    session.helo = argument.decode("ascii")
    session.protocol = protocol
    session.transaction = None  # RFC 5321 section 4.1.4: EHLO resets


def is_starttls_offered(session: Dialogue) -> bool:
    """True when the client could turn to TLS now; never without a certificate."""
    certificate = session.front.certificate
    return (
        certificate is not None and not session.is_encrypted and certificate.context() is not None
    )


async def starttls(session: Dialogue, argument: bytes) -> None:
    """Turn to TLS; what was said before does not count any more."""
    if argument:
        raise Refusal(replies.BAD_ARGUMENT.format(usage="STARTTLS"))
    if session.is_encrypted:
        raise Refusal(replies.BAD_SEQUENCE.format(expected="TLS is active already"))
    if session.front.certificate is None:
        raise Refusal(replies.NOT_IMPLEMENTED)
    if session.has_sent_ahead:
        session.is_done = True  # commands for the time behind TLS, by whoever is in between
        raise Refusal(replies.UNSYNCHRONISED)
    context = session.front.certificate.context()
    if context is None:
        session.say(replies.NO_TLS_NOW)
        return
    session.say(replies.READY_FOR_TLS)
    await session.start_tls(context)
    session.forget()
