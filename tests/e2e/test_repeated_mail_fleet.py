"""Mail that comes again, as real programs send it, at two gateways on one PostgreSQL."""

from __future__ import annotations

import subprocess
import threading
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest

from tests.campaign import times
from tests.e2e.fleet import CONTENT, Start, arrived, starter
from tests.e2e.gateway import PATIENCE_S, Gateway, provider_settings
from tests.e2e.sendmail_rig import Installation
from tests.fakes.notice_receiver import NoticeReceiver
from tests.fakes.scripted_provider import ThreadedProvider
from tests.forked import run_relaygw

CLIENTS = Path(__file__).parent / "clients"
KILLS = times(3, campaign=14)  # each start takes longer than the one before
SENDERS = 4
SLOW_S = 55.0  # nearly a minute


def storm(command: Installation, number: int) -> None:
    """Have a PHP script send the same mail so often."""
    path = f"sendmail_path={command.sendmail} -t -i"
    done = subprocess.run(
        [
            "php",
            "-d",
            "mail.add_x_header=1",
            "-d",
            path,
            str(CLIENTS / "storm.php"),
            str(number),
            "b@cust.test",
        ],
        env=command.environment(),
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "sent\n", "")


def held(gateway: Gateway) -> int:
    return sum(
        part.hold is not None and part.hold.code.value == "storm"
        for entry in gateway.queue()
        for part in entry.deliveries
    )


def test_a_storm_of_a_php_script_is_held_and_told_and_other_mail_is_sent(
    start: Start, command: Installation
) -> None:
    with ThreadedProvider() as provider, NoticeReceiver() as receiver:
        common = {
            "providers": {"p": provider_settings(provider.port)},
            "storms": {"same": 5, "window": "1h", "action": "hold"},
            "alerts": [{"webhook": receiver.url, "on": ["storm"]}],
            "alert_rules": {"lasting": "1s"},
        }
        first = start("gw1", maildrop={"path": str(command.maildrop)}, **common)
        second = start("gw2", **common)
        first.wait_until((command.maildrop / "wake").exists, "a front at the maildrop")
        storm(command, 40)
        first.wait_until(lambda: held(first) == 35, "35 are held")
        provider.wait_for_messages(5)
        order = [b"Subject: order 1\r\n\r\nhello\r\n", b"Subject: order 2\r\n\r\nhello\r\n"]
        for gateway, content in zip((first, second), order, strict=True):
            gateway.send("a@shop.test", ["b@cust.test"], content)
        provider.wait_for_messages(7)
        # the other gateway gets it by swaks, and knows of the others by then
        file = first.directory / "mail"
        file.write_bytes(provider.messages[0].content)
        first.wait_until(lambda: _counted(first) == 40, "all are counted")
        sent = 0
        while held(second) == 35:
            words = ["--from", "www-data@gw1.test", "--to", "b@cust.test", "--data", f"@{file}"]
            where = ["--server", "127.0.0.1", "--port", str(second.smtp_port)]
            subprocess.run(["swaks", *where, *words], check=True, capture_output=True)
            sent += 1
            if sent == 2:  # it has written that it had two, and reads what others had
                first.wait_until(lambda: _counted(first) == 42, "these as well")
        assert sent <= 5, "alone it would hold the sixth"
        second.wait_for_log("warning: storm: the same mail went to the same recipient more than 5")
        receiver.wait_for(1)
        told = receiver.bodies[0]
        print(told["summary"], "|", told["remedy"], "| at the other gateway", sent)
        assert "the same mail came" in told["summary"]
        assert "storm.php" in told["summary"]
        assert "cust.test" in told["summary"]
        assert "b@cust.test" not in told["summary"]
        first.wait_until(lambda: _counted(first) == 40 + sent, "the last one as well")
        last = max(entry.queue_id for entry in first.queue())
        words = ["--config", str(first.config), "queue", "explain", last]
        story = run_relaygw(words, env=first.environment, capture_output=True, text=True)
        print(story.stdout)
        assert "of the same mail to the same recipient within 1h" in " ".join(story.stdout.split())


def _counted(gateway: Gateway) -> int:
    found = gateway.store.repeats.storms(3_600_000)
    return max((one.messages for one in found), default=0)


class Impatient:
    """Clients that send each message until it is answered, and then once more elsewhere."""

    def __init__(self, *gateways: Gateway) -> None:
        self._gateways = gateways
        self._lock = threading.Lock()
        self._next = 0
        self._is_over = threading.Event()
        self.acknowledged: dict[int, set[str]] = {}
        self.slow: set[int] = set()  # that took so long that the second one is another mail
        self._threads = [threading.Thread(target=self._run) for _ in range(SENDERS)]

    def __enter__(self) -> Impatient:
        for one in self._threads:
            one.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        for one in self._threads:
            one.join(PATIENCE_S)

    def _run(self) -> None:
        while not self._is_over.is_set():
            with self._lock:
                number, self._next = self._next, self._next + 1
            begun_s = time.monotonic()
            for gateway in self._gateways:
                queue_id = None
                while queue_id is None:  # whatever became of it before
                    with suppress(OSError, AssertionError, ValueError):
                        queue_id = gateway.send("a@shop.test", ["b@cust.test"], CONTENT % number)
                with self._lock:
                    self.acknowledged.setdefault(number, set()).add(queue_id)
            if time.monotonic() - begun_s > SLOW_S:
                self.slow.add(number)


@pytest.mark.parametrize("is_fleet", [True, False], ids=["fleet", "sqlite"])
def test_kills_lose_nothing_and_send_nothing_twice_where_duplicates_are_taken_once(
    tmp_path: Path, request: pytest.FixtureRequest, is_fleet: bool
) -> None:
    with ThreadedProvider() as provider, ExitStack() as gateways:
        common: dict[str, Any] = {
            "providers": {"p": provider_settings(provider.port)},
            "duplicates": "once",
            "storms": {"action": "off"},
        }
        if is_fleet:
            start = starter(tmp_path, request.getfixturevalue("queue_url"), gateways)
            fleet = start("gw1", **common), start("gw2", **common)
        else:
            fleet = (gateways.enter_context(Gateway(tmp_path, **common)),) * 2
        with Impatient(*fleet) as clients:
            for number in range(KILLS):
                seen = len(clients.acknowledged)
                gateway = fleet[number % 2]
                gateway.wait_until(lambda seen=seen: len(clients.acknowledged) > seen + 20, "mail")
                gateway.kill("front")
        for gateway in fleet:
            gateway.wait_until_empty()
        numbers, slow = clients.acknowledged, clients.slow
        assert len(numbers) > 10 * len(slow)
        assert [one for one, ids in numbers.items() if len(ids) > 1 and one not in slow] == []
        got = arrived(provider)
        assert got.keys() == numbers.keys()
        assert [one for one, number in got.items() if number > 1 and one not in slow] == []
        text = "the same message came again from"
        assert any(text in line for line in fleet[1].lines)
