"""Who sends what, on the command line: sources, shapes of the queue, mail selected by source."""

from __future__ import annotations

import json

import pytest

from relaygw.mail.clock import HOUR_MS, clock_ms
from relaygw.mail.envelope import Source
from relaygw.mail.mail_class import ClassCount, MailClass
from tests.integration.cli.conftest import Desk

NOW_MS = clock_ms()
EVIL = "\x1b[2J spam"


def count(
    desk: Desk, number: int, template: str, *, ago_ms: int = 0, **source: str | int | None
) -> None:
    parts: dict[str, str | int | None] = {
        **{"host": "web1", "listener": "127.0.0.1:25", "user": "", "uid": 33, "script": "60:a.php"},
        **source,
    }
    mail_class = MailClass.of(
        tuple(parts.values()),  # type: ignore[arg-type]
        sender_domain="shop.test",
        template=template,
        stream="transactional",
    )
    counted = ClassCount(mail_class, NOW_MS - ago_ms)
    for _ in range(number):
        counted.add(NOW_MS - ago_ms, 2, 1)
    desk.store.sources.count_mail([counted])


@pytest.fixture
def counted(desk: Desk) -> Desk:
    count(desk, 5, "Order #")
    count(desk, 2, "Order #", ago_ms=3 * HOUR_MS)
    count(desk, 9, EVIL, host="web2", script="99:up.php")
    count(desk, 1, "Login", uid=None, script="", user="shop", host="10.0.0.5")
    count(desk, 50, "Old", ago_ms=72 * HOUR_MS)
    return desk


def test_sources_are_listed_by_their_mail(counted: Desk) -> None:
    lines = counted.run("sources", columns=120).stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["MESSAGES", "9", "7", "1", "--"]
    assert "\x1b" not in lines[1] and "web2 uid 33 99:up.php" in lines[1]
    assert max(map(len, counted.run("sources").stdout.splitlines())) <= 100
    first, second, third = counted.lines("sources", "--json")
    assert (first["script"], first["messages"], first["recipients"]) == ("99:up.php", 9, 18)
    assert (second["template"], second["busiest_hour"], second["total"]) == ("Order #", 5, 7)
    assert (third["user"], third["uid"], third["refused"]) == ("shop", None, 1)
    assert counted.run("sources", "--limit", "1").stdout.endswith("-- 1 class, 2 more\n")
    assert counted.lines("sources", "--json", "--since", "7d")[0]["template"] == "Old"


@pytest.mark.parametrize(
    ("by", "name", "keys"),
    [
        ("script", "script", [("99:up.php", 9), ("60:a.php", 7), ("", 1)]),
        ("host", "host", [("web2", 9), ("web1", 7), ("10.0.0.5", 1)]),
        ("subject", "template", [(EVIL, 9), ("Order #", 7), ("Login", 1)]),
        ("sender", "sender_domain", [("shop.test", 17)]),
        ("uid", "uid", [(33, 16), (None, 1)]),
        ("user", "user", [("", 16), ("shop", 1)]),
    ],
)
def test_sources_by_a_part(
    counted: Desk, by: str, name: str, keys: list[tuple[str | int | None, int]]
) -> None:
    rows = counted.lines("sources", "--by", by, "--json")
    assert [(row[name], row["messages"]) for row in rows] == keys
    assert all(row["class"] is None for row in rows)
    assert f"-- {len(keys)} row" in counted.run("sources", "--by", by).stdout


def test_nothing_and_what_cannot_be_asked(desk: Desk) -> None:
    assert desk.run("sources").stdout.splitlines()[-1] == "-- 0 classes"
    for words in (("--by", "x"), ("--since", "soon"), ("--limit", "0")):
        assert desk.run("sources", *words).exit_code == 64


SENT = {
    "orders": (Source(client="10.0.0.5"), ("Order 1 of Ann", "Order 2 of Bob")),
    "spam": (Source(uid=33, script="99:up.php"), ("Buy 1", "Buy 2", "Buy 3")),
    "thin": (Source(client="10.0.0.9", host="web1", uid=48, script="7:a.php"), ("Hello",)),
}


@pytest.fixture
def waiting(desk: Desk) -> Desk:
    for source, subjects in SENT.values():
        for subject in subjects:
            desk.add(source=source, subject=subject)
    return desk


@pytest.mark.parametrize(
    ("by", "rows"),
    [
        ("subject", {"Buy #": 3, "Order # of Ann": 1, "Order # of Bob": 1, "Hello": 1}),
        ("script", {"99:up.php": 3, "(no script)": 2, "7:a.php": 1}),
        ("host", {"local": 3, "10.0.0.5": 2, "web1": 1}),
        ("uid", {"33": 3, "(no uid)": 2, "48": 1}),
        ("sender", {"a@shop.test": 6}),
    ],
)
def test_the_shape_of_the_queue_by_source(waiting: Desk, by: str, rows: dict[str, int]) -> None:
    found = waiting.lines("queue", "shape", "--by", by, "--json")
    assert {row[by]: row["total"] for row in found} == rows


@pytest.mark.parametrize(
    ("words", "number"),
    [
        (("--host", "local"), 3),
        (("--host", "WEB1"), 1),
        (("--host", "10.0.0.5"), 2),
        (("--host", "10.0.0.9"), 0),  # another relaygw took it on web1
        (("--uid", "33", "--script", "up.php"), 3),
        (("--uid", "33", "--script", "a.php"), 0),
    ],
)
@pytest.mark.parametrize("verb", ["list", "hold", "delete", "export"])
def test_mail_is_selected_by_its_source(
    waiting: Desk, verb: str, words: tuple[str, ...], number: int
) -> None:
    if verb == "list":
        assert len(waiting.lines("queue", "list", "--json", *words)) == number
    elif verb == "export":
        done = waiting.run("queue", "export", "--format", "json", *words)
        assert len(done.stdout.splitlines()) == number
    else:
        done = waiting.run("queue", verb, *words, "--json", "--dry-run")
        assert len([*map(json.loads, done.stdout.splitlines())]) == number
