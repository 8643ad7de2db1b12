"""`relaygw sandbox release` on a queue on disk: what it asks, says and leaves alone."""

from __future__ import annotations

import json
from typing import Any

import pytest

from relaygw.mail.envelope import NewRecipient
from relaygw.mail.state import RecipientState
from tests.integration.cli.conftest import Desk

DEV, CUSTOMER, OTHER = "dev@agency.test", "b@cust.test", "c@cust.test"
RECIPIENTS = f"recipients: {{allow: [{DEV}], block: ['@spam.test']}}\n"


@pytest.fixture
def desk(desk: Desk) -> Desk:
    desk.config.write_text(desk.config.read_text() + RECIPIENTS)
    return desk


def add(desk: Desk, *addresses: str, **more: Any) -> str:
    """Put a message into the sandbox that was captured in staging mode; return its id."""
    entries = (
        NewRecipient(address=one, state=RecipientState.CAPTURED, reason="staging")
        for one in addresses or (CUSTOMER,)
    )
    return desk.add(*entries, mode="staging", **more)


def pending(desk: Desk, queue_id: str) -> list[str]:
    """Return who is to get a message."""
    recipients = desk.entry(queue_id).recipients
    return [one.address for one in recipients if one.state is RecipientState.PENDING]


# --- questions ------------------------------------------------------------------------------


def test_it_shows_and_asks_before_it_releases(desk: Desk) -> None:
    queue_id = add(desk, subject="your order")
    refused = desk.run("sandbox", "release", queue_id, "--to", DEV, stdin="n\n")
    assert refused.exit_code == 0
    assert "release 1 mail of 1 message?" in refused.stderr
    head, row, last = refused.stdout.splitlines()
    assert head.split() == ["QUEUE", "ID", "LIST", "ROUTE", "TO", "SUBJECT"]
    assert row.split() == [queue_id, "allowed", "default", DEV, "your", "order"]
    assert last == "nothing changed"
    assert pending(desk, queue_id) == []

    agreed = desk.run("sandbox", "release", queue_id, "--to", DEV, stdin="y\n")
    assert agreed.exit_code == 0
    assert agreed.stdout.splitlines()[-1] == "1 mail released"
    assert pending(desk, queue_id) == [DEV]


@pytest.mark.parametrize(
    ("words", "answers", "code"),
    [
        (("--yes",), "", 65),  # not asked for
        (("--anyone",), "", 64),  # nobody answers
        (("--anyone",), "n\n", 0),
        (("--anyone",), "y\n", 64),  # nobody answers the second question
        (("--anyone",), "y\ny\n", 0),  # yes is no number
        (("--anyone",), "y\n\n", 0),
        (("--anyone",), "y\n1\n", 0),
        (("--anyone", "--yes"), "", 64),
        (("--anyone", "--yes", "--json"), "", 64),
        (("--anyone", "--outside", "2"), "", 64),
        (("--anyone", "--yes", "--outside", "1"), "", 65),
        (("--anyone", "--yes", "--outside", "3"), "", 65),
        (("--anyone", "--yes", "--outside", "0"), "", 64),
        (("--anyone", "--outside", "2", "--dry-run"), "", 0),
        (("--yes", "--outside", "2"), "", 64),
    ],
)
def test_without_the_second_confirmation_nobody_gets_anything(
    desk: Desk, words: tuple[str, ...], answers: str, code: int
) -> None:
    queue_id = add(desk, CUSTOMER, OTHER)
    result = desk.run("sandbox", "release", queue_id, *words, stdin=answers)
    assert result.exit_code == code, result.output
    assert pending(desk, queue_id) == []
    assert desk.store.audit.entries(limit=1) == []


@pytest.mark.parametrize(
    ("words", "answers"),
    [
        (("--anyone",), "y\n2\n"),
        (("--anyone", "--yes"), " 2 \n"),
        (("--anyone", "--yes", "--outside", "2"), ""),
    ],
)
def test_their_number_confirms_those_outside_of_the_list(
    desk: Desk, words: tuple[str, ...], answers: str
) -> None:
    queue_id = add(desk, CUSTOMER, DEV, OTHER)
    result = desk.run("sandbox", "release", queue_id, *words, stdin=answers)
    assert result.exit_code == 0, result.output
    assert sorted(pending(desk, queue_id)) == [CUSTOMER, OTHER, DEV]
    assert [line.split()[1:4] for line in result.stdout.splitlines()[1:4]] == [
        ["OUTSIDE", "default", CUSTOMER],
        ["OUTSIDE", "default", OTHER],
        ["allowed", "default", DEV],
    ]
    marks = {one.route: one.released for one in desk.entry(queue_id).deliveries[1:]}
    assert len(desk.entry(queue_id).deliveries) == 3, marks


def test_the_second_question_names_who_is_outside(desk: Desk) -> None:
    queue_id = add(desk, CUSTOMER, OTHER)
    result = desk.run("sandbox", "release", queue_id, "--anyone", stdin="y\nno\n")
    asked = result.stderr.splitlines()
    assert "not on recipients.allow, but selected as recipients:" in asked[-4]
    assert asked[-3:-1] == [f"  {CUSTOMER}", f"  {OTHER}"]
    assert asked[-1].startswith("type their number, 2, to confirm")
    assert result.stdout.splitlines()[-1] == "nothing changed"


# --- what is chosen -------------------------------------------------------------------------


def test_without_a_selector_nothing_happens(desk: Desk) -> None:
    queue_id = add(desk, DEV)
    for more in ((), ("--limit", "5"), ("--to", DEV), ("--for", CUSTOMER)):
        result = desk.run("sandbox", "release", "--yes", *more)
        assert result.exit_code == 64
        assert "give ids, selectors or --all" in result.stderr
    assert pending(desk, queue_id) == []


@pytest.mark.parametrize("option", ["--to", "--for", "--search", "--sender", "--id"])
def test_an_empty_value_is_refused_and_not_everything(desk: Desk, option: str) -> None:
    queue_id = add(desk, DEV)
    result = desk.run("sandbox", "release", queue_id, "--yes", option, "")
    assert result.exit_code == 64
    assert "empty" in result.stderr
    assert pending(desk, queue_id) == []


def test_only_what_was_captured_for_the_named_one(desk: Desk) -> None:
    queue_id = add(desk, CUSTOMER, DEV)
    result = desk.run("sandbox", "release", queue_id, "--for", f"<{DEV}>", "--yes")
    assert (result.exit_code, result.stderr) == (0, "")
    assert pending(desk, queue_id) == [DEV]
    other = desk.run("sandbox", "release", queue_id, "--for", "x@agency.test", "--yes")
    assert other.exit_code == 65
    assert "left alone: it was not captured for x@agency.test" in other.stderr


def test_ids_come_from_stdin_and_missing_ones_are_named(desk: Desk) -> None:
    first, second = add(desk, DEV), add(desk, DEV)
    result = desk.run("sandbox", "release", "-", "--yes", stdin=f"{first}\n{second}\nNONE\n")
    assert result.exit_code == 65
    assert "NONE: no such message" in result.stderr
    assert "2 mails released" in result.stdout
    assert pending(desk, first) == pending(desk, second) == [DEV]


def test_queued_mail_is_left_alone(desk: Desk) -> None:
    queue_id = desk.add(DEV, mode="staging")
    result = desk.run("sandbox", "release", queue_id, "--yes")
    assert result.exit_code == 65
    assert f"{queue_id}: left alone: it is not captured" in result.stderr


def test_all_is_all_that_is_captured(desk: Desk) -> None:
    captured, queued = add(desk, DEV), desk.add(DEV, mode="staging")
    result = desk.run("sandbox", "release", "--all", "--yes")
    assert (result.exit_code, result.stderr) == (0, "")
    assert pending(desk, captured) == pending(desk, queued) == [DEV]
    assert len(desk.entry(queued).recipients) == 1


# --- what it says ---------------------------------------------------------------------------


def test_it_says_who_does_not_get_it_and_why(desk: Desk) -> None:
    queue_id = add(desk, DEV, CUSTOMER, "x@spam.test")
    result = desk.run("sandbox", "release", queue_id, "--yes")
    assert result.exit_code == 65
    assert "1 mail released" in result.stdout
    assert result.stderr.splitlines() == [
        f"relaygw: {queue_id}: {CUSTOMER} is not on recipients.allow; to release to it anyway, "
        'use --anyone on the command line, "Anyone": true by the API, or tick the box on the page',
        f"relaygw: {queue_id}: x@spam.test is on recipients.block, which also applies to admins",
    ]


def test_json_has_a_line_for_each_mail(desk: Desk) -> None:
    queue_id, queued = add(desk, CUSTOMER, DEV), desk.add(DEV)
    dry = desk.run("sandbox", "release", queue_id, "--anyone", "--dry-run", "--json")
    assert [line.count("would be released") for line in dry.stdout.splitlines()] == [1, 1]
    result = desk.run("sandbox", "release", queue_id, queued, "--yes", "--json")
    assert result.exit_code == 65
    assert [json.loads(line) for line in result.stdout.splitlines()] == [
        {
            "queue_id": queue_id,
            "captured_for": DEV,
            "address": DEV,
            "result": "released",
            "released": "allowed",
            "route": "default",
            "reason": None,
        },
        {
            "queue_id": queue_id,
            "captured_for": CUSTOMER,
            "address": CUSTOMER,
            "result": "refused",
            "released": None,
            "route": None,
            "reason": "is not on recipients.allow; to release to it anyway, use --anyone on the "
            'command line, "Anyone": true by the API, or tick the box on the page',
        },
        {
            "queue_id": queued,
            "captured_for": None,
            "address": None,
            "result": "left alone",
            "released": None,
            "route": None,
            "reason": "it is not captured",
        },
    ]


@pytest.mark.parametrize("to", ["root", "dev@agency.test, b@cust.test", "a b@agency.test", "<>"])
def test_what_is_no_address_is_refused_before_anything(desk: Desk, to: str) -> None:
    queue_id = add(desk)
    result = desk.run("sandbox", "release", queue_id, "--to", to, "--yes")
    assert result.exit_code == 65
    assert "is not an address" in result.stderr
    assert "write LOCALPART@DOMAIN" in result.stderr


def test_without_a_provider_nothing_is_released(desk: Desk) -> None:
    queue_id = add(desk, DEV)
    lines = desk.config.read_text().splitlines()
    desk.config.write_text(f"mode: sandbox\n{lines[1]}\n{lines[2]}\n{RECIPIENTS}")
    result = desk.run("sandbox", "release", queue_id, "--yes")
    assert result.exit_code == 78
    assert "no provider is configured; add providers and routes" in result.stderr


def test_a_wrong_number_is_told_in_the_right_grammar(desk: Desk) -> None:
    queue_id = add(desk, CUSTOMER)
    result = desk.run("sandbox", "release", queue_id, "--anyone", "--outside", "2", "--yes")
    assert result.exit_code == 65
    assert "1 of the addresses is not on recipients.allow, --outside says 2" in result.stderr


def test_the_queue_shows_what_was_released(desk: Desk) -> None:
    queue_id = add(desk, CUSTOMER)
    desk.run("sandbox", "release", queue_id, "--anyone", "--outside", "1", "--yes")
    shown = desk.run("queue", "show", queue_id).stdout
    assert "released  from the sandbox, outside the allow list" in shown
    (told,) = desk.lines("queue", "show", queue_id, "--json")
    assert [one["released"] for one in told["recipients"]] == [None, "anyone"]
    assert told["state"] == "incoming"


# --- searches -------------------------------------------------------------------------------


def test_a_search_chooses_for_every_command(desk: Desk) -> None:
    wanted = add(desk, subject="invoice 4711", content=b"Subject: invoice 4711\r\n\r\nto pay\r\n")
    other = add(desk, OTHER)
    search = ("--search", "subject:4711 addressed:b@cust.test")
    assert [one["queue_id"] for one in desk.lines("sandbox", "list", *search, "--json")] == [wanted]
    shown = desk.run("sandbox", "show", *search)
    assert wanted in shown.stdout
    assert other not in shown.stdout
    desk.run("sandbox", "release", *search, "--to", DEV, "--yes")
    assert (pending(desk, wanted), pending(desk, other)) == ([DEV], [])
    assert (
        "search='subject:4711 addressed:b@cust.test'" in desk.store.audit.entries(limit=1)[0].detail
    )
    deleted = desk.run("sandbox", "delete", "--search", "addressed:c@cust.test", "--yes")
    assert deleted.stdout.splitlines()[-1] == "1 message deleted"
    assert pending(desk, wanted) == [DEV]


def test_a_search_finds_words_of_the_body_that_nobody_has_read_yet(desk: Desk) -> None:
    wanted = add(desk, content=b"Subject: x\r\n\r\nthe code is 4711\r\n")
    add(desk)
    (found,) = desk.lines("sandbox", "list", "--search", "4711", "--json")
    assert found["queue_id"] == wanted


def test_selectors_and_a_search_hold_together(desk: Desk) -> None:
    first, second = add(desk, sender="a@shop.test"), add(desk, sender="z@shop.test")
    words = ("sandbox", "list", "--search", "addressed:cust.test", "--json")
    assert [one["queue_id"] for one in desk.lines(*words)] == [second, first]
    assert [one["queue_id"] for one in desk.lines(*words, "--sender", "z@")] == [second]
    assert [one["queue_id"] for one in desk.lines(*words, "--id", first)] == [first]
    assert len(desk.lines(*words, "--limit", "1")) == 1


@pytest.mark.parametrize(
    ("search", "why"),
    [
        ("-after:2026-99-99", "'after:2026-99-99' is not a time; write one like after:2026-01-31"),
        ("-has:foo", "'has:foo' is not known; write one of has:attachment"),
        ("-addressed:*", "has a *, which stands for itself"),
        ('"', "nothing in it can be looked for"),
    ],
)
def test_a_search_that_is_a_mistake_is_refused(desk: Desk, search: str, why: str) -> None:
    queue_id = add(desk)
    for words in (("list",), ("show",), ("delete", "--yes"), ("release", "--to", DEV, "--yes")):
        result = desk.run("sandbox", *words, "--search", search)
        assert result.exit_code == 64
        assert why in " ".join(result.stderr.split())
    assert [one["queue_id"] for one in desk.lines("sandbox", "list", "--json")] == [queue_id]
    assert pending(desk, queue_id) == []


def test_show_takes_ids_or_a_search(desk: Desk) -> None:
    queue_id = add(desk)
    for words in ((), (queue_id, "--search", "x")):
        result = desk.run("sandbox", "show", *words)
        assert result.exit_code == 64
        assert "give one of: ids, latest or --search" in result.stderr
    assert queue_id in desk.run("sandbox", "show", "latest").stdout
