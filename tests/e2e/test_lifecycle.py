"""Stopping, restarting, reloading and watching a gateway that is in use."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from relaygw.store.exchange import sole_user
from tests.campaign import on_a_database
from tests.e2e.gateway import PATIENCE_S, Gateway, RawClient, gateway_to
from tests.e2e.ports import fixed_binds, free_port
from tests.fakes.scripted_provider import ThreadedProvider
from tests.forked import RelaygwProcess
from tests.queues import make_queue

CONTENT = b"Subject: x\r\n\r\nhello\r\n"


@pytest.fixture
def gateway(tmp_path: Path, provider: ThreadedProvider) -> Iterator[Gateway]:
    with gateway_to(provider, tmp_path, **fixed_binds()) as gateway:
        yield gateway


def begin_data(client: RawClient) -> None:
    for command in (b"MAIL FROM:<a@shop.test>", b"RCPT TO:<b@cust.test>"):
        assert client.command(command).startswith("250 ")
    assert client.command(b"DATA").startswith("354 ")


def get(gateway: Gateway, path: str) -> bytes:
    url = f"http://127.0.0.1:{gateway.web_port}{path}"
    with urllib.request.urlopen(url, timeout=PATIENCE_S) as response:
        content: bytes = response.read()
        return content


def get_json(gateway: Gateway, path: str) -> Any:
    return json.loads(get(gateway, path))


def test_signals_that_mean_nothing_end_nothing(gateway: Gateway) -> None:
    gateway.wait_for_roles()
    before = gateway.processes()
    for number in ("ALRM", "VTALRM", "PROF", "IO", "PWR", "RTMIN", "RTMAX"):
        for pid in before:
            os.kill(pid, signal.Signals[f"SIG{number}"])
    gateway.wait_for_log("reloaded: ", start=gateway.reload())  # they have come by then
    assert gateway.send("a@shop.test", ["b@cust.test"], CONTENT)
    assert not [line for line in gateway.lines if "ended with" in line]


def test_who_wakes_does_not_interrupt_the_front(gateway: Gateway) -> None:
    gateway.wait_for_roles()
    policies = {
        role: [os.sched_getscheduler(pid) for pid in gateway.pids(role)]
        for role in ("front", "delivery", "web")
    }
    batch = [os.SCHED_BATCH]
    assert policies == {"front": [os.SCHED_OTHER], "delivery": batch, "web": batch}


@on_a_database
def test_term_lets_a_transaction_finish_and_exits_0(
    gateway: Gateway, provider: ThreadedProvider
) -> None:
    with gateway.connect() as idle, gateway.connect() as busy, ThreadPoolExecutor(1) as thread:
        for client in (idle, busy):
            client.command(b"EHLO client.test")
        begin_data(busy)
        busy.send(CONTENT)

        exit_code = thread.submit(gateway.stop)
        # the goodbye to the idle session shows that the front is stopping
        assert idle.read_reply().startswith("421 4.3.2")
        assert idle.is_closed()
        assert busy.command(b".").startswith("250 2.0.0 Ok: queued as ")
        assert busy.read_reply().startswith("421 4.3.2")
        assert busy.is_closed()
        assert exit_code.result() == 0

    gateway.start()
    provider.wait_for_messages(1)
    gateway.wait_until_empty()
    (message,) = provider.messages
    assert message.content.endswith(CONTENT)


@on_a_database
@pytest.mark.parametrize("role", ["front", "delivery", "web"])
def test_dead_child_is_restarted_and_the_log_says_so(
    gateway: Gateway, provider: ThreadedProvider, role: str
) -> None:
    gateway.wait_for_roles()
    pid = gateway.kill(role)

    gateway.wait_for_log(
        rf"master\[\d+\]: warning: {role} \(pid {pid}\) ended with signal 9; restarting it"
    )
    gateway.send("a@shop.test", ["b@cust.test"], CONTENT)
    provider.wait_for_messages(1)
    assert get(gateway, "/healthz") == b"ok\n"
    gateway.wait_until(lambda: pid not in gateway.pids(role), f"the dead {role} is forgotten")


def offered_size(client: RawClient) -> int:
    found = re.search(r"SIZE (\d+)", client.command(b"EHLO client.test"))
    assert found is not None
    return int(found[1])


@on_a_database
def test_reload_keeps_an_open_session_and_new_ones_see_the_new_settings(
    gateway: Gateway, provider: ThreadedProvider
) -> None:
    with gateway.connect() as old:
        old_size = offered_size(old)
        gateway.settings["listeners"][0]["max_message_size"] = "1000B"
        gateway.settings["routes"][0]["name"] = "renamed"
        gateway.wait_for_log("reloaded: mode production", start=gateway.reload())

        def is_new_offered() -> bool:
            # for a moment both generations take connections from the one backlog
            with gateway.connect() as new:
                return offered_size(new) == 1000

        gateway.wait_until(is_new_offered, "a session with the new size limit")
        assert offered_size(old) == old_size != 1000
        begin_data(old)
        large = CONTENT + b"more\r\n" * 500
        assert old.command(large + b".").startswith("250 2.0.0 Ok: queued as ")
        assert old.command(b"QUIT").startswith("221 ")
        assert old.is_closed()
    # by the route that its front knew, which is gone
    gateway.wait_for_log("route default, which is not in the .* goes by route renamed now")
    provider.wait_for_messages(1)
    assert provider.messages[0].content.endswith(large)
    gateway.wait_until(lambda: len(gateway.pids("front")) == 1, "the old front has ended")


def test_a_refused_reload_leaves_no_port_open(gateway: Gateway) -> None:
    free = free_port()
    with socket.create_server(("127.0.0.1", 0)) as other_program:
        taken = other_program.getsockname()[1]
        own = list(gateway.settings["listeners"])
        gateway.settings["listeners"] = [
            *own,
            {"bind": f"127.0.0.1:{free}"},
            {"bind": f"127.0.0.1:{taken}"},
        ]
        (line,) = gateway.wait_for_log("reload refused", start=gateway.reload())
    assert f"cannot listen on 127.0.0.1:{taken}" in line
    assert "stop it, or use another port: set bind of its entry in listeners, or " in line
    assert "RELAYGW__LISTENERS='[{bind: " in line
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", free), timeout=PATIENCE_S)
    gateway.send("a@shop.test", ["b@cust.test"], CONTENT)


def test_term_right_after_the_start_is_obeyed(tmp_path: Path) -> None:
    gateway = Gateway(tmp_path, mode="sandbox", is_new=True).start()
    assert gateway.stop() == 0


def test_a_start_waits_for_who_has_the_queue_alone_and_term_ends_it(tmp_path: Path) -> None:
    config = tmp_path / "relaygw.yaml"
    make_queue(url := f"sqlite:///{tmp_path}/state/queue.db")
    config.write_text(f"mode: sandbox\nqueue: {{url: {url}}}\n")
    config.chmod(0o600)
    environment = {**os.environ, "XDG_STATE_HOME": str(tmp_path)}
    words = ["--config", str(config), "serve"]
    how = {"env": environment, "stderr": subprocess.PIPE, "text": True, "start_new_session": True}
    with sole_user(tmp_path / "state/queue.db"), RelaygwProcess(words, **how) as gateway:
        try:
            assert gateway.stderr is not None
            waits = r"warning: .*queue\.db: process \d+ has locked the queue .*; waiting for it"
            assert any(re.search(waits, line) for line in gateway.stderr)
            gateway.terminate()
            assert gateway.wait(PATIENCE_S) == 0
            assert gateway.stderr.read().endswith(": stopped\n")
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(gateway.pid, signal.SIGKILL)


@pytest.mark.usefixtures("each_database")
def test_sandbox_shows_health_and_captured_mail(tmp_path: Path) -> None:
    with Gateway(tmp_path, mode="sandbox", is_new=True) as gateway:
        queue_id = gateway.send("a@shop.test", ["b@cust.test"], CONTENT)

        assert get(gateway, "/healthz") == b"ok\n"
        assert get(gateway, "/readyz") == b"ok\n"
        listed = get_json(gateway, "/api/v1/messages")
        assert [(m["ID"], m["Subject"]) for m in listed["messages"]] == [(queue_id, "x")]
        shown = get_json(gateway, f"/api/v1/message/{queue_id}")
        assert shown["Text"].strip() == "hello"
        assert [to["Address"] for to in shown["Bcc"]] == ["b@cust.test"]
        assert get(gateway, f"/api/v1/message/{queue_id}/raw").endswith(CONTENT)
