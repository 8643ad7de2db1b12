"""What becomes of mail at a Postfix: next hops, TLS, login, or why it goes nowhere."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import StrEnum

from relaygw.settings.addresses import Host
from relaygw.settings.section import fits

_PORTS = {"smtp": 25, "submission": 587, "smtps": 465, "submissions": 465, "urd": 465, "mail": 25}
_HOP = re.compile(r"\[(?P<host>[^\]]+)\](?::(?P<port>\S+))?|(?P<mx>[^:\[\]]+)(?::(?P<mxport>\S+))?")


class Fate(StrEnum):
    """What becomes of mail in the end."""

    SEND = "sent"
    LOCAL = "put into a mailbox of this host"
    REFUSE = "refused"
    DISCARD = "discarded"
    LATER = "deferred"
    OTHER = "given to a program"
    # by an access table, which means the mail with all its recipients
    DISCARD_ALL = "discarded for all its recipients"
    HOLD = "held for all its recipients"
    FILTER = "given to a filter, with all its recipients"
    REDIRECT = "sent to another address, with all its recipients"


@dataclass(frozen=True, slots=True)
class Hop:
    """A host that mail is sent to."""

    host: str
    port: int
    is_mx: bool = False  # the DNS names the hosts

    def __str__(self) -> str:
        return f"{self.host}:{self.port} by MX" if self.is_mx else f"[{self.host}]:{self.port}"


@dataclass(frozen=True, slots=True)
class Stop:
    """A hop with how the connection is protected and logged in to."""

    hop: Hop
    tls: str  # a level of Postfix
    is_wrapped: bool = False  # implicit TLS
    login: tuple[str, str] | None = None
    written: str = field(default="", compare=False)  # the hop, as the configuration has it


@dataclass(frozen=True, slots=True)
class Delivery:
    """Where mail goes, the next stop after the first one's failure, or why it goes nowhere."""

    fate: Fate
    stops: tuple[Stop, ...] = ()
    transport: str = ""
    reason: str = ""
    places: tuple[str, ...] = ()  # the lines that decide


def hop_of(text: str, default_port: str = "smtp") -> Hop:
    """Read `[host]:port`, `host:port`, `[host]` or `host`. Raises ValueError."""
    match = _HOP.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is not a next hop; write [HOST]:PORT")
    host = (match["host"] or match["mx"]).removeprefix("ipv6:").removeprefix("IPv6:")
    if not fits(Host, host):
        raise ValueError(f"{text!r} names no host; write [HOST]:PORT")
    port = match["port"] or match["mxport"] or default_port
    number = int(port) if port.isdecimal() else _PORTS.get(port.lower(), 0)
    if not 0 < number < 65536:
        raise ValueError(f"{text!r} has an invalid port; write [HOST]:PORT, e.g. [{host}]:587")
    return Hop(host.lower(), number, is_mx=match["host"] is None)
