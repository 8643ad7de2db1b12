"""Where a connection leads, where one comes from, and why one failed."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from collections.abc import Iterable
from concurrent.futures import Future
from contextlib import suppress
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from threading import Lock, Thread
from typing import Any

# --- addresses that somebody else may choose -----------------------------------------------

_NAT64 = b"\x00\x64\xff\x9b" + bytes(8)
# what ipaddress, or that of an older Python, calls global: of protocols and clouds, site-local
_NOT_PUBLIC = tuple(
    map(ip_network, ("192.0.0.0/24", "192.88.99.0/24", "168.63.129.16", "fec0::/10", "3fff::/20"))
)


async def addresses_of(name: str, port: int) -> list[str]:
    """Return the IP addresses of a host, as the system prefers them; raises socket.gaierror."""
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(name, port, type=socket.SOCK_STREAM)
    return [str(one[4][0]) for one in found]


def is_public(text: str) -> bool:
    """Return whether an IP address is one of the Internet, also by what it leads to."""
    try:
        ip = ip_address(text.partition("%")[0])
    except ValueError:
        return False
    inner = _inner(ip) if isinstance(ip, IPv6Address) else None
    one = ip if inner is None else inner
    is_other = one.is_private or one.is_multicast or one.is_reserved or one.is_unspecified
    is_other = is_other or any(one in network for network in _NOT_PUBLIC)
    return one.is_global and not is_other and "%" not in text


def is_own(address: str) -> bool:
    """Return whether an address is this host's: what listens there may let this host in."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((address, 9))  # of UDP: nothing is sent
        except OSError:  # no way there
            return False
        return bool(ip_address(probe.getsockname()[0]) == ip_address(address))


def _inner(ip: IPv6Address) -> IPv4Address | None:
    """Return the IPv4 address that an IPv6 one stands for."""
    if ip.packed[:12] == _NAT64:
        return IPv4Address(ip.packed[12:])
    return ip.ipv4_mapped or ip.sixtofour or (ip.teredo[1] if ip.teredo else None)


# --- clients -------------------------------------------------------------------------------

Address = IPv4Address | IPv6Address


def parse_client(text: str) -> Address:
    """Return the address of a client; IPv4 mapped into IPv6 is IPv4."""
    address = ip_address(text.partition("%")[0])
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def is_trusted(client: Address, allow: Iterable[IPv4Network | IPv6Network]) -> bool:
    """True if the client may submit without AUTH."""
    return any(client in network for network in allow)


def guesser(client: Address) -> str:
    """Return who is behind wrong passwords: the address, of IPv6 the /64."""
    return str(client) if client.version == 4 else client_key(client)


def client_key(client: Address) -> str:
    """Return the network that takes turns with others: /24 of IPv4, /64 of IPv6."""
    prefix = 24 if client.version == 4 else 64
    network = IPv4Network if client.version == 4 else IPv6Network
    return str(network((client.packed, prefix), strict=False))


# --- names of providers --------------------------------------------------------------------

# The system's resolver blocks, for half a minute where no server of a name answers. A pool of
# threads would fill with a provider whose name hangs: that of uvloop has four. So each name has a
# thread of its own while it is looked up, and all who ask for it meanwhile share its answer.
SocketAddress = tuple[socket.AddressFamily, Any]
"""A family, and what socket.connect takes."""
_Key = tuple[str, int]
_lock = Lock()
_under_way: dict[_Key, Future[list[SocketAddress]]] = {}


async def look_up(host: str, port: int) -> list[SocketAddress]:
    """Return where a host is; raises socket.gaierror or UnicodeError. Who cancels ends nothing."""
    with suppress(socket.gaierror):
        return _resolve(host, port, flags=socket.AI_NUMERICHOST)  # which asks nobody
    return await asyncio.wrap_future(_begun((host, port)))


def _begun(key: _Key) -> Future[list[SocketAddress]]:
    with _lock:
        found = _under_way.get(key)
        if found is None:
            found = _under_way[key] = Future()
            found.set_running_or_notify_cancel()  # it belongs to all: nobody cancels it
            Thread(target=_answer, args=(key, found), name="lookup", daemon=True).start()
        return found


def _answer(key: _Key, asked: Future[list[SocketAddress]]) -> None:
    addresses: list[SocketAddress] = []
    failure: Exception | None = None
    try:
        addresses = _resolve(*key)
    except Exception as error:
        failure = error
    with _lock:
        del _under_way[key]
    if failure is None:
        asked.set_result(addresses)
    else:
        asked.set_exception(failure)


def _resolve(host: str, port: int, *, flags: int = 0) -> list[SocketAddress]:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=flags)
    return [(family, address) for family, _, _, _, address in found]


# --- failures ------------------------------------------------------------------------------

# what OpenSSL calls an answer that is no TLS; its errno is none of the system
_NO_TLS = ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "UNKNOWN_PROTOCOL", "HTTP_REQUEST")
_IN_WORDS = (  # errors of HTTP by their names, without loading the library; the first that fits
    ("ConnectTimeout", "no connection in time"),
    ("TimeoutException", "no answer in time"),
    ("RemoteProtocolError", "it does not answer in HTTP"),
    ("ReadError", "it ended the connection before it answered"),
    ("WriteError", "it ended the connection before it had the request"),
    ("ConnectError", "no connection"),
    ("LocalProtocolError", "the request is not HTTP"),
    ("InvalidURL", "the URL is not one of HTTP"),
    ("UnsupportedProtocol", "the URL is not one of HTTP"),
    ("UnicodeError", "the host is not a name"),
)


def reason_of(error: BaseException) -> str:
    """Return what happened by what the system said, since a library may tell the URL."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLError):
            return _tls_reason(cause)
        if isinstance(cause, socket.gaierror):
            return cause.strerror or "unknown host name"
        if isinstance(cause, OSError) and cause.errno:
            return os.strerror(cause.errno)
        cause = cause.__cause__ or cause.__context__
    return _in_words(error)


def _tls_reason(error: ssl.SSLError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"certificate not verified: {error.verify_message}"
    if isinstance(error, ssl.SSLEOFError | ssl.SSLZeroReturnError):
        return "it ended the connection while TLS began"
    if error.reason in _NO_TLS:
        return "it does not speak TLS on this port"
    return f"TLS failed: {(error.reason or 'for no known reason').replace('_', ' ').lower()}"


def _in_words(error: BaseException) -> str:
    is_end = type(error).__name__ == "RemoteProtocolError" and "disconnected" in str(error)
    if is_end or isinstance(error, EOFError):
        return "it ended the connection without an answer in HTTP"
    names = {one.__name__ for one in type(error).__mro__}
    return next((words for name, words in _IN_WORDS if name in names), type(error).__name__)
