"""A web role that runs while it is wanted: a connection starts it, and finds what came before."""

from __future__ import annotations

import os
import re
import signal
import socket
import sys
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
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
    gateway.wait_for_log(r"master\[\d+\]: web starts: somebody connects")
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


def test_a_page_that_stayed_open_is_believed_by_the_next(gateway: Gateway) -> None:
    queue_id = gateway.send("a@shop.test", ["b@cust.test"], CONTENT)
    (token,) = set(re.findall(r'name="csrf" value="(\w+)"', get(gateway, "/sandbox/")))
    (first,) = gateway.pids("web")
    os.kill(first, signal.SIGTERM)
    gateway.wait_until(lambda: first not in gateway.processes(), "its end")

    url = f"http://127.0.0.1:{gateway.web_port}/sandbox/bulk"
    form = f"csrf={token}&action=read&id={queue_id}".encode()
    request = urllib.request.Request(url, form, {"Sec-Fetch-Site": "same-origin"})
    with urllib.request.urlopen(request, timeout=PATIENCE_S) as response:
        assert response.status == 200


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


_WITHOUT_PROCESSES = """
import errno, os, runpy, sys
flag, sys.argv = sys.argv[1], ["relaygw", *sys.argv[5:]]
fork = os.fork
def limited():
    if os.path.exists(flag):
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
    return fork()
os.fork = limited
runpy.run_module("relaygw", run_name="__main__", alter_sys=True)
"""


def test_where_no_process_can_be_made_mail_is_taken_and_the_visitor_waits(tmp_path: Path) -> None:
    flag = tmp_path / "no more processes"
    before = [sys.executable, "-c", _WITHOUT_PROCESSES, str(flag)]
    with Gateway(tmp_path, mode="sandbox", before=before, **fixed_binds()) as gateway:
        gateway.wait_until(lambda: all(map(gateway.pids, ("front", "delivery"))), "two roles")
        flag.touch()
        with ThreadPoolExecutor(1) as thread:
            answer = thread.submit(get, gateway, "/healthz")
            why = "Resource temporarily unavailable"
            gateway.wait_for_log(rf"master\[\d+\]: error: web cannot be started \({why}\); again")
            gateway.wait_for_log("error: reload refused", start=gateway.reload())
            assert gateway.send("a@shop.test", ["b@cust.test"], CONTENT)
            flag.unlink()
            assert answer.result() == "ok\n"


_WITHOUT_STARLETTE = """
import runpy, sys
sys.modules["starlette"], sys.argv = None, ["relaygw", *sys.argv[4:]]
runpy.run_module("relaygw", run_name="__main__", alter_sys=True)
"""


def test_a_package_that_it_lacks_is_named_with_the_remedy(tmp_path: Path) -> None:
    before = [sys.executable, "-c", _WITHOUT_STARLETTE]
    with Gateway(tmp_path, mode="sandbox", before=before, **fixed_binds()) as gateway:
        gateway.want_web()
        gateway.wait_for_log(r"fatal: web: the package starlette is not installed; run: .* install")
        assert gateway.send("a@shop.test", ["b@cust.test"], CONTENT)


def wants(gateway: Gateway) -> int:
    """Return how often the worker wanted the web role that the supervisor has not heard of."""
    infos = Path(f"/proc/{gateway.processes()[0]}/fdinfo")
    counts = (re.search(r"eventfd-count:\s*(\w+)", one.read_text()) for one in infos.iterdir())
    return sum(int(count[1], 16) for count in counts if count is not None)


def test_what_was_wanted_while_it_ran_does_not_start_it_again(gateway: Gateway) -> None:
    get(gateway, "/healthz")
    (pid,) = gateway.pids("web")
    os.kill(pid, signal.SIGSTOP)
    for number in range(MUCH_UNFINDABLE):
        gateway.send("a@shop.test", [f"b{number}@cust.test"], CONTENT)
    gateway.wait_until(lambda: wants(gateway) > 0, "a worker that wants it")
    os.kill(pid, signal.SIGCONT)
    gateway.wait_until(lambda: gateway.store.find.progress().waiting == 0, "all is findable")
    os.kill(pid, signal.SIGTERM)
    gateway.wait_until(lambda: pid not in gateway.processes() and not wants(gateway), "its end")
    assert len([line for line in gateway.lines if "web starts: " in line]) == 1


def test_a_reload_that_gives_it_work_starts_it(gateway: Gateway) -> None:
    gateway.settings["webhooks"] = [{"url": "http://127.0.0.1:9/", "secret": f"plain:{SECRET}"}]
    gateway.reload()
    gateway.wait_until(lambda: bool(gateway.pids("web")), "who sends webhooks")


def test_much_mail_that_cannot_be_found_yet_starts_it(gateway: Gateway) -> None:
    for number in range(MUCH_UNFINDABLE):
        gateway.send("a@shop.test", [f"b{number}@cust.test"], CONTENT)
    gateway.wait_for_log("web starts: mail is to be made findable")
    gateway.wait_until(lambda: gateway.store.find.progress().waiting == 0, "all is findable")
