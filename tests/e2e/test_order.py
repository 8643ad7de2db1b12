"""The promise in its order: dot read, message written, synced, and only then 250.

PostgreSQL syncs before it says COMMIT (`fsync` and `synchronous_commit` are asserted on every
connection), so there it is that word which has to lie between dot and 250. The processes are the
real ones, and strace says what they asked of the kernel and when.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.gateway import Gateway, RawClient, gateway_to
from tests.e2e.syscalls import READS, SYNCS, WRITES, Call, Strace, parse
from tests.fakes.scripted_provider import ThreadedProvider

CHUNK_BYTES = 2**20


@dataclass(frozen=True)
class Storage:
    """To what rows are written, and which call on it says that they are durable."""

    path: str  # or how it begins
    calls: tuple[str, ...]
    word: str = ""

    def is_said_by(self, call: Call) -> bool:
        """True if the call was such a one and went well."""
        is_good = call.result is not None and call.result >= 0
        return is_good and call.name in self.calls and self.word in call.arguments


def storage_of(gateway: Gateway) -> Storage:
    if gateway.settings["queue"]["url"].startswith("postgresql:"):
        return Storage("socket:", READS, "COMMIT")
    return Storage(str(gateway.directory / "state" / "queue.db"), SYNCS)


class Client(RawClient):
    """Knows at which byte of what it sent each final dot ended."""

    def __init__(self, port: int, name: str) -> None:
        super().__init__(port)
        self.name = name
        self.sent_bytes = 0
        self.dots: list[int] = []
        assert self.command(b"EHLO " + name.encode()).startswith("250")

    def send(self, data: bytes) -> None:
        self.sent_bytes += len(data)
        super().send(data)

    def begin(self, sender: str) -> None:
        """Send a whole envelope at once and read its replies, to 354."""
        self.send_envelope(sender)
        self.read_envelope_replies()

    def send_envelope(self, sender: str) -> None:
        self.send(f"MAIL FROM:<{sender}>\r\nRCPT TO:<b@cust.test>\r\nDATA\r\n".encode())

    def read_envelope_replies(self) -> None:
        assert [self.read_reply()[:3] for _ in range(3)] == ["250", "250", "354"]

    def send_content(self, content: bytes) -> None:
        self.dots.append(self.sent_bytes + len(content) + len(b".\r\n"))
        self.send(content + b".\r\n")

    def read_queue_id(self) -> str:
        reply = self.read_reply()
        assert reply.startswith("250 2.0.0 Ok: queued as "), reply
        return reply.split()[-1]


class Trace:
    """What one process did."""

    def __init__(self, calls: list[Call]) -> None:
        self._calls = calls

    def dots(self, client: Client) -> list[Call]:
        """Return the reads that brought the last byte of each final dot of a client."""
        reads = [call for call in self._calls if call.name in READS]
        (file,) = {call.file for call in reads if f'"EHLO {client.name}\\r\\n' in call.arguments}
        found: list[Call] = []
        total = 0
        for call in reads:
            if call.file == file and (call.result or 0) > 0:
                total += call.result or 0
                while len(found) < len(client.dots) and client.dots[len(found)] <= total:
                    found.append(call)
        assert total == client.sent_bytes, f"{total} of {client.sent_bytes} bytes were seen"
        return found

    def first(self, names: tuple[str, ...], text: str, path: str) -> Call:
        """Return the first call that carries `text` to or from a file whose path begins so."""
        for call in self._calls:
            if call.name in names and text in call.arguments and call.path.startswith(path):
                return call
        raise AssertionError(f"no {'/'.join(names)} with {text!r} on {path}...")

    def sync_of(self, text: str, *, after: Call, before: Call, storage: Storage) -> Call:
        """Return the sync that made `text` durable between two calls; fails if none did."""
        row = self.first(WRITES, text, storage.path)
        assert after.is_before(row), f"written too early:\n{after}\n{row}"
        syncs = [
            call
            for call in self._calls
            if storage.is_said_by(call) and call.path == row.path and row.is_before(call)
        ]
        for call in syncs:
            if call.is_before(before):
                return call
        shown = "\n".join(map(str, (after, row, *syncs[:3], before)))
        raise AssertionError(f"{text!r} was not synced before it was answered or logged:\n{shown}")


class Traced:
    """A gateway of which one role is watched, from `__enter__` to `trace()`."""

    def __init__(self, gateway: Gateway, role: str) -> None:
        gateway.wait_until(lambda: bool(gateway.pids(role)), f"a {role} at work")
        self.storage = storage_of(gateway)
        self._strace = Strace(gateway.pids(role)[-1], gateway.directory / f"{role}.trace")

    def trace(self) -> Trace:
        self._strace.close()
        return Trace(self._strace.calls())

    def __enter__(self) -> Traced:
        return self

    def __exit__(self, *_exc: object) -> None:
        self._strace.close()


@pytest.fixture
def gateway(tmp_path: Path, each_database: str) -> Iterator[Gateway]:
    with ThreadedProvider() as provider, gateway_to(provider, tmp_path) as running:
        yield running


def assert_synced(
    trace: Trace, client: Client, senders: list[str], ids: list[str], storage: Storage
) -> list[Call]:
    """Hold the promise against each message of a client; the sender marks a message's row."""
    dots = trace.dots(client)
    assert len(dots) == len(senders) == len(ids)
    syncs = []
    for sender, queue_id, dot in zip(senders, ids, dots, strict=True):
        answer = trace.first(WRITES, f"250 2.0.0 Ok: queued as {queue_id}", "socket:")
        syncs.append(trace.sync_of(sender, after=dot, before=answer, storage=storage))
    return syncs


def test_a_small_message_is_synced_between_its_dot_and_its_250(gateway: Gateway) -> None:
    with Traced(gateway, "front") as traced, Client(gateway.smtp_port, "c0.test") as client:
        client.begin("s0@shop.test")
        client.send_content(b"Subject: one\r\n\r\nhello\r\n")
        ids = [client.read_queue_id()]
        trace = traced.trace()
    assert_synced(trace, client, ["s0@shop.test"], ids, traced.storage)


def test_ten_messages_at_once_share_syncs_and_none_is_answered_early(gateway: Gateway) -> None:
    with Traced(gateway, "front") as traced, ExitStack() as stack:
        clients = [
            stack.enter_context(Client(gateway.smtp_port, f"c{number}.test"))
            for number in range(10)
        ]
        for number, client in enumerate(clients):
            client.begin(f"s{number}@shop.test")
        for client in clients:
            client.send_content(b"Subject: ten\r\n\r\nhello\r\n")
        ids = [client.read_queue_id() for client in clients]
        trace = traced.trace()
    syncs = [
        assert_synced(trace, client, [f"s{number}@shop.test"], [ids[number]], traced.storage)[0]
        for number, client in enumerate(clients)
    ]
    print(f"{len(set(syncs))} syncs for {len(syncs)} messages")


def test_all_chunks_of_a_large_message_and_then_its_row_are_synced(gateway: Gateway) -> None:
    line = b"x" * 70 + b"\r\n"
    body = line * (CHUNK_BYTES // len(line))
    content = b"Subject: large\r\n\r\n" + b"".join(
        body + f"end-of-part-{number}\r\n".encode() for number in range(3)
    )
    with Traced(gateway, "front") as traced, Client(gateway.smtp_port, "c0.test") as client:
        client.begin("s0@shop.test")
        client.send_content(content)
        ids = [client.read_queue_id()]
        trace = traced.trace()
    assert_synced(trace, client, ["s0@shop.test"], ids, traced.storage)
    (dot,) = trace.dots(client)
    row = trace.first(WRITES, "s0@shop.test", traced.storage.path)
    for number in range(3):
        text = f"end-of-part-{number}\\r\\n"
        trace.sync_of(text, after=dot, before=row, storage=traced.storage)


@pytest.mark.usefixtures("each_database")
def test_a_captured_message_is_synced_like_any_other(tmp_path: Path) -> None:
    with (
        Gateway(tmp_path, mode="sandbox") as gateway,
        Traced(gateway, "front") as traced,
        Client(gateway.smtp_port, "c0.test") as client,
    ):
        client.begin("s0@shop.test")
        client.send_content(b"Subject: captured\r\n\r\nhello\r\n")
        ids = [client.read_queue_id()]
        trace = traced.trace()
    assert_synced(trace, client, ["s0@shop.test"], ids, traced.storage)


def test_each_of_several_pipelined_messages_has_its_own_sync(gateway: Gateway) -> None:
    senders = [f"s{number}@shop.test" for number in range(5)]
    ids = []
    with Traced(gateway, "front") as traced, Client(gateway.smtp_port, "c0.test") as client:
        client.begin(senders[0])
        for following in [*senders[1:], None]:
            client.send_content(b"Subject: pipelined\r\n\r\nhello\r\n")
            if following:  # before the answer to the dot is there
                client.send_envelope(following)
            ids.append(client.read_queue_id())
            if following:
                client.read_envelope_replies()
        trace = traced.trace()
    syncs = assert_synced(trace, client, senders, ids, traced.storage)
    assert len(set(syncs)) == len(senders)


@pytest.mark.usefixtures("each_database")
def test_an_outcome_is_synced_between_the_providers_250_and_status_sent(tmp_path: Path) -> None:
    reply = "250 2.0.0 taken as T4711"
    with (
        ThreadedProvider() as provider,
        gateway_to(provider, tmp_path) as gateway,
        Traced(gateway, "delivery") as traced,
    ):
        provider.script("CONTENT", f"{reply}\r\n".encode())
        queue_id = gateway.send("a@shop.test", ["b@cust.test"], b"Subject: x\r\n\r\nhello\r\n")
        gateway.wait_for_log(f"{queue_id}: .*status=sent")
        trace = traced.trace()
    answered = trace.first(READS, reply, "socket:")
    logged = trace.first(WRITES, "status=sent", "pipe:")
    assert queue_id in logged.arguments
    trace.sync_of(reply, after=answered, before=logged, storage=traced.storage)


CANNED = r"""
10 1700000000.000001 read(25<socket:[77]>, "QUIT\r\n", 256000) = 6
10 1700000000.000002 read(25<socket:[77]>,  <unfinished ...>
11 1700000000.000003 fsync(22</q.db-wal> <unfinished ...>
10 1700000000.000009 <... read resumed>"a) = 1\r\n", 256000) = 8
11 1700000000.000010 <... fsync resumed>)         = -1 EIO (Input/output error) (INJECTED)
10 1700000000.000011 read(25<socket:[77]>, 0x7f00, 16) = -1 EAGAIN (Resource temporarily ...)
11 1700000000.000012 fdatasync(22</q.db-wal>) = 0
12 1700000000.000013 fsync(22</q.db-wal> <unfinished ...>) = ?
13 1700000000.000014 fsync(22</q.db-wal> <unfinished ...>
13 1700000000.000015 +++ killed by SIGKILL +++
14 1700000000.000016 write(25<socket:[77]>, "250 \r\n", 6 <detached ...>
""".strip()


def test_lines_of_several_threads_become_calls_in_order() -> None:
    calls = parse(CANNED.splitlines())
    found: list[tuple[Any, ...]] = [
        (call.thread, call.name, call.path, call.began, call.ended, call.result) for call in calls
    ]
    assert found[:5] == [
        (10, "read", "socket:[77]", 0, 0, 6),
        (10, "read", "socket:[77]", 1, 3, 8),
        (11, "fsync", "/q.db-wal", 2, 4, -1),
        (10, "read", "socket:[77]", 5, 5, -1),
        (11, "fdatasync", "/q.db-wal", 6, 6, 0),
    ]
    assert found[5:] == [
        (12, "fsync", "/q.db-wal", 7, 7, None),
        (13, "fsync", "/q.db-wal", 8, None, None),
        (14, "write", "socket:[77]", 10, None, None),
    ]
    assert calls[1].arguments == r'25<socket:[77]>, "a) = 1\r\n", 256000'
    assert calls[2].is_before(calls[3])
    assert not calls[1].is_before(calls[2])
    assert not calls[6].is_before(calls[5])
    assert calls[0].began_us == 1_700_000_000_000_001
