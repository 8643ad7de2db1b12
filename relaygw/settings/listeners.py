"""Sections `listeners` and `users`: where mail is accepted, and from whom.

Nobody gets in by accident, and nothing goes in clear.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from ipaddress import IPv4Network, IPv6Network, collapse_addresses
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import AfterValidator, Field, PlainSerializer

from relaygw.mail.drop import MAX_HEADER_BYTES
from relaygw.settings.addresses import Bind, Pattern
from relaygw.settings.section import (
    Conflict,
    Count,
    Mode,
    Network,
    Rate,
    Section,
    Size,
    checked,
    looser_mode,
    parse_network,
    repeated_names,
)

if TYPE_CHECKING:
    from relaygw.settings.model import Settings

# no slash and no colon: what takes turns is a user or a network, and no user looks like one
_LOGIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,63}")
_HASH = re.compile(
    r"\$argon2(?:id|i|d)\$v=19\$m=([0-9]{1,8}),t=([0-9]{1,3}),p=([0-9]{1,2})"
    r"\$[A-Za-z0-9+/]{11,128}\$[A-Za-z0-9+/]{16,128}"
)
HASH_EXAMPLE = '"$argon2id$v=19$…", in quotes, as `relaygw users hash` prints it'
MAX_HASH_KIB = 256 * 1024  # memory that one verification may take: two run at once in each front
MAX_HASH_PASSES = 16
LEAST_HEADER_BYTES = 100 * 1024  # as Postfix's header_size_limit: ordinary mail has no more
_AnyNetwork = IPv4Network | IPv6Network
_OWN = tuple(
    IPv4Network(block)
    for block in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "127.0.0.0/8", "169.254.0.0/16")
)
_OWN_IPV6 = tuple(map(IPv6Network, ("::1/128", "fc00::/7", "fe80::/10")))
_IPV4_AS_IPV6 = tuple(map(IPv6Network, ("::ffff:0:0/96", "64:ff9b::/96")))  # RFC 4291, RFC 6052
_MAX_PUBLIC = 2**24  # addresses, as many as a /8 has
_MAX_PUBLIC_IPV6 = 2**104  # a /24: no site has more than a /32


def _check_hash(text: str) -> str:
    match = _HASH.fullmatch(text)
    if match is None:
        raise ValueError("is not an argon2 hash; write what `relaygw users hash` prints, in quotes")
    memory_kib, passes = int(match[1]), int(match[2])
    if memory_kib > MAX_HASH_KIB or passes > MAX_HASH_PASSES:
        raise ValueError(
            f"takes more than {MAX_HASH_KIB // 1024} MiB or {MAX_HASH_PASSES} passes to verify; "
            "write what `relaygw users hash` prints"
        )
    return text


UserLogin = Annotated[
    str,
    checked(
        _LOGIN.fullmatch,
        "is not a user name; write letters, digits and . _ @ + -, at most 64, e.g. shop1",
    ),
]
PasswordHash = Annotated[
    str,
    AfterValidator(_check_hash),
    # who sees the configuration should not be able to guess at leisure
    PlainSerializer(lambda _: "***", return_type=str, when_used="json"),
]
"""An argon2 hash in the usual text form; never shown."""


class ListenerTls(Section):
    """How a listener protects the connections of its clients."""

    mode: Literal["off", "starttls", "implicit"] = "off"
    cert: str | None = Field(default=None, min_length=1)  # PEM: certificate, then intermediate ones
    key: str | None = Field(default=None, min_length=1)  # PEM; default: in the file of the cert

    def conflicts(self) -> Iterator[tuple[str, str]]:
        """Check that TLS has its certificate, and that a certificate is used."""
        if self.mode != "off" and self.cert is None:
            yield "cert", f"is required for tls.mode {self.mode}; write the path of a PEM file"
        if self.mode == "off" and (self.cert or self.key):
            yield (
                "mode",
                "off uses no certificate; write starttls or implicit, or remove cert and key",
            )


class Listener(Section):
    """One SMTP address that the front listens on."""

    bind: Bind = Field(examples=["127.0.0.1:25"])
    allow: tuple[Network, ...] = (parse_network("127.0.0.0/8"), parse_network("::1/128"))
    auth: Literal["off", "optional", "required"] = "optional"  # offered once there are users
    tls: ListenerTls = ListenerTls()
    proxy_protocol: tuple[Network, ...] = ()  # balancers whose PROXY header is required, believed
    mode: Mode | None = None  # stricter than the global one
    max_message_size: Size = Field(default=50 * 2**20, ge=1)
    max_header_size: Size = Field(
        default=MAX_HEADER_BYTES, ge=LEAST_HEADER_BYTES, le=MAX_HEADER_BYTES
    )
    max_recipients: Count = 1000
    max_connections: Count = 1000
    max_connections_per_client: Count = 50  # networks in allow and in exempt may have more
    rate_per_client: Rate | None = None  # messages of one client, for each front process
    exempt: tuple[Network, ...] = ()  # whose clients have neither of these limits
    trust_source: tuple[Network, ...] = ()  # whose word on user and script is taken

    @property
    def is_clear(self) -> bool:
        """True when a password would cross a network in clear: none is taken."""
        return self.tls.mode == "off" and not self.bind.is_loopback


class User(Section):
    """Who may log in to a listener, and as whom that client sends."""

    name: UserLogin = Field(examples=["shop1"])
    password_hash: PasswordHash = Field(examples=[HASH_EXAMPLE])
    senders: tuple[Pattern, ...] = ()  # envelope senders; empty: anything
    mode: Mode | None = None  # stricter than the global one


def open_relays(settings: Settings) -> Iterator[Conflict]:
    """Check that no listener lets the Internet send, but where nothing is sent."""
    if settings.mode == "sandbox":
        return
    for number, listener in enumerate(settings.listeners):
        # a balancer on this machine brings clients of others
        is_reached = not listener.bind.is_loopback or bool(listener.proxy_protocol)
        wide = _public_part(listener.allow) if is_reached and listener.auth != "required" else None
        if wide is not None:
            yield Conflict(
                ("listeners", number, "allow"),
                f"lets {wide} send through {listener.bind}: an open relay; list only the networks "
                "of your application servers, or write auth: required",
            )
        wide = _public_part(listener.proxy_protocol)
        if wide is not None:
            yield Conflict(
                ("listeners", number, "proxy_protocol"),
                f"trusts {wide} to name the client: an open relay; list only the addresses of "
                "your load balancers",
            )


def _public_part(networks: Sequence[_AnyNetwork]) -> str | None:
    """Return words for too many public addresses in `networks` together, or None."""
    ipv4 = list(collapse_addresses(n for n in networks if isinstance(n, IPv4Network)))
    ipv6 = list(collapse_addresses(n for n in networks if isinstance(n, IPv6Network)))
    if any(n.prefixlen == 0 for n in ipv4) or any(n.prefixlen == 0 for n in ipv6):
        return "everyone"
    counted: tuple[tuple[Sequence[_AnyNetwork], int], ...] = (
        ([n for n in ipv4 if not any(n.subnet_of(own) for own in _OWN)], _MAX_PUBLIC),
        (
            [n for n in ipv6 if any(n.subnet_of(ipv6_network) for ipv6_network in _IPV4_AS_IPV6)],
            _MAX_PUBLIC,
        ),
        ([n for n in ipv6 if not any(n.subnet_of(own) for own in _OWN_IPV6)], _MAX_PUBLIC_IPV6),
    )
    for public, most in counted:
        if sum(n.num_addresses for n in public) >= most:
            widest = sorted(public, key=lambda network: network.prefixlen)
            named = ", ".join(map(str, widest[:3])) + (", ..." if len(widest) > 3 else "")
            return f"much of the Internet ({named})"
    return None


def listener_conflicts(settings: Settings) -> Iterator[Conflict]:
    """Check every listener and user: no password in clear, usable somewhere, no looser mode."""
    for number, listener in enumerate(settings.listeners):
        place = ("listeners", number)
        if listener.auth == "required" and not settings.users:
            yield Conflict(
                (*place, "auth"),
                "required lets nobody log in: there are no users; add users, see docs",
            )
        if listener.auth == "required" and listener.is_clear:
            yield Conflict(
                (*place, "auth"),
                "required lets nobody log in: passwords are not accepted over a network without "
                "TLS; set tls: {mode: starttls, cert: FILE, key: FILE}",
            )
        yield from looser_mode((*place, "mode"), listener.mode, settings.mode)
    names = [(("users", n, "name"), user.name) for n, user in enumerate(settings.users)]
    yield from repeated_names(names, "user")
    for number, user in enumerate(settings.users):
        yield from looser_mode(("users", number, "mode"), user.mode, settings.mode)
    are_off = [listener.auth == "off" for listener in settings.listeners]
    if settings.users and are_off and all(are_off):
        yield Conflict(
            ("users",), "cannot log in: every listener has auth: off; remove one of the two"
        )
