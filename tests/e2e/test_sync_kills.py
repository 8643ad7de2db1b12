"""Killed right after the N-th sync; and the N-th sync fails while two clients share a batch.

Other calls, and one client: test_system_calls.

strace counts the syncs of each thread from the moment it is attached. SIGKILL on entering a
call ends the process before the sync is run; a delay on leaving it holds the thread between
the sync's return and whatever comes next, long enough to kill everything.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.campaign import times
from tests.e2e.gateway import PATIENCE_S, RawClient, provider_settings
from tests.e2e.ports import free_port
from tests.e2e.syscalls import SYNCS, Strace
from tests.fakes.scripted_provider import ReceivedMessage, ThreadedProvider
from tests.forked import RelaygwProcess
from tests.queues import make_queue

pytestmark = pytest.mark.campaign

KILLED_AT = range(1, 51, times(13, campaign=1))
FAILED_AT = range(1, 11, times(4, campaign=1))
AT_ONCE = 4
CONNECTIONS = 3
_HELD_S = 60  # much longer than it takes to see that the sync returned


_LONG_S = 3 * PATIENCE_S  # four gateways at once, each a system call after the other


def wait_until(condition: Callable[[], Any], what: str) -> None:
    deadline_s = time.monotonic() + _LONG_S
    while not condition():
        assert time.monotonic() < deadline_s, f"not within {_LONG_S} s: {what}"
        time.sleep(0.005)


@dataclass
class Life:
    """A gateway from its start to its end by SIGKILL."""

    directory: Path
    port: int
    roles: tuple[str, ...]
    pid: int = 0
    process: RelaygwProcess = field(init=False)

    def __enter__(self) -> Life:
        log = self.directory / "log"
        seen = log.stat().st_size if log.exists() else 0
        chosen = [word for role in self.roles for word in ("--role", role)]
        with log.open("a") as stream:
            self.process = RelaygwProcess(
                ["--config", self.directory / "relaygw.yaml", "serve", *chosen],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=stream,
                start_new_session=True,
            )
        self.pid = self.process.pid

        def is_started() -> bool:
            text = log.read_text()[seen:] if log.exists() else ""
            assert not self.is_over(), text
            return "]: started: " in text

        wait_until(is_started, f"a start in {log}")
        with RawClient(self.port):
            return self  # greeted: the front has registered, its next sync is for mail

    def __exit__(self, *_exc: object) -> None:
        self.kill()

    def is_over(self) -> bool:
        """True when neither the supervisor nor a role is left."""
        try:
            os.killpg(self.pid, 0)
        except ProcessLookupError:
            return True
        return False

    def kill(self, strace: Strace | None = None) -> None:
        """SIGKILL the supervisor and its roles at once; returns when all are gone."""
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        if strace is not None:
            strace.process.kill()  # or the dead would stay until its delay is over
        self.process.wait(PATIENCE_S)
        wait_until(self.is_over, f"the end of {self.pid}")

    def children(self) -> list[int]:
        text = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text()
        return [int(pid) for pid in text.split()]

    def process_of(self, role: str) -> int:
        """Return a role's process: they are forked in the order in which they are named."""
        return self.children()[self.roles.index(role)]


@dataclass
class Senders:
    """Clients that send on and on, each message once, and note every answer."""

    port: int
    name: str
    clients: int = 2
    pause_s: float = 0.0  # after each message: what is sent has to be delivered, too
    tried: int = 0
    acknowledged: set[str] = field(default_factory=set)
    refused: dict[str, str] = field(default_factory=dict)
    _stop: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __enter__(self) -> Senders:
        self._threads = [threading.Thread(target=self._run) for _ in range(self.clients)]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                with RawClient(self.port) as client:
                    self._send_on(client)
            except OSError:
                self._stop.wait(0.01)

    def _send_on(self, client: RawClient) -> None:
        client.command(b"EHLO client.test")
        reply = "250"
        while reply and not self._stop.is_set():
            with self._lock:
                message = f"{self.name}-{self.tried}"
                self.tried += 1
            client.send(f"MAIL FROM:<a@shop.test>\r\nRCPT TO:<{message}@cust.test>\r\n".encode())
            client.send(b"DATA\r\n")
            if [client.read_reply()[:3] for _ in range(3)] != ["250", "250", "354"]:
                return
            client.send(content_of(message) + b".\r\n")
            reply = client.read_reply()
            with self._lock:
                if reply.startswith("250 "):
                    self.acknowledged.add(message)
                elif reply:
                    self.refused[message] = reply
            self._stop.wait(self.pause_s)


def content_of(message: str) -> bytes:
    return f"Subject: syncs\r\nX-No: {message}\r\n\r\nbody of {message}\r\n".encode()


@dataclass
class Sweep:
    """One gateway a number, each with its own state directory."""

    directory: Path
    provider: ThreadedProvider
    _looked_at: int = 0  # messages of the provider
    _by_name: dict[str, dict[str, list[ReceivedMessage]]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def run(self, numbers: Iterable[int], one: Callable[[int], None]) -> None:
        """Do it for each number, a few at a time, and tell of every one that fails."""
        with ThreadPoolExecutor(max_workers=AT_ONCE) as pool:
            results = {number: pool.submit(one, number) for number in numbers}
        failed = {number: result.exception() for number, result in results.items()}
        wrong = {number: error for number, error in failed.items() if error is not None}
        assert not wrong, "\n".join(f"N={number}: {error!r}" for number, error in wrong.items())

    def place(self, name: str) -> tuple[Path, int]:
        """Return a new state directory with its configuration, and the gateway's port."""
        directory = self.directory / name
        directory.mkdir()
        port = free_port()
        provider = provider_settings(self.provider.port, max_connections=CONNECTIONS)
        settings = {
            "mode": "production",
            "hostname": "gw.test",
            "queue": {"url": f"sqlite:///{directory}/state/queue.db", "min_free": "0%"},
            "listeners": [{"bind": f"127.0.0.1:{port}"}],
            "maildrop": {"path": f"{directory}/maildrop"},
            "retry": {"first": "100ms", "max": "1s", "jitter": "0%"},
            "providers": {"main": provider},
            "routes": [{"name": "default", "providers": ["main"]}],
        }
        make_queue(settings["queue"]["url"])
        config = directory / "relaygw.yaml"
        config.write_text(yaml.safe_dump(settings))
        config.chmod(0o600)
        return directory, port

    def drain_and_check(self, directory: Path, senders: Senders, *, may_repeat: int) -> None:
        """Start again, wait for all that was acknowledged, compare with what arrived."""
        with Life(directory, senders.port, ("front", "delivery")):
            wait_until(
                lambda: senders.acknowledged <= self.received(senders.name).keys(),
                f"all {len(senders.acknowledged)} of {senders.name} to arrive",
            )
        received = self.received(senders.name)
        for message, copies in received.items():
            assert int(message.rpartition("-")[2]) < senders.tried, f"{message} is invented"
            for copy in copies:
                assert copy.recipients == (f"{message}@cust.test",)
                assert copy.content.endswith(content_of(message)), copy.content
        extra = Counter({message: len(copies) - 1 for message, copies in received.items()})
        assert extra.total() <= may_repeat, f"more than once: {+extra}"

    def received(self, name: str) -> dict[str, list[ReceivedMessage]]:
        with self._lock:
            for message in self.provider.messages[self._looked_at :]:
                self._looked_at += 1
                match = re.search(rb"^X-No: ((.+)-\d+)\r$", message.content, re.M)
                assert match is not None, message.content
                of_name = self._by_name.setdefault(match[2].decode(), {})
                of_name.setdefault(match[1].decode(), []).append(message)
            return {number: list(copies) for number, copies in self._by_name.get(name, {}).items()}


@pytest.fixture
def sweep(tmp_path: Path) -> Iterator[Sweep]:
    with ThreadedProvider() as provider:
        yield Sweep(tmp_path, provider)


def at_sync(pid: int, output: Path, fault: str) -> Strace:
    syncs = ",".join(SYNCS)
    return Strace(pid, output, "-e", f"trace={syncs}", "-e", f"inject={syncs}:{fault}")


ROLES = {"front": ("front",), "delivery": ("front", "delivery")}
PAUSES_S = {"front": 0.0, "delivery": 0.01}


MOMENTS = {"before": "signal=SIGKILL", "after": f"delay_exit={_HELD_S}s"}


@pytest.mark.timeout(900)  # up to 50 gateways, each killed and started again
@pytest.mark.parametrize(
    ("role", "moments"),
    [("front", ["after"]), ("delivery", ["before", "after"])],
    ids=["front-after", "delivery-in-turn"],
)
def test_killed_at_a_sync(sweep: Sweep, role: str, moments: list[str]) -> None:
    def kill_at(number: int) -> None:
        moment = moments[number % len(moments)]
        fault = MOMENTS[moment]
        name = f"{role}-{moment}-{number}"
        directory, port = sweep.place(name)
        output = directory / "trace"
        with (
            Life(directory, port, ROLES[role]) as life,
            at_sync(life.process_of(role), output, f"{fault}:when={number}") as strace,
            Senders(port, name, pause_s=PAUSES_S[role]) as senders,
        ):
            if moment == "before":
                wait_until(lambda: strace.process.poll() is not None, f"a kill in {output}")
            else:
                wait_until(lambda: "(DELAYED)" in output.read_text(), f"a delay in {output}")
            life.kill(strace)
        assert senders.acknowledged or number < 5, "killed before it had promised anything"
        sweep.drain_and_check(
            directory, senders, may_repeat=CONNECTIONS if role == "delivery" else 0
        )

    sweep.run(KILLED_AT, kill_at)


def test_no_250_for_a_sync_that_fails(sweep: Sweep) -> None:
    def fail_at(number: int) -> None:
        name = f"failed-{number}"
        directory, port = sweep.place(name)
        output = directory / "trace"
        with (
            Life(directory, port, ROLES["front"]) as life,
            at_sync(life.process_of("front"), output, f"error=EIO:when={number}") as strace,
            Senders(port, name) as senders,
        ):
            # two that share a failed batch are tried again one by one, and both may succeed
            wait_until(lambda: "(INJECTED)" in output.read_text(), f"a failure in {output}")
            count = len(senders.acknowledged)
            wait_until(lambda: len(senders.acknowledged) >= count + 5, "acceptance again")
            life.kill(strace)
        assert len(senders.refused) <= 1, senders.refused
        assert all(reply.startswith("451 4.3.0") for reply in senders.refused.values())
        sweep.drain_and_check(directory, senders, may_repeat=0)

    sweep.run(FAILED_AT, fail_at)
