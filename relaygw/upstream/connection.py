"""From nothing to an authenticated connection: connect, greeting, EHLO, STARTTLS, AUTH.

With TLS `required` or `implicit` neither AUTH nor MAIL is sent before chain, host name and dates of
the certificate are verified, with `encrypt` neither without TLS. One AUTH mechanism is tried once,
for every failed login counts at the provider. aiosmtplib does the steps; then WireProtocol takes
its transport, because its own reader takes no pipelined replies and forgets a reply when the
connection closes. RFC 5321 section 3.1, RFC 3207, RFC 4954; addresses are raced (RFC 8305).
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import ip_address
from itertools import chain, zip_longest
from typing import cast

import aiosmtplib

from relaygw.mail.outcome import Stage
from relaygw.reach import verifying_context
from relaygw.settings.addresses import Bind
from relaygw.settings.loops import listening_at
from relaygw.settings.provider import Provider, TlsPolicy
from relaygw.upstream.credentials import Credentials, Login, Mask
from relaygw.upstream.failure import LOOP, UpstreamError, failing_at
from relaygw.upstream.lookup import SocketAddress, look_up
from relaygw.upstream.outgoing import Capabilities
from relaygw.upstream.protocol import WireProtocol, clean_text

_NEXT_ADDRESS_AFTER_S = 0.25
_Attempt = asyncio.Task[tuple[socket.socket, str]]
_VERIFIED = frozenset({TlsPolicy.REQUIRED, TlsPolicy.IMPLICIT})
_NEEDS_STARTTLS = frozenset({TlsPolicy.REQUIRED, TlsPolicy.ENCRYPT})
_ENCRYPTED_ORDER: tuple[str, ...] = ("plain", "login", "cram-md5")
# without TLS the password is better not sent
_CLEAR_ORDER: tuple[str, ...] = ("cram-md5", "plain", "login")
_AUTH = {
    "plain": aiosmtplib.SMTP.auth_plain,
    "login": aiosmtplib.SMTP.auth_login,
    "cram-md5": aiosmtplib.SMTP.auth_crammd5,
    "xoauth2": aiosmtplib.SMTP.auth_xoauth2,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenConnection:
    """A connection ready for MAIL FROM."""

    protocol: WireProtocol
    offered: Capabilities
    relay: str  # "host[address]:port"
    name: str = ""  # what it calls itself in its answer to EHLO
    opened_in_s: float
    round_trip_s: float  # from EHLO to its answer
    mask: Mask | None = None  # of what it was logged in with
    tls: ssl.SSLObject | None = None  # for its certificate and version; None: in clear


def build_tls_context(provider: Provider) -> ssl.SSLContext:
    """Return the context for `provider`: TLS 1.2 at least, verified where its policy says so.

    Reads certificates from disk: call it in a thread. Raises OSError.
    """
    context = verifying_context(provider.tls_ca)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.hostname_checks_common_name = False
    if provider.tls not in _VERIFIED:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


async def load_tls_context(provider: Provider) -> ssl.SSLContext | None:
    """Return the context for `provider`, None for `tls: none`; raises UpstreamError."""
    if provider.tls is TlsPolicy.NONE:
        return None
    try:
        return await asyncio.to_thread(build_tls_context, provider)
    except OSError as error:
        detail = f"cannot read the certificates of tls_ca {provider.tls_ca}: {error}"
        raise UpstreamError(Stage.TLS, detail=detail) from error


async def open_connection(
    provider: Provider,
    *,
    ehlo_name: str,
    credentials: Credentials | None = None,
    tls_context: ssl.SSLContext | None = None,
    own: tuple[Bind, ...] = (),
) -> OpenConnection:
    """Open a connection that is ready for MAIL FROM; raises UpstreamError.

    `own` are listeners that it must not lead to: mail would go round between the two.
    `credentials` learn of a refusal; what they had kept is then tried once more as it is now.
    `timeouts.connect` covers the TCP connection, `timeouts.command` each later step.
    """
    credentials = credentials or Credentials(provider)
    login = await credentials.read()
    if tls_context is None:
        tls_context = await load_tls_context(provider)
    refused: Login | None = None
    while True:
        try:
            return await _open_once(_Opener(provider, ehlo_name, tls_context, own), login)
        except UpstreamError as error:
            if login is None:
                raise
            error.mask(Mask(login))
            if error.stage is not Stage.AUTH or error.reply is None or not error.reply.is_permanent:
                raise
            credentials.forget(login)
            if refused is not None or not login.is_kept:
                raise
            refused, login = login, await credentials.read()
            if login is None or login.secret == refused.secret:
                raise


async def _open_once(opener: _Opener, login: Login | None) -> OpenConnection:
    try:
        return await opener.open(login)
    except UpstreamError as error:
        in_clear = opener.without_tls()
        if error.stage not in (Stage.STARTTLS, Stage.TLS) or in_clear is None:
            raise
    return await in_clear.open(login)


# --- the steps


def may_authenticate(provider: Provider, *, is_private: bool) -> bool:
    """Return whether the password may go out; private: encrypted, or within this machine."""
    return is_private or provider.auth_without_tls


class _Client(aiosmtplib.SMTP):
    """Closes at once: a TLS transport would wait for a stuck peer's goodbye."""

    has_unread = False  # something was said when it closed, and no reply

    def close(self) -> None:
        self.has_unread = self.has_unread or bool(getattr(self.protocol, "_buffer", b""))
        # a cast, because uvloop's transports are no subclasses of asyncio's
        transport = cast("asyncio.Transport | None", self.transport)
        if transport is not None:
            transport.abort()
        super().close()


class _Opener:
    def __init__(
        self,
        provider: Provider,
        ehlo_name: str,
        tls_context: ssl.SSLContext | None,
        own: tuple[Bind, ...],
    ) -> None:
        self._provider = provider
        self._own = own
        self._own_bind: Bind | None = None  # where the connection leads, as it seems
        self._name = ""
        self._context = tls_context
        self._ehlo_name = ehlo_name
        self._relay = "none"
        self._is_loopback = False
        self._round_trip_s = 0.0

    def without_tls(self) -> _Opener | None:
        """Return one that does the same in clear, where TLS is opportunistic."""
        # a provider whose TLS is broken is worth as much as one without
        if self._provider.tls is not TlsPolicy.OPPORTUNISTIC:
            return None
        return _Opener(self._provider, self._ehlo_name, None, self._own)

    async def open(self, login: Login | None) -> OpenConnection:
        """Go through all steps, AUTH only with a login; raises UpstreamError."""
        started_s = time.monotonic()
        smtp = await self._connect()
        try:
            await self._say_hello(smtp)
            self._refuse_a_loop()
            await self._start_tls(smtp)
            if login is not None:
                await self._authenticate(smtp, login)
            transport = cast("asyncio.Transport | None", smtp.transport)
            if transport is None or not smtp.is_connected:
                lost = f"lost connection with {self._relay} before MAIL FROM"
                raise self._error(Stage.EHLO, lost)
            protocol = WireProtocol(transport)
            transport.set_protocol(protocol)
        except BaseException:
            smtp.close()
            raise
        return OpenConnection(
            protocol=protocol,
            offered=_capabilities(smtp),
            relay=self._relay,
            name=self._name,
            opened_in_s=time.monotonic() - started_s,
            round_trip_s=self._round_trip_s,
            mask=Mask(login) if login is not None else None,
            tls=smtp.get_transport_info("ssl_object"),
        )

    async def _connect(self) -> aiosmtplib.SMTP:
        provider = self._provider
        try:
            sock, address = await connect_socket(
                provider.host, provider.port, timeout_s=provider.timeouts.connect
            )
        except OSError as error:
            raise UpstreamError(Stage.CONNECT, detail=str(error)) from error
        self._relay = f"{provider.host}[{address}]:{provider.port}"
        self._is_loopback = ip_address(address.partition("%")[0]).is_loopback
        if self._own and (self._is_loopback or sock.getsockname()[0] == address.partition("%")[0]):
            self._own_bind = listening_at(address, provider.port, self._own)
        is_implicit = provider.tls is TlsPolicy.IMPLICIT
        limit_s = provider.timeouts.command
        smtp = _Client(
            hostname=provider.host,
            local_hostname=self._ehlo_name,
            timeout=limit_s,
            use_tls=is_implicit,
            start_tls=False,
            tls_context=self._context if is_implicit else None,
            sock=sock,
        )
        with self._step(smtp, Stage.GREETING, handshake=Stage.TLS if is_implicit else None):
            try:
                # with a limit of its own, aiosmtplib would leave the socket to nobody when it is
                # cancelled right at the start (Python 3.11)
                async with asyncio.timeout(limit_s):
                    await smtp.connect(timeout=None)
            except TimeoutError:
                if smtp.has_unread:
                    problem = f"the greeting did not end within {limit_s:g} s"
                    raise aiosmtplib.SMTPResponseException(-1, problem) from None
                raise TimeoutError(f"no greeting within {limit_s:g} s") from None
        return smtp

    async def _say_hello(self, smtp: aiosmtplib.SMTP) -> None:
        provider = self._provider
        with self._step(smtp, Stage.EHLO):
            try:
                asked_s = time.monotonic()
                answer = await smtp.ehlo()
                self._round_trip_s = time.monotonic() - asked_s
                self._name = next(iter(answer.message.split()), "")
            except aiosmtplib.SMTPHeloError as refusal:
                # without EHLO there is neither STARTTLS nor AUTH, so where they are needed HELO
                # would only hide what was said
                needs_ehlo = provider.tls in _NEEDS_STARTTLS or provider.has_credentials
                if needs_ehlo or not 500 <= refusal.code < 600 or not smtp.is_connected:
                    raise
                try:
                    await smtp.helo()
                except aiosmtplib.SMTPServerDisconnected:
                    raise refusal from None  # it says more than the lost connection

    def _refuse_a_loop(self) -> None:
        """Refuse a listener of this machine that has our port and our name (RFC 5321, 6.3)."""
        # a part of a fleet may run no front, and have another server at that port
        if self._own_bind is not None and self._name.lower() == self._ehlo_name.lower():
            raise self._error(Stage.EHLO, f"{self._relay} {LOOP}, its listener {self._own_bind}")

    async def _start_tls(self, smtp: aiosmtplib.SMTP) -> None:
        policy = self._provider.tls
        if policy in (TlsPolicy.NONE, TlsPolicy.IMPLICIT) or self._context is None:
            return
        if not smtp.supports_extension("starttls"):
            if policy is TlsPolicy.OPPORTUNISTIC:
                return
            raise self._error(Stage.STARTTLS, "STARTTLS is required and the provider offers none")
        limit_s = self._provider.timeouts.command
        with failing_at(Stage.STARTTLS, relay=self._relay, limit_s=limit_s, handshake=Stage.TLS):
            await smtp.starttls(server_hostname=self._provider.host, tls_context=self._context)
        await self._say_hello(smtp)

    async def _authenticate(self, smtp: aiosmtplib.SMTP, login: Login) -> None:
        is_encrypted = smtp.get_transport_info("sslcontext") is not None
        if not may_authenticate(self._provider, is_private=is_encrypted or self._is_loopback):
            detail = "no TLS, and without it the password is not sent (auth_without_tls)"
            raise self._error(Stage.AUTH, detail)
        offered = smtp.server_auth_methods
        wanted = _ENCRYPTED_ORDER if is_encrypted else _CLEAR_ORDER
        if self._provider.uses_xoauth2 or self._provider.auth != "auto":
            wanted = ("xoauth2" if self._provider.uses_xoauth2 else self._provider.auth,)
        mechanism = next((name for name in wanted if name in offered), None)
        if mechanism is None:
            names = clean_text(" ".join(offered).upper().encode()) or "no AUTH"
            known = ", ".join(name.upper() for name in wanted)
            raise self._error(Stage.AUTH, f"the provider offers {names}; relaygw supports: {known}")
        with self._step(smtp, Stage.AUTH):
            await _AUTH[mechanism](smtp, login.username, login.secret)

    @contextmanager
    def _step(
        self, smtp: aiosmtplib.SMTP, stage: Stage, *, handshake: Stage | None = None
    ) -> Iterator[None]:
        limit_s = self._provider.timeouts.command
        with failing_at(stage, relay=self._relay, limit_s=limit_s, handshake=handshake):
            yield
        # aiosmtplib would take a reply that came too early for the answer to the next command;
        # its buffer is the only place where one shows
        if getattr(smtp.protocol, "_buffer", b""):
            smtp.close()
            raise self._error(stage, "the provider sent data before a command")

    def _error(self, stage: Stage, detail: str) -> UpstreamError:
        return UpstreamError(stage, detail=detail, relay=self._relay)


def _capabilities(smtp: aiosmtplib.SMTP) -> Capabilities:
    offers = smtp.supports_extension
    size = smtp.esmtp_extensions.get("size", "").strip()
    limit_bytes = int(size) if size.isascii() and size.isdigit() else 0
    return Capabilities(
        pipelining=offers("pipelining"),
        eight_bit_mime=offers("8bitmime"),
        smtputf8=offers("smtputf8"),
        dsn=offers("dsn"),
        size=offers("size"),
        max_size_bytes=limit_bytes or None,  # RFC 1870 section 4: 0 means no fixed limit
    )


# --- TCP


async def connect_socket(host: str, port: int, *, timeout_s: float) -> tuple[socket.socket, str]:
    """Return a connected, non-blocking socket and its address; `timeout_s` covers the lookup."""
    try:
        async with asyncio.timeout(timeout_s):
            return await connect_first(host, interleave(await look_up(host, port)))
    except socket.gaierror as error:
        raise OSError(f"Host {host} not found: {error.strerror}") from error
    except UnicodeError as error:
        raise OSError(f"Host {host!r} is not a host name: {error}") from error
    except TimeoutError as error:
        raise TimeoutError(f"connect to {host}:{port}: no reply within {timeout_s:g} s") from error


def interleave(addresses: list[SocketAddress]) -> list[SocketAddress]:
    """Return `addresses` with the families taking turns, the resolver's first family first."""
    families = dict.fromkeys(family for family, _ in addresses)
    columns = [[address for address in addresses if address[0] == family] for family in families]
    return [
        address for address in chain.from_iterable(zip_longest(*columns)) if address is not None
    ]


async def connect_first(host: str, addresses: list[SocketAddress]) -> tuple[socket.socket, str]:
    """Return the first connection to be made; raises the first address's OSError if none is."""
    attempts: list[_Attempt] = []
    pending: set[_Attempt] = set()
    winner: tuple[socket.socket, str] | None = None
    try:
        while winner is None and (pending or len(attempts) < len(addresses)):
            if len(attempts) < len(addresses):
                attempt = asyncio.create_task(_connect(host, addresses[len(attempts)]))
                attempts.append(attempt)
                pending.add(attempt)
            limit_s = None if len(attempts) == len(addresses) else _NEXT_ADDRESS_AFTER_S
            done, pending = await asyncio.wait(
                pending, timeout=limit_s, return_when=asyncio.FIRST_COMPLETED
            )
            winner = next((task.result() for task in done if task.exception() is None), None)
    finally:
        # no waiting here: a caller cancelled while it waits would lose the winner's socket
        for attempt in attempts:
            if not attempt.done():
                attempt.cancel()  # it closes its own socket
            elif attempt.exception() is None and attempt.result() is not winner:
                attempt.result()[0].close()
    if winner is None:
        raise attempts[0].exception() or OSError(f"Host {host} has no address")
    return winner


async def _connect(host: str, address: SocketAddress) -> tuple[socket.socket, str]:
    family, target = address
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setblocking(False)
    try:
        await asyncio.get_running_loop().sock_connect(sock, target)
    except BaseException as error:
        sock.close()
        if not isinstance(error, OSError):
            raise
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise OSError(f"connect to {host}[{target[0]}]:{target[1]}: {reason}") from error
    return sock, target[0]
