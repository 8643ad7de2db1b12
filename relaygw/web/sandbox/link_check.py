"""Whether the links of a mail lead somewhere: asked for by an operator, and only then.

A mail may name any address, so nothing inside is reached: each name is resolved here, every address
it has must be a public one, and the connection goes to the very address that was looked at. Each
redirect is a new link. No cookie, password, proxy or body is sent, no body is read. Hosts in
`sandbox.link_hosts` may have private addresses.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from functools import cache
from http import HTTPStatus
from urllib.parse import SplitResult, urljoin, urlsplit

from relaygw import __version__
from relaygw.http_request import DEFAULT_PORTS, Unanswered, ask, port_of
from relaygw.mail.address import MAX_DOMAIN_BYTES
from relaygw.reach import addresses_of, is_own, is_public, verifying_context

MAX_LINKS = 50
MAX_REDIRECTS = 5
LINK_S = 10.0  # for one link with its redirects
ALL_S = 60.0
_AT_ONCE = 5
_MAX_URL = 4000
_LEAST_PORT = 1024  # below it only those of the web
_HEADERS = {"User-Agent": f"relaygw/{__version__} link check", "Accept": "*/*"}
_USE_GET = frozenset({405, 501})  # of those who know no HEAD


class NotVisited(Exception):
    """Why nobody goes to a link."""


@dataclass(frozen=True, slots=True)
class CheckedLink:
    """A link, the status it answered with (0 for none), and what that means."""

    url: str
    status: int
    text: str
    leads_to: str = ""  # after redirects

    @property
    def is_broken(self) -> bool:
        """True for what does not answer, or with an error."""
        return not 200 <= self.status < 400


async def check_links(
    urls: Iterable[str], *, allowed: Collection[str], follow: bool = True
) -> list[CheckedLink]:
    """Visit links, `MAX_LINKS` at most and within `ALL_S`, and return what each answered."""
    gate = asyncio.Semaphore(_AT_ONCE)
    visited = dict.fromkeys(urls)
    wanted = list(visited)[:MAX_LINKS]
    context = await asyncio.to_thread(verifying_context)
    hosts = frozenset(host.lower().strip("[]") for host in allowed)
    loop = asyncio.get_running_loop()
    deadline = loop.time() + ALL_S

    async def visit(url: str) -> CheckedLink:
        async with gate:
            try:
                async with asyncio.timeout_at(min(deadline, loop.time() + LINK_S)):
                    return await _visit(context, url, hosts, follow=follow)
            except TimeoutError:
                return CheckedLink(url, 0, "no answer in time")

    checked = await asyncio.gather(*map(visit, wanted))
    left = [
        CheckedLink(url, 0, f"not visited: the first {MAX_LINKS} are")
        for url in list(visited)[MAX_LINKS:]
    ]
    return [*checked, *left]


async def _visit(
    context: ssl.SSLContext, url: str, hosts: frozenset[str], *, follow: bool
) -> CheckedLink:
    at = url
    try:
        for _ in range(MAX_REDIRECTS + 1):
            status, location = await _ask(context, at, hosts)
            if not (follow and location):
                return CheckedLink(url, status, _phrase(status), at if at != url else "")
            at = urljoin(at, location)
    except NotVisited as error:
        return CheckedLink(url, 0, str(error), at if at != url else "")
    except (Unanswered, ValueError) as error:
        return CheckedLink(url, 0, _reason(error), at if at != url else "")
    return CheckedLink(url, 0, f"more than {MAX_REDIRECTS} redirects", at)


async def _ask(context: ssl.SSLContext, url: str, hosts: frozenset[str]) -> tuple[int, str]:
    """Return the status of an address and where it leads on, "" for nowhere."""
    parts = readable_url(url)
    address = await _public_address(parts, hosts)
    place = f"[{address}]" if ":" in address else address
    host = parts.netloc.encode("idna").decode() if not parts.netloc.isascii() else parts.netloc
    target = parts._replace(netloc=f"{place}:{port_of(parts)}", fragment="").geturl()
    name = (parts.hostname or "").encode("idna").decode()
    status = 0
    for method in ("HEAD", "GET"):
        answer = await ask(
            method,
            target,
            limit_s=None,
            context=context,
            is_direct=True,
            headers={"Host": host, **_HEADERS},
            extensions={"sni_hostname": name},  # which the certificate has to have
        )
        status = answer.status
        if status not in _USE_GET:
            location = answer.headers.get("location", "")[:_MAX_URL]
            return status, location if 300 <= status < 400 else ""
    return status, ""


def readable_url(url: str) -> SplitResult:
    """Return the parts of a URL that may be visited; raises NotVisited."""
    try:
        parts = urlsplit(url[: _MAX_URL + 1])
        port = port_of(parts)
    except ValueError:
        raise NotVisited("not visited: it is not a complete address") from None
    if parts.scheme not in DEFAULT_PORTS or not parts.hostname or len(url) > _MAX_URL:
        raise NotVisited("not visited: it is not an http or https address")
    if len(parts.hostname) > MAX_DOMAIN_BYTES:  # to encode a long one takes time by the square
        raise NotVisited("no such host")
    if "@" in parts.netloc:
        raise NotVisited("not visited: it contains a user name or password")
    if port < _LEAST_PORT and port not in DEFAULT_PORTS.values():
        raise NotVisited(f"not visited: port {port} is not a web port")
    return parts


async def _public_address(parts: SplitResult, hosts: frozenset[str]) -> str:
    """Return the address to connect to; raises NotVisited unless all that a name has are public."""
    host = (parts.hostname or "").lower()
    name = host.encode("idna").decode() if not host.isascii() else host
    try:
        addresses = await addresses_of(name, port_of(parts))
    except (socket.gaierror, UnicodeError):
        raise NotVisited("no such host") from None
    if not addresses:
        raise NotVisited("no such host")
    if host not in hosts and not all(
        is_public(address) and not is_own(address) for address in addresses
    ):
        raise NotVisited("not visited: its host is inside this network; see sandbox.link_hosts")
    return addresses[0]


@cache
def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "an unknown status"


def _reason(error: BaseException) -> str:
    """Return the error in words that hold nothing from outside."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"certificate not valid: {cause.verify_message}"[:200]
        if isinstance(cause, ssl.SSLError):
            return "no TLS"
        if isinstance(cause, ConnectionRefusedError):
            return "connection refused"
        cause = cause.__cause__ or cause.__context__
    return "no HTTP answer"
