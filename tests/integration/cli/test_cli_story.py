"""`relaygw queue explain`: what it prints, and how it ends."""

from __future__ import annotations

import pytest

from relaygw.mail.state import DeliveryState
from tests.integration.cli.conftest import Desk

LONG = "451 4.3.0 " + "x" * 200 + " and \x1b[31mred\nlines " + "words " * 60


def test_it_fits_eighty_columns_whatever_was_said(desk: Desk) -> None:
    queue_id = desk.add("b@cust.test", subject="Your order " * 20, age_s=5)
    desk.attempt(DeliveryState.DEFERRED, reason=LONG)
    told = desk.run("queue", "explain", queue_id)
    lines = told.stdout.splitlines()
    assert told.exit_code == 0 and max(map(len, lines)) <= 80
    assert "\x1b" not in told.stdout and "?[31mred?lines" in told.stdout
    headings = [line for line in lines if line.startswith("What ")]
    assert headings == ["What happened", "What comes next", "What to do"]
    assert lines[-2:] == ["Wait, or try it now:", f"  relaygw queue retry --id {queue_id}"]


def test_it_tells_of_several_and_of_those_on_stdin(desk: Desk) -> None:
    ids = [desk.add(age_s=5), desk.add(age_s=4)]
    told = desk.run("queue", "explain", "-", stdin=f"{ids[0]}\n{ids[1]}*\n")
    assert [line.split()[-1] for line in told.stdout.splitlines() if "queue id" in line] == ids
    objects = desk.lines("queue", "explain", *ids, "--json")
    assert [one["queue_id"] for one in objects] == ids
    assert objects[0]["events"][0]["kind"] == "accepted"


def test_an_unknown_id_is_an_error_and_the_others_are_told(desk: Desk) -> None:
    queue_id = desk.add()
    told = desk.run("queue", "explain", "NOSUCHID00", queue_id)
    assert (told.exit_code, told.stderr) == (65, "relaygw: NOSUCHID00: no such message\n")
    assert queue_id in told.stdout


@pytest.mark.parametrize("words", [(), ("",), ("--sender", "a")])
def test_it_needs_an_id(desk: Desk, words: tuple[str, ...]) -> None:
    assert desk.run("queue", "explain", *words).exit_code == 64


def test_an_answer_to_a_customer_is_all_that_is_printed(desk: Desk) -> None:
    ids = [desk.add(subject="Order 7", age_s=5), desk.add(subject="Order 8", age_s=4)]
    told = desk.run("queue", "explain", *ids, "--answer")
    first, blank, second = told.stdout.splitlines()
    assert first.startswith("Our e-mail “Order 7” of ") and second.startswith("Our e-mail “Order 8")
    assert (blank, told.exit_code) == ("", 0)
    both = desk.run("queue", "explain", *ids, "--answer", "--json")
    assert both.exit_code == 64
