"""The digest on the command line: what a day was like, beside that of a week before."""

from __future__ import annotations

import json
import re

from relaygw.alerting.digest import last_period
from relaygw.mail.clock import clock_ms, local_time
from relaygw.mail.mail_class import ClassCount, MailClass
from relaygw.observe.history import Series
from tests.integration.cli.conftest import Desk

WEEK_MS = 7 * 86_400_000
NOON_MS = last_period(clock_ms(), 86_400).since_ms + 43_200_000


def count(desk: Desk, at_ms: int, number: int, script: str, template: str) -> None:
    mail_class = MailClass.of(
        ("web1", "", "", 33, script),
        sender_domain="shop.test",
        template=template,
        stream="transactional",
    )
    counted = ClassCount(mail_class, at_ms)
    for _ in range(number):
        counted.add(at_ms, 1, 0)
    desk.store.sources.count_mail([counted])


def history(desk: Desk, at_ms: int, **numbers: int) -> None:
    desk.store.watch.add_history(at_ms, {(name, "main"): n for name, n in numbers.items()})


def test_a_day_is_compared_with_that_of_the_week_before(desk: Desk) -> None:
    count(desk, NOON_MS - WEEK_MS, 40, "1:order.php", "Order #")
    count(desk, NOON_MS - WEEK_MS, 30, "2:cart.php", "Your cart waits")
    count(desk, NOON_MS, 44, "1:order.php", "Order #")
    count(desk, NOON_MS, 500, "9:x.php", "You \x1b[2J won <b>")
    count(desk, clock_ms(), 7, "1:order.php", "Order #")  # today
    history(desk, NOON_MS - WEEK_MS, messages=70, delivered=70, bounced=1)
    history(desk, NOON_MS, messages=544, delivered=300, bounced=200)
    slow = {(Series.IN_QUEUE.value, f"main {bound}"): 10 for bound in (100, 30_000)}
    desk.store.watch.add_history(NOON_MS, slow)
    assert desk.run("queue", "hold", desk.add("a@cust.test"), "--yes").exit_code == 0
    told = " ".join(desk.run("digest", "--every", "1d").stdout.split())
    day = f"{local_time(clock_ms()):%d %b}"  # what is held is of now, not of the period
    for expected in (
        f"* Held when this was written, {day} ",
        "Messages accepted 544 70 +677 %",
        "Bounced or expired 200 1 × 200",
        "* Bounced or expired: 200, the week before 1.",
        "* New script: 9:x.php, 500 messages.",
        "* Script: 2:cart.php, none, 30 messages the week before.",
        "1:order.php 44 40 +10 %",
        "You ?[2J won <b> 500 0 new",
        "main 20",
    ):
        assert expected in told, expected
    assert "\x1b" not in told
    found = json.loads(desk.run("digest", "--every", "1d", "--json").stdout)
    assert (found["counts"]["messages"], found["week_before"]["messages"]) == (544, 70)
    page = desk.run("digest", "--every", "1d", "--html").stdout
    assert "won &lt;b&gt;" in page
    assert re.search(r"7\s+0\s+new|51\s", desk.run("digest", "--now").stdout)


def test_an_empty_queue_has_a_digest(desk: Desk) -> None:
    told = desk.run("digest").stdout
    assert "There are no counts of the week before." in told
    assert "Messages accepted" in told
