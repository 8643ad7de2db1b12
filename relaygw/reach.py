"""Where a connection may lead that somebody else chose, whom it believes, and why one failed."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

_NAT64 = b"\x00\x64\xff\x9b" + bytes(8)
# what ipaddress, or that of an older Python, calls global: of protocols and clouds, site-local
_NOT_PUBLIC = tuple(
    map(ip_network, ("192.0.0.0/24", "192.88.99.0/24", "168.63.129.16", "fec0::/10", "3fff::/20"))
)


async def addresses_of(name: str, port: int) -> list[str]:
    """Return the IP addresses of a host, as the system prefers them; raises socket.gaierror."""
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(name, port, type=socket.SOCK_STREAM)
    return [str(entry[4][0]) for entry in found]


def is_public(text: str) -> bool:
    """Return whether an IP address is one of the Internet, also by what it leads to."""
    try:
        ip = ip_address(text.partition("%")[0])
    except ValueError:
        return False
    inner = _inner(ip) if isinstance(ip, IPv6Address) else None
    address = ip if inner is None else inner
    is_other = (
        address.is_private or address.is_multicast or address.is_reserved or address.is_unspecified
    )
    is_other = is_other or any(address in network for network in _NOT_PUBLIC)
    return address.is_global and not is_other and "%" not in text


def is_own(address: str) -> bool:
    """Return whether an address is this host's: what listens there may let this host in."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((address, 9))  # of UDP: nothing is sent
        except OSError:  # no way there
            return False
        return bool(ip_address(probe.getsockname()[0]) == ip_address(address))


def verifying_context(cafile: str | None = None) -> ssl.SSLContext:
    """Return a context that verifies chain, dates and host name; blocks, raises OSError.

    Python 3.13 also refuses authorities whose certificate lacks a keyUsage or an identifier, as
    `openssl req -x509` makes them; Postfix, curl and Python before take them.
    """
    context = ssl.create_default_context(cafile=cafile)
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    return context


def _inner(ip: IPv6Address) -> IPv4Address | None:
    """Return the IPv4 address that an IPv6 one stands for."""
    if ip.packed[:12] == _NAT64:
        return IPv4Address(ip.packed[12:])
    return ip.ipv4_mapped or ip.sixtofour or (ip.teredo[1] if ip.teredo else None)


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
    """Return the error in the system's words, since a library may tell the URL."""
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
    names = {base.__name__ for base in type(error).__mro__}
    return next((words for name, words in _IN_WORDS if name in names), type(error).__name__)
