"""The PROXY protocol: believed where it must be, required there, and nowhere else."""

from __future__ import annotations

import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.doors import (
    PASSWORD,
    Behind,
    connect_behind,
    make_pair,
    open_door,
    plain,
    queue_id,
    send,
    turn_to_tls,
    user,
)
from tests.e2e.gateway import PATIENCE_S, Gateway, RawClient
from tests.e2e.ports import free_port

BEHIND = {"allow": ["198.51.100.0/24"], "proxy_protocol": ["127.0.0.0/8"]}
V1 = b"PROXY TCP4 198.51.100.7 10.0.0.1 5000 25\r\n"
_SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"


def v2(command: int = 0x21, family: int = 0x11, body: bytes | None = None) -> bytes:
    if body is None:
        body = bytes((198, 51, 100, 7, 10, 0, 0, 1, 0, 80, 0, 25))
    return _SIGNATURE + bytes((command, family)) + len(body).to_bytes(2, "big") + body


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with open_door(tmp_path_factory.mktemp("behind"), BEHIND) as (gateway, _):
        yield gateway


@pytest.fixture(scope="module")
def trusting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """Return a gateway that lets the balancer itself send."""
    listener = {**BEHIND, "allow": ["127.0.0.0/8"]}
    with open_door(tmp_path_factory.mktemp("trusting"), listener) as (gateway, _):
        yield gateway


@pytest.mark.parametrize("header", [V1, v2(), v2(body=v2()[16:] + b"\x04\x00\x01x")])
def test_the_client_of_the_header_is_the_client(gateway: Gateway, header: bytes) -> None:
    with connect_behind(gateway, header) as client:
        assert client.greeting.startswith("220 ")
        client.command(b"EHLO c.test")
        found = queue_id(send(client))
    gateway.wait_for_log(rf"{found}: client=unknown\[198\.51\.100\.7\]")
    assert gateway.entry(found).source.client == "198.51.100.7"
    gateway.wait_until_empty()


def test_a_client_that_is_not_allowed_is_not_through_its_balancer(gateway: Gateway) -> None:
    with connect_behind(gateway, V1.replace(b"198.51.100.7", b"203.0.113.9")) as client:
        client.command(b"EHLO c.test")
        assert send(client).startswith("554 5.7.1")
    gateway.wait_for_log(r"NOQUEUE: reject: RCPT from unknown\[203\.0\.113\.9\]: 554 5\.7\.1")


def test_an_ipv6_client(tmp_path: Path) -> None:
    listener = {**BEHIND, "allow": ["2001:db8::/32"]}
    address = socket.inet_pton(socket.AF_INET6, "2001:db8::7")
    headers = (
        b"PROXY TCP6 2001:db8::7 2001:db8::1 5000 25\r\n",
        v2(family=0x21, body=address * 2 + b"\x00\x50\x00\x19"),
    )
    with open_door(tmp_path, listener) as (gateway, _):
        for header in headers:
            with connect_behind(gateway, header) as client:
                client.command(b"EHLO c.test")
                assert gateway.entry(queue_id(send(client))).source.client == "2001:db8::7"


@pytest.mark.parametrize(
    "header", [v2(command=0x20, family=0, body=b""), v2(family=0, body=b""), b"PROXY UNKNOWN\r\n"]
)
def test_a_balancer_that_names_nobody_has_no_rights(trusting: Gateway, header: bytes) -> None:
    """Health checks get a greeting; mail is another matter even if the balancer is allowed."""
    with connect_behind(trusting, header) as client:
        assert client.greeting.startswith("220 ")
        client.command(b"EHLO c.test")
        assert send(client).startswith("554 5.7.1")


@pytest.mark.parametrize(
    "header",
    [
        b"EHLO c.test\r\n",
        b"PROXY TCP4 198.51.100.7\r\n",
        b"PROXY TCP4 198.51.100.777 10.0.0.1 1 25\r\n",
        b"PROXY TCP4 198.51.100.7 10.0.0.1 1 99999\r\n",
        b"PROXY TCP4 2001:db8::7 10.0.0.1 1 25\r\n",
        b"PROXY " + b"x" * 200,
        v2(command=0x22),
        v2(family=0x31),
        v2(body=b"\x01\x02"),
        _SIGNATURE + b"\x21\x11\xff\xff",
        b"\r\n\r\n\x00\r\nQUIX\n",
    ],
    ids=range(11),
)
def test_what_is_no_header_is_hung_up_on(gateway: Gateway, header: bytes) -> None:
    seen = len(gateway.lines)
    with connect_behind(gateway, header) as client:
        assert client.greeting == ""
    warning = r"warning: .*PROXY header.* from unknown\[127\.0\.0\.1\]"
    gateway.wait_for_log(warning, start=seen)


def test_others_that_send_a_header_get_nothing(tmp_path: Path) -> None:
    listener = {**BEHIND, "proxy_protocol": ["192.0.2.1/32"]}
    with open_door(tmp_path, listener) as (gateway, _), gateway.connect() as client:
        assert client.command(V1.strip()).startswith("500 5.5.2")
        client.command(b"EHLO c.test")
        assert send(client).startswith("554 5.7.1")


def test_header_tls_and_commands_may_come_in_any_pieces(tmp_path: Path) -> None:
    pair = make_pair(tmp_path)
    listener = {**BEHIND, "tls": pair.tls("implicit")}
    with open_door(tmp_path, listener) as (gateway, _):
        client = Behind.__new__(Behind)
        client.socket = socket.create_connection(("127.0.0.1", gateway.smtp_port), PATIENCE_S)
        client._buffer = b""
        for byte in v2():
            client.send(bytes((byte,)))
        with client:
            turn_to_tls(client, pair.client_context)
            assert client.read_reply().startswith("220 ")
            client.command(b"EHLO c.test")
            found = queue_id(send(client))
            assert gateway.entry(found).source.client == "198.51.100.7"


def test_connections_are_counted_by_client(tmp_path: Path) -> None:
    listener = {**BEHIND, "allow": [], "max_connections_per_client": 2}
    with open_door(tmp_path, listener) as (gateway, _):
        held = [connect_behind(gateway, V1) for _ in range(2)]
        with connect_behind(gateway, V1) as surplus:
            assert surplus.greeting.startswith("421 4.7.0")
        with connect_behind(gateway, V1.replace(b"100.7", b"100.8")) as other:
            assert other.greeting.startswith("220 ")
        for client in held:
            client.close()


@contextmanager
def haproxy(directory: Path, port: int, how: str) -> Iterator[int]:
    """Run HAProxy in front of `port`; yield its own port."""
    own = free_port()
    config = directory / "haproxy.cfg"
    config.write_text(
        "global\n  maxconn 100\n  stats socket unix@" + str(directory / "haproxy.sock") + "\n"
        "defaults\n  mode tcp\n  timeout connect 5s\n  timeout client 30s\n  timeout server 30s\n"
        f"frontend smtp\n  bind 127.0.0.9:{own}\n  default_backend gateways\n"
        f"backend gateways\n  source 127.0.0.8\n  option smtpchk EHLO haproxy.test\n"
        f"  server gw1 127.0.0.1:{port} {how} check inter 200ms\n"
    )
    program = shutil.which("haproxy", path="/usr/sbin:/usr/bin:/usr/local/sbin")
    assert program is not None, "run tests/system-packages.sh"
    process = subprocess.Popen([program, "-db", "-q", "-f", str(config)], cwd=directory)
    try:
        yield own
    finally:
        process.terminate()
        process.wait(PATIENCE_S)


@pytest.mark.parametrize("how", ["send-proxy", "send-proxy-v2"])
def test_haproxy_in_front(tmp_path: Path, how: str) -> None:
    """Its checks are answered, its clients are known by their own addresses."""
    pair = make_pair(tmp_path)
    listener: dict[str, Any] = {
        "allow": ["127.0.0.66/32"],
        "proxy_protocol": ["127.0.0.8/32"],
        "tls": pair.tls("starttls"),
    }
    with (
        open_door(tmp_path, listener, users=[user()]) as (gateway, _),
        haproxy(tmp_path, gateway.smtp_port, how) as port,
    ):
        for source, reply in (("127.0.0.66", "250 2.0.0"), ("127.0.0.67", "554 5.7.1")):
            with _through(gateway, port, source) as client:
                assert "AUTH" not in client.command(b"EHLO c.test")  # not local any more
                assert send(client).startswith(reply)
        with _through(gateway, port, "127.0.0.67") as client:
            client.command(b"EHLO c.test")
            client.command(b"STARTTLS")
            turn_to_tls(client, pair.client_context)
            client.command(b"EHLO c.test")
            assert client.command(plain("shop1", PASSWORD)).startswith("235 ")
            found = queue_id(send(client))
        assert gateway.entry(found).source.client == "127.0.0.67"


def _through(gateway: Gateway, port: int, source: str) -> RawClient:
    """Connect from `source` through HAProxy once that serves."""
    clients: list[RawClient] = []

    def connects() -> bool:
        client = RawClient.__new__(RawClient)
        try:
            client.socket = socket.create_connection(
                ("127.0.0.9", port), PATIENCE_S, source_address=(source, 0)
            )
        except ConnectionRefusedError:
            return False
        client._buffer = b""
        client.greeting = client.read_reply()
        if not client.greeting.startswith("220 "):
            client.close()
            return False
        clients.append(client)
        return True

    gateway.wait_until(connects, "HAProxy in front")
    return clients[0]
