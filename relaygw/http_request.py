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
_MAX_HEAD_BYTES = 65_536
DEFAULT_PORTS = {"http": 80, "https": 443}
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


def context_for(url: str) -> ssl.SSLContext:
    """Return whom a URL believes: the system's authorities, nobody without TLS; blocks."""
    if urlsplit(url).scheme == "https":
        return verifying_context()
    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


@asynccontextmanager
async def _bounded(
    url: str, limit_s: float | None, *errors: type[Exception]
) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(limit_s):
            yield
    except errors as error:
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
    """Send what httpx2 takes as `request`; a body is read of a 200, up to the first piece too many.

    `is_direct`: past the proxies of the environment. Raises Unanswered.
    """
    import httpx2  # costs those who need it

    async with _bounded(url, limit_s, OSError, httpx2.HTTPError, httpx2.InvalidURL):
        if context is None:
            context = await asyncio.to_thread(verifying_context)
        timeout = httpx2.Timeout(None, connect=connect_s)
        async with (
            httpx2.AsyncClient(verify=context, timeout=timeout, trust_env=not is_direct) as client,
            client.stream(method, url, **request) as response,
        ):
            body = bytearray()
            if max_body_bytes and response.status_code == 200:
                async for part in response.aiter_raw():
                    body += part
                    if len(body) > max_body_bytes:
                        break
            return Answer(int(response.status_code), dict(response.headers), bytes(body))


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
    Of the answer `max_body_bytes` are read, whatever its status. Raises Unanswered.
    """
    from h11 import ProtocolError

    parts = urlsplit(url)
    async with _bounded(url, limit_s, OSError, EOFError, ProtocolError, UnicodeError):
        name = parts.hostname or ""
        addresses = await addresses_of(name, port_of(parts))
        permit(name, addresses)
        if context is None:
            context = await asyncio.to_thread(context_for, url)
        reader, writer = await _connected(parts, addresses, context, connect_s)
        try:
            return await _exchanged(reader, writer, parts, headers, body, max_body_bytes)
        finally:
            writer.transport.abort()  # what else it says is not waited for


async def _connected(
    parts: SplitResult, addresses: list[str], context: ssl.SSLContext, connect_s: float
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Connect to the first address that lets us; raises what the last one failed with."""
    # the certificate has to have the name, or address, of the URL
    tls: dict[str, Any] = {"ssl": context, "server_hostname": parts.hostname}
    for number, address in enumerate(addresses, 1):
        try:
            async with asyncio.timeout(connect_s):
                return await asyncio.open_connection(
                    address, port_of(parts), **(tls if parts.scheme == "https" else {})
                )
        except TimeoutError:
            if number == len(addresses):
                raise OSError(errno.ETIMEDOUT, "no connection in time") from None
        except OSError:
            if number == len(addresses):
                raise
    raise OSError(errno.EADDRNOTAVAIL, "it has no address")


async def _exchanged(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    parts: SplitResult,
    headers: Mapping[str, str],
    body: bytes,
    max_body_bytes: int,
) -> Answer:
    """Send a request and read its answer; raises EOFError, h11's errors, OSError."""
    from h11 import CLIENT, NEED_DATA, Connection, Data, EndOfMessage, Request, Response

    own = {"host": parts.netloc.rpartition("@")[2], "connection": "close"}
    fields = {**headers, **own, "content-length": str(len(body))}
    path = parts._replace(scheme="", netloc="", path=parts.path or "/", fragment="").geturl()
    request = Request(method="POST", target=path, headers=list(fields.items()))
    http = Connection(CLIENT, max_incomplete_event_size=_MAX_HEAD_BYTES)
    # not waited for: who refuses a post may answer without reading it
    writer.write((http.send(request) or b"") + (http.send(Data(data=body)) or b""))
    answer: Answer | None = None
    held = bytearray()
    while True:
        event = http.next_event()
        if isinstance(event, Response):
            told = {key.decode(): text.decode("latin-1") for key, text in event.headers}
            answer = Answer(event.status_code, told)
        elif isinstance(event, Data):
            held += event.data
        elif event is NEED_DATA:
            data = await reader.read(_MAX_HEAD_BYTES)
            if not data and answer is None:
                raise EOFError
            http.receive_data(data)
        if answer is not None and (len(held) >= max_body_bytes or isinstance(event, EndOfMessage)):
            return replace(answer, body=bytes(held[:max_body_bytes]))
