"""From nothing to an authenticated connection, with what it takes to get there.

With TLS `required` or `implicit` the certificate's chain, host name and dates are verified, and
neither AUTH nor MAIL is sent before that worked. One AUTH mechanism is chosen and tried once,
for every failed login counts at the provider; only what had been kept from before, an access
token or a command's answer, is tried a second time after it was fetched anew.
"""

from __future__ import annotations

import asyncio
import ssl

from relaygw.mail.outcome import Stage
from relaygw.settings.provider import Provider, TlsPolicy
from relaygw.upstream.credentials import Credentials
from relaygw.upstream.failure import UpstreamError, mask
from relaygw.upstream.login import Login
from relaygw.upstream.opening import OpenConnection, Opening

__all__ = ["OpenConnection", "build_tls_context", "load_tls_context", "open_connection"]

_VERIFIED = frozenset({TlsPolicy.REQUIRED, TlsPolicy.IMPLICIT})


def build_tls_context(provider: Provider) -> ssl.SSLContext:
    """Return the context for `provider`: TLS 1.2 at least, verified unless opportunistic.

    Reads certificates from disk, some milliseconds: call it in a thread. Raises OSError.
    """
    context = ssl.create_default_context(cafile=provider.tls_ca)
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
) -> OpenConnection:
    """Open a connection that is ready for MAIL FROM; raises UpstreamError.

    `credentials` of this provider keep what is costly to get; they learn of a refusal, and what
    they had kept is then tried once more as it is now. `timeouts.connect` covers the TCP
    connection, `timeouts.command` each later step.
    """
    credentials = credentials or Credentials(provider)
    login = await credentials.read()
    if tls_context is None:
        tls_context = await load_tls_context(provider)
    try:
        return await _open_once(provider, ehlo_name, tls_context, login)
    except UpstreamError as error:
        if login is None or not _is_login_refused(error):
            raise
        credentials.forget(login)
        if not login.is_kept:
            raise
        anew = await credentials.read()
        if anew is None or anew.secret == login.secret:
            raise
    try:
        return await _open_once(provider, ehlo_name, tls_context, anew)
    except UpstreamError as error:
        if _is_login_refused(error):
            credentials.forget(anew)
        raise


def _is_login_refused(error: UpstreamError) -> bool:
    return error.stage is Stage.AUTH and error.reply is not None and error.reply.is_permanent


async def _open_once(
    provider: Provider, ehlo_name: str, tls_context: ssl.SSLContext | None, login: Login | None
) -> OpenConnection:
    try:
        try:
            opening = Opening(provider, ehlo_name=ehlo_name, tls_context=tls_context)
            return await opening.run(login)
        except UpstreamError as error:
            is_tls_at_fault = error.stage in (Stage.STARTTLS, Stage.TLS)
            if not is_tls_at_fault or provider.tls is not TlsPolicy.OPPORTUNISTIC:
                raise
        # opportunistic: a provider whose TLS is broken is worth as much as one without
        return await Opening(provider, ehlo_name=ehlo_name, tls_context=None).run(login)
    except UpstreamError as error:
        if login is not None:
            mask(error, login)
        raise
