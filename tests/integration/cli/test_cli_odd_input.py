"""What a shell can hand over by mistake: odd bytes, huge values, closed streams, broken lines."""

from __future__ import annotations

import json
import os
import subprocess
from base64 import b64encode

import pytest

from relaygw.mail.state import DeliveryState
from relaygw.store.selection import Selection
from tests.integration.cli.conftest import Desk

BAD = os.fsdecode(b"a\xffb")
HUGE = "9" * 20
CONTENT = b64encode(b"Subject: x\r\n\r\nhello\r\n").decode()


def line(sender: str, recipient: str, queue_id: str = "") -> str:
    fields = {
        "relaygw_export": 1, "queue_id": queue_id, "sender": sender, "recipients": [recipient],
        "mode": "production",
        "content": CONTENT,
    }  # fmt: skip
    return json.dumps(fields) + "\n"


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        (line("\ud800@qa.test", "b@x.test"), "sender has '\\ud800'"),
        (line("a@qa.test", "\udfff@x.test"), "recipients has '\\udfff'"),
        (line("a@qa.test", "b@x.test", "\ud800"), "queue_id has '\\ud800'"),
        (line("a@qa.test", "b@x.test", "\0"), "queue_id has '\\x00'"),
        ("[" * 100_000 + "\n", "no JSON: too deep"),
        ('{"a":' * 100_000 + "\n", "no JSON: too deep"),
    ],
    ids=["sender", "recipient", "queue_id", "null", "lists", "objects"],
)
def test_a_line_that_cannot_be_read_is_named_and_the_rest_goes_on(
    desk: Desk, bad: str, why: str
) -> None:
    text = line("a@qa.test", "one@x.test") + bad + line("a@qa.test", "two@x.test")
    result = desk.run("queue", "import", stdin=text)
    assert result.exit_code == 65
    assert f"message 2: refused: {why}" in result.stderr
    assert "2 messages imported" in result.stdout
    found = desk.store.queue.search(Selection(), limit=9)
    assert [entry.recipients[0].address for entry in found] == ["one@x.test", "two@x.test"]


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (("queue", "explain", BAD), "ID..."),
        (("queue", "show", BAD), "ID..."),
        (("queue", "list", "--id", BAD), "--id"),
        (("queue", "list", "--sender", BAD), "--sender"),
        (("queue", "hold", "--all", "--yes", "--note", BAD), "--note"),
        (("queue", "move", "--all", "--to", BAD), "--to"),
        (("provider", "hold", "main", "--reason", BAD), "--reason"),
        (("provider", "hold", BAD), "NAME"),
        (("audit", "--actor", BAD), "--actor"),
        (("sandbox", "list", "--search", BAD), "--search"),
    ],
)
def test_an_argument_that_is_no_text_is_a_usage_error(
    desk: Desk, words: tuple[str, ...], name: str
) -> None:
    result = desk.run(*words)
    assert result.exit_code == 64, result.stderr
    (told,) = result.stderr.splitlines()
    assert name in told
    assert "is not UTF-8" in told


@pytest.mark.parametrize(
    "words",
    [
        ("queue", "list", "--limit", HUGE),
        ("queue", "export", "--limit", HUGE),
        ("sandbox", "list", "--limit", HUGE),
        ("audit", "--limit", HUGE),
    ],
)
def test_a_limit_that_no_database_knows_is_a_usage_error(
    desk: Desk, words: tuple[str, ...]
) -> None:
    result = desk.run(*words)
    assert result.exit_code == 64, result.stderr
    assert "--limit" in result.stderr
    assert HUGE in result.stderr


@pytest.mark.parametrize("option", ["subject", "sender", "recipient", "reason", "reply", "route"])
def test_a_selector_that_is_too_long_is_a_usage_error(desk: Desk, option: str) -> None:
    queue_id = desk.add()
    result = desk.run("queue", "hold", "--yes", f"--{option}", "x" * 100_000)
    assert result.exit_code == 64, result.stderr
    (told,) = result.stderr.splitlines()
    assert f"'--{option}'" in told
    assert "100,000 characters" in told
    assert "at most 1,000" in told
    assert len(told) < 300
    assert desk.run("queue", "list", f"--{option}", "ж" * 1000).exit_code == 0
    assert desk.states(queue_id) == {DeliveryState.INCOMING}


@pytest.mark.parametrize("words", [("explain",), ("show",), ("delete", "--yes")])
def test_an_id_without_end_is_told_cut(desk: Desk, words: tuple[str, ...]) -> None:
    result = desk.run("queue", *words, "X" * 100_000)
    assert result.exit_code == 65
    (told,) = result.stderr.splitlines()
    assert told.startswith(f"relaygw: {'X' * 39}…: no such message")


def test_a_search_of_the_audit_trail_has_the_same_limit(desk: Desk) -> None:
    assert desk.run("audit", "--actor", "x" * 100_000).exit_code == 64


@pytest.mark.parametrize(
    "words",
    [("--sender", "a b"), ("--sender", "a@"), ("--recipient", "b@x.test, c@x.test")],
)
def test_an_envelope_that_is_none_is_a_usage_error(desk: Desk, words: tuple[str, str]) -> None:
    result = desk.run("queue", "import", *words, stdin=line("a@qa.test", "b@x.test"))
    assert result.exit_code == 64, result.stderr
    assert words[0] in result.stderr
    assert repr(words[1]) in result.stderr
    assert desk.store.queue.search(Selection(), limit=9) == []


def test_the_null_sender_of_an_import(desk: Desk) -> None:
    text = line("a@qa.test", "b@x.test")
    assert desk.run("queue", "import", "--sender", "<>", stdin=text).exit_code == 0
    (entry,) = desk.store.queue.search(Selection(), limit=9)
    assert entry.sender == ""


def closed(desk: Desk, number: int, *words: str) -> tuple[int, str]:
    """Run a command whose stream `number` is closed; return its exit code and stderr."""
    nothing = subprocess.DEVNULL
    process = desk.popen(*words, stdin=nothing, stdout=nothing, closed=[number])
    _, stderr = process.communicate()
    return process.returncode, stderr.decode()


@pytest.mark.parametrize(
    "words",
    [
        ("queue", "list"),
        ("queue", "list", "--json"),
        ("queue", "shape"),
        ("queue", "export"),
        ("queue", "export", "--format", "json"),
        ("queue", "--help"),
        ("--help",),
        ("--version",),
        ("status",),
    ],
)
def test_a_closed_stdout_is_an_error_of_output(desk: Desk, words: tuple[str, ...]) -> None:
    desk.add()
    code, stderr = closed(desk, 1, *words)
    assert (code, len(stderr.splitlines())) == (74, 1), stderr
    assert "closed" in stderr


@pytest.mark.parametrize("words", [("hold", "-", "--yes"), ("import",)])
def test_a_closed_stdin_is_an_error_of_input(desk: Desk, words: tuple[str, ...]) -> None:
    code, stderr = closed(desk, 0, "queue", *words)
    assert (code, len(stderr.splitlines())) == (74, 1), stderr
    assert "closed" in stderr


def test_with_a_closed_stdin_nobody_is_asked(desk: Desk) -> None:
    queue_id = desk.add()
    code, stderr = closed(desk, 0, "queue", "hold", "--all")
    assert code == 64, stderr
    assert "no answer;" in stderr
    assert desk.states(queue_id) == {DeliveryState.INCOMING}


def test_with_a_closed_stderr_a_command_does_its_work(desk: Desk) -> None:
    queue_id = desk.add()
    code, _ = closed(desk, 2, "queue", "hold", "--all", "--yes")
    assert code == 0
    assert desk.states(queue_id) == {DeliveryState.HELD}


@pytest.mark.parametrize("sign", ["s", "注"])
def test_what_strangers_wrote_is_folded_for_people(desk: Desk, sign: str) -> None:
    local = "l" * 60
    address = f"{local}@{'.'.join(['d' * 60] * 4)}.test"
    queue_id = desk.add(address, subject=sign * 4000, sender=address)
    shown = desk.run("queue", "show", queue_id).stdout
    assert max(map(len, shown.splitlines())) <= 80
    assert len(shown.splitlines()) < 60
    assert "".join(part.strip() for part in shown.splitlines()).count(address) == 2
    (told,) = desk.lines("queue", "show", "--json", queue_id)
    assert told["subject"] == sign * 4000
