"""A thin spool before two central gateways, all as processes: one dies, both die, one returns.

Mail comes by SMTP and by the sendmail command, as a shop sends it. Behind the gateways is one
provider, where each message is counted. The gateways have a queue each, or share one in
PostgreSQL; the spool has its own.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from relaygw.mail.state import DeliveryState
from tests.campaign import times
from tests.e2e.gateway import PATIENCE_S, Gateway, provider_settings
from tests.e2e.ports import free_port
from tests.e2e.sendmail_rig import Installation
from tests.fakes.scripted_provider import ThreadedProvider
from tests.forked import run_relaygw

EMPTY_WITHIN_S = 75.0  # a probe and a put-off message wait half a minute each at most
RETRY = {"first": "5s", "max": "1m"}  # as docs/thin-spool.md has it
ALL_STATES = frozenset(DeliveryState)
SCRIPT = b"X-PHP-Originating-Script: 33:mail.php\n"
DOUBTFUL = re.compile(r"([A-Z0-9]{10,20}): .*may be sent more than once")


class Fleet:
    """Two central gateways, a thin spool before them and a provider behind.

    `shared` is the URL of the gateways' common queue.
    """

    def __init__(
        self,
        root: Path,
        command: Installation,
        provider: ThreadedProvider,
        shared: str | None,
    ) -> None:
        self._command = command
        self.provider = provider
        ports = [free_port(), free_port()]
        self.centrals = [
            self._central(root / f"gw{number}", port, provider.port, shared)
            for number, port in enumerate(ports, 1)
        ]
        directory = root / "web1"
        directory.mkdir()
        self.maildrop = directory / "maildrop"
        self.spool = Gateway(
            directory,
            hostname="web1.test",
            retry=RETRY,
            relay_to=[f"smtp://127.0.0.1:{port}?tls=none" for port in ports],
        )
        self.names = [f"127-0-0-1-{port}" for port in ports]  # of the spool's providers

    @staticmethod
    def _central(directory: Path, port: int, provider_port: int, shared: str | None) -> Gateway:
        directory.mkdir()
        own = {"queue": {"url": shared, "min_free": "0%"}} if shared else {}
        return Gateway(
            directory,
            hostname=f"{directory.name}.test",
            providers={"main": provider_settings(provider_port)},
            listeners=[{"bind": f"127.0.0.1:{port}", "trust_source": ["127.0.0.1"]}],
            **own,
        )

    def by_smtp(self, number: int) -> None:
        """Hand a message to the spool by SMTP; its 250 is asserted."""
        self.spool.send("a@shop.test", ["b@cust.test"], b"Subject: %d\r\n\r\nhi\r\n" % number)

    def by_sendmail(self, number: int) -> None:
        """Hand a message to the spool by the sendmail command; its exit 0 is asserted."""
        content = SCRIPT + b"Subject: %d\n\nhi\n" % number
        sent = self._command.run(
            "-i", "-f", "a@shop.test", "b@cust.test", content=content, maildrop=self.maildrop
        )
        assert sent.returncode == 0, sent.stderr

    def hand_over(self, number: int) -> None:
        """Hand a message over, even ones by SMTP and odd ones by sendmail."""
        (self.by_sendmail if number % 2 else self.by_smtp)(number)

    def hand_over_until(self, condition: Callable[[], bool], *, start: int) -> int:
        """Hand messages over, one after the other, until `condition`; return the next number."""
        deadline_s = time.monotonic() + PATIENCE_S
        while not condition():
            assert time.monotonic() < deadline_s
            self.by_smtp(start)
            start += 1
            self.wait_for(range(start), "one more message")
        return start

    def drain(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run `relaygw drain` on the spool."""
        config = str(self.spool.config)
        return run_relaygw(
            ["--config", config, "drain", *words],
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )

    def arrived(self) -> Counter[int]:
        """Count each number at the provider."""
        return Counter(map(number_of, [one.content for one in tuple(self.provider.messages)]))

    def taken_by(self, central: Gateway) -> int:
        """Count what arrived at the provider and had come in at this gateway."""
        mark = f"by {central.settings['hostname']} ".encode()
        return sum(mark in one.content for one in tuple(self.provider.messages))

    def wait_for(self, numbers: range, what: str) -> None:
        """Wait until all of `numbers` are at the provider."""
        self.spool.wait_until(lambda: self.arrived().keys() >= set(numbers), what)

    def wait_until_empty(self, limit_s: float) -> None:
        """Wait until the spool has nothing left."""
        deadline_s = time.monotonic() + limit_s
        while not self.has_nothing_left():
            assert time.monotonic() < deadline_s, f"not empty within {limit_s} s"
            threading.Event().wait(0.05)

    def has_nothing_left(self) -> bool:
        """True when neither maildrop nor queue of the spool holds anything."""
        return not list(self.maildrop.glob("*.drop")) and not self.spool.queue()


def number_of(content: bytes) -> int:
    found = re.search(rb"^Subject: (\d+)\r$", content, re.MULTILINE)
    assert found is not None and content.endswith(b"\r\n\r\nhi\r\n"), content
    return int(found[1])


@pytest.fixture
def fleet(request: pytest.FixtureRequest, command: Installation, tmp_path: Path) -> Iterator[Fleet]:
    shared = None
    if getattr(request, "param", "own") == "shared":
        shared = request.getfixturevalue("queue_url")
    with ThreadedProvider() as provider, ExitStack() as stack:
        fleet = Fleet(tmp_path, command, provider, shared)
        for central in fleet.centrals:
            stack.enter_context(central)
        stack.enter_context(fleet.spool)
        fleet.spool.wait_until((fleet.maildrop / "wake").exists, "a maildrop")
        yield fleet


own_or_shared = pytest.mark.parametrize("fleet", ["own", "shared"], indirect=True)


@own_or_shared
def test_mail_takes_the_next_gateway_when_one_dies(fleet: Fleet) -> None:
    first, second = fleet.centrals
    before, after = range(4), range(4, 14)
    for number in before:
        fleet.hand_over(number)
    fleet.wait_for(before, "mail by the first gateway")
    assert (fleet.taken_by(first), fleet.taken_by(second)) == (len(before), 0)
    fleet.spool.wait_until_empty()
    first.wait_until_empty()
    first.kill_all()
    for number in after:
        fleet.hand_over(number)
    fleet.wait_for(after, "mail by the second gateway")
    assert fleet.taken_by(second) == len(after)
    fleet.spool.wait_for_log(f"provider {fleet.names[0]} is down")
    first.start()
    last = fleet.hand_over_until(lambda: fleet.taken_by(first) > len(before), start=after.stop)
    fleet.spool.wait_for_log(f"provider {fleet.names[0]} is back")
    fleet.spool.wait_until_empty()
    fleet.wait_for(range(last), "all mail")
    assert fleet.arrived() == Counter(range(last))


def test_what_sendmail_knows_of_the_sender_arrives_at_either_gateway(fleet: Fleet) -> None:
    first, second = fleet.centrals
    fleet.by_sendmail(1)
    fleet.wait_for(range(1, 2), "mail by the first gateway")
    first.kill_all()
    fleet.by_sendmail(2)
    fleet.wait_for(range(1, 3), "mail by the second gateway")
    for central in (first, second):
        (entry,) = central.queue(ALL_STATES)
        source = entry.source
        assert (source.host, source.uid, source.script) == (
            *("web1.test", os.getuid(), "33:mail.php"),
        )
    for message in fleet.provider.messages:
        assert b"relaygw-source" not in message.content.lower()


def test_while_all_gateways_are_down_mail_waits_and_then_drains(fleet: Fleet) -> None:
    first, second = fleet.centrals
    for central in fleet.centrals:
        central.kill_all()
    numbers = range(12)
    for number in numbers:
        fleet.hand_over(number)  # 250 and exit 0, whatever is down
    fleet.spool.wait_until(lambda: not list(fleet.maildrop.glob("*.drop")), "an empty maildrop")
    fleet.spool.wait_for_log(f"provider {fleet.names[1]} is down")
    ended = fleet.drain("--wait", "3s", "--json")
    assert ended.returncode == os.EX_TEMPFAIL, ended
    told = json.loads(ended.stdout)
    assert told["drained"] is False and told["maildrop"] == 0
    assert sum(lane["deliveries"] for lane in told["lanes"]) == len(numbers)
    assert {lane["route"] for lane in told["lanes"]} == {"default"}
    assert sum(reason["deliveries"] for reason in told["reasons"]) == len(numbers)
    assert not fleet.provider.messages
    second.start()
    ended = fleet.drain("--wait", "60s")
    assert (ended.returncode, ended.stdout) == (0, "drained: nothing is left\n"), ended
    assert fleet.has_nothing_left()
    fleet.wait_for(numbers, "mail by the gateway that returned")
    assert fleet.arrived() == Counter(numbers)
    assert not first.is_running


def test_a_spool_drains_by_itself_when_a_gateway_returns(fleet: Fleet) -> None:
    for central in fleet.centrals:
        central.kill_all()
    numbers = range(12)
    for number in numbers:
        fleet.hand_over(number)
    fleet.spool.wait_for_log(f"provider {fleet.names[1]} is down")
    fleet.centrals[0].start()
    fleet.wait_until_empty(EMPTY_WITHIN_S)
    fleet.wait_for(numbers, "mail by the gateway that returned")
    assert fleet.arrived() == Counter(numbers)


@pytest.mark.campaign
@own_or_shared
def test_a_gateway_is_killed_under_traffic(fleet: Fleet) -> None:
    """Nothing is lost; twice may be only what was in doubt, and the log says so."""
    first, _ = fleet.centrals
    numbers = range(times(40, campaign=120))
    is_half = threading.Event()

    def traffic() -> None:
        for number in numbers:
            fleet.hand_over(number)
            if number == len(numbers) // 2:
                is_half.set()

    sender = threading.Thread(target=traffic)
    sender.start()
    assert is_half.wait(PATIENCE_S)
    first.kill_all()
    sender.join()
    first.start()
    assert fleet.drain("--wait", "60s").returncode == 0
    fleet.wait_for(numbers, "all mail")
    for central in fleet.centrals:
        central.wait_until_empty()
    arrived = fleet.arrived()
    assert arrived.keys() == set(numbers), "lost or invented"
    twice = arrived.total() - len(arrived)
    doubted = sum(
        DOUBTFUL.search(line) is not None
        for gateway in (fleet.spool, *fleet.centrals)
        for line in gateway.lines
    )
    assert twice <= doubted, (twice, doubted)
