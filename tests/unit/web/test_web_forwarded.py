"""What a reverse proxy says counts, what anybody else says does not."""

from __future__ import annotations

from ipaddress import ip_network

import pytest

from relaygw.web.gate.identity import Forwarded
from tests.tables import each_of
from tests.unit.web.heads import connection

PROXIES = Forwarded([ip_network("10.0.0.0/8"), ip_network("127.0.0.1/32")])
NOBODY = Forwarded([])
FOR, PROTO = "x-forwarded-for", "x-forwarded-proto"


@each_of(
    ("told", "guesser"),
    [
        ("203.0.113.7", "203.0.113.7"),
        ("1.2.3.4, 203.0.113.7", "203.0.113.7"),  # the left one is what the client made up
        ("203.0.113.7, 10.0.0.9", "203.0.113.7"),
        ("1.2.3.4, 10.0.0.9, 10.0.0.8", "1.2.3.4"),
        ("203.0.113.7:4711", "203.0.113.7"),
        ("2001:db8:1:2:3::4", "2001:db8:1:2::/64"),
        ("[2001:db8:1:2:3::4]:4711", "2001:db8:1:2::/64"),
        ("::ffff:203.0.113.7", "203.0.113.7"),
        ("", "10.0.0.1"),
        ("nonsense", "10.0.0.1"),
        ("203.0.113.7, nonsense", "10.0.0.1"),
        (",".join(["1.2.3.4"] * 10_000), "1.2.3.4"),
        (",".join(["10.0.0.9"] * 10_000), "10.0.0.9"),
    ],
)
def test_the_client_behind_proxies(told: str, guesser: str) -> None:
    assert PROXIES.guesser(connection((FOR, told), peer="10.0.0.1")) == guesser


def test_several_fields_are_one_list() -> None:
    sent = connection((FOR, "1.2.3.4"), (FOR, "203.0.113.7"), peer="10.0.0.1")
    assert PROXIES.guesser(sent) == "203.0.113.7"


def test_others_are_not_believed() -> None:
    sent = connection((FOR, "1.2.3.4"), (PROTO, "https"), peer="203.0.113.9")
    for forwarded in (PROXIES, NOBODY):
        assert forwarded.guesser(sent) == "203.0.113.9"
        assert not forwarded.is_https(sent)
    assert NOBODY.guesser(connection((FOR, "1.2.3.4"))) == "127.0.0.1"
    assert PROXIES.guesser(connection((FOR, "1.2.3.4"), peer=None)) == "unknown"


@pytest.mark.parametrize(
    ("told", "is_https"),
    [("https", True), ("HTTPS", True), ("http", False), ("http, https", True),
     ("https, http", False), ("", False), ("https://", False)],
)  # fmt: skip
def test_the_word_of_the_last_proxy_on_tls(told: str, is_https: bool) -> None:
    assert PROXIES.is_https(connection((PROTO, told), peer="10.0.0.1")) is is_https


def test_tls_of_the_server_itself() -> None:
    assert NOBODY.is_https(connection(scheme="https"))
