"""`relaygw find`: any mail in any state, and what is said when nothing is found."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest

from relaygw.mail.clock import clock_ms
from relaygw.mail.state import RecipientState
from tests.builders import taken, update_of
from tests.integration.cli.conftest import Desk


def test_mail_in_every_state_is_found_newest_first(desk: Desk) -> None:
    waiting = desk.add("anna@cust.test", subject="Order #000123", age_s=5)
    captured = desk.add_captured(subject="Order #000124")
    done = desk.run("find", "#00012")
    assert done.exit_code == 0, done.output
    rows = done.stdout.splitlines()
    assert [row.split()[0] for row in rows] == ["QUEUE", captured, waiting, "--"]
    assert [row.split()[2] for row in rows[1:3]] == ["captured", "incoming"]
    assert rows[-1] == "-- 2 messages"
    assert [one["queue_id"] for one in desk.lines("find", "anna", "#000123", "--json")] == [waiting]
    assert [one["queue_id"] for one in desk.lines("find", "--result", "captured", "--json")] == [
        captured
    ]
    assert desk.run("find", "order", "--limit", "1").stdout.endswith(
        "-- 1 message, more may match\n"
    )


def test_what_became_of_mail_stands_in_its_row(desk: Desk) -> None:
    queue_id = desk.add("anna@cust.test", age_s=9)
    incarnation = desk.claim()
    bounced = replace(taken(0, reply="550 5.1.1 no such user"), state=RecipientState.BOUNCED)
    desk.store.leases.record_batch(
        [update_of(queue_id, recipients=(bounced,))], incarnation=incarnation, now_ms=clock_ms()
    )
    rows = desk.run("find", "anna@cust.test").stdout.splitlines()
    assert rows[1].split()[:3] == [queue_id, "9s", "bounced"]
    assert desk.lines("find", "is:bounced", "--json", "--since", "1h")
    assert desk.lines("find", "is:bounced", "--json", "--since", "2100-01-01") == []


def test_inside_of_words_is_looked_at_in_the_end(desk: Desk) -> None:
    begins, inside = desk.add("nna@cust.test"), desk.add("anna@cust.test", age_s=9)
    while desk.store.find.index_batch(limit=100):
        pass
    found = [one["queue_id"] for one in desk.lines("find", "nna", "--json")]
    assert sorted(found) == sorted([begins, inside])


def test_nothing_found_says_what_was_looked_at(desk: Desk) -> None:
    desk.add("anna@cust.test")
    done = desk.run("find", "xyzzy")
    assert done.exit_code == 0
    assert done.stdout == (
        "-- nothing found; searched queue ids, addresses, subjects, Message-IDs and providers' "
        "ids of all mail, in every state\n"
    )


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        ([], "nothing to find; give TEXT, --result or --since"),
        (["after:banana"], "'after:banana' is not a time; write one like after:today"),
        (["is:bounded"], "'is:bounded' is not known; write one of is:read"),
        (["uid:root"], "'uid:root' is not a number; write uid:33"),
        (["larger:much"], "'larger:much' is not a size; write larger:100k"),
        (['user:""'], "'user:' names nothing; write a text after the colon"),
        (["!!!"], "nothing in it can be looked for; write letters or digits"),
        (["a " * 21], "the search has 21 terms; write at most 20"),
        (["x" * 10_000], "it has 10,000 characters; write at most 1,000"),
        (["x" * 600, "y" * 600], "the search has 1,201 characters; write at most 1,000"),
        (["x", "--since", "banana"], "'banana' is not a time; write today, 10:30, 2026-11-27"),
        (["x", "--result", "lost"], "'lost' is not one of 'delivered', 'bounced'"),
        ([""], "is empty; write a value or omit the option"),
    ],
)
def test_what_cannot_be_looked_for_is_told(desk: Desk, words: list[str], problem: str) -> None:
    done = desk.run("find", *words)
    assert done.exit_code == os.EX_USAGE
    assert problem in " ".join(done.stderr.split()), done.stderr
