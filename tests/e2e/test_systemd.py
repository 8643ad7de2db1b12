"""relaygw as systemd runs it: sockets that stay open while it restarts, and what it tells.

The tests are the service manager: they hold the sockets, and read $NOTIFY_SOCKET.
"""

from __future__ import annotations

import contextlib
import os
import signal
import smtplib
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from tests.e2e.gateway import PATIENCE_S, Gateway, provider_settings
from tests.e2e.ports import fixed_binds, free_port
from tests.fakes.scripted_provider import ThreadedProvider
from tests.rights import needs

CONTENT = b"Subject: x\r\n\r\nhello\r\n"


@pytest.fixture(scope="module")
def provider() -> Iterator[ThreadedProvider]:
    with ThreadedProvider() as provider:
        yield provider


@pytest.fixture(scope="module")
def port_25() -> Iterator[socket.socket]:
    """A socket as relaygw.socket has it."""
    with socket.create_server(("127.0.0.1", 0), backlog=4096) as listening:
        yield listening


def handing_over(sockets: Sequence[socket.socket]) -> list[str]:
    """Words to start a program with, as systemd does: the sockets are descriptors 3, 4, …"""
    order = " ".join(f"{3 + n}<&{one.fileno()}" for n, one in enumerate(sockets))
    script = f'LISTEN_PID=$$ LISTEN_FDS={len(sockets)} exec "$@" {order}'
    return ["bash", "-c", script, "bash"]


@pytest.fixture(scope="module")
def gateway(
    tmp_path_factory: pytest.TempPathFactory, provider: ThreadedProvider, port_25: socket.socket
) -> Iterator[Gateway]:
    """A gateway whose one listener is the socket; each test leaves it running."""
    with Gateway(
        tmp_path_factory.mktemp("activated"),
        providers={"main": provider_settings(provider.port)},
        listeners=[{"bind": f"127.0.0.1:{port_25.getsockname()[1]}"}],
        before=handing_over([port_25]),
        descriptors=[port_25.fileno()],
    ) as running:
        yield running


class Shops:
    """Clients that send one mail after the other, each in a connection, and never try again.

    `place` moves the thread of each into another network.
    """

    def __init__(
        self,
        port: int,
        *,
        count: int,
        each_s: float,
        domain: str = "cust.test",
        place: Callable[[], None] = lambda: None,
    ) -> None:
        self._port = port
        self._each_s = each_s
        self._domain = domain
        self._place = place
        self._ended = threading.Event()
        self.accepted: list[str] = []
        self.failures: list[str] = []
        self._threads = [threading.Thread(target=self._send, args=(n,)) for n in range(count)]

    def _send(self, number: int) -> None:
        sent = 0
        self._place()
        while not self._ended.is_set():
            recipient = f"c{number}-{sent}@{self._domain}"
            sent += 1
            try:
                with smtplib.SMTP(
                    "127.0.0.1", self._port, timeout=PATIENCE_S, local_hostname="client.test"
                ) as client:
                    client.sendmail("a@shop.test", [recipient], CONTENT)
                self.accepted.append(recipient)
            except (OSError, smtplib.SMTPException) as error:
                self.failures.append(f"{recipient}: {error!r}")
            self._ended.wait(self._each_s)

    def __enter__(self) -> Shops:
        for thread in self._threads:
            thread.start()
        return self

    def wait_for(self, more: int) -> None:
        """Wait until so many more are accepted, or one failed."""
        wanted = len(self.accepted) + more
        deadline_s = time.monotonic() + PATIENCE_S
        while len(self.accepted) < wanted and not self.failures:
            assert time.monotonic() < deadline_s, len(self.accepted)
            time.sleep(0.01)

    def __exit__(self, *_exc: object) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join()


def test_clients_that_never_try_again_do_not_notice_restarts_and_reloads(
    gateway: Gateway, provider: ThreadedProvider
) -> None:
    # ten clients, a tenth of a second each: 100 messages a second
    with Shops(gateway.smtp_port, count=10, each_s=0.1) as shops:
        shops.wait_for(20)
        assert gateway.stop() == 0
        gateway.start()
        shops.wait_for(20)
        gateway.wait_for_log("reloaded: ", start=gateway.reload())
        shops.wait_for(20)
    assert shops.failures == []
    gateway.wait_until_empty()
    arrived = [recipient for message in provider.messages for recipient in message.recipients]
    assert sorted(arrived) == sorted(shops.accepted)


def test_a_reload_cannot_leave_a_socket_that_systemd_holds(gateway: Gateway) -> None:
    own = gateway.settings["listeners"]
    gateway.settings["listeners"] = [*own, {"bind": f"127.0.0.1:{free_port()}"}]
    (line,) = gateway.wait_for_log("reload refused", start=gateway.reload())
    assert "relaygw.socket does not pass 127.0.0.1:" in line
    gateway.send("a@shop.test", ["b@cust.test"], CONTENT)
    gateway.settings["listeners"] = own
    gateway.wait_for_log("reloaded: ", start=gateway.reload())


def test_a_session_that_just_began_is_served_to_its_end(
    gateway: Gateway, port_25: socket.socket
) -> None:
    with gateway.connect() as client:
        client.command(b"EHLO client.test")
        stopping = threading.Thread(target=gateway.stop)
        position = len(gateway.lines)
        stopping.start()
        # it has taken the signal once nobody takes connections any more
        waiting = socket.create_connection(port_25.getsockname(), timeout=PATIENCE_S)
        for line in (b"MAIL FROM:<a@shop.test>", b"RCPT TO:<b@cust.test>"):
            assert client.command(line).startswith("250 ")
        assert client.command(b"DATA").startswith("354 ")
        assert client.command(CONTENT + b".").startswith("250 ")
        assert client.command(b"QUIT").startswith("221 ")
        stopping.join()
    gateway.wait_for_log("stopped", start=position)
    gateway.start()
    with waiting, waiting.makefile("rb") as replies:
        assert replies.readline().startswith((b"220 ", b"421 4.3.2"))


@pytest.mark.parametrize(
    ("listens", "words"),
    [
        (
            "127.0.0.1:{other}",
            [
                "listeners do not name 127.0.0.1:{port} of relaygw.socket; ",
                "relaygw.socket does not pass 127.0.0.1:{other}; run: relaygw setup, or",
            ],
        ),
        ("0.0.0.0:{port}", ["relaygw.socket does not pass 0.0.0.0:{port}; run: relaygw"]),
    ],
)
def test_sockets_that_are_not_those_of_listeners_are_an_error(
    tmp_path: Path, port_25: socket.socket, listens: str, words: list[str]
) -> None:
    places = {"port": port_25.getsockname()[1], "other": free_port()}
    config = tmp_path / "relaygw.yaml"
    config.write_text(
        f"mode: sandbox\nqueue: {{url: 'sqlite:///{tmp_path}/queue.db'}}\n"
        f"listeners: [{{bind: '{listens.format(**places)}', allow: [127.0.0.0/8]}}]\n"
    )
    command = [sys.executable, "-m", "relaygw", "--config", str(config), "serve"]
    done = subprocess.run(
        [*handing_over([port_25]), *command],
        capture_output=True,
        text=True,
        pass_fds=[port_25.fileno()],
        timeout=PATIENCE_S,
    )
    assert done.returncode == os.EX_CONFIG
    for word in words:
        assert word.format(**places) in done.stderr
    assert "then: systemctl stop relaygw.socket relaygw.service && systemctl start" in done.stderr


class Told:
    """What the service manager is told."""

    def __init__(self, path: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(path))
        self.socket.settimeout(PATIENCE_S)

    def next(self) -> list[str]:
        """Return the next words that are no WATCHDOG=1."""
        while (lines := self.socket.recv(4096).decode().split("\n")) == ["WATCHDOG=1"]:
            pass
        return lines


@pytest.fixture
def told(tmp_path: Path) -> Iterator[Told]:
    told = Told(tmp_path / "notify")
    with told.socket:
        yield told


def test_systemd_is_told_of_each_step(
    tmp_path: Path, provider: ThreadedProvider, told: Told
) -> None:
    with Gateway(
        tmp_path,
        providers={"main": provider_settings(provider.port)},
        environment={"NOTIFY_SOCKET": str(tmp_path / "notify")},
        **fixed_binds(),
    ) as gateway:
        assert told.next() == ["STATUS=prepares the queue"]
        assert told.next() == ["READY=1", "STATUS=serves, mode production"]
        gateway.reload()
        words, clock = told.next()
        assert words == "RELOADING=1"
        assert 0 <= time.monotonic() - int(clock.removeprefix("MONOTONIC_USEC=")) / 1e6 < PATIENCE_S
        assert told.next() == ["READY=1", "STATUS=serves, mode production"]
        gateway.settings["mode"] = "unheard of"
        gateway.reload()
        assert told.next()[0] == "RELOADING=1"
        ready, status = told.next()
        assert ready == "READY=1"
        assert status.startswith("STATUS=reload refused, the old settings stay: ")
        gateway.stop()
        assert told.next() == ["STOPPING=1", "STATUS=draining"]


def test_the_watchdog_hears_of_a_gateway_that_lives_and_not_of_a_stopped_one(
    tmp_path: Path, told: Told
) -> None:
    with Gateway(
        tmp_path,
        mode="sandbox",
        environment={"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "200000"},
    ) as gateway:
        assert [told.next()[0] for _ in range(2)] == ["STATUS=prepares the queue", "READY=1"]
        for _ in range(3):
            assert told.socket.recv(4096) == b"WATCHDOG=1"
        supervisor = gateway.processes()[0]
        os.kill(supervisor, signal.SIGSTOP)
        told.socket.settimeout(0.5)
        with pytest.raises(TimeoutError):
            for _ in range(100):
                told.socket.recv(4096)
        os.kill(supervisor, signal.SIGCONT)
        told.socket.settimeout(PATIENCE_S)
        assert told.socket.recv(4096) == b"WATCHDOG=1"

        role = gateway.pids("front")[0]
        os.kill(role, signal.SIGSTOP)
        gateway.wait_for_log(rf"error: front \(pid {role}\) has hung for 0\.\d+ s")
        told.socket.settimeout(0.5)
        with pytest.raises(TimeoutError):
            for _ in range(100):
                told.socket.recv(4096)
        os.kill(role, signal.SIGCONT)
        told.socket.settimeout(PATIENCE_S)
        assert told.socket.recv(4096) == b"WATCHDOG=1"
        gateway.wait_for_log(rf"front \(pid {role}\) goes on after it hung")
        assert gateway.pids("front") == [role], "systemd restarts all of it, nobody else a part"


@needs("mounts")
def test_as_process_1_it_buries_orphans_and_ends_by_term(tmp_path: Path) -> None:
    """What a container's engine expects, where relaygw is process 1."""
    own = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]
    with Gateway(tmp_path, mode="sandbox", before=own) as gateway:
        _outer, first = gateway.processes()
        orphan = ["sh", "-c", "sleep 0.1 & echo"]
        enter = ["nsenter", "--target", str(first), "--pid", "--mount", "--root"]
        subprocess.run([*enter, *orphan], check=True)
        children = Path(f"/proc/{first}/task/{first}/children")

        def three_live() -> bool:
            states = []
            for pid in children.read_text().split():
                with contextlib.suppress(FileNotFoundError):  # it is buried meanwhile
                    stat = Path(f"/proc/{pid}/stat").read_text()
                    states.append(stat.rpartition(")")[2].split()[0])
            return len(states) == 3 and "Z" not in states

        gateway.want_web()
        gateway.wait_until(three_live, "3 roles")
        os.kill(first, signal.SIGTERM)
        gateway.wait_for_log("stopped")
        gateway.wait_until(lambda: not gateway.is_running, "an end")
        assert gateway._process is not None
        assert gateway._process.returncode == 0


def test_a_start_that_fails_for_good_turns_clients_away(tmp_path: Path) -> None:
    """A connection that still waits would start the service again, until the socket is closed."""
    config = tmp_path / "relaygw.yaml"
    config.write_text("mode: prodution\n")
    serve = [sys.executable, "-m", "relaygw", "--config", str(config), "serve"]
    with contextlib.ExitStack() as stack:
        listening = stack.enter_context(socket.create_server(("127.0.0.1", 0)))

        def start() -> subprocess.Popen[bytes]:
            return subprocess.Popen(
                [*handing_over([listening]), *serve],
                pass_fds=[listening.fileno()],
                stderr=subprocess.PIPE,
            )

        def client() -> socket.socket:
            return stack.enter_context(socket.create_connection(listening.getsockname()))

        _, errors = start().communicate(timeout=PATIENCE_S)  # nobody waits
        assert b"prodution" in errors
        clients = [client(), client()]
        failing = start()
        for waiting in [*clients, client()]:
            assert waiting.recv(100) == b"421 4.3.2 Service not available, try again later\r\n"
        failing.communicate(timeout=PATIENCE_S)
        assert failing.returncode == os.EX_CONFIG
