"""What listeners and users must agree on: nobody gets in by accident, nothing goes in clear."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from ipaddress import IPv4Network, IPv6Network, collapse_addresses
from typing import TYPE_CHECKING

from relaygw.settings.conflicts import Conflict
from relaygw.settings.tree import Keys, shown_keys

if TYPE_CHECKING:
    from relaygw.settings.bind import Bind
    from relaygw.settings.model import Listener, ListenerTls, Mode, Settings

Network = IPv4Network | IPv6Network

_OWN = tuple(
    map(
        IPv4Network,
        ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "127.0.0.0/8", "169.254.0.0/16"),
    )
)
_OWN_IPV6 = tuple(map(IPv6Network, ("::1/128", "fc00::/7", "fe80::/10")))
_IPV4_AS_IPV6 = tuple(map(IPv6Network, ("::ffff:0:0/96", "64:ff9b::/96")))  # RFC 4291, RFC 6052
_MAX_PUBLIC = 2**24  # addresses, as many as a /8 has
_MAX_PUBLIC_IPV6 = 2**104  # a /24: no site has more than a /32


def listener_tls_conflicts(tls: ListenerTls) -> Iterator[Conflict]:
    """Check that TLS has its certificate, and that a certificate is used."""
    if tls.mode != "off" and tls.cert is None:
        yield Conflict(
            ("cert",), f"is required for tls.mode {tls.mode}; write the path of a PEM file"
        )
    if tls.mode == "off" and (tls.cert or tls.key):
        yield Conflict(
            ("mode",), "off uses no certificate; write starttls or implicit, or remove cert and key"
        )


def open_relays(settings: Settings) -> Iterator[Conflict]:
    """Check that no listener lets the Internet send, but where nothing is sent."""
    for number, listener in enumerate(settings.listeners):
        if settings.mode == "sandbox":
            continue
        # a balancer on this machine brings clients of others
        if not listener.bind.is_loopback or listener.proxy_protocol:
            yield from _open_relay(("listeners", number), listener)
        wide = _public_part(listener.proxy_protocol)
        if wide is not None:
            yield Conflict(
                ("listeners", number, "proxy_protocol"),
                f"believes {wide} on who the client is: an open relay; list only the addresses of "
                "your load balancers",
            )


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


def listener_conflicts(settings: Settings) -> Iterator[Conflict]:
    """Check every listener: no password in clear, no looser mode."""
    for number, listener in enumerate(settings.listeners):
        place = ("listeners", number)
        yield from _login_conflicts(place, listener, has_users=bool(settings.users))
        yield from _looser_mode((*place, "mode"), listener.mode, settings.mode)


def user_conflicts(settings: Settings) -> Iterator[Conflict]:
    """Check every user: known once, usable somewhere, in no looser mode."""
    seen: set[str] = set()
    for number, user in enumerate(settings.users):
        place = ("users", number)
        if user.name.lower() in seen:
            yield Conflict(
                (*place, "name"), f'"{user.name}" is the name of an earlier user; choose another'
            )
        seen.add(user.name.lower())
        yield from _looser_mode((*place, "mode"), user.mode, settings.mode)
    are_off = [listener.auth == "off" for listener in settings.listeners]
    if settings.users and are_off and all(are_off):
        yield Conflict(
            ("users",), "cannot log in: every listener has auth: off; remove one of the two"
        )


def _open_relay(place: tuple[str | int, ...], listener: Listener) -> Iterator[Conflict]:
    """Refuse what lets a good part of the Internet send without a login."""
    if listener.auth == "required":
        return
    wide = _public_part(listener.allow)
    if wide is not None:
        yield Conflict(
            (*place, "allow"),
            f"lets {wide} send through {listener.bind}: an open relay; list only the networks of "
            "your application servers, or write auth: required",
        )


def _public_part(networks: Iterable[Network]) -> str | None:
    """Return words for too many public addresses in `networks`, or None.

    Collapsed and summed, because many parts make a whole.
    """
    listed = tuple(networks)
    ipv4 = list(collapse_addresses(n for n in listed if isinstance(n, IPv4Network)))
    ipv6 = list(collapse_addresses(n for n in listed if isinstance(n, IPv6Network)))
    if any(n.prefixlen == 0 for n in ipv4) or any(n.prefixlen == 0 for n in ipv6):
        return "everyone"
    public = [n for n in ipv4 if not any(n.subnet_of(own) for own in _OWN)]
    public_ipv6 = [n for n in ipv6 if not any(n.subnet_of(own) for own in _OWN_IPV6)]
    if sum(n.num_addresses for n in public) >= _MAX_PUBLIC:
        return f"much of the Internet ({_named(public)})"
    as_ipv6 = [n for n in ipv6 if any(n.subnet_of(whole) for whole in _IPV4_AS_IPV6)]
    if sum(n.num_addresses for n in as_ipv6) >= _MAX_PUBLIC:
        return f"much of the Internet ({_named(as_ipv6)})"
    if sum(n.num_addresses for n in public_ipv6) >= _MAX_PUBLIC_IPV6:
        return f"much of the Internet ({_named(public_ipv6)})"
    return None


def _named(networks: Iterable[Network]) -> str:
    widest = sorted(networks, key=lambda network: network.prefixlen)
    return ", ".join(map(str, widest[:3])) + (", ..." if len(widest) > 3 else "")


def _login_conflicts(
    place: tuple[str | int, ...], listener: Listener, *, has_users: bool
) -> Iterator[Conflict]:
    if listener.auth != "required":
        return
    if not has_users:
        yield Conflict(
            (*place, "auth"), "required lets nobody in: there are no users; add users, see docs"
        )
    if listener.tls.mode == "off" and not listener.bind.is_loopback:
        yield Conflict(
            (*place, "auth"),
            "required lets nobody in: passwords are not taken over a network without TLS; set "
            "tls: {mode: starttls, cert: FILE, key: FILE}",
        )


def _looser_mode(
    keys: tuple[str | int, ...], mode: Mode | None, everywhere: Mode
) -> Iterator[Conflict]:
    if mode is not None and mode.strictness < everywhere.strictness:
        yield Conflict(
            keys,
            f"{mode.value} is looser than mode {everywhere.value} of the gateway; only stricter is "
            "possible here: production, staging, sandbox, in this order",
        )
