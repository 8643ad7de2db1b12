"""On which other ports a provider can be reached from here, when its own one is shut or dumb."""

from __future__ import annotations

import asyncio

from relaygw.mail.outcome import Stage
from relaygw.settings.provider import Provider, TlsPolicy
from relaygw.upstream import usual_ports
from relaygw.upstream.connect import open_connection
from relaygw.upstream.failure import UpstreamError
from relaygw.upstream.session import UpstreamSession


def without_login(provider: Provider, **changes: object) -> Provider:
    """Return `provider` with nothing to log in with, and with `changes`."""
    nothing = {"username": None, "password": None, "oauth": None, "auth": "auto"}
    return provider.model_copy(update={**nothing, **changes})


def may_be_blocked(error: UpstreamError) -> bool:
    """True when another port may do better: nothing came through at all."""
    return error.stage is Stage.CONNECT or (error.stage is Stage.GREETING and error.reply is None)


async def open_ports(provider: Provider, error: UpstreamError, *, ehlo_name: str) -> list[int]:
    """Return the usual ports on which it greets, with TLS where TLS is wanted; all at once."""
    ports = [port for port in usual_ports.USUAL if port != provider.port]
    is_implicit = provider.port in usual_ports.IMPLICIT_TLS
    if error.stage is Stage.GREETING and is_implicit and provider.tls is not TlsPolicy.IMPLICIT:
        # it waits for TLS and says nothing to one who waits for a greeting in clear
        ports.insert(0, provider.port)
    works = await asyncio.gather(*(_works(provider, port, ehlo_name) for port in ports))
    return [port for port, is_open in zip(ports, works, strict=True) if is_open]


async def _works(provider: Provider, port: int, ehlo_name: str) -> bool:
    tls = provider.tls
    if tls in (TlsPolicy.REQUIRED, TlsPolicy.IMPLICIT):
        is_implicit = port in usual_ports.IMPLICIT_TLS
        tls = TlsPolicy.IMPLICIT if is_implicit else TlsPolicy.REQUIRED
    try:
        connection = await open_connection(
            without_login(provider, port=port, tls=tls), ehlo_name=ehlo_name
        )
    except UpstreamError:
        return False
    await UpstreamSession(connection, timeouts=provider.timeouts).close()
    return True
