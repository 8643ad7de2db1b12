"""Addresses to listen on: `127.0.0.1:25`, `[::1]:25`, `localhost:8025`.

A host is an IP address or `localhost`, never a name: what a name resolves to may change
after the check that keeps an open relay from starting. ValueError texts continue a
sentence that begins with the value.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import TYPE_CHECKING, Self

from relaygw.settings.section import Conflict, Written
from relaygw.settings.tree import Keys, shown_keys

if TYPE_CHECKING:
    from relaygw.settings.model import Settings

_HOST_AND_PORT = re.compile(r"(?:\[(?P<ipv6>[^\[\]]+)\]|(?P<host>[^:\[\]]*)):(?P<port>[0-9]{1,5})")


@dataclass(frozen=True, slots=True)
class Bind(Written):
    """A host and a port to listen on; port 0 lets the kernel choose."""

    host: str
    port: int

    @classmethod
    def parse(cls, value: object) -> Self:
        """Read `HOST:PORT`; an IPv6 address stands in brackets."""
        if isinstance(value, cls):
            return value
        if not isinstance(value, str):
            raise ValueError("is not an address to listen on; write e.g. 127.0.0.1:25")
        text = value.strip()
        if text.startswith(("unix:", "/")):
            raise ValueError("is a Unix socket, which is not supported; write e.g. 127.0.0.1:25")
        match = _HOST_AND_PORT.fullmatch(text)
        if match is None:
            remedy = 'write e.g. 127.0.0.1:25, or "[::1]:25" with the IPv6 address in brackets'
            raise ValueError(f"is not an address to listen on; {remedy}")
        host, port = match["ipv6"] or match["host"], int(match["port"])
        if host in ("", "*"):
            raise ValueError(
                f'names no address; write 0.0.0.0:{port} or "[::]:{port}" to listen on all'
            )
        if port > 65535:
            raise ValueError("has a port beyond 65535; write e.g. 127.0.0.1:25")
        _check_host(host, is_bracketed=match["ipv6"] is not None)
        return cls(host, port)

    @property
    def is_loopback(self) -> bool:
        """True when only this machine can connect."""
        return self.host == "localhost" or ip_address(self.host).is_loopback

    def overlaps(self, other: Bind) -> bool:
        """Return whether only one of the two can be listened on."""
        if self.port != other.port or not self.port:
            return False
        mine, its = (_ip(one.host) for one in (self, other))
        if mine.version != its.version:
            return False  # [::] takes no connections of IPv4 here
        return mine == its or mine.is_unspecified or its.is_unspecified

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def _ip(host: str) -> IPv4Address | IPv6Address:
    return ip_address("127.0.0.1" if host == "localhost" else host)


def _check_host(host: str, *, is_bracketed: bool) -> None:
    if host == "localhost" and not is_bracketed:
        return
    try:
        version = ip_address(host).version
    except ValueError as error:
        raise ValueError(
            "names no IP address; write e.g. 127.0.0.1:25, names other than localhost "
            "are not supported"
        ) from error
    if (version == 6) != is_bracketed:
        raise ValueError("has brackets around an IPv4 address; write e.g. 127.0.0.1:25")


def same_addresses(settings: Settings) -> Iterator[Conflict]:
    """Check that whatever listens can: no address and port is there for two."""
    binds: list[tuple[Keys, Bind]] = [
        (("listeners", n, "bind"), one.bind) for n, one in enumerate(settings.listeners)
    ]
    binds.append((("web", "bind"), settings.web.bind))
    metrics = settings.metrics.bind
    if metrics is not None and metrics != settings.web.bind:  # else said by metrics_conflicts
        binds.append((("metrics", "bind"), metrics))
    for position, (keys, bind) in enumerate(binds):
        for earlier, other in binds[:position]:
            if bind.overlaps(other):
                yield Conflict(
                    keys, f"{bind} is taken by {shown_keys(earlier)} ({other}); choose another port"
                )
                break
