"""A real gateway for tests: `relaygw serve` with its own configuration and state directory.

    with Gateway(tmp_path, providers={"main": provider_settings(port)}) as gateway:
        queue_id = gateway.send("a@shop.test", ["b@cust.test"], b"Subject: x\r\n\r\nhello\r\n")
        gateway.wait_for_log("status=sent")

Waiting is by condition: on the log, line by line as it is written, or on the queue.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import signal
import smtplib
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import yaml

from relaygw.errors import StoreUnavailable
from relaygw.mail.state import OPEN, DeliveryState
from relaygw.store.queue_entry import QueueEntry
from relaygw.store.selection import Selection
from relaygw.store.store import Store, open_store
from tests.fakes.scripted_provider import ThreadedProvider
from tests.forked import RelaygwProcess
from tests.queues import make_queue

PATIENCE_S = 90.0
_FOR_THE_WEB_ROLE = {"metrics", "events", "webhooks", "bounces", "sandbox"}
_QUEUED = re.compile(rb"queued as ([A-Z0-9]{10,20})")


def provider_settings(port: int, **more: Any) -> dict[str, Any]:
    """Settings of a plain provider on this machine; it is near, however busy that is."""
    here = {"host": "127.0.0.1", "port": port, "tls": "none", "chain_transactions": False}
    return {**here, **more}


def _sqlite_url(directory: Path) -> str:
    return f"sqlite:///{directory}/state/queue.db"


class Gateway:
    """One `relaygw serve`, its log and its queue.

    It is forked from a loaded image and finds an empty queue with today's schema, unless it
    `is_new`: then it is started as a program of its own and makes its queue. So it is, too, where
    `before` says with which words it is started. `environment` is added to that of the tests;
    `descriptors` stay open.
    """

    queue_url: ClassVar[Callable[[Path], str]] = staticmethod(_sqlite_url)
    """Where a gateway of a directory has its queue; the fixture `each_database` changes it."""

    def __init__(
        self,
        directory: Path,
        *,
        mode: str = "production",
        providers: Mapping[str, Mapping[str, Any]] | None = None,
        routes: Sequence[Mapping[str, Any]] | None = None,
        environment: Mapping[str, str] | None = None,
        before: Sequence[str] = (),
        descriptors: Sequence[int] = (),
        is_new: bool = False,
        has_web: bool = False,
        **sections: Any,
    ) -> None:
        """`has_web`: the web role runs, though neither mode nor `sections` give it work."""
        self.directory = directory
        self._environment = dict(environment or {})
        self._before = before
        self._descriptors = descriptors
        self._is_new = is_new
        self._has_web = has_web or "web" in sections
        self.config = directory / "relaygw.yaml"
        self.settings: dict[str, Any] = {
            "mode": mode,
            "hostname": "gw.test",
            "queue": {"url": self.queue_url(directory), "min_free": "0%"},
            "listeners": [{"bind": "127.0.0.1:0"}],
            "maildrop": {"path": f"{directory}/maildrop"},
            "web": {"bind": "127.0.0.1:0"},
            "retry": {"first": "100ms", "max": "1s", "jitter": "0%"},
            **sections,
        }
        if providers:
            self.settings["providers"] = {name: dict(p) for name, p in providers.items()}
            default = {"name": "default", "providers": [next(iter(providers))]}
            self.settings["routes"] = list(routes or [default])
        self.lines: list[str] = []
        self._changed = threading.Condition()
        self._process: subprocess.Popen[str] | None = None
        self._store: Store | None = None
        self.smtp_ports: list[int] = []
        self.web_port = 0

    # --- life ----------------------------------------------------------------------------

    def write_config(self) -> None:
        """Write `settings` to the configuration file."""
        self.config.write_text(yaml.safe_dump(self.settings, sort_keys=False))
        self.config.chmod(0o600)

    @property
    def environment(self) -> dict[str, str]:
        """What it runs with; commands that look for its state directory need the same."""
        state = {"XDG_STATE_HOME": str(self.directory / "xdg")}
        return {**os.environ, **state, **self._environment}

    def start(self, *arguments: str) -> Self:
        """Start the gateway and wait until it serves."""
        self.write_config()
        if not self._is_new:
            self._make_queue()
        # the same ports after a restart: clients know only one
        seen = len(self.lines)
        words = ["--config", str(self.config), "serve", *(arguments or self._roles())]
        how: dict[str, Any] = {
            "stderr": subprocess.PIPE,
            "text": True,
            "start_new_session": True,
            "pass_fds": tuple(self._descriptors),
            "env": {**self.environment, "PYTHONUNBUFFERED": "1"},
        }
        if self._is_new or self._before:
            command = [*self._before, sys.executable, "-m", "relaygw", *words]
            self._process = subprocess.Popen(command, **how)
        else:
            self._process = RelaygwProcess(words, **how)
        threading.Thread(target=self._follow, args=(self._process,), daemon=True).start()
        self.wait_for_log(r"master\[\d+\]: started: ", start=seen)
        self._learn_ports(seen)
        return self

    def _roles(self) -> tuple[str, ...]:
        """Return the words for all roles, or for those that have something to do."""
        given = self.settings
        has_work = given["mode"] == "sandbox" or not _FOR_THE_WEB_ROLE.isdisjoint(given)
        return () if has_work or self._has_web else ("--role", "front", "--role", "delivery")

    def _make_queue(self) -> None:
        url = self.settings["queue"]["url"]
        if url == _sqlite_url(self.directory) and not (self.directory / "state").exists():
            make_queue(url)

    def _learn_ports(self, start: int) -> None:
        ports = [
            (match[1], int(match[2]))
            for line in self.lines[start:]
            if (match := re.search(r"(SMTP|web) on \S*?:(\d+)$", line))
        ]
        self.smtp_ports = [port for what, port in ports if what == "SMTP"]
        self.web_port = next((port for what, port in ports if what == "web"), 0)
        for listener, port in zip(self.settings["listeners"], self.smtp_ports, strict=False):
            host = listener["bind"].rpartition(":")[0]
            listener["bind"] = f"{host}:{port}"
        if self.web_port:
            self.settings["web"]["bind"] = f"127.0.0.1:{self.web_port}"
        self.write_config()

    def _follow(self, process: subprocess.Popen[str]) -> None:
        assert process.stderr is not None
        for line in process.stderr:
            with self._changed:
                self.lines.append(line.rstrip("\n"))
                self._changed.notify_all()
        process.stderr.close()
        with self._changed:
            self._changed.notify_all()

    def stop(self) -> int:
        """Send TERM, wait for the end, return the exit code."""
        assert self._process is not None
        self._process.terminate()
        code = self._process.wait(PATIENCE_S)
        self._process = None
        return code

    def _end_group(self, process: subprocess.Popen[str]) -> None:
        """SIGKILL all; on return none is left that has a file or a lock."""
        group = process.pid
        members = _children(group)
        with contextlib.suppress(ProcessLookupError):  # it may have been drained
            os.killpg(group, signal.SIGKILL)
        process.wait()
        while any(leader_of(pid) == group for pid in members):
            time.sleep(0.002)
        for look in itertools.count(1):
            # to look at all processes takes longer than whoever reaps these
            has_members = _has_members(group)
            if has_members and look % 10 == 0:
                has_members = any(leader == group for leader in group_leaders())
            if not has_members:
                break
            time.sleep(0.002)

    def kill_all(self) -> None:
        """SIGKILL the supervisor and every role at once."""
        assert self._process is not None
        self._end_group(self._process)
        self._process = None

    def reload(self) -> int:
        """Send HUP; return the log position from which to wait for the answer."""
        assert self._process is not None
        self.write_config()
        position = len(self.lines)
        self._process.send_signal(signal.SIGHUP)
        return position

    def __enter__(self) -> Self:
        try:
            return self.start()
        except BaseException:
            self.__exit__()
            raise

    def __exit__(self, *_exc: object) -> None:
        if self._process is not None:
            self._end_group(self._process)
        if self._store is not None:
            self._store.close()

    @property
    def is_running(self) -> bool:
        """True while the supervisor lives."""
        return self._process is not None and self._process.poll() is None

    def processes(self) -> list[int]:
        """Return the process ids of the supervisor and of what it has started; none at its end."""
        if self._process is None or self._process.poll() is not None:
            return []
        return [self._process.pid, *_children(self._process.pid)]

    def pids(self, role: str) -> list[int]:
        """Return the process ids of a role's registered instances of this gateway."""
        name = self.settings["hostname"]
        return [
            e.pid for e in self.store.instances.registered() if (e.role, e.name) == (role, name)
        ]

    def kill(self, role: str) -> int:
        """SIGKILL one process of a role; return its pid."""
        pid = self.pids(role)[-1]
        os.kill(pid, signal.SIGKILL)
        return pid

    # --- waiting -------------------------------------------------------------------------

    def wait_for_roles(self) -> None:
        """Return once front, delivery and web are registered: SMTP may be there sooner."""
        self.want_web()
        self.wait_until(
            lambda: all(self.pids(role) for role in ("front", "delivery", "web")), "three roles"
        )

    def want_web(self) -> None:
        """Start the web role, if it runs on demand, as a visitor does."""
        socket.create_connection(("127.0.0.1", self.web_port), PATIENCE_S).close()

    def wait_for_log(self, pattern: str, *, count: int = 1, start: int = 0) -> list[str]:
        """Wait until `count` lines from `start` on match; return them."""
        found: list[str] = []
        position = start
        deadline_s = time.monotonic() + PATIENCE_S
        with self._changed:
            while True:
                new = self.lines[position:]
                position += len(new)
                found += [line for line in new if re.search(pattern, line)]
                if len(found) >= count:
                    return found
                left_s = deadline_s - time.monotonic()
                if left_s <= 0 or not self._changed.wait(left_s):
                    tail = "\n".join(self.lines[-30:])
                    raise AssertionError(
                        f"{len(found)} of {count} lines match {pattern!r}; the last:\n{tail}"
                    )

    def wait_until(self, condition: Callable[[], bool], what: str) -> None:
        """Look at the queue again whenever the log moves, or each 50 ms.

        A queue that cannot be looked at, as its server is away, is looked at again.
        """
        deadline_s = time.monotonic() + PATIENCE_S
        while True:
            began_s = time.monotonic()
            with contextlib.suppress(StoreUnavailable):
                if condition():
                    return
            looked_s = time.monotonic() - began_s
            if began_s > deadline_s:
                tail = "\n".join(self.lines[-30:])
                raise AssertionError(f"not within {PATIENCE_S} s: {what}; the log:\n{tail}")
            with self._changed:
                self._changed.wait(0.05)
            time.sleep(min(7 * looked_s, 0.1))  # looking takes an eighth of the time at most

    def wait_until_empty(self) -> None:
        """Wait until nothing is queued any more."""
        one = Selection(states=OPEN)
        self.wait_until(lambda: not self.store.queue.search(one, limit=1), "an empty queue")

    # --- the queue -----------------------------------------------------------------------

    @property
    def store(self) -> Store:
        """The gateway's own queue, opened once."""
        if self._store is None:
            self._store = open_store(self.settings["queue"]["url"])
        return self._store

    def queue(self, states: frozenset[DeliveryState] = OPEN) -> list[QueueEntry]:
        """Return the messages in these states."""
        return self.store.queue.search(Selection(states=states), limit=100_000)

    def entry(self, queue_id: str) -> QueueEntry:
        """Return one message, whatever its state."""
        states = frozenset(DeliveryState)
        (found,) = self.store.queue.search(Selection(queue_ids=(queue_id,), states=states), limit=1)
        return found

    def content(self, queue_id: str) -> bytes:
        """Return the stored content of a message."""
        entry = self.entry(queue_id)
        chunks = (self.store.intake.read_chunk(queue_id, n) for n in range(entry.chunk_count))
        return b"".join(chunk for chunk in chunks if chunk is not None)

    # --- clients -------------------------------------------------------------------------

    @property
    def smtp_port(self) -> int:
        """The port of the first listener."""
        return self.smtp_ports[0]

    def send(self, sender: str, recipients: Sequence[str], content: bytes) -> str:
        """Send one message by smtplib; return its queue id."""
        with smtplib.SMTP(
            "127.0.0.1", self.smtp_port, timeout=PATIENCE_S, local_hostname="client.test"
        ) as client:
            client.ehlo("client.test")
            for code, reply in (
                client.mail(sender),
                *(client.rcpt(recipient) for recipient in recipients),
                client.data(content),
            ):
                assert code == 250, (code, reply)
        match = _QUEUED.search(reply)
        assert match is not None, reply
        return match[1].decode()

    def connect(self, port: int | None = None, *, source: str = "") -> RawClient:
        """Open a raw SMTP connection, maybe from another address of ours; read the greeting."""
        return RawClient(port or self.smtp_port, source)


def _children(pid: int) -> list[int]:
    place = Path(f"/proc/{pid}/task/{pid}/children")
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return [int(child) for child in place.read_text().split()]
    return []


def _has_members(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def group_leaders() -> Iterator[int]:
    """Yield for each process that is not dead who leads its group."""
    for place in Path("/proc").iterdir():
        if place.name.isdecimal():
            yield leader_of(int(place.name))


def leader_of(pid: int) -> int:
    """Return who leads a process's group, 0 when it is gone or only waits to be reaped."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    state, _parent, leader, *others = status.rpartition(")")[2].split()
    # a thread that still ends has the process's files and locks when the first one is dead already
    return 0 if state in "ZX" and int(others[14]) < 2 else int(leader)


class RawClient:
    """Sends bytes as given and reads replies; for input that no mail library would send."""

    def __init__(self, port: int, source: str = "") -> None:
        self.socket = socket.create_connection(
            ("127.0.0.1", port), timeout=PATIENCE_S, source_address=(source, 0)
        )
        self._buffer = b""
        try:
            self.greeting = self.read_reply()
        except OSError:
            self.socket.close()
            raise

    def send(self, data: bytes) -> None:
        """Send bytes."""
        self.socket.sendall(data)

    def read_line(self) -> bytes:
        """Return the next line, b"" when the server closed."""
        while b"\n" not in self._buffer:
            try:
                data = self.socket.recv(65536)
            except ConnectionResetError:
                data = b""
            if not data:
                rest, self._buffer = self._buffer, b""
                return rest
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line + b"\n"

    def read_reply(self) -> str:
        """Return one whole reply, lines joined by newlines; "" when the server closed."""
        lines = []
        while line := self.read_line():
            lines.append(line.decode("utf-8", "replace").rstrip("\r\n"))
            if line[3:4] != b"-":
                break
        return "\n".join(lines)

    def command(self, data: bytes) -> str:
        """Send one command line (CRLF is added) and return its reply."""
        self.send(data + b"\r\n")
        return self.read_reply()

    def is_closed(self) -> bool:
        """True when the server has closed (waits for that)."""
        return self.read_line() == b""

    def close(self) -> None:
        """Close the connection."""
        self.socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()


def gateway_to(provider: ThreadedProvider, directory: Path, **sections: Any) -> Gateway:
    """Return a gateway whose one provider, main, is `provider`."""
    return Gateway(directory, providers={"main": provider_settings(provider.port)}, **sections)
