"""Addresses in the configuration: of mail, domains, hosts, to listen on; who may receive.

Whatever could be read in two ways is an error. An address to listen on is `127.0.0.1:25`,
`[::1]:25`, `localhost:8025`, never a name, which may lead elsewhere after the check for an open
relay. ValueError texts continue a sentence that begins with the value.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, PlainSerializer, field_validator

from relaygw.errors import InvalidAddress
from relaygw.mail.address import check_address, is_routable_elsewhere
from relaygw.settings.section import Conflict, Section, Written, checked, misfit, raise_conflicts
from relaygw.settings.tree import Keys, shown_keys

if TYPE_CHECKING:
    from relaygw.settings.model import Settings

EVERY_SENDER, NULL_SENDER = "*", "<>"  # keys of rewrite.senders
MAX_REWRITTEN = 1000  # addresses that one becomes
# Letters of any script, digits and what RFC 5322 allows in an atom; no quoted local parts.
_LOCAL_PART = re.compile(r"[\w!#$%&'*+/=?^`{|}~-]+(?:\.[\w!#$%&'*+/=?^`{|}~-]+)*")
# The underscore is no host name character, but container networks use it in theirs.
_LABEL = r"[^\W_](?:[\w-]*[^\W_])?"
_DOMAIN = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
_HEADER_NAME = re.compile(r"[!-9;-~]+")


def _is_domain(text: str) -> bool:
    return len(text) <= 255 and _DOMAIN.fullmatch(text) is not None


def _is_local_part(text: str) -> bool:
    return len(text.encode()) <= 64 and _LOCAL_PART.fullmatch(text) is not None


def _is_address(text: str) -> bool:
    local, at, domain = text.partition("@")
    if not (at and _is_local_part(local) and _is_domain(domain)):
        return False
    try:
        check_address(text)  # what the front would refuse is no address here either
    except InvalidAddress:
        return False
    return True


def _is_entry(text: str) -> bool:
    if text.startswith("*"):  # an address to RFC 5321, and to who writes it all of a domain
        return False
    return _is_address(text) or (text.startswith("@") and _is_domain(text[1:]))


def _is_at_any_domain(text: str) -> bool:
    return text.endswith("@*") and text[0] != "*" and _is_local_part(text[:-2])


def _is_pattern(text: str) -> bool:
    return _is_entry(text) or (text.startswith(".") and _is_domain(text[1:]))


def _is_sender_key(text: str) -> bool:
    return text in (EVERY_SENDER, NULL_SENDER) or _is_entry(text) or _is_at_any_domain(text)


def _is_rewrite_key(text: str) -> bool:
    is_local_part = text != EVERY_SENDER and _is_local_part(text)
    return is_local_part or _is_entry(text) or _is_at_any_domain(text)


def _ip(host: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(host)
    except ValueError:
        return None


Address = Annotated[
    str, checked(_is_address, "is not an address; write LOCALPART@DOMAIN, without a name")
]
Entry = Annotated[
    str, checked(_is_entry, 'is not an address or "@domain"; write e.g. "@example.com"')
]
"""An address, or `@domain` for every address of exactly that domain."""
Pattern = Annotated[
    str,
    checked(
        _is_pattern,
        'is not an address, "@domain" or ".domain", and no expression is read here; write e.g. '
        '"@example.com"',
    ),
]
"""An `Entry`, or `.domain` for a domain and all below it."""
SenderKey = Annotated[
    str,
    checked(
        _is_sender_key,
        'is not an address, "@domain", "user@*" (at any domain), "*" (every other sender) or "<>" '
        '(the null sender); write e.g. "@example.com"',
    ),
]
RewriteKey = Annotated[
    str,
    checked(
        _is_rewrite_key,
        'is not a local part, an address, "user@*" (at any domain) or "@domain", the only keys of '
        "recipients; write e.g. root",
    ),
]
Delimiter = Annotated[
    str,
    checked(
        re.compile(r"[^\w\s@\"]|_").fullmatch,
        'is not a single sign, as no letter or digit is; write "+"',
    ),
]
Domain = Annotated[str, checked(_is_domain, "is not a domain; write e.g. example.com")]
Host = Annotated[
    str,
    checked(
        lambda text: _ip(text) is not None or _is_domain(text),
        "is not a host name or IP address; write it alone, the port has its own key",
    ),
]
Name = Annotated[
    str, checked(_NAME.fullmatch, "is not a name; use up to 63 lower-case letters, digits, - and _")
]
HeaderName = Annotated[
    str,
    checked(
        _HEADER_NAME.fullmatch, "is not a header name; write it without the colon, e.g. X-Campaign"
    ),
]


def is_header_name(text: str) -> bool:
    """True for the name of a header field (RFC 5322, 3.6.8)."""
    return _HEADER_NAME.fullmatch(text) is not None


def split_host_port(text: str) -> tuple[str, int]:
    """Return host and port of `HOST:PORT`; raises ValueError. An IPv6 address has brackets."""
    match = _HOST_AND_PORT.fullmatch(text)
    if match is not None and 0 < int(match["port"]) <= 65535:
        host, ip = match["ipv6"] or match["host"], _ip(match["ipv6"] or match["host"])
        is_bracketed = match["ipv6"] is not None
        if (ip.version == 6) == is_bracketed if ip else _is_domain(host) and not is_bracketed:
            return host, int(match["port"])
    raise ValueError("is not a host and a port; write e.g. 127.0.0.1:783")


def _check_host_port(text: str) -> str:
    split_host_port(text)
    return text


HostPort = Annotated[str, AfterValidator(_check_host_port)]


def is_loopback_host(host: str) -> bool:
    """Return whether `host` is this machine, without asking the DNS."""
    ip = _ip(host)
    return host.lower() == "localhost" if ip is None else ip.is_loopback


def entry_matches(entry: str, address: str) -> bool:
    """Return whether an `Entry` covers `address`, and nothing more than it says.

    Case counts beyond ASCII, where one letter can fold to another. A domain entry never covers a
    local part on which a provider might route (`%`, `!`, `@`).
    """
    entry_local, _, entry_domain = entry.rpartition("@")
    local, at, domain = address.rpartition("@")
    if not at or not _is_same(entry_domain, domain):
        return False
    if not entry_local:
        return not is_routable_elsewhere(address)
    return _is_same(entry_local, local)


def _is_same(address: str, other: str) -> bool:
    return address == other or (
        address.isascii() and other.isascii() and address.lower() == other.lower()
    )


# --- addresses to listen on -------------------------------------------------------------------

_LOCALHOST = IPv4Address("127.0.0.1")
_HOST_AND_PORT = re.compile(r"(?:\[(?P<ipv6>[^\[\]]+)\]|(?P<host>[^:\[\]]*)):(?P<port>[0-9]{1,5})")


@dataclass(frozen=True, slots=True)
class Bind(Written):
    """A host and a port to listen on; port 0 lets the kernel choose."""

    host: str
    port: int

    @classmethod
    def parse(cls, value: object) -> Self:
        """Read `HOST:PORT`; an IPv6 address stands in brackets."""
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
        ip, is_bracketed = _ip(host), match["ipv6"] is not None
        if ip is None and (host != "localhost" or is_bracketed):
            raise ValueError(
                "names no IP address; write e.g. 127.0.0.1:25, names other than localhost "
                "are not supported"
            )
        if ip is not None and (ip.version == 6) != is_bracketed:
            raise ValueError("has brackets around an IPv4 address; write e.g. 127.0.0.1:25")
        return cls(host, port)

    @property
    def is_loopback(self) -> bool:
        """True when only this machine can connect."""
        return is_loopback_host(self.host)

    def overlaps(self, other: Bind) -> bool:
        """Return whether only one of the two can be listened on."""
        if self.port != other.port or not self.port:
            return False
        mine, its = (_ip(bind.host) or _LOCALHOST for bind in (self, other))
        if mine.version != its.version:
            return False  # [::] takes no connections of IPv4 here
        return mine == its or mine.is_unspecified or its.is_unspecified

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Refused(Section):
    """What happens to recipients that are not allowed in staging."""

    action: Literal["capture", "drop", "redirect"] = "capture"
    redirect_to: Address | None = None


def parse_refused(value: object) -> Any:
    """Read `capture`, `drop` or `redirect:ADDRESS`."""
    if isinstance(value, Refused):
        return value
    if isinstance(value, str):
        kind, colon, address = value.partition(":")
        if value in ("capture", "drop"):
            return {"action": value}
        if kind == "redirect" and colon:
            return {"action": kind, "redirect_to": address.strip()}
    raise ValueError("is not an action; write capture, drop or redirect:ADDRESS")


def format_refused(refused: Refused) -> str:
    """Return the form that `parse_refused` reads."""
    address = refused.redirect_to
    return refused.action if address is None else f"{refused.action}:{address}"


class Recipients(Section):
    """Who may receive."""

    allow: tuple[Entry, ...] = ()  # used in staging: only these receive
    block: tuple[Entry, ...] = ()  # used in every mode
    refused: Annotated[
        Refused,
        BeforeValidator(parse_refused),
        PlainSerializer(format_refused, return_type=str, when_used="json"),
    ] = Refused()
    blocked: Literal["drop", "reject", "capture"] = "drop"

    def conflicts(self) -> Iterator[tuple[str, str]]:
        """Check that mail is only redirected to someone who may receive it."""
        target = self.refused.redirect_to
        if target is not None and not any(entry_matches(entry, target) for entry in self.allow):
            yield (
                "refused",
                f"redirects to {target}, which may not receive mail; add it to recipients.allow",
            )


def _parse_targets(value: object) -> object:
    """Read an address, or a list of such."""
    if isinstance(value, (list, tuple)):
        if 0 < len(value) <= MAX_REWRITTEN:
            return value
        raise ValueError(f"has {len(value)} addresses; write 1 to {MAX_REWRITTEN}")
    is_text = isinstance(value, str)
    problem = misfit(Entry, value) if is_text else "is not an address or a list of them; write one"
    if problem:
        raise ValueError(problem)
    return (value,)


def _format_targets(targets: tuple[str, ...]) -> str | tuple[str, ...]:
    return targets if len(targets) > 1 else targets[0]


Targets = Annotated[
    tuple[Entry, ...],
    BeforeValidator(_parse_targets),
    PlainSerializer(_format_targets, when_used="json"),
]
"""What an address becomes: addresses, or `@domain` for one that keeps its local part."""


class Rewrite(Section):
    """Address changes at acceptance."""

    default_domain: Domain | None = None  # for an address without one
    senders: dict[SenderKey, Entry] = {}
    recipients: dict[RewriteKey, Targets] = {}
    # between a local part and its extension, which is left out where it has no entry
    recipient_delimiter: Delimiter | None = None
    # whose addresses in header fields are rewritten, too
    header: tuple[Literal["senders", "recipients"], ...] = ("senders",)

    @field_validator("senders", "recipients")
    @classmethod
    def _domains_agree(cls, entries: dict[str, str | tuple[str, ...]]) -> Any:
        """Check that a whole domain stands for addresses of which it can take the local parts."""
        raise_conflicts(
            Conflict((key,), f"{target} is a whole domain, and its key is none; write an address")
            for key, targets in entries.items()
            if not key.startswith("@") and key != EVERY_SENDER
            for target in ((targets,) if isinstance(targets, str) else targets)
            if target.startswith("@")
        )
        return entries


def same_addresses(settings: Settings) -> Iterator[Conflict]:
    """Check that whatever listens can: no address and port is there for two."""
    binds: list[tuple[Keys, Bind]] = [
        (("listeners", n, "bind"), listener.bind) for n, listener in enumerate(settings.listeners)
    ]
    binds.append((("web", "bind"), settings.web.bind))
    metrics = settings.metrics.bind
    if metrics is not None and metrics != settings.web.bind:  # else said by metrics_conflicts
        binds.append((("metrics", "bind"), metrics))
    if settings.events.bind is not None:
        binds.append((("events", "bind"), settings.events.bind))
    for position, (keys, bind) in enumerate(binds):
        for earlier, other in binds[:position]:
            if bind.overlaps(other):
                yield Conflict(
                    keys, f"{bind} is taken by {shown_keys(earlier)} ({other}); choose another port"
                )
                break
