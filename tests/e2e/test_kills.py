"""Processes are killed at random while mail flows: nothing acknowledged is lost, nothing invented.

What may arrive twice is only what a worker was sending when it was killed: at most its
connections, each with one transaction.
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

from tests.e2e.gateway import PATIENCE_S, Gateway, provider_settings
from tests.fakes.scripted_provider import ThreadedProvider

SEED = 20_250
KILLS = 20
CONNECTIONS = 3
VICTIMS = ("front", "delivery", "supervisor", "all")


class KillableGateway(Gateway):
    """A gateway of which one process at a time can be killed."""

    def kill_one(self, victim: str) -> None:
        """SIGKILL `victim`; a killed supervisor, alone or with all, is started again."""
        match victim:
            case "supervisor":
                assert self._process is not None
                self._process.kill()
                self._process.wait()
                self.start()
            case "all":
                self.kill_all()
                self.start()
            case role:
                self.wait_until(lambda: bool(self.living(role)), f"a living {role}")
                os.kill(self.living(role)[-1], signal.SIGKILL)

    def living(self, role: str) -> list[int]:
        """Return the registered processes of a role that run, the youngest last."""
        return [pid for pid in self.pids(role) if str(self.config) in command_line(pid)]


def command_line(pid: int) -> str:
    """Return the arguments of a process, "" when it is gone or only waits to be reaped."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""


class Client:
    """Sends numbered messages without a pause, each number once, whatever happens."""

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
                smtp.sendmail("a@shop.test", [f"b{number}@cust.test"], message(number))
                with self._news:
                    self.acknowledged.add(number)
                    self._news.notify_all()


def message(number: int) -> bytes:
    return b"Subject: kills\r\nX-No: %d\r\n\r\nbody of %d\r\n" % (number, number)


def number_of(content: bytes) -> int:
    found = re.search(rb"^X-No: (\d+)\r$", content, re.M)
    assert found is not None, content
    return int(found[1])


def test_random_kills_lose_and_invent_nothing(tmp_path: Path) -> None:
    print(f"seed {SEED}, {KILLS} kills")
    chance = random.Random(f"{SEED}/{KILLS}")
    victims = [chance.choice(VICTIMS) for _ in range(KILLS)]
    settings = {"main": {"max_connections": CONNECTIONS}}
    with (
        ThreadedProvider() as provider,
        KillableGateway(
            tmp_path, providers={"main": provider_settings(provider.port, **settings["main"])}
        ) as gateway,
    ):
        client = Client(gateway.smtp_port)
        client.start()
        try:
            for number, victim in enumerate(victims):
                print(f"kill {number}: {victim}")
                client.wait_for_more(chance.randint(1, 40))
                provider.wait_for_messages(len(provider.messages) + chance.randint(1, 40))
                gateway.kill_one(victim)
            client.wait_for_more(20)
        finally:
            client.stop()
        gateway.wait_until_empty()
        received = [(number_of(m.content), m) for m in provider.messages]

    times = Counter(number for number, _ in received)
    lost = client.acknowledged - times.keys()
    assert not lost
    for number, delivered in received:
        assert number < client.tried
        assert delivered.recipients == (f"b{number}@cust.test",)
        assert delivered.content.endswith(message(number))
    workers_killed = sum(victim in ("delivery", "all") for victim in victims)
    extras = len(received) - len(times)
    print(f"{len(client.acknowledged)} acknowledged, {len(times)} delivered, {extras} extra")
    assert extras <= CONNECTIONS * workers_killed
    assert max(times.values()) <= 1 + workers_killed
