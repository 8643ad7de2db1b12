"""Processes are killed at random while mail flows: nothing is lost, nothing is invented.

What may arrive twice is only what a worker had sent and not yet recorded when it was killed
(RFC 1047: between the answer to the final dot and its record lies a window).
"""

from __future__ import annotations

import os
import random
import re
import signal
import smtplib
import threading
from collections import Counter
from pathlib import Path

import pytest

from relaygw.mail.state import DeliveryState
from tests.campaign import times
from tests.e2e.gateway import PATIENCE_S, Gateway, leader_of, provider_settings
from tests.fakes.scripted_provider import ThreadedProvider

pytestmark = pytest.mark.campaign

SEED = 20_250
KILLS = {"sqlite": times(6, campaign=40), "postgres": times(4, campaign=16)}
CONNECTIONS = 3
PAUSE_S = 0.01  # between two mails: there is one under way, and no flood while a role starts
VICTIMS = ("front", "delivery", "supervisor", "all")


class KillableGateway(Gateway):
    """A gateway of which one process at a time can be killed."""

    def kill_one(self, victim: str, provider: ThreadedProvider) -> set[int]:
        """SIGKILL `victim`; a killed supervisor, alone or with all, is started again.

        Returns the numbers of the messages whose final dot the provider had answered to a
        killed worker that had not recorded it: only these may arrive once more.
        """
        assert self._process is not None
        unrecorded: set[int] = set()
        match victim:
            case "supervisor":
                self._process.kill()
                self._process.wait()
                self.start()
            case "all":
                self.kill_all()
                unrecorded = self._unrecorded(provider)
                self.start()
            case "delivery":
                pid = self.youngest("delivery")
                # frozen, so that no heir records anything before the queue was looked at
                self._process.send_signal(signal.SIGSTOP)
                os.kill(pid, signal.SIGKILL)
                unrecorded = self._unrecorded(provider)
                self._process.send_signal(signal.SIGCONT)
            case role:
                os.kill(self.youngest(role), signal.SIGKILL)
        return unrecorded

    def _unrecorded(self, provider: ThreadedProvider) -> set[int]:
        connections = tuple(provider.connections)
        provider.wait_until(lambda: all(connection.is_closed for connection in connections))
        recorded = {
            int(entry.recipients[0].address[1:].partition("@")[0])
            for entry in self.queue(frozenset({DeliveryState.FINISHED}))
        }
        return {number_of(message.content) for message in tuple(provider.messages)} - recorded

    def youngest(self, role: str) -> int:
        """Return the process of a role that was started last, once there is one that runs."""

        def running() -> list[int]:
            assert self._process is not None
            supervisor = self._process.pid
            return [pid for pid in self.pids(role) if leader_of(pid) == supervisor]

        self.wait_until(lambda: bool(running()), f"a running {role}")
        return running()[-1]


class Client:
    """Sends numbered messages one after the other, each number once, whatever happens."""

    def __init__(self, port: int) -> None:
        self.tried = 0
        self.acknowledged: set[int] = set()
        self._port = port
        self._stop = threading.Event()
        self._news = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="client")

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()

    def wait_for_more(self, count: int) -> None:
        """Return once `count` more messages were acknowledged."""
        with self._news:
            wanted = len(self.acknowledged) + count
            assert self._news.wait_for(lambda: len(self.acknowledged) >= wanted, PATIENCE_S)

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self._send_on_one_connection()
            except (OSError, smtplib.SMTPException):
                # refused until the listener is back: no busy loop meanwhile
                self._stop.wait(0.01)

    def _send_on_one_connection(self) -> None:
        with smtplib.SMTP("127.0.0.1", self._port, timeout=PATIENCE_S) as smtp:
            while not self._stop.is_set():
                number = self.tried
                self.tried += 1
                smtp.sendmail("a@shop.test", [f"b{number}@cust.test"], content_of(number))
                with self._news:
                    self.acknowledged.add(number)
                    self._news.notify_all()
                self._stop.wait(PAUSE_S)


def content_of(number: int) -> bytes:
    return b"Subject: kills\r\nX-No: %d\r\n\r\nbody of %d\r\n" % (number, number)


def number_of(content: bytes) -> int:
    found = re.search(rb"^X-No: (\d+)\r$", content, re.M)
    assert found is not None, content
    return int(found[1])


def test_random_kills_lose_and_invent_nothing(tmp_path: Path, each_database: str) -> None:
    kills = KILLS[each_database]
    print(f"seed {SEED}, {kills} kills")
    chance = random.Random(f"{SEED}/{kills}")
    may_come_again: Counter[int] = Counter()
    with (
        ThreadedProvider() as provider,
        KillableGateway(
            tmp_path,
            providers={"main": provider_settings(provider.port, max_connections=CONNECTIONS)},
        ) as gateway,
    ):
        client = Client(gateway.smtp_port)
        client.start()
        try:
            # each kind at least once
            victims = chance.sample(VICTIMS, 4) + chance.choices(VICTIMS, k=kills - 4)
            for number, victim in enumerate(victims):
                client.wait_for_more(chance.randint(1, 20))
                provider.wait_for_messages(len(provider.messages) + chance.randint(1, 20))
                unrecorded = gateway.kill_one(victim, provider)
                print(f"kill {number}: {victim}, {len(unrecorded)} answered but not recorded")
                # a delivery is under way until its outcome is recorded, one a connection
                assert len(unrecorded - may_come_again.keys()) <= CONNECTIONS
                may_come_again.update(unrecorded)
            client.wait_for_more(20)
        finally:
            client.stop()
        gateway.wait_until_empty()
        received = [(number_of(message.content), message) for message in provider.messages]

    times = Counter(number for number, _ in received)
    extra = times - Counter(dict.fromkeys(times, 1))
    print(
        f"{len(client.acknowledged)} of {client.tried} acknowledged, "
        f"{len(times)} delivered, {extra.total()} of them once more"
    )
    assert not client.acknowledged - times.keys(), "lost"
    for number, message in received:
        assert number < client.tried
        assert message.recipients == (f"b{number}@cust.test",)
        assert message.content.endswith(content_of(number))
    assert extra <= may_come_again
