"""What reverse proxies say of a request, believed from those in `web.proxies` only.

Anybody may send these fields. X-Forwarded-For grows to the right, so it is read from there, as
far as proxies wrote it; X-Forwarded-Proto is the word of the last one.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Network, IPv6Network

from starlette.requests import HTTPConnection

from relaygw.policy.admission import Address, guesser, is_trusted, parse_client

_MAX_HOPS = 20


class Forwarded:
    """The client behind the reverse proxies of one web role."""

    def __init__(self, proxies: Iterable[IPv4Network | IPv6Network]) -> None:
        self._proxies = tuple(proxies)

    def guesser(self, connection: HTTPConnection) -> str:
        """Return for whom wrong passwords are counted: the address, of IPv6 the /64."""
        client = _peer(connection)
        for hop in _hops(connection):
            if client is None or not is_trusted(client, self._proxies):
                break
            client = hop
        return guesser(client) if client is not None else "unknown"

    def is_https(self, connection: HTTPConnection) -> bool:
        """True when the browser speaks TLS, as far as a proxy that is believed says so."""
        if connection.url.scheme in ("https", "wss"):
            return True
        peer = _peer(connection)
        if peer is None or not is_trusted(peer, self._proxies):
            return False
        told = ",".join(connection.headers.getlist("x-forwarded-proto"))
        return told.rpartition(",")[2].strip().lower() == "https"


def _peer(connection: HTTPConnection) -> Address | None:
    return _parsed(connection.client.host) if connection.client else None


def _hops(connection: HTTPConnection) -> Iterable[Address]:
    """Yield the addresses of X-Forwarded-For from the right, up to one that is none."""
    told = ",".join(connection.headers.getlist("x-forwarded-for"))
    for text in reversed(told.rsplit(",", _MAX_HOPS)[-_MAX_HOPS:]):
        hop = _parsed(text.strip())
        if hop is None:
            return
        yield hop


def _parsed(text: str) -> Address | None:
    host = text[1:].partition("]")[0] if text.startswith("[") else text
    if host.count(":") == 1:  # some proxies write the port, too
        host = host.partition(":")[0]
    try:
        return parse_client(host)
    except ValueError:
        return None
