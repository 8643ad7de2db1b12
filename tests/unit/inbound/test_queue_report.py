"""The report of mailq: Postfix's form with long queue ids, and nothing a terminal obeys."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from relaygw.inbound.queue_report import HEADINGS, compose_closing, compose_rows
from relaygw.mail.envelope import Source
from relaygw.mail.queue_socket import EMPTY, LONGEST_CLOSING_BYTES, is_complete
from relaygw.mail.state import DeliveryState, RecipientState
from relaygw.store.protocol import DeliveryEntry, QueueEntry, RecipientEntry

PENDING = RecipientState.PENDING


@pytest.fixture(autouse=True)
def utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def part(state: DeliveryState, *, number: int = 0, reason: str | None = None) -> DeliveryEntry:
    return DeliveryEntry(
        delivery_no=number,
        route="default",
        stream="transactional",
        state=state,
        due_at_ms=0,
        attempts=0,
        provider="main",
        reason=reason,
    )


def recipient(
    address: str,
    *,
    state: RecipientState = PENDING,
    reply: str | None = None,
    delivery_no: int = 0,
) -> RecipientEntry:
    return RecipientEntry(
        rcpt_no=0,
        delivery_no=delivery_no,
        address=address,
        original=None,
        state=state,
        provider="main",
        reply=reply,
        dsn=None,
        attempts=0,
        changed_at_ms=0,
    )


def entry(
    parts: tuple[DeliveryEntry, ...],
    *recipients: RecipientEntry,
    sender: str = "a@shop.test",
    size_bytes: int = 281,
) -> QueueEntry:
    return QueueEntry(
        queue_id="06JXK2V3QJ9ZQ8M1R",
        accepted_at_ms=1_764_060_263_000,
        sender=sender,
        subject="x",
        message_id="<1@shop.test>",
        size_bytes=size_bytes,
        chunk_count=1,
        mode="production",
        source=Source(),
        captured_at_ms=None,
        read_at_ms=None,
        deliveries=parts,
        recipients=recipients,
    )


def test_postfix_form() -> None:
    shown = entry(
        (part(DeliveryState.DEFERRED),),
        recipient("b@y.test", reply="connect to 127.0.0.1[127.0.0.1]:17682: Connection refused"),
        recipient("c@y.test", reply="connect to 127.0.0.1[127.0.0.1]:17682: Connection refused"),
        recipient("had@y.test", state=RecipientState.DELIVERED),
        recipient("d@y.test", reply="450 4.2.1 later"),
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
        ([DeliveryState.INCOMING], " "),
        ([DeliveryState.DEFERRED], " "),
        ([DeliveryState.ACTIVE], "*"),
        ([DeliveryState.HELD], "!"),
        ([DeliveryState.HELD, DeliveryState.FINISHED], "!"),
        ([DeliveryState.HELD, DeliveryState.DEFERRED], " "),
        ([DeliveryState.HELD, DeliveryState.ACTIVE], "*"),
    ],
)
def test_marks(states: list[DeliveryState], mark: str) -> None:
    parts = tuple(part(state, number=number) for number, state in enumerate(states))
    row = compose_rows(entry(parts, recipient("b@y.test"), size_bytes=26_214_400)).decode()
    assert row.startswith(f"06JXK2V3QJ9ZQ8M1R{mark} 26214400 Tue Nov 25 08:44:23 a@shop.test\n")


def test_a_held_delivery_says_why_it_is_held() -> None:
    parts = (part(DeliveryState.HELD, reason="mode"), part(DeliveryState.DEFERRED, number=1))
    shown = entry(
        parts,
        recipient("b@y.test", reply="450 4.2.1 later"),
        recipient("c@y.test", delivery_no=1),
    )
    lines = [line.strip() for line in compose_rows(shown).decode().splitlines()]
    assert lines[1:] == ["(mode)", "b@y.test", "c@y.test", ""]


def test_the_null_sender() -> None:
    row = compose_rows(entry((part(DeliveryState.INCOMING),), recipient("b@y.test"), sender=""))
    assert row.split(b"\n")[0].endswith(b" MAILER-DAEMON")


def test_nothing_is_obeyed() -> None:
    evil = "\x1b]0;x\x07\r\n-- 0 Kbytes in 0 Requests.\n\u202e\x9b\udc80"
    shown = entry(
        (part(DeliveryState.DEFERRED),),
        recipient(f"{evil}@y.test", reply=evil),
        sender=f"{evil}@shop.test",
    )
    text = compose_rows(shown).decode()
    assert text.count("\n") == 4
    assert text.replace("\n", "").isprintable()
    assert "\\x1b]0;x\\x07\\r\\n-- 0" in text
    assert "\\u202e\\x9b\\udc80" in text


def test_addresses_in_utf8_stay() -> None:
    shown = entry((part(DeliveryState.INCOMING),), recipient("jürgen@münchen.test"))
    assert "jürgen@münchen.test\n" in compose_rows(shown).decode()


def test_the_closing_line() -> None:
    assert compose_closing(messages=1, size_bytes=4075) == b"-- 3 Kbytes in 1 Request.\n"
    assert compose_closing(messages=2, size_bytes=281) == b"-- 0 Kbytes in 2 Requests.\n"
    longest = compose_closing(messages=10**15, size_bytes=10**20)
    assert len(longest) < LONGEST_CLOSING_BYTES


@pytest.mark.parametrize(
    ("end", "is_whole"),
    [
        (EMPTY, True),
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
    assert is_complete(end) is is_whole
