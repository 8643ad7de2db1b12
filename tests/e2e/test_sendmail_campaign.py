"""Exit 0 of the installed sendmail is a promise: many at once, and while processes are killed."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO

import pytest

from relaygw.cli.install_sendmail import Programs
from tests.campaign import times
from tests.e2e.gateway import PATIENCE_S, Gateway, gateway_to, provider_settings
from tests.fakes.scripted_provider import ReceivedMessage, ThreadedProvider

pytestmark = pytest.mark.campaign

AT_ONCE = 20
CONNECTIONS = 5  # of a provider, as it comes
CALLS = times(100, campaign=1000)
FRONT_KILLS = {"sqlite": times(3, campaign=8), "postgres": times(2, campaign=4)}
CALLS_A_KILL = times(30, campaign=50)
PIECE_BYTES = 32768
LARGE_LINES = 20_000  # of 30 bytes
LONGEST_DELAY_S = 0.06  # what a large call takes from its last byte on, 20 at once on 2 cores

Call = Callable[[int], int]  # takes a number for the Subject, returns the exit code


class InstalledSendmail:
    """The launcher in a prefix of its own, and the maildrop it leaves mail in."""

    def __init__(self, directory: Path) -> None:
        self.maildrop = directory / "maildrop"
        self._program = directory / "usr/sbin/sendmail"
        programs = Programs(directory / "usr")
        drop_path = str(self.maildrop)
        list(programs.install(maildrop=drop_path, group=None, state_dir=directory, force=False))

    def start(self) -> subprocess.Popen[bytes]:
        """Start one call, which then waits for its message."""
        return subprocess.Popen(
            [self._program, "-t", "-i"],
            stdin=subprocess.PIPE,
            env={"RELAYGW_MAILDROP": str(self.maildrop)},
        )

    def call(self, number: int) -> int:
        """Hand one small message over; return the exit code."""
        with self.start() as process:
            process.communicate(message(number, lines=3), timeout=PATIENCE_S)
        return process.returncode

    def killed_call(self, number: int, chance: random.Random) -> int:
        """Hand a large message over in pieces and SIGKILL the call at some instant.

        Half of them die while they read, half while they write, sync, rename or tell the front.
        Returns the exit code: 0 if the call was over before.
        """
        content = message(number, lines=LARGE_LINES)
        pieces = range(0, len(content), PIECE_BYTES)
        fed = chance.choice((len(pieces), chance.randrange(len(pieces))))
        with self.start() as process:
            assert process.stdin is not None
            for begin in pieces[:fed]:
                process.stdin.write(content[begin : begin + PIECE_BYTES])
            if fed == len(pieces):
                _close_and_wait(process.stdin, chance.uniform(0, LONGEST_DELAY_S))
            process.kill()
        return process.returncode

    def left(self) -> list[str]:
        """Return the names of the mail that nobody took yet."""
        return [path.name for path in self.maildrop.glob("*.drop")]


def _close_and_wait(stream: IO[bytes], delay_s: float) -> None:
    stream.close()
    time.sleep(delay_s)  # the instant itself is what varies


def body(number: int, *, lines: int) -> bytes:
    return b"".join(b"%012d of call %08d\n" % (line, number) for line in range(lines))


def message(number: int, *, lines: int) -> bytes:
    head = b"Subject: call %d\nFrom: shop@shop.test\nTo: b@cust.test\n\n" % number
    return head + body(number, lines=lines)


def number_of(received: ReceivedMessage) -> int:
    head, _, content = received.content.partition(b"\r\n\r\n")
    (subject,) = (line for line in head.split(b"\r\n") if line.startswith(b"Subject: call "))
    number = int(subject.removeprefix(b"Subject: call "))
    lines = content.count(b"\n")
    assert content == body(number, lines=lines).replace(b"\n", b"\r\n")
    assert lines in (3, LARGE_LINES)
    return number


def delivered(provider: ThreadedProvider) -> Counter[int]:
    """Count each call's message at the provider, having seen that each is whole."""
    return Counter(map(number_of, tuple(provider.messages)))


def run_all(call: Call, count: int) -> dict[int, int]:
    """Make calls 0, 1, ..., always 20 at once; return the exit codes by number."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return dict(enumerate(pool.map(call, range(count))))


def assert_each_once(
    provider: ThreadedProvider,
    gateway: Gateway,
    sendmail: InstalledSendmail,
    calls: dict[int, int],
    *,
    in_doubt: int = 0,
) -> None:
    """Wait until nothing is on its way; see that exit 0 was delivered once, the rest at most once.

    `calls` are exit codes by number. So many may have been `in_doubt` when the worker was killed:
    on each connection one whose answer was not recorded yet.
    """
    taken = {number for number, exit_code in calls.items() if exit_code == 0}
    gateway.wait_until(lambda: not sendmail.left(), "an empty maildrop")
    gateway.wait_until_empty()
    assert gateway.stop() == 0
    found = delivered(provider)
    assert taken - found.keys() == set(), "lost"
    assert found.keys() - calls.keys() == set(), "invented"
    twice = {number for number, times in found.items() if times > 1}
    assert len(twice) <= in_doubt, f"more than once: {twice}"


class FrontKiller:
    """Kills the front at random instants of a campaign, each time once it is back.

    Calls are held back so that there are some before, during and after each kill. Half way
    everything is killed and started anew; thereby the front's restarts are swift again, too.
    """

    def __init__(self, gateway: Gateway, kills: int, chance: random.Random) -> None:
        self._gateway = gateway
        self._kills = kills
        self._chance = chance
        self._ended_calls = 0
        self._progress = threading.Condition()
        self.killed: list[int] = []

    def begin_call(self, number: int) -> None:
        """Wait until it is this call's turn."""
        with self._progress:
            self._progress.wait_for(
                lambda: number < (len(self.killed) + 2) * CALLS_A_KILL, PATIENCE_S
            )

    def end_call(self) -> None:
        """Note that one more call is over."""
        with self._progress:
            self._ended_calls += 1
            self._progress.notify_all()

    def run(self) -> None:
        """Kill, until it was done as often as it should."""
        for number in range(self._kills):
            if number == self._kills // 2:
                self._gateway.kill_all()
                self._gateway.start()
            self._gateway.wait_until(self._is_back, "a front after the last was killed")
            self._wait_for_calls((number + self._chance.random()) * CALLS_A_KILL)
            pid = self._living()[-1]
            os.kill(pid, signal.SIGKILL)
            with self._progress:
                self.killed.append(pid)
                self._progress.notify_all()

    def _wait_for_calls(self, count: float) -> None:
        with self._progress:
            assert self._progress.wait_for(lambda: self._ended_calls >= count, PATIENCE_S)

    def _living(self) -> list[int]:
        pids = (pid for pid in self._gateway.pids("front") if pid not in self.killed)
        return [pid for pid in pids if Path(f"/proc/{pid}").exists()]

    def _is_back(self) -> bool:
        return bool(self._living())


def test_calls_at_once_while_the_gateway_is_down(
    provider: ThreadedProvider, tmp_path: Path
) -> None:
    sendmail = InstalledSendmail(tmp_path)
    calls = run_all(sendmail.call, CALLS)
    assert set(calls.values()) == {0}
    assert len(sendmail.left()) == CALLS
    providers = {"main": provider_settings(provider.port)}
    with Gateway(tmp_path, providers=providers) as gateway:
        assert_each_once(provider, gateway, sendmail, calls)


def test_calls_while_the_front_and_some_callers_are_killed(
    provider: ThreadedProvider, tmp_path: Path, each_database: str
) -> None:
    chance = random.Random(20_262)
    kills = FRONT_KILLS[each_database]
    count = kills * CALLS_A_KILL
    sendmail = InstalledSendmail(tmp_path)
    doomed = {number: random.Random(number) for number in chance.sample(range(count), count // 10)}
    with gateway_to(provider, tmp_path) as gateway:
        killer = FrontKiller(gateway, kills, chance)

        def call(number: int) -> int:
            killer.begin_call(number)
            try:
                if number in doomed:
                    return sendmail.killed_call(number, doomed[number])
                return sendmail.call(number)
            finally:
                killer.end_call()

        with ThreadPoolExecutor(1) as aside:
            killing = aside.submit(killer.run)
            calls = run_all(call, count)
            killing.result()
        assert_each_once(provider, gateway, sendmail, calls, in_doubt=CONNECTIONS)
    assert len(killer.killed) == kills
    assert {calls[number] for number in calls.keys() - doomed} == {0}
    assert {calls[number] for number in doomed} <= {0, -signal.SIGKILL}
    assert sum(calls[number] != 0 for number in doomed) >= len(doomed) // 4
