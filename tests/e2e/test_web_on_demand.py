"""A web role that runs while it is wanted: a connection starts it, and finds what came before."""

from __future__ import annotations

import os
import re
import signal
import socket
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from relaygw.delivery.janitor import MUCH_UNFINDABLE
from tests.e2e.gateway import PATIENCE_S, Gateway
from tests.e2e.ports import fixed_binds
from tests.fakes.event_receiver import SECRET

CONTENT = b"Subject: order 4711\r\n\r\nhello\r\n"


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[Gateway]:
    with Gateway(tmp_path, mode="sandbox", **fixed_binds()) as gateway:
        gateway.wait_until(lambda: all(map(gateway.pids, ("front", "delivery"))), "two roles")
        yield gateway


def get(gateway: Gateway, path: str) -> str:
    url = f"http://127.0.0.1:{gateway.web_port}{path}"
    with urllib.request.urlopen(url, timeout=PATIENCE_S) as response:
        return str(response.read().decode())


def test_the_first_connection_starts_it_and_finds_what_came_before(gateway: Gateway) -> None:
    queue_id = gateway.send("a@shop.test", ["b@cust.test"], CONTENT)
    assert not gateway.pids("web")

    assert queue_id in get(gateway, "/find?q=4711")
    assert queue_id in get(gateway, "/api/v1/search?query=hello"), "its content is read, too"

    (pid,) = gateway.pids("web")
    assert pid in gateway.processes()
    assert '"SMTPAccepted":1' in get(gateway, "/api/v1/info"), "counted since the gateway started"


def test_one_that_ended_by_itself_starts_with_the_next_connection(gateway: Gateway) -> None:
    get(gateway, "/healthz")
    (first,) = gateway.pids("web")
    os.kill(first, signal.SIGTERM)
    gateway.wait_until(lambda: first not in gateway.processes(), "its end")
    assert not gateway.pids("web")

    assert get(gateway, "/healthz") == "ok\n"

    (second,) = gateway.pids("web")
    assert second != first
    assert not [line for line in gateway.lines if re.search("warning|error|fatal", line)]


def test_connections_that_wait_while_it_ends_are_answered(gateway: Gateway) -> None:
    get(gateway, "/healthz")
    (first,) = gateway.pids("web")
    os.kill(first, signal.SIGSTOP)
    clients = [
        socket.create_connection(("127.0.0.1", gateway.web_port), timeout=PATIENCE_S)
        for _ in range(5)
    ]
    for client in clients:
        client.sendall(b"GET /healthz HTTP/1.0\r\n\r\n")
    os.kill(first, signal.SIGKILL)  # it took none of them
    for client in clients:
        assert b"200 OK" in client.recv(4096)
        client.close()
    gateway.wait_for_log(r"warning: web \(pid \d+\) ended with signal 9; restarting it")


def test_a_reload_starts_it_only_where_it_was_wanted(gateway: Gateway) -> None:
    gateway.wait_for_log("reloaded: mode sandbox", start=gateway.reload())
    assert not gateway.pids("web")

    get(gateway, "/healthz")
    (first,) = gateway.pids("web")
    gateway.wait_for_log("reloaded: mode sandbox", start=gateway.reload())
    gateway.wait_until(lambda: bool({*gateway.pids("web")} - {first}), "its successor")


def test_a_reload_that_gives_it_work_starts_it(gateway: Gateway) -> None:
    gateway.settings["webhooks"] = [{"url": "http://127.0.0.1:9/", "secret": f"plain:{SECRET}"}]
    gateway.reload()
    gateway.wait_until(lambda: bool(gateway.pids("web")), "who sends webhooks")


def test_much_mail_that_cannot_be_found_yet_starts_it(gateway: Gateway) -> None:
    for number in range(MUCH_UNFINDABLE):
        gateway.send("a@shop.test", [f"b{number}@cust.test"], CONTENT)
    gateway.wait_until(lambda: bool(gateway.pids("web")), "who makes it findable")
    gateway.wait_until(lambda: gateway.store.find.progress().waiting == 0, "all is findable")
