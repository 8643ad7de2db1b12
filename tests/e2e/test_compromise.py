"""A PHP script that sends spam among orders: told within a minute, held, and orders flow on."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path
from typing import Any

from relaygw.mail.clock import HOUR_MS, clock_ms
from relaygw.mail.hold import HoldCode
from relaygw.mail.mail_class import ClassCount, MailClass
from relaygw.mail.state import DeliveryState
from relaygw.store.selection import Selection
from tests.campaign import times
from tests.e2e.fleet import Start, send_all
from tests.e2e.gateway import PATIENCE_S, Gateway, provider_settings
from tests.e2e.sendmail_rig import Installation
from tests.fakes.notice_receiver import NoticeReceiver
from tests.fakes.scripted_provider import ThreadedProvider

SPAM = times(60, campaign=500)
CLIENTS = Path(__file__).parent / "clients"
HELD = Selection(states=frozenset({DeliveryState.HELD}))


def know_orders(gateway: Gateway, subject: str = "order #", usual: int = 1000) -> None:
    """Let the queue have counted orders of the last days."""
    now_ms = clock_ms()
    source = ("127.0.0.1", ":0", "", None, "")  # as its listener is written
    orders = MailClass.of(
        source, sender_domain="shop.test", template=subject, stream="transactional"
    )
    hours = [now_ms - ago * HOUR_MS for ago in range(1, 15 * 24)]
    counts = [ClassCount(orders, at_ms, at_ms, usual, usual) for at_ms in reversed(hours)]
    for first in range(0, len(counts), 100):
        gateway.store.sources.count_mail(counts[first : first + 100])


def spam(command: Installation, count: int) -> subprocess.Popen[str]:
    """Start the script."""
    options = ["-d", f"sendmail_path={command.sendmail} -t -i", "-d", "mail.add_x_header=1"]
    return subprocess.Popen(
        ["php", *options, str(CLIENTS / "spam.php"), str(count)],
        env=command.environment(),
        stdout=subprocess.PIPE,
        text=True,
    )


def test_spam_of_a_script_is_told_and_held_and_orders_flow_on(
    start: Start, command: Installation
) -> None:
    with ThreadedProvider() as provider, NoticeReceiver() as receiver:
        settings: dict[str, Any] = {
            "providers": {"p": provider_settings(provider.port)},
            "guard": {"action": "hold"},
            "alerts": [{"webhook": receiver.url, "on": ["source_new", "source_volume"]}],
        }
        shop = start("gw1", **settings, maildrop={"path": str(command.maildrop)})
        other = start("gw2", **settings)
        for gateway in (shop, other):
            know_orders(gateway)
        shop.wait_until((command.maildrop / "wake").exists, "a front at the maildrop")
        script = spam(command, SPAM)
        begun_s, orders = time.monotonic(), 0
        while not receiver.bodies or script.poll() is None:
            for gateway in (shop, other):
                orders += len(send_all(gateway, 5, first=orders))
            is_late = time.monotonic() - begun_s > PATIENCE_S
            assert receiver.bodies or not is_late, "no alert"
            time.sleep(0.3)
        script.communicate()
        took_s = receiver.taken_at_s[0] - begun_s
        shop.wait_until(lambda: arrived(provider, "order") == orders, "all orders")
        sent = SPAM
        while not shop.store.queue.search(HELD, limit=1):  # it may all have been faster
            spam(command, 5).communicate()
            sent += 5
        shop.wait_until(
            lambda: (
                len(shop.store.queue.search(HELD, limit=1000)) + arrived(provider, "victim") == sent
            ),
            "held or sent",
        )
        held = shop.store.queue.search(HELD, limit=1000)
    print(f"told after {took_s:.1f} s; {orders} orders sent; {len(held)} of {sent} spam held")
    assert took_s < 60
    assert {one.source.script for one in held} == {f"{os.getuid()}:spam.php"}, "no order is held"
    holds = [one.deliveries[0].hold for one in held]
    assert {one and one.code for one in holds} == {HoldCode.GUARD}
    (body,) = receiver.bodies
    assert body["rule"] == "source_new"
    for word in (
        f"script {os.getuid()}:spam.php",
        "uid ",
        "host local",
        "new templates",
        "web.test",
    ):
        assert word in body["summary"]
    assert "relaygw guard release" in body["remedy"]


def arrived(provider: ThreadedProvider, word: str) -> int:
    """Count the mail that a provider got with a word in it."""
    return sum(word.encode() in one.content for one in provider.messages)
