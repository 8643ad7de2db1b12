"""Is a provider there, and would it take mail: each step of a session looked at on its own.

Sends no mail: a sender is tried by MAIL and taken back by RSET. The first connection finds out
everything up to EHLO, the second logs in, once.
"""

from __future__ import annotations

import asyncio
import base64
import json
import socket
import ssl
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from enum import StrEnum
from urllib.parse import urlsplit

from relaygw.mail.outcome import Stage
from relaygw.mail.reply import SmtpReply
from relaygw.mail.words import counted
from relaygw.settings.addresses import Bind
from relaygw.settings.provider import Oauth, Provider, TlsPolicy
from relaygw.upstream.classifier import Classifier
from relaygw.upstream.connection import OpenConnection, open_connection
from relaygw.upstream.credentials import Credentials, Login
from relaygw.upstream.failure import UpstreamError, known_remedy
from relaygw.upstream.protocol import WireFailure
from relaygw.upstream.session import UpstreamSession

STEP_LIMIT_S = 10.0
_USUAL_PORTS = (587, 2525, 465, 25, 2587, 2465, 8025, 8465, 443)
"""The ports on which mail services take submissions, the likeliest first."""
_IMPLICIT_TLS_PORTS = (465, 2465, 8465, 443)
"""Those with implicit TLS; the others begin in clear."""
_SOON_DAYS = 14  # a certificate that ends by then is told


class Step(StrEnum):
    """What is looked at, in this order."""

    GATEWAY = "gateway"  # only where it holds or pauses the provider
    DNS = "DNS"
    TCP = "TCP"
    GREETING = "greeting"  # only when it is the trouble
    TLS = "TLS"
    EHLO = "EHLO"
    TOKEN = "token"  # only where one is logged in with
    AUTH = "AUTH"
    SIZE = "SIZE"
    SENDER = "sender"


class Result(StrEnum):
    """How a step ended."""

    OK = "ok"
    WARNING = "warning"  # works now
    FAILED = "FAILED"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One step's end, in words; `remedy` says what to do, where there is something to do."""

    step: Step
    result: Result = Result.OK
    detail: str
    remedy: str = ""


_ROLES = (("https://outlook.office", "SMTP.SendAsApp"),)
"""What Exchange wants in `roles` of an application's token, by how the scope begins."""
_DOTS_OF_JWT = 2
_SAME_NAME = (
    "if it is this gateway, its mail comes back until it bounces: correct host and port; if it is "
    "another one, give each its own hostname"
)
_STEP_OF = {
    Stage.CONNECT: Step.TCP,
    Stage.GREETING: Step.GREETING,
    Stage.EHLO: Step.EHLO,
    Stage.STARTTLS: Step.TLS,
    Stage.TLS: Step.TLS,
    Stage.AUTH: Step.AUTH,
}


async def diagnose(
    provider: Provider,
    *,
    ehlo_name: str,
    senders: Iterable[str] = (),
    own: tuple[Bind, ...] = (),
) -> AsyncIterator[Finding]:
    """Yield what was found, step by step, up to the first one that makes the rest pointless.

    `senders` are envelope addresses to try, "" is the null sender; `own` are listeners by which its
    mail would come back. Never raises for what others do.
    """
    given = provider.timeouts
    limits = {name: min(getattr(given, name), STEP_LIMIT_S) for name in type(given).model_fields}
    provider = provider.model_copy(update={"timeouts": given.model_copy(update=limits)})
    try:
        yield Finding(step=Step.DNS, detail=await _look_up(provider.host))
    except OSError as error:
        written = f"region ({provider.region}) or host" if provider.region else "host"
        remedy = f"check the spelling of {written}, and this machine's DNS"
        yield _failed(Step.DNS, str(error), remedy)
        return
    try:
        async with _connected(_without_login(provider), ehlo_name, own) as connection:
            for finding in _on_connection(connection, provider, ehlo_name):
                yield finding
    except UpstreamError as error:
        if error.stage is not Stage.CONNECT:
            yield Finding(step=Step.TCP, detail=f"port {provider.port}")
        yield await _failure(error, provider, ehlo_name)
        return
    credentials = _Once(provider)
    if provider.uses_xoauth2:
        yield (token := await try_token(provider, credentials))
        if token.result is Result.FAILED:
            return
    try:
        async with _connected(provider, ehlo_name, credentials=credentials) as connection:
            words = f"by {provider.auth}" if provider.auth != "auto" else "logged in"
            detail = words if provider.has_credentials else "none is configured"
            yield Finding(step=Step.AUTH, detail=detail)
            sizes = [*filter(None, (connection.offered.max_size_bytes, provider.max_message_size))]
            detail = f"up to {min(sizes):,} bytes" if sizes else "no limit announced"
            yield Finding(step=Step.SIZE, detail=detail)
            for sender in senders:
                yield await _try_sender(connection, provider, sender)
    except UpstreamError as error:
        yield await _failure(error, provider, ehlo_name)


class _Once(Credentials):
    """Credentials that are read once: nothing is kept that a refusal would make try anew."""

    _login: Login | None = None

    async def read(self) -> Login | None:
        if self._login is None:
            self._login = await super().read()
        return self._login


async def try_token(provider: Provider, credentials: Credentials | None = None) -> Finding:
    """Fetch an access token, and look whether it has the permission that sending needs."""
    try:
        login = await (credentials or Credentials(provider)).read()
    except UpstreamError as error:
        said = _said_of(provider, error.stage, error.said) if error.said is not None else ""
        return _failed(Step.TOKEN, error.detail, said)
    assert login is not None
    assert provider.oauth is not None
    missing = _missing_role(login.secret, provider.oauth)
    if missing:
        return Finding(
            step=Step.TOKEN,
            result=Result.WARNING,  # whether it is enough is the mail service's word
            detail=f"the access token lacks the permission {missing}",
            remedy=f"in Entra, API permissions of the application, add the application permission "
            f"{missing} of Office 365 Exchange Online, and grant admin consent",
        )
    return Finding(step=Step.TOKEN, detail=f"from {urlsplit(provider.oauth.token_url).netloc}")


def _missing_role(token: str, oauth: Oauth) -> str:
    """Return the permission that an application's token lacks; "" for none, or if unreadable."""
    role = next((role for scope, role in _ROLES if (oauth.scope or "").startswith(scope)), "")
    if oauth.refresh_token is not None or token.count(".") != _DOTS_OF_JWT:
        return ""  # it is a person's, or no JWT
    part = token.split(".")[1]
    try:
        claims = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    except (ValueError, RecursionError):
        return ""
    roles = claims.get("roles", []) if isinstance(claims, dict) else [role]
    return "" if isinstance(roles, list) and role in roles else role


@asynccontextmanager
async def _connected(
    provider: Provider,
    ehlo_name: str,
    own: tuple[Bind, ...] = (),
    credentials: Credentials | None = None,
) -> AsyncIterator[OpenConnection]:
    connection = await open_connection(
        provider, ehlo_name=ehlo_name, own=own, credentials=credentials
    )
    try:
        yield connection
    finally:
        await UpstreamSession(connection, timeouts=provider.timeouts).close()


def _without_login(provider: Provider, **changes: object) -> Provider:
    nothing = {"username": None, "password": None, "oauth": None, "auth": "auto"}
    return provider.model_copy(update={**nothing, **changes})


async def _look_up(host: str) -> str:
    try:
        async with asyncio.timeout(STEP_LIMIT_S):
            found = await asyncio.get_running_loop().getaddrinfo(
                host, None, type=socket.SOCK_STREAM
            )
    except socket.gaierror as error:
        raise OSError(f"{host} not found: {error.strerror}") from error
    except UnicodeError as error:
        raise OSError(f"{host!r} is not a host name: {error}") from error
    except TimeoutError as error:
        raise OSError(f"no DNS answer about {host} within {STEP_LIMIT_S:g} s") from error
    addresses = list(dict.fromkeys(str(info[4][0]) for info in found))
    more = f" and {len(addresses) - 3} more" if len(addresses) > 3 else ""
    return f"{host} is {' '.join(addresses[:3])}{more}"


def _on_connection(
    connection: OpenConnection, provider: Provider, ehlo_name: str
) -> Iterable[Finding]:
    address = connection.relay.partition("[")[2].partition("]")[0]
    yield Finding(step=Step.TCP, detail=f"port {provider.port} at {address}")
    yield _tls_finding(connection.tls, provider)
    offered = connection.offered
    names = {
        "PIPELINING": offered.pipelining,
        "8BITMIME": offered.eight_bit_mime,
        "SMTPUTF8": offered.smtputf8,
        "SIZE": offered.size,
    }
    shown = " ".join(name for name, is_offered in names.items() if is_offered)
    detail = f"offers {shown}" if shown else "offers no extension"
    if connection.name.lower() == ehlo_name.lower():
        detail = f"calls itself {ehlo_name}, as this gateway does; {detail}"
        yield Finding(step=Step.EHLO, result=Result.WARNING, detail=detail, remedy=_SAME_NAME)
    else:
        yield Finding(step=Step.EHLO, detail=detail)


def _tls_finding(tls: ssl.SSLObject | None, provider: Provider) -> Finding:
    remedy = ""
    if tls is None and provider.tls is TlsPolicy.NONE:
        words = "none, because of tls: none"
    elif tls is None:
        words, remedy = "not offered, mail is sent in clear text", "tls: required would refuse that"
    elif not (certificate := tls.getpeercert()):  # not verified, so Python does not read it
        words = f"{tls.version() or 'TLS'}, certificate not verified"
        remedy = "write tls: required to verify it"
    else:
        ends_at_s = ssl.cert_time_to_seconds(str(certificate["notAfter"]))
        day = time.strftime("%Y-%m-%d", time.gmtime(ends_at_s))
        words = f"{tls.version() or 'TLS'}, certificate verified, until {day}"
        days_left = int((ends_at_s - time.time()) // 86400)
        if days_left < _SOON_DAYS:
            words += f", {counted(days_left, 'day')} left"
            remedy = "the server's operator has to renew it in time"
    result = Result.WARNING if remedy else Result.OK
    return Finding(step=Step.TLS, result=result, detail=words, remedy=remedy)


def _failed(step: Step, detail: str, remedy: str = "") -> Finding:
    return Finding(step=step, result=Result.FAILED, detail=detail, remedy=remedy)


async def _failure(error: UpstreamError, provider: Provider, ehlo_name: str) -> Finding:
    if error.stage is Stage.CONNECT or (error.stage is Stage.GREETING and error.reply is None):
        # no SMTP server was met: another port may do better
        others = await _open_ports(provider, error, ehlo_name)
        remedy = _port_remedy(provider, others, is_foreign=error.is_foreign)
    else:
        said = _said_of(provider, error.stage, error.said) if error.said is not None else ""
        remedy = said or _stage_remedy(error, provider, ehlo_name)
    return _failed(_STEP_OF.get(error.stage, Step.AUTH), error.detail, remedy)


async def _try_sender(connection: OpenConnection, provider: Provider, sender: str) -> Finding:
    shown = sender or "<>"
    parameter = "" if sender.isascii() else " SMTPUTF8"
    if parameter and not connection.offered.smtputf8:
        problem = f"{shown} needs SMTPUTF8, which the provider does not offer"
        return _failed(Step.SENDER, problem, "use a sender in ASCII")
    masked, wire = connection.mask or str, connection.protocol
    replies = []
    try:
        for command in (f"MAIL FROM:<{sender}>{parameter}", "RSET"):
            wire.write(command.encode() + b"\r\n")
            replies.append(await wire.read_reply(timeout_s=provider.timeouts.command))
    except WireFailure as failure:
        return _failed(Step.SENDER, masked(f"{shown}: no answer ({failure})"))
    reply = replies[0]
    if reply.is_positive:
        return Finding(step=Step.SENDER, detail=shown)
    said = _said_of(provider, Stage.MAIL, reply)
    remedy = said or "have the address or its domain verified at the provider"
    return _failed(Step.SENDER, masked(f"{shown}: {reply}"), remedy)


async def _open_ports(provider: Provider, error: UpstreamError, ehlo_name: str) -> list[int]:
    """Return the usual ports on which it greets, with TLS where TLS is wanted; all at once."""
    ports = [port for port in _USUAL_PORTS if port != provider.port]
    is_implicit = provider.port in _IMPLICIT_TLS_PORTS
    if error.stage is Stage.GREETING and is_implicit and provider.tls is not TlsPolicy.IMPLICIT:
        # it waits for TLS and says nothing to one who waits for a greeting in clear
        ports.insert(0, provider.port)
    works = await asyncio.gather(*(_is_open(provider, port, ehlo_name) for port in ports))
    return [port for port, is_open in zip(ports, works, strict=True) if is_open]


async def _is_open(provider: Provider, port: int, ehlo_name: str) -> bool:
    tls = provider.tls
    if tls in (TlsPolicy.REQUIRED, TlsPolicy.IMPLICIT):
        is_implicit = port in _IMPLICIT_TLS_PORTS
        tls = TlsPolicy.IMPLICIT if is_implicit else TlsPolicy.REQUIRED
    try:
        async with _connected(_without_login(provider, port=port, tls=tls), ehlo_name):
            return True
    except UpstreamError:
        return False


# --- what to do, where no reply says it


def _said_of(provider: Provider, stage: Stage, reply: SmtpReply) -> str:
    """Return the catalogue's explanation of a reply, "" for an unknown one."""
    meaning = Classifier(provider).meaning(stage, reply)
    return " ".join(text for text in (meaning.explanation, meaning.remedy) if text)


def _stage_remedy(error: UpstreamError, provider: Provider, ehlo_name: str) -> str:
    """Return a remedy where no reply says it, "" where the error's own text does."""
    match error.stage:
        case Stage.EHLO if (remedy := known_remedy(error.detail)) is not None:
            return remedy
        case Stage.EHLO if error.is_foreign:
            return _foreign_remedy(provider)
        case Stage.EHLO:
            return f"the provider was greeted as {ehlo_name}: see hostname"
        case Stage.STARTTLS:
            return (
                "check host and port; a firewall may remove STARTTLS (Cisco: no fixup smtp); only "
                "for a server in your own network that has no TLS: tls: opportunistic"
            )
        case Stage.TLS if (remedy := known_remedy(error.detail)) is not None:
            return remedy
        case Stage.TLS if provider.tls is TlsPolicy.IMPLICIT:
            return f"port {provider.port} may not use implicit TLS: try tls: required"
        case Stage.TLS:
            return "the server may only support TLS 1.1 or older, which is refused"
        case Stage.AUTH if "supported here" in error.detail:
            return "set auth to a mechanism that the provider offers"
        case Stage.AUTH if error.reply is not None:
            return "check username and password"
        case _:
            return ""


def _foreign_remedy(provider: Provider) -> str:
    """Return the remedy for a provider whose port answers, but not with SMTP."""
    remedy = f"what answers at port {provider.port} does not speak SMTP: check host and port"
    is_implicit = provider.tls is TlsPolicy.IMPLICIT
    return remedy if is_implicit else f"{remedy}; if it expects implicit TLS, write tls: implicit"


def _port_remedy(provider: Provider, open_ports: Sequence[int], *, is_foreign: bool) -> str:
    """Return the remedy when the provider's port is shut or foreign and these others are open."""
    if not open_ports:
        check = f"check host and port, and allow port {provider.port} in the firewall"
        remedy = _foreign_remedy(provider) if is_foreign else check
        return f"no other common port works either; {remedy}"
    is_protected = provider.tls in (TlsPolicy.REQUIRED, TlsPolicy.IMPLICIT)
    port = open_ports[0]
    tls = TlsPolicy.IMPLICIT if port in _IMPLICIT_TLS_PORTS else TlsPolicy.REQUIRED
    and_tls = f" and tls: {tls}" if is_protected and tls is not provider.tls else ""
    works = " ".join(map(str, open_ports))
    return f"ports that work here: {works}; write port: {port}{and_tls}"
