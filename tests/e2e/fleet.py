"""Gateways that share a queue in PostgreSQL, and numbered mail that is sent to them.

with Traffic(gateway) as traffic:
    traffic.wait_for_more(20)
    ... break something ...
    traffic.wait_for_more(20)
traffic.wait_until_delivered(gateway, provider)
traffic.check(provider)             # nothing lost, invented or sent twice
"""

from __future__ import annotations

import http.client
import re
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from itertools import cycle
from pathlib import Path
from typing import Any, Self

from relaygw.store import migrate
from tests.e2e.gateway import PATIENCE_S, Gateway, RawClient
from tests.fakes.scripted_provider import ThreadedProvider

Start = Callable[..., Gateway]
CONTENT = b"Subject: order %d\r\n\r\nhello\r\n"
_ENVELOPE = (b"MAIL FROM:<a@shop.test>", b"RCPT TO:<b@cust.test>", b"DATA")
_SUBJECT = re.compile(rb"^Subject: order (\d+)\r$", re.MULTILINE)


def starter(directory: Path, url: str, gateways: ExitStack) -> Start:
    """Return what starts a gateway by a name; all share the queue at `url`."""
    if migrate.current_revision(url) != migrate.SCHEMA_REVISION:
        migrate.upgrade(url)

    def start(name: str, *, hostname: str = "", **more: Any) -> Gateway:
        (directory / name).mkdir()
        return gateways.enter_context(
            Gateway(
                directory / name,
                hostname=hostname or f"{name}.test",
                queue={"url": url, "min_free": "0%"},
                has_web=True,
                **more,
            )
        )

    return start


def send_all(gateway: Gateway, count: int, first: int = 0) -> list[int]:
    """Send numbered messages on one connection; return their numbers."""
    numbers = range(first, first + count)
    with gateway.connect() as client:
        assert client.command(b"EHLO shop.test").startswith("250")
        for number in numbers:
            assert begin(client).startswith("354")
            reply = client.command(CONTENT % number + b".")
            assert reply.startswith("250"), reply
    return list(numbers)


def begin(client: RawClient) -> str:
    """Send an envelope; return the last reply, or the first that refuses."""
    for command in _ENVELOPE:
        reply = client.command(command)
        if reply[:1] not in ("2", "3"):
            break
    return reply


def worker_of(gateway: Gateway) -> int:
    """Return the process id of a gateway's delivery worker, once it is registered."""
    gateway.wait_until(lambda: bool(gateway.pids("delivery")), "a delivery worker")
    return gateway.pids("delivery")[0]


def arrived(provider: ThreadedProvider, start: int = 0) -> Counter[int]:
    """Return how often each number arrived at a provider, having seen that each is whole.

    The first `start` messages are not looked at.
    """
    counts: Counter[int] = Counter()
    for message in provider.messages[start:]:
        found = _SUBJECT.search(message.content)
        assert found is not None, message.content
        assert message.content.endswith(CONTENT % int(found[1])), message.content
        counts[int(found[1])] += 1
    return counts


def status_of(gateway: Gateway, path: str) -> int:
    """Return the HTTP status of a page of a gateway."""
    connection = http.client.HTTPConnection("127.0.0.1", gateway.web_port, timeout=20)
    connection.request("GET", path)
    status = connection.getresponse().status
    connection.close()
    return status


class Traffic:
    """Clients that send on and on, each number once, whatever happens to them."""

    def __init__(
        self, *gateways: Gateway, clients: int = 2, a_connection: int = 20, pause_s: float = 0.05
    ) -> None:
        self.tried = 0
        self.acknowledged: set[int] = set()
        self.refused: dict[int, str] = {}
        self.unanswered: set[int] = set()  # the final dot was sent
        self.broken = 0  # connections that were refused or cut
        self._gateways = cycle(gateways)
        self._a_connection = a_connection
        self._pause_s = pause_s
        self._stop = threading.Event()
        self._news = threading.Condition()
        self._threads = [threading.Thread(target=self._run) for _ in range(clients)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def wait_for_more(self, count: int) -> None:
        """Return once `count` more messages were acknowledged; each may take its time."""
        with self._news:
            wanted = len(self.acknowledged) + count
            while len(self.acknowledged) < wanted:
                assert self._news.wait(PATIENCE_S), f"no acknowledgement any more: {self}"

    def wait_until_delivered(self, gateway: Gateway, provider: ThreadedProvider) -> None:
        """Wait until all that was acknowledged is at the provider and the queue is empty."""
        missing, seen = set(self.acknowledged), 0
        while True:
            new = arrived(provider, seen)
            seen += new.total()
            missing -= new.keys()
            if not missing:
                break
            try:
                provider.wait_for_messages(seen + 1, limit_s=PATIENCE_S)
            except TimeoutError:
                tail = "\n".join(gateway.lines[-30:])
                raise AssertionError(f"{sorted(missing)} do not arrive; the log:\n{tail}") from None
        gateway.wait_until_empty()

    def check(self, provider: ThreadedProvider, *, twice: int = 0) -> None:
        """See that nothing is lost or invented, and at most so many were sent once more."""
        counts = arrived(provider)
        extra = counts.total() - len(counts)
        print(f"{self}; {len(counts)} arrived, {extra} of them once more")
        assert not self.acknowledged - counts.keys(), "lost"
        assert counts.keys() <= {*self.acknowledged, *self.unanswered, *self.refused}, "invented"
        assert extra <= twice, [number for number, times in counts.items() if times > 1]
        assert all(reply.startswith("4") for reply in self.refused.values()), self.refused

    def __str__(self) -> str:
        return (
            f"{len(self.acknowledged)} of {self.tried} acknowledged, "
            f"{len(self.unanswered)} unanswered, refused: {Counter(self.refused.values())}"
        )

    def _run(self) -> None:
        while not self._stop.is_set():
            with self._news:
                gateway = next(self._gateways)
            try:
                with gateway.connect() as client:
                    if client.command(b"EHLO shop.test").startswith("250"):
                        self._send_on(client)
            except OSError:
                self.broken += 1
                self._stop.wait(0.02)  # no busy loop while nobody listens

    def _send_on(self, client: RawClient) -> None:
        for _ in range(self._a_connection):
            with self._news:
                number = self.tried
                self.tried += 1
            reply = begin(client)
            if reply.startswith("354"):
                self.unanswered.add(number)
                reply = client.command(CONTENT % number + b".")
            with self._news:
                if reply:
                    self.unanswered.discard(number)
                if reply.startswith("250"):
                    self.acknowledged.add(number)
                    self._news.notify_all()
                elif reply:
                    self.refused[number] = reply
            if not reply:
                self.broken += 1
                return
            if self._stop.wait(self._pause_s):
                return
