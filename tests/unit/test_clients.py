"""A client is an address, however it is written, and stands for its network."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

from relaygw.clients import client_key, guesser, is_trusted, parse_client
from tests.tables import each_of


@each_of(
    "case",
    [
        ("192.0.2.7", "192.0.2.7", "192.0.2.0/24", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7", "192.0.2.0/24", "192.0.2.7"),
        ("fe80::1%eth0", "fe80::1", "fe80::/64", "fe80::/64"),
        ("2001:db8::7", "2001:db8::7", "2001:db8::/64", "2001:db8::/64"),
    ],
)
def test_a_client_and_its_network(case: tuple[str, str, str, str]) -> None:
    text, address, network, guessing = case
    client = parse_client(text)
    assert client == ip_address(address)
    assert (client_key(client), guesser(client)) == (network, guessing)
    assert is_trusted(client, [ip_network(network)])
    assert not is_trusted(client, [ip_network("198.51.100.0/24"), ip_network("2001:db9::/32")])
