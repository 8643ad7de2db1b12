from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relaygw.settings.addresses import Bind, split_host_port
from relaygw.settings.model import Sandbox
from tests.tables import each_of


@pytest.mark.parametrize(
    ("text", "host", "port", "is_loopback"),
    [
        ("127.0.0.1:25", "127.0.0.1", 25, True),
        ("[::1]:25", "::1", 25, True),
        ("0.0.0.0:0", "0.0.0.0", 0, False),
        ("[::]:8025", "::", 8025, False),
        ("localhost:8025", "localhost", 8025, True),
        ("192.0.2.1:65535", "192.0.2.1", 65535, False),
    ],
)
def test_a_bind_reads_and_shows_itself(text: str, host: str, port: int, is_loopback: bool) -> None:
    bind = Bind.parse(text)
    assert (bind.host, bind.port, bind.is_loopback) == (host, port, is_loopback)
    assert str(bind) == text


@each_of(
    ("value", "problem"),
    [
        ("*:25", "0.0.0.0:25"),
        (":25", "0.0.0.0:25"),
        (25, "127.0.0.1:25"),
        ("::1:25", "brackets"),
        ("[127.0.0.1]:25", "brackets"),
        ("unix:/run/relaygw.sock", "Unix socket"),
        ("mail.example.com:25", "no IP address"),
        ("127.0.0.1", "127.0.0.1:25"),
        ("127.0.0.1:65536", "65535"),
        ("127.0.0.1:-1", "127.0.0.1:25"),
        ("127.0.0.1:25\n25", "127.0.0.1:25"),
    ],
)
def test_what_is_no_bind_says_what_to_write(value: object, problem: str) -> None:
    with pytest.raises(ValueError, match="; write ") as caught:
        Bind.parse(value)
    assert problem in str(caught.value)


@given(st.ip_addresses(), st.integers(0, 65535))
def test_every_address_and_port_reads_back(address: object, port: int) -> None:
    bind = Bind(str(address), port)
    assert Bind.parse(str(bind)) == bind


@each_of(
    ("value", "host", "port"),
    [
        ("127.0.0.1:783", "127.0.0.1", 783),
        ("spamd:783", "spamd", 783),
        ("scan.shop.internal:783", "scan.shop.internal", 783),
        ("[::1]:783", "::1", 783),
    ],
)
def test_a_host_and_a_port(value: str, host: str, port: int) -> None:
    assert split_host_port(value) == (host, port)
    assert Sandbox.model_validate({"spamd": value}).spamd == value


@each_of(
    "value",
    ["127.0.0.1", ":783", "a:0", "a:65536", "a b:783", "::1:783", "[a]:783", "[127.0.0.1]:783",
     "unix:/run/spamd", "a:783\n", "http://a:783", "*:783"],
)  # fmt: skip
def test_what_is_no_host_and_port_says_what_to_write(value: str) -> None:
    with pytest.raises(
        ValueError, match=r"is not a host and a port; write e\.g\. 127\.0\.0\.1:783"
    ):
        Sandbox.model_validate({"spamd": value})


def test_a_host_of_links_is_one_host() -> None:
    Sandbox.model_validate({"link_hosts": ["shop.internal", "10.0.0.7", "fd00::7"]})
    for value in ("http://shop.internal", "shop:80", "10.0.0.0/8", ""):
        with pytest.raises(ValueError, match="is not a host name or IP address"):
            Sandbox.model_validate({"link_hosts": [value]})
