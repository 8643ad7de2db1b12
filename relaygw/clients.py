"""Clients by their address: who is trusted, who takes turns with whom, who guesses passwords."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

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
