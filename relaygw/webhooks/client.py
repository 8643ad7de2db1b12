"""One post to a receiver: where it may go, how long it may take, and what the answer means.

The connection goes to the very address that was looked at, as in the check of links. A redirect
is no success and is not followed; of an answer only its status and Retry-After are read.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from ipaddress import ip_address
from urllib.parse import SplitResult, unquote, urlsplit

from relaygw.errors import RelaygwError
from relaygw.reach import addresses_of, is_public, reason_of

LIMIT_S = 15.0  # for a post, from the name to the status
CONNECT_S = 5.0  # for each of the host's addresses
_DEFAULT_PORTS = {"http": 80, "https": 443}


class NotTaken(RelaygwError):
    """A receiver did not take a post; the text says why, and holds no secret."""

    def __init__(
        self, problem: str, *, is_gone: bool = False, retry_after_s: float | None = None
    ) -> None:
        super().__init__(problem)
        self.is_gone = is_gone
        self.retry_after_s = retry_after_s


@dataclass(frozen=True, slots=True, repr=False)
class Target:
    """A receiver's URL and keys, as they were read."""

    url: str
    keys: tuple[str, ...]
    tls: ssl.SSLContext  # whom it believes; costs milliseconds to make
    allow_private: bool = False


def tls_for(url: str) -> ssl.SSLContext:
    """Return what a URL needs: the system's authorities, nobody where there is no TLS; blocks."""
    if urlsplit(url).scheme == "https":
        return ssl.create_default_context()
    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


async def send_post(
    target: Target, body: bytes, headers: Mapping[str, str], *, limit_s: float = LIMIT_S
) -> int:
    """Post a body; return the status, which is 2xx. Raises NotTaken."""
    parts = urlsplit(target.url)
    host = parts.netloc.rpartition("@")[2]
    try:
        async with asyncio.timeout(limit_s):
            addresses = await _permitted(parts, host, target.allow_private)
            status, retry_after = await _ask(target, addresses, body, headers)
    except TimeoutError:
        raise NotTaken(f"{host} did not answer within {limit_s:g} s") from None
    if 200 <= status < 300:
        return status
    hint = "; redirects are not followed" if 300 <= status < 400 else ""
    raise NotTaken(
        f"{host} answered {status}{hint}",
        is_gone=status == 410,
        retry_after_s=_seconds(retry_after),
    )


async def _permitted(parts: SplitResult, host: str, allow_private: bool) -> list[str]:
    """Return the addresses of a host; raises NotTaken for one inside that nobody named."""
    name = parts.hostname or ""
    try:
        found = await addresses_of(name, _port(parts))
    except (socket.gaierror, UnicodeError) as error:
        raise NotTaken(f"{host} cannot be reached ({reason_of(error)})") from None
    if allow_private or _is_literal(name) or all(map(is_public, found)):
        return found
    if name == "localhost" and all(ip_address(one).is_loopback for one in found):
        return found
    raise NotTaken(
        f"{host} has an address inside this network; if that is right, set allow_private: true"
    )


async def _ask(
    target: Target, addresses: list[str], body: bytes, headers: Mapping[str, str]
) -> tuple[int, str]:
    """Return status and Retry-After of the first address that can be connected to."""
    import httpx2  # costs those who need it

    parts = urlsplit(target.url)
    host = parts.netloc.rpartition("@")[2]
    named = {**headers, "host": host}
    auth = (unquote(parts.username), unquote(parts.password or "")) if parts.username else None
    # the name that the certificate has to have
    more = {} if _is_literal(parts.hostname or "") else {"sni_hostname": parts.hostname}
    limits = httpx2.Timeout(LIMIT_S, connect=CONNECT_S)
    try:
        async with httpx2.AsyncClient(
            verify=target.tls, trust_env=False, timeout=limits, follow_redirects=False
        ) as client:
            for number, address in enumerate(addresses, 1):
                place = f"[{address}]" if ":" in address else address
                url = parts._replace(netloc=f"{place}:{_port(parts)}", fragment="").geturl()
                try:
                    async with client.stream(
                        *("POST", url), content=body, headers=named, auth=auth, extensions=more
                    ) as response:
                        return int(response.status_code), response.headers.get("retry-after", "")
                except (httpx2.ConnectError, httpx2.ConnectTimeout):
                    if number == len(addresses):
                        raise
    except (httpx2.HTTPError, httpx2.InvalidURL) as error:
        raise NotTaken(f"{host} cannot be reached ({reason_of(error)})") from None
    raise NotTaken(f"{host} cannot be reached (it has no address)")


def _port(parts: SplitResult) -> int:
    return parts.port or _DEFAULT_PORTS[parts.scheme]


def _is_literal(name: str) -> bool:
    with suppress(ValueError):
        ip_address(name)
        return True
    return False


def _seconds(retry_after: str) -> float | None:
    """Return what Retry-After asks for, as seconds or a date (RFC 9110); None: nothing."""
    text = retry_after.strip()
    if text.isascii() and text.isdigit():
        return float(text[:10])
    with suppress(ValueError, OverflowError, TypeError):
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    return None
