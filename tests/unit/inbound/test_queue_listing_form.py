"""The report of mailq: Postfix's form with long queue ids, and nothing a terminal obeys."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from relaygw.inbound.queue_listing import HEADINGS, compose_closing, compose_rows
from relaygw.mail.drop import LONGEST_CLOSING_BYTES, QUEUE_EMPTY, is_whole_report
from relaygw.store.queue_entry import Waiting, WaitingRecipient
from tests.tables import each_of


@pytest.fixture(autouse=True)
def utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def waiting(
    *recipients: tuple[str, str],
    states: frozenset[str] = frozenset({"deferred"}),
    sender: str = "a@shop.test",
    size_bytes: int = 281,
) -> Waiting:
    return Waiting(
        queue_id="06JXK2V3QJ9ZQ8M1R",
        accepted_at_ms=1_764_060_263_000,
        size_bytes=size_bytes,
        sender=sender,
        states=states,
        recipients=tuple(WaitingRecipient(*given) for given in recipients),
    )


def test_postfix_form() -> None:
    shown = waiting(
        ("b@y.test", "connect to 127.0.0.1[127.0.0.1]:17682: Connection refused"),
        ("c@y.test", "connect to 127.0.0.1[127.0.0.1]:17682: Connection refused"),
        ("d@y.test", "450 4.2.1 later"),
    )
    # the first four lines stand below each other as Postfix 3.10 prints them
    assert (HEADINGS + compose_rows(shown)).decode() == (
        "----Queue ID----- --Size-- ---Arrival Time---- --Sender/Recipient------\n"
        "06JXK2V3QJ9ZQ8M1R      281 Tue Nov 25 08:44:23 a@shop.test\n"
        "                   (connect to 127.0.0.1[127.0.0.1]:17682: Connection refused)\n"
        "                                                b@y.test\n"
        "                                                c@y.test\n"
        "                                                             (450 4.2.1 later)\n"
        "                                                d@y.test\n"
        "\n"
    )


@pytest.mark.parametrize(
    ("states", "mark"),
    [
        ({"incoming"}, " "),
        ({"deferred"}, " "),
        ({"active"}, "*"),
        ({"held"}, "!"),
        ({"held", "deferred"}, " "),
        ({"held", "active"}, "*"),
    ],
)
def test_marks(states: set[str], mark: str) -> None:
    row = compose_rows(
        waiting(("b@y.test", ""), states=frozenset(states), size_bytes=26_214_400)
    ).decode()
    assert row.startswith(f"06JXK2V3QJ9ZQ8M1R{mark} 26214400 Tue Nov 25 08:44:23 a@shop.test\n")


def test_a_recipient_without_a_reason_stands_alone() -> None:
    shown = waiting(("b@y.test", "mode"), ("c@y.test", ""))
    lines = [line.strip() for line in compose_rows(shown).decode().splitlines()]
    assert lines[1:] == ["(mode)", "b@y.test", "c@y.test", ""]


def test_the_null_sender() -> None:
    row = compose_rows(waiting(("b@y.test", ""), sender=""))
    assert row.split(b"\n")[0].endswith(b" MAILER-DAEMON")


def test_nothing_is_obeyed() -> None:
    evil = "\x1b]0;x\x07\r\n-- 0 Kbytes in 0 Requests.\n\u202e\x9b\udc80"
    text = compose_rows(waiting((f"{evil}@y.test", evil), sender=f"{evil}@shop.test")).decode()
    assert text.count("\n") == 4
    assert text.replace("\n", "").isprintable()
    assert "\\x1b]0;x\\x07\\r\\n-- 0" in text
    assert "\\u202e\\x9b\\udc80" in text


def test_addresses_in_utf8_stay() -> None:
    shown = waiting(("jürgen@münchen.test", ""))
    assert "jürgen@münchen.test\n" in compose_rows(shown).decode()


def test_the_closing_line() -> None:
    assert compose_closing(messages=1, size_bytes=4075) == b"-- 3 Kbytes in 1 Request.\n"
    assert compose_closing(messages=2, size_bytes=281) == b"-- 0 Kbytes in 2 Requests.\n"
    longest = compose_closing(messages=10**15, size_bytes=10**20)
    assert len(longest) < LONGEST_CLOSING_BYTES


@each_of(
    ("end", "is_whole"),
    [
        (QUEUE_EMPTY, True),
        (b"\n\n-- 3 Kbytes in 1 Request.\n", True),
        (b"-- 3 Kbytes in 1 Request.\n", True),
        (b"\n\n-- 3 Kbytes in 1 Request.", False),
        (b"   b@y.test\n\n", False),
        (b"   -- 3 Kbytes in 1 Request.\n", False),
        (b"", False),
        (b"Mail queue is", False),
    ],
)
def test_a_whole_report_has_its_last_line(end: bytes, is_whole: bool) -> None:
    assert is_whole_report(end) is is_whole
