"""The steps of opening one connection: connect, greeting, EHLO, STARTTLS, AUTH.

aiosmtplib does these steps one by one; afterwards its transport goes to WireProtocol, because
its own reader takes no pipelined replies and forgets a reply when the connection closes. Every
failure is an UpstreamError with its stage, so that nothing before MAIL FROM can bounce mail.
RFC 5321 section 3.1, RFC 3207, RFC 4954.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from contextlib import AbstractContextManager
from dataclasses import dataclass
from ipaddress import ip_address
from typing import cast

import aiosmtplib

from relaygw.mail.outcome import Stage
from relaygw.settings.provider import Provider, TlsPolicy
from relaygw.upstream.dialing import connect_socket
from relaygw.upstream.failure import UpstreamError, failing_at
from relaygw.upstream.login import Login, Mask
from relaygw.upstream.outgoing import Capabilities
from relaygw.upstream.protocol import WireProtocol
from relaygw.upstream.reply_parser import clean_text

_ENCRYPTED_ORDER = ("plain", "login", "cram-md5")
_CLEAR_ORDER = ("cram-md5", "plain", "login")  # without TLS the password is better not sent


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenConnection:
    """A connection ready for MAIL FROM."""

    protocol: WireProtocol
    offered: Capabilities
    relay: str  # "host[address]:port"
    opened_in_s: float
    mask: Mask | None = None  # of what it was logged in with
    tls: ssl.SSLObject | None = None  # for its certificate and version; None: in clear


def may_authenticate(provider: Provider, *, is_private: bool) -> bool:
    """Return whether the password may go out; private: encrypted, or within this machine.

    Asked again on each connection: with `opportunistic` TLS it depends on the provider's mood.
    """
    return is_private or provider.auth_without_tls


class _Client(aiosmtplib.SMTP):
    """Closes at once: a TLS transport would wait for a stuck peer's goodbye."""

    def close(self) -> None:
        # a cast, because uvloop's transports are no subclasses of asyncio's
        transport = cast("asyncio.Transport | None", self.transport)
        if transport is not None:
            transport.abort()
        super().close()


class Opening:
    """The steps of opening one connection; used once."""

    def __init__(
        self, provider: Provider, *, ehlo_name: str, tls_context: ssl.SSLContext | None
    ) -> None:
        self._provider = provider
        self._context = tls_context
        self._ehlo_name = ehlo_name
        self._relay = "none"
        self._is_loopback = False

    async def run(self, login: Login | None) -> OpenConnection:
        """Go through all steps, AUTH only with a login; raises UpstreamError."""
        started_s = time.monotonic()
        smtp = await self._connect()
        try:
            await self._say_hello(smtp)
            await self._start_tls(smtp)
            if login is not None:
                await self._authenticate(smtp, login)
            protocol = self._take_over(smtp)
        except BaseException:
            smtp.close()
            raise
        return OpenConnection(
            protocol=protocol,
            offered=_capabilities(smtp),
            relay=self._relay,
            opened_in_s=time.monotonic() - started_s,
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
        handshake = Stage.TLS if is_implicit else None
        with failing_at(Stage.GREETING, relay=self._relay, limit_s=limit_s, handshake=handshake):
            try:
                # with a limit of its own, aiosmtplib would leave the socket to nobody when it is
                # cancelled right at the start (Python 3.11)
                async with asyncio.timeout(limit_s):
                    await smtp.connect(timeout=None)
            except TimeoutError:
                raise TimeoutError(f"no greeting within {limit_s:g} s") from None
        self._check_in_step(smtp, Stage.GREETING)
        return smtp

    @property
    def _needs_tls(self) -> bool:
        return self._provider.tls is TlsPolicy.REQUIRED

    async def _say_hello(self, smtp: aiosmtplib.SMTP) -> None:
        with self._failing_at(Stage.EHLO):
            try:
                await smtp.ehlo()
            except aiosmtplib.SMTPHeloError as refusal:
                # without EHLO there is neither STARTTLS nor AUTH, so where they are needed HELO
                # would only hide what was said
                needs_ehlo = self._needs_tls or self._provider.has_credentials
                if needs_ehlo or not 500 <= refusal.code < 600 or not smtp.is_connected:
                    raise
                try:
                    await smtp.helo()
                except aiosmtplib.SMTPServerDisconnected:
                    raise refusal from None  # it says more than the lost connection
        self._check_in_step(smtp, Stage.EHLO)

    async def _start_tls(self, smtp: aiosmtplib.SMTP) -> None:
        policy = self._provider.tls
        if policy in (TlsPolicy.NONE, TlsPolicy.IMPLICIT) or self._context is None:
            return
        if not smtp.supports_extension("starttls"):
            if policy is TlsPolicy.OPPORTUNISTIC:
                return
            raise self._error(Stage.STARTTLS, "STARTTLS is required and the provider offers none")
        with self._failing_at(Stage.STARTTLS, handshake=Stage.TLS):
            await smtp.starttls(server_hostname=self._provider.host, tls_context=self._context)
        await self._say_hello(smtp)

    async def _authenticate(self, smtp: aiosmtplib.SMTP, login: Login) -> None:
        is_encrypted = smtp.get_transport_info("sslcontext") is not None
        is_private = is_encrypted or self._is_loopback
        if not may_authenticate(self._provider, is_private=is_private):
            detail = "no TLS, and without it the password is not sent (auth_without_tls)"
            raise self._error(Stage.AUTH, detail)
        offered = smtp.server_auth_methods
        wanted = self._wanted_mechanisms(is_encrypted=is_encrypted)
        mechanism = next((name for name in wanted if name in offered), None)
        with self._failing_at(Stage.AUTH):
            match mechanism:
                case "plain":
                    await smtp.auth_plain(login.username, login.secret)
                case "login":
                    await smtp.auth_login(login.username, login.secret)
                case "cram-md5":
                    await smtp.auth_crammd5(login.username, login.secret)
                case "xoauth2":
                    await smtp.auth_xoauth2(login.username, login.secret)
                case _:
                    names = clean_text(" ".join(offered).upper().encode()) or "no AUTH"
                    known = ", ".join(name.upper() for name in wanted)
                    raise self._error(
                        Stage.AUTH, f"the provider offers {names}; to be used here: {known}"
                    )
        self._check_in_step(smtp, Stage.AUTH)

    def _wanted_mechanisms(self, *, is_encrypted: bool) -> tuple[str, ...]:
        if self._provider.uses_xoauth2:
            return ("xoauth2",)
        if self._provider.auth != "auto":
            return (self._provider.auth,)
        return _ENCRYPTED_ORDER if is_encrypted else _CLEAR_ORDER

    def _take_over(self, smtp: aiosmtplib.SMTP) -> WireProtocol:
        transport = cast("asyncio.Transport | None", smtp.transport)
        if transport is None or not smtp.is_connected:
            raise self._error(Stage.EHLO, f"lost connection with {self._relay} before MAIL FROM")
        protocol = WireProtocol(transport)
        transport.set_protocol(protocol)
        return protocol

    def _failing_at(
        self, stage: Stage, *, handshake: Stage | None = None
    ) -> AbstractContextManager[None]:
        limit_s = self._provider.timeouts.command
        return failing_at(stage, relay=self._relay, limit_s=limit_s, handshake=handshake)

    def _check_in_step(self, smtp: aiosmtplib.SMTP, stage: Stage) -> None:
        # aiosmtplib would take a reply that came too early for the answer to the next command;
        # its buffer is the only place where one shows
        if getattr(smtp.protocol, "_buffer", b""):
            smtp.close()
            raise self._error(stage, "the provider spoke before it was asked")

    def _error(self, stage: Stage, detail: str) -> UpstreamError:
        return UpstreamError(stage, detail=detail, relay=self._relay)


def _capabilities(smtp: aiosmtplib.SMTP) -> Capabilities:
    size = smtp.esmtp_extensions.get("size", "").strip()
    limit_bytes = int(size) if size.isascii() and size.isdigit() else 0
    return Capabilities(
        pipelining=smtp.supports_extension("pipelining"),
        eight_bit_mime=smtp.supports_extension("8bitmime"),
        smtputf8=smtp.supports_extension("smtputf8"),
        dsn=smtp.supports_extension("dsn"),
        size=smtp.supports_extension("size"),
        max_size_bytes=limit_bytes or None,  # RFC 1870 section 4: 0 means no fixed limit
    )
