"""A front, a worker, a pickup and sendmail with a fault at their N-th call of a kind.

Faults are strace's. It counts for each thread by itself, from the moment the process begins its
work. A run without a hit has come to its end before that call.
"""

from __future__ import annotations

import re
import shutil
import signal
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from relaygw import roles
from relaygw.mail.attempt_state import AttemptState
from relaygw.mail.state import DeliveryState
from relaygw.settings.load import LoadedSettings, load_settings
from relaygw.store.queue_entry import QueueEntry
from relaygw.store.selection import Selection
from relaygw.store.store import Store
from tests.builders import accepted
from tests.campaign import times
from tests.e2e import role_process
from tests.e2e.gateway import RawClient
from tests.e2e.ports import free_port
from tests.e2e.role_process import WaitingProcess
from tests.e2e.sendmail_rig import read_drop
from tests.e2e.syscalls import Strace
from tests.e2e.test_maildrop import leave
from tests.fakes.scripted_provider import ThreadedProvider
from tests.queues import make_queue

PATIENCE_S = 60.0
MESSAGES = times(40, campaign=110)
CONNECTIONS = 3
_STEP = 25  # queues are made once for each number of messages
KILL = "kill"
CALLS = {  # what is one for a program may be several for the kernel
    "fsync": ("fsync", "fdatasync"),
    "pwrite64": ("pwrite64",),
    "sendto": ("sendto", "sendmsg", "write", "writev"),
    "rename": ("rename", "renameat", "renameat2", "link", "linkat"),
    "unlink": ("unlink", "unlinkat"),
    "openat": ("openat",),
    "ftruncate": ("ftruncate",),
}
KINDS = {
    "fsync": (KILL, "EIO", "EINTR"),
    "pwrite64": (KILL, "EIO", "ENOSPC", "EINTR"),
    "sendto": (KILL, "EPIPE", "EINTR"),
    "rename": (KILL, "EIO", "ENOSPC"),
    "unlink": (KILL, "EIO"),
    "openat": (KILL, "EMFILE", "EIO"),
    "ftruncate": (KILL, "EIO", "ENOSPC"),
}
_MAIL_FOR_A_CALL = {"fsync": 1.5, "pwrite64": 0.2, "sendto": 0.5}
"""Messages that a worker sends at least for each call of a kind; the others are of its start."""
_EVERY = frozenset(DeliveryState)
_TOLD = (AttemptState.IN_DOUBT, AttemptState.INTERRUPTED)
_NUMBER = re.compile(rb"^X-No: (\d+)\r?$", re.MULTILINE)


def content(number: int) -> bytes:
    return b"Subject: calls\r\nX-No: %d\r\n\r\nbody of %d\r\n" % (number, number)


def number_of(text: bytes) -> int:
    """Return which message a content is, which must be whole."""
    match = _NUMBER.search(text)
    assert match is not None, text
    number = int(match[1])
    assert text.endswith(content(number)), text
    return number


def wait_until(condition: Callable[[], Any], what: str) -> None:
    deadline_s = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline_s, f"not within {PATIENCE_S:g} s: {what}"
        time.sleep(0.003)


@dataclass(frozen=True)
class Fault:
    """What happens at which call."""

    call: str
    kind: str  # KILL, or the name of an error
    number: int

    @property
    def options(self) -> tuple[str, ...]:
        """What strace is told."""
        names = ",".join(CALLS[self.call])
        what = "signal=SIGKILL" if self.kind == KILL else f"error={self.kind}"
        inject = f"inject={names}:{what}:when={self.number}"
        return "-s", "0", "-e", f"trace={names}", "-e", inject


class Hit:
    """A process with a fault in it, from its word to begin on."""

    def __init__(self, waiting: WaitingProcess, where: Fault, output: Path) -> None:
        self._waiting = waiting
        self._output = output
        self._strace = Strace(waiting.pid, output, *where.options)
        waiting.begin()

    @property
    def is_dead(self) -> bool:
        """True once the process has ended."""
        return self._waiting.exit_code() is not None

    @property
    def is_over(self) -> bool:
        """True once nothing more will happen."""
        return self.is_dead or self.is_hit

    @property
    def is_hit(self) -> bool:
        """True once the fault has happened."""
        if self._waiting.exit_code() == -signal.SIGKILL:
            return True
        with suppress(FileNotFoundError):
            return b"(INJECTED)" in self._output.read_bytes()
        return False

    def close(self) -> None:
        """Let the process go on without faults."""
        self._strace.close()


@dataclass
class Place:
    """A state directory with its configuration."""

    directory: Path
    port: int
    loaded: LoadedSettings

    @property
    def config(self) -> Path:
        """The configuration file."""
        return self.directory / "relaygw.yaml"

    @property
    def maildrop(self) -> Path:
        """Where local mail lies."""
        return self.directory / "maildrop"

    def start(self, role: str) -> WaitingProcess:
        """Fork a role; it waits for a word."""
        return WaitingProcess(role_process.run, role, self.config)

    def store(self) -> Store:
        """Open the queue as a gateway that starts does."""
        assert not roles.examine_queue(self.loaded)
        roles.prepare_schema(self.loaded)
        return roles.open_store(self.loaded)

    def log(self) -> str:
        """What the roles said."""
        with suppress(FileNotFoundError):
            return (self.directory / "log").read_text()
        return ""


class Places:
    """New places, each a copy of one that was made once with some mail in it."""

    def __init__(self, directory: Path, provider: ThreadedProvider) -> None:
        self._directory = directory
        self.provider = provider
        self._made = 0
        self._templates: dict[int, Path] = {}

    def new(self, *, queued: int = 0) -> Place:
        """Return a place with so much mail in its queue."""
        if queued not in self._templates:
            self._templates[queued] = self._make_template(queued)
        place = self._place()
        shutil.copytree(self._templates[queued], place.directory / "state")
        with closing(sqlite3.connect(place.directory / "state/queue.db")) as copy, copy:
            copy.execute("DELETE FROM home")  # a copy of a queue that has one would be held
        return place

    def _place(self) -> Place:
        self._made += 1
        directory = self._directory / f"place-{self._made}"
        directory.mkdir()
        port = free_port()
        here = {"host": "127.0.0.1", "port": self.provider.port, "tls": "none"}
        settings = {
            "mode": "production",
            "hostname": "gw.test",
            "queue": {"url": f"sqlite:///{directory}/state/queue.db", "min_free": "0%"},
            "listeners": [{"bind": f"127.0.0.1:{port}"}],
            "maildrop": {"path": f"{directory}/maildrop"},
            "log": {"target": f"file:{directory}/log"},
            "retry": {"first": "50ms", "max": "100ms", "jitter": "0%"},
            "providers": {
                "main": {**here, "max_connections": CONNECTIONS, "chain_transactions": False}
            },
            "routes": [{"name": "default", "providers": ["main"]}],
        }
        config = directory / "relaygw.yaml"
        config.write_text(yaml.safe_dump(settings))
        config.chmod(0o600)
        return Place(directory, port, load_settings(config=config, environ={}))

    def _make_template(self, queued: int) -> Path:
        place = self._place()
        make_queue(place.loaded.settings.queue.url)
        with closing(place.store()) as store:
            mail = [
                accepted(f"{number}@cust.test", content=content(number)) for number in range(queued)
            ]
            if mail:
                store.intake.accept_batch(mail)
        return place.directory / "state"

    def discard(self, place: Place) -> None:
        """Remove a place that was as it should be."""
        shutil.rmtree(place.directory)


# --- the front ----------------------------------------------------------------------------


@dataclass
class Answers:
    """What a client was told of each message."""

    accepted: set[int] = field(default_factory=set)
    refused: dict[int, str] = field(default_factory=dict)
    sent: int = 0


def _send(client: RawClient, number: int, answers: Answers) -> None:
    """Send one message; raises OSError when the connection is over without a word."""
    answers.sent = number + 1
    envelope = f"MAIL FROM:<a@shop.test>\r\nRCPT TO:<{number}@cust.test>\r\nDATA\r\n"
    client.send(envelope.encode())
    replies = [client.read_reply() for _ in range(3)]
    if [reply[:3] for reply in replies] == ["250", "250", "354"]:
        client.send(content(number) + b".\r\n")
        replies = [client.read_reply()]
    bad = [reply for reply in replies if not reply.startswith(("250", "354"))]
    if "" in bad:
        raise ConnectionError
    if bad:
        answers.refused[number] = bad[0]
        if replies[-1].startswith("354"):
            raise ConnectionError
        client.command(b"RSET")
    else:
        answers.accepted.add(number)


def sweep_front(places: Places, where: Fault) -> bool:
    """A front takes mail; return whether the fault happened."""
    place, answers = places.new(), Answers()
    with place.start("front") as front:
        hit = Hit(front, where, place.directory / "trace")
        after = _send_all(place.port, hit, answers)
        is_hit = hit.is_hit
        hit.close()
        if not hit.is_dead:
            assert after or not is_hit, f"it takes no mail any more\n{place.log()}"
            assert front.stop() == 0, place.log()
    for number, reply in answers.refused.items():
        assert reply.startswith("4"), f"message {number}: {reply}"
    stored = _stored(place)
    _compare(answers.accepted, stored, may_be=range(answers.sent))
    kept = stored.keys() & answers.refused.keys()
    assert not kept, f"refused, and kept all the same: {kept}"
    places.discard(place)
    return is_hit


def _send_all(port: int, hit: Hit, answers: Answers) -> int:
    """Send until the front is dead, or has taken three mails after the fault; return how many."""
    after = 0
    while answers.sent < MESSAGES and after < 3 and not hit.is_dead:
        try:
            with RawClient(port) as client:
                client.command(b"EHLO client.test")
                while answers.sent < MESSAGES and after < 3:
                    count = len(answers.accepted)
                    _send(client, answers.sent, answers)
                    after += hit.is_hit and len(answers.accepted) > count
        except OSError:
            time.sleep(0.003)
    return after


def _stored(place: Place) -> Counter[int]:
    """Return how often each message is in the queue; all must be whole."""
    with closing(place.store()) as store:
        return Counter(number_of(_content(store, entry)) for entry in _entries(store))


def _entries(store: Store) -> list[QueueEntry]:
    return store.queue.search(Selection(states=_EVERY), limit=10_000)


def _content(store: Store, entry: QueueEntry) -> bytes:
    chunks = (store.intake.read_chunk(entry.queue_id, n) for n in range(entry.chunk_count))
    return b"".join(chunk for chunk in chunks if chunk is not None)


def _compare(promised: Iterable[int], found: Mapping[int, int], *, may_be: Iterable[int]) -> None:
    lost = set(promised) - found.keys()
    assert not lost, f"lost: {sorted(lost)}"
    assert not found.keys() - set(may_be), f"invented: {found.keys() - set(may_be)}"
    twice = {number: count for number, count in found.items() if count > 1}
    assert not twice, f"more than once: {twice}"


# --- local mail ---------------------------------------------------------------------------


def sweep_pickup(places: Places, where: Fault) -> bool:
    """A front takes what lies in the maildrop, and another one what is left."""
    place = places.new()
    place.maildrop.mkdir(mode=0o3733)
    for number in range(MESSAGES):
        text = content(number).replace(b"\r\n", b"\n")
        leave(place.maildrop, f"{number}@cust.test", content=text, wake=False)

    def is_empty() -> bool:
        return not any(path.suffix == ".drop" for path in place.maildrop.iterdir())

    with closing(place.store()) as store:
        with place.start("front") as front:
            hit = Hit(front, where, place.directory / "trace")
            wait_until(lambda: hit.is_over or _count(store) == MESSAGES, "all to be taken")
            is_hit = hit.is_hit
            hit.close()
            # a file that cannot be removed stays for a while
            wait_until(
                lambda: hit.is_dead or _count(store) == MESSAGES,
                f"all to be taken\n{place.log()}",
            )
        with place.start("front") as front:
            front.begin()
            wait_until(is_empty, f"what was left to be taken\n{place.log()}")
    _compare(range(MESSAGES), _stored(place), may_be=range(MESSAGES))
    places.discard(place)
    return is_hit


def sweep_sendmail(places: Places, where: Fault) -> bool:
    """Sendmail leaves a message, and says the truth of it."""
    place = places.new()
    place.maildrop.mkdir(mode=0o3733)
    message = place.directory / "message"
    message.write_bytes(content(1).replace(b"\r\n", b"\n"))
    words = ["-i", "-f", "a@shop.test", "1@cust.test"]
    with WaitingProcess(role_process.call_sendmail, words, message, place.maildrop) as process:
        hit = Hit(process, where, place.directory / "trace")
        exit_code = process.wait()
        hit.close()
        is_hit = hit.is_hit
    left = [path for path in place.maildrop.iterdir() if path.suffix == ".drop"]
    for path in left:
        assert number_of(read_drop(path).content.replace(b"\n", b"\r\n")) == 1
    if exit_code == -signal.SIGKILL:
        assert len(left) <= 1
    else:
        assert exit_code in (0, 75), exit_code
        assert len(left) == (exit_code == 0), f"exit code {exit_code}, and left {left}"
    places.discard(place)
    return is_hit


# --- delivery -----------------------------------------------------------------------------


def sweep_delivery(places: Places, where: Fault) -> bool:
    """A worker sends what is queued, and another one what is left."""
    needed = 12 + int(where.number * _MAIL_FOR_A_CALL.get(where.call, 0))
    count = min(MESSAGES, -(-needed // _STEP) * _STEP)
    place = places.new(queued=count)
    places.provider.messages.clear()
    with closing(place.store()) as store:
        with place.start("delivery") as worker:
            hit = Hit(worker, where, place.directory / "trace")
            wait_until(lambda: hit.is_over or not _waiting(store), f"mail to go\n{place.log()}")
            is_hit = hit.is_hit
            hit.close()
            wait_until(lambda: hit.is_dead or not _waiting(store), f"mail to go\n{place.log()}")
            if not hit.is_dead:
                worker.stop()
        if _waiting(store):
            with place.start("delivery") as worker:
                worker.begin()
                wait_until(lambda: not _waiting(store), f"what was left to go\n{place.log()}")
                worker.stop()
        told = _told(store)
        states = Counter(part.state for entry in _entries(store) for part in entry.deliveries)
    assert states == {DeliveryState.FINISHED: count}, states
    came = Counter(number_of(message.content) for message in places.provider.messages)
    twice = {number for number, times in came.items() if times > 1}
    assert not twice - told, f"sent twice and not told: {twice - told}"
    _compare(range(count), dict.fromkeys(came, 1), may_be=range(count))
    assert len(twice) <= CONNECTIONS, f"sent twice: {twice}"
    places.discard(place)
    return is_hit


def _waiting(store: Store) -> bool:
    left = "SELECT count(*) FROM delivery WHERE state NOT IN ('finished', 'held')"
    return bool(_number_in(store, left))


def _count(store: Store) -> int:
    return _number_in(store, "SELECT count(*) FROM message")


def _number_in(store: Store, query: str) -> int:
    with store.database.read() as tx:
        return int(tx.connection.exec_driver_sql(query).scalar_one())


def _told(store: Store) -> set[int]:
    """Return which messages are written down as perhaps sent twice."""
    states = ", ".join(f"'{state}'" for state in _TOLD)
    with store.database.read() as tx:
        query = (
            "SELECT address FROM recipient WHERE queue_id IN "
            f"(SELECT queue_id FROM attempt WHERE state IN ({states}))"
        )
        rows = tx.connection.exec_driver_sql(query).all()
    return {int(address.partition("@")[0]) for (address,) in rows}


SUBJECTS: dict[str, Callable[[Places, Fault], bool]] = {
    "front": sweep_front,
    "pickup": sweep_pickup,
    "delivery": sweep_delivery,
    "sendmail": sweep_sendmail,
}
