"""Is a provider there, and would it take mail: each step of a session looked at on its own.

Sends no mail: a sender is tried by MAIL and taken back by RSET. The first connection finds out
everything up to EHLO without logging in, the second one logs in, once. Where the provider's port
is shut, the other ports that mail services use are tried, to name those that are open.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Iterable

from relaygw.mail.outcome import Stage
from relaygw.mail.reply import SmtpReply
from relaygw.settings.provider import Provider
from relaygw.upstream.advice import FOR_UNKNOWN_NAME, advise, advise_port, advise_sender
from relaygw.upstream.connect import OpenConnection, open_connection
from relaygw.upstream.credentials import Credentials
from relaygw.upstream.failure import UpstreamError
from relaygw.upstream.finding import Finding, Result, Step
from relaygw.upstream.port_search import may_be_blocked, open_ports, without_login
from relaygw.upstream.protocol import WireFailure
from relaygw.upstream.session import UpstreamSession
from relaygw.upstream.tls_facts import tls_words

STEP_LIMIT_S = 10.0


_STEP_OF = {
    Stage.CONNECT: Step.TCP,
    Stage.GREETING: Step.GREETING,
    Stage.EHLO: Step.EHLO,
    Stage.STARTTLS: Step.TLS,
    Stage.TLS: Step.TLS,
    Stage.AUTH: Step.AUTH,
}


async def diagnose(
    provider: Provider, *, ehlo_name: str, senders: Iterable[str] = ()
) -> AsyncIterator[Finding]:
    """Yield what was found, step by step, up to the first one that makes the rest pointless.

    `senders` are envelope addresses to try, "" is the null sender. Never raises for what the
    network or the provider does.
    """
    provider = _impatient(provider)
    try:
        yield Finding(step=Step.DNS, detail=await _look_up(provider.host))
    except OSError as error:
        yield Finding(
            step=Step.DNS, result=Result.FAILED, detail=str(error), remedy=FOR_UNKNOWN_NAME
        )
        return
    try:
        connection = await open_connection(without_login(provider), ehlo_name=ehlo_name)
    except UpstreamError as error:
        if error.stage is not Stage.CONNECT:
            yield Finding(step=Step.TCP, detail=f"port {provider.port}")
        yield await _failure(error, provider, ehlo_name)
        return
    try:
        for finding in _on_connection(connection, provider):
            yield finding
    finally:
        await UpstreamSession(connection, timeouts=provider.timeouts).close()
    async for finding in _logged_in(provider, ehlo_name, tuple(senders)):
        yield finding


async def _logged_in(
    provider: Provider, ehlo_name: str, senders: tuple[str, ...]
) -> AsyncIterator[Finding]:
    """Log in, and try the senders on that connection."""
    try:
        connection = await open_connection(
            provider, ehlo_name=ehlo_name, credentials=Credentials(provider)
        )
    except UpstreamError as error:
        yield await _failure(error, provider, ehlo_name)
        return
    try:
        words = f"by {provider.auth}" if provider.auth != "auto" else "logged in"
        yield Finding(
            step=Step.AUTH, detail=words if provider.has_credentials else "none is wanted"
        )
        limit_bytes = connection.offered.max_size_bytes
        yield Finding(step=Step.SIZE, detail=_size_words(limit_bytes, provider))
        for sender in senders:
            yield await _try_sender(connection, provider, sender)
    finally:
        await UpstreamSession(connection, timeouts=provider.timeouts).close()


def _impatient(provider: Provider) -> Provider:
    given = provider.timeouts
    limits = {name: min(getattr(given, name), STEP_LIMIT_S) for name in type(given).model_fields}
    timeouts = given.model_copy(update=limits)
    return provider.model_copy(update={"timeouts": timeouts})


async def _look_up(host: str) -> str:
    """Return the addresses of `host` in words; raises OSError."""
    try:
        async with asyncio.timeout(STEP_LIMIT_S):
            found = await asyncio.get_running_loop().getaddrinfo(
                host, None, type=socket.SOCK_STREAM
            )
    except socket.gaierror as error:
        raise OSError(f"{host} not found: {error.strerror}") from error
    except UnicodeError as error:
        raise OSError(f"{host!r} is no host name: {error}") from error
    except TimeoutError as error:
        raise OSError(f"no answer about {host} within {STEP_LIMIT_S:g} s") from error
    addresses = list(dict.fromkeys(str(info[4][0]) for info in found))
    more = f" and {len(addresses) - 3} more" if len(addresses) > 3 else ""
    return f"{host} is {' '.join(addresses[:3])}{more}"


def _on_connection(connection: OpenConnection, provider: Provider) -> Iterable[Finding]:
    address = connection.relay.partition("[")[2].partition("]")[0]
    yield Finding(step=Step.TCP, detail=f"port {provider.port} at {address}")
    words = tls_words(connection.tls, provider)
    is_fine = not words.remedy
    yield Finding(
        step=Step.TLS,
        result=Result.OK if is_fine else Result.WARNING,
        detail=words.detail,
        remedy=words.remedy,
    )
    offered = connection.offered
    names = {
        "PIPELINING": offered.pipelining,
        "8BITMIME": offered.eight_bit_mime,
        "SMTPUTF8": offered.smtputf8,
        "SIZE": offered.size,
    }
    shown = " ".join(name for name, is_offered in names.items() if is_offered)
    yield Finding(step=Step.EHLO, detail=f"offers {shown}" if shown else "offers no extension")


async def _failure(error: UpstreamError, provider: Provider, ehlo_name: str) -> Finding:
    step = _STEP_OF.get(error.stage, Step.AUTH)
    remedy = advise(error, provider, ehlo_name=ehlo_name)
    if may_be_blocked(error):
        remedy = advise_port(provider, await open_ports(provider, error, ehlo_name=ehlo_name))
    return Finding(step=step, result=Result.FAILED, detail=error.detail, remedy=remedy)


async def _try_sender(connection: OpenConnection, provider: Provider, sender: str) -> Finding:
    shown = sender or "<>"
    parameter = "" if sender.isascii() else " SMTPUTF8"
    if parameter and not connection.offered.smtputf8:
        return Finding(
            step=Step.SENDER,
            result=Result.FAILED,
            detail=f"{shown} needs SMTPUTF8, which the provider does not offer",
            remedy="use a sender in ASCII",
        )
    try:
        reply = await _ask(connection, f"MAIL FROM:<{sender}>{parameter}", provider)
        await _ask(connection, "RSET", provider)
    except WireFailure as failure:
        return Finding(
            step=Step.SENDER,
            result=Result.FAILED,
            detail=_masked(connection, f"{shown}: no answer ({failure})"),
        )
    if reply.is_positive:
        return Finding(step=Step.SENDER, detail=shown)
    remedy = advise_sender(provider, reply)
    detail = _masked(connection, f"{shown}: {reply}")
    return Finding(step=Step.SENDER, result=Result.FAILED, detail=detail, remedy=remedy)


def _masked(connection: OpenConnection, text: str) -> str:
    return connection.mask(text) if connection.mask is not None else text


async def _ask(connection: OpenConnection, command: str, provider: Provider) -> SmtpReply:
    wire = connection.protocol
    wire.write(command.encode() + b"\r\n")
    return await wire.read_reply(timeout_s=provider.timeouts.command)


def _size_words(limit_bytes: int | None, provider: Provider) -> str:
    own_bytes = provider.max_message_size
    limits = [limit for limit in (limit_bytes, own_bytes) if limit is not None]
    if not limits:
        return "no limit is told"
    return f"up to {min(limits):,} bytes"
