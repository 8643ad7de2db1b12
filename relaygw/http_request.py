"""One request over HTTP to an address that somebody named: bounded, verified, never redirected.

`ask` goes as the environment says, through its proxies. `post_directly` connects to the very IP
addresses that the caller looked at, past every proxy. Nothing is read of an answer that nobody
needs, and no error tells the URL, which may be a secret.
"""

from __future__ import annotations

import asyncio
import errno
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import SplitResult, urlsplit

from relaygw.errors import RelaygwError
from relaygw.reach import addresses_of, reason_of, verifying_context

CONNECT_S = 5.0
DEFAULT_PORTS = {"http": 80, "https": 443}
_OF_ONE_POST = {"connection": "close", "accept-encoding": "identity"}
_BEFORE_THE_REQUEST = {"ConnectError", "ConnectTimeout", "InvalidURL"}


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to a request; headers by their names in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes = b""

    @property
    def is_success(self) -> bool:
        """True for what took the request."""
        return 200 <= self.status < 300


class Unanswered(RelaygwError):
    """There was no answer. The text begins with the host; `reason` does not name it."""

    def __init__(self, host: str, error: Exception, limit_s: float | None) -> None:
        is_late = limit_s is not None and isinstance(error, TimeoutError) and not error.errno
        within = f"within {limit_s:g} s" if is_late else ""
        self.reason = f"no answer {within}" if is_late else reason_of(error)
        super().__init__(
            f"{host} did not answer {within}"
            if is_late
            else f"{host} cannot be reached ({self.reason})"
        )
        names = {each.__name__ for each in type(error).__mro__}
        self.may_be_taken = names.isdisjoint(_BEFORE_THE_REQUEST)


def host_of(url: str) -> str:
    """Return host and port of a URL as it has them, without user name and password."""
    return urlsplit(url).netloc.rpartition("@")[2]


def port_of(parts: SplitResult) -> int:
    """Return the port of a URL, 0 for a scheme that is none of the web's; raises ValueError."""
    return parts.port or DEFAULT_PORTS.get(parts.scheme, 0)


@asynccontextmanager
async def _bounded(
    url: str, limit_s: float | None, context: ssl.SSLContext | None
) -> AsyncIterator[ssl.SSLContext]:
    """Lend whom a connection believes, the system's authorities if nobody else is named."""
    import httpx2

    try:
        async with asyncio.timeout(limit_s):
            if context is None:
                context = await asyncio.to_thread(verifying_context)
            yield context
    except (OSError, UnicodeError, httpx2.HTTPError, httpx2.InvalidURL) as error:
        raise Unanswered(host_of(url), error, limit_s) from error


async def ask(
    method: str,
    url: str,
    *,
    limit_s: float | None,
    connect_s: float | None = None,
    max_body_bytes: int = 0,
    context: ssl.SSLContext | None = None,
    is_direct: bool = False,
    **request: Any,
) -> Answer:
    """Send what httpx2 takes as `request`; of the answer's body so much is read, or a piece more.

    `is_direct`: past the proxies of the environment. Raises Unanswered.
    """
    async with _bounded(url, limit_s, context) as believed:
        return await _ask(
            method, url, connect_s, max_body_bytes, believed, is_direct=is_direct, **request
        )


async def post_directly(
    url: str,
    body: bytes,
    headers: Mapping[str, str],
    *,
    limit_s: float,
    connect_s: float = CONNECT_S,
    max_body_bytes: int = 0,
    context: ssl.SSLContext | None = None,
    permit: Callable[[str, list[str]], None] = lambda _name, _addresses: None,
) -> Answer:
    """Post to the first IP address of the host that can be connected to.

    `connect_s` is for each address, `permit` raises for a name whose addresses may not be reached.
    Of the answer `max_body_bytes` are read. Raises Unanswered.
    """
    import httpx2

    parts = urlsplit(url)
    async with _bounded(url, limit_s, context) as believed:
        name, port = parts.hostname or "", port_of(parts)
        addresses = await addresses_of(name, port)
        permit(name, addresses)
        # the certificate has to have the name, or address, of the URL
        request: dict[str, Any] = {
            "content": body,
            "headers": {**headers, **_OF_ONE_POST, "host": host_of(url)},
            "extensions": {"sni_hostname": name},
        }
        for number, address in enumerate(addresses, 1):
            netloc = f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
            there = parts._replace(netloc=netloc).geturl()
            try:
                answer = await _ask(
                    "POST", there, connect_s, max_body_bytes, believed, is_direct=True, **request
                )
                return replace(answer, body=answer.body[:max_body_bytes])
            except (httpx2.ConnectError, httpx2.ConnectTimeout):
                if number == len(addresses):
                    raise
        raise OSError(errno.EADDRNOTAVAIL, "it has no address")


async def _ask(
    method: str,
    url: str,
    connect_s: float | None,
    max_body_bytes: int,
    context: ssl.SSLContext,
    *,
    is_direct: bool,
    **request: Any,
) -> Answer:
    import httpx2  # costs those who need it

    timeout = httpx2.Timeout(None, connect=connect_s)
    async with (
        httpx2.AsyncClient(verify=context, timeout=timeout, trust_env=not is_direct) as client,
        client.stream(method, url, **request) as response,
    ):
        body = bytearray()
        if max_body_bytes:
            async for part in response.aiter_raw():
                body += part
                if len(body) > max_body_bytes:
                    break
        return Answer(int(response.status_code), dict(response.headers), bytes(body))
