"""`relaygw queue resend` on a queue on disk: whom it names, asks, stores and leaves alone."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from relaygw import service_file
from relaygw.mail.clock import clock_ms
from relaygw.mail.envelope import DeliveryUpdate, NewRecipient, RecipientUpdate
from relaygw.mail.state import DeliveryState, RecipientState
from relaygw.service_file import RunningGateway
from relaygw.store.queue_entry import QueueEntry
from relaygw.store.rules import StoreRules
from relaygw.store.store import open_store, read_content
from tests.integration.cli.conftest import Desk

ANN, BOB, EVE = "ann@cust.test", "bob@cust.test", "eve@spam.test"
DELIVERED, BOUNCED, EXPIRED, PENDING = (
    RecipientState.DELIVERED,
    RecipientState.BOUNCED,
    RecipientState.EXPIRED,
    RecipientState.PENDING,
)
CONTENT = (
    b"DKIM-Signature: v=1; h=From:To:Message-ID; b=xx\r\nFrom: a@shop.test\r\nTo: b@cust.test\r\n"
    b"Message-ID: <1@shop.test>\r\nDate: Thu, 1 Jan 2026 00:00:00 +0000\r\nSubject: order 7\r\n"
    b"\r\nhello\r\n"
)


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    desk = Desk(tmp_path)
    config = desk.config.read_text()
    desk.config.write_text(config.replace('queue.db"}', 'queue.db", keep_content: 7d}'))
    desk.store.close()
    desk.store = open_store(desk.url, rules=StoreRules(keep_content=True))
    yield desk
    desk.store.close()


def ended(desk: Desk, outcomes: dict[str, RecipientState], **more: object) -> str:
    """Put a message into the queue whose attempt came to these outcomes; return its id."""
    doubted, beside = bool(more.pop("doubted", False)), more.pop("beside", [])
    assert isinstance(beside, list)
    values = {"content": CONTENT, "subject": "order 7", "dsn_ret": "FULL", **more}
    people = [NewRecipient(address=one, dsn_notify="SUCCESS") for one in outcomes]
    queue_id = desk.add(*people, *beside, **values)
    incarnation = desk.claim()
    (mine,) = [one for one in desk.claimed if one.queue_id == queue_id]
    update = DeliveryUpdate(
        queue_id=queue_id,
        delivery_no=0,
        state=DeliveryState.FINISHED,
        due_at_ms=clock_ms(),
        provider="main",
        reason=None,
        doubted=doubted,
        recipients=tuple(
            RecipientUpdate(
                rcpt_no=one.rcpt_no,
                state=outcomes[one.address],
                reply="550 5.1.1 no such user",
                dsn="5.1.1",
                provider="main",
            )
            for one in mine.recipients
        ),
    )
    recorded = desk.store.leases.record_batch([update], incarnation=incarnation, now_ms=clock_ms())
    assert recorded.is_alive
    return queue_id


def others(desk: Desk, *known: str) -> list[QueueEntry]:
    """Return the messages that are not among those known."""
    ids = [json.loads(line)["queue_id"] for line in listed(desk)]
    return desk.store.queue.entries([one for one in ids if one not in known])


def listed(desk: Desk) -> list[str]:
    return desk.run("queue", "list", "--state", "all", "--json").stdout.splitlines()


def content_of(desk: Desk, entry: QueueEntry) -> bytes:
    return b"".join(read_content(desk.store, entry))


def test_it_names_everybody_and_asks(desk: Desk) -> None:
    old = ended(desk, {ANN: BOUNCED, BOB: EXPIRED, "carl@cust.test": DELIVERED})
    refused = desk.run("queue", "resend", old, stdin="n\n")
    assert refused.exit_code == 0
    assert refused.stdout.splitlines() == [
        f"{old}: order 7",
        f"  to {ANN} (bounced): by route default",
        f"  to {BOB} (expired): by route default",
        "  not to 1 recipient it was delivered to; --delivered includes them",
        "nothing changed",
    ]
    assert f"send 1 message again, to {ANN}, {BOB}?" in refused.stderr
    assert others(desk, old) == []

    agreed = desk.run("queue", "resend", old, stdin="y\n")
    assert agreed.exit_code == 0, agreed.output
    (new,) = others(desk, old)
    assert agreed.stdout.splitlines()[-2:] == [
        "1 message sent again",
        f"{old}: sent again as {new.queue_id}",
    ]
    assert [(one.address, one.state) for one in new.recipients] == [
        (ANN, PENDING),
        (BOB, PENDING),
    ]


def test_a_mailbox_in_two_spellings_gets_it_once(desk: Desk) -> None:
    old = ended(desk, {ANN: BOUNCED, "ann@CUST.test": BOUNCED, BOB: BOUNCED})
    assert desk.run("queue", "resend", old, "--yes").exit_code == 0
    (new,) = others(desk, old)
    assert [one.address for one in new.recipients] == [ANN, BOB]


def test_the_content_stays_and_only_the_top_is_new(desk: Desk) -> None:
    old = ended(desk, {ANN: BOUNCED})
    assert desk.run("queue", "resend", old, "--yes").exit_code == 0
    (new,) = others(desk, old)
    content = content_of(desk, new)
    assert content.endswith(CONTENT)
    added = content[: -len(CONTENT)].decode().split("\r\n")
    assert [line.split(":")[0] for line in added if line[:1].strip()] == [
        "Received",
        "Resent-Date",
        "Resent-From",
        "Resent-Message-ID",
    ]
    assert "Resent-From: <a@shop.test>" in added
    assert f"Resent-Message-ID: <resend-{old}-1@gw.shop.test>" in added
    assert new.message_id == "<1@shop.test>"
    assert new.source.client == "127.0.0.1" and new.deliveries[0].released == "resent"
    incarnation = desk.claim()
    (mine,) = desk.claimed
    assert mine.dsn_ret is None and mine.recipients[0].dsn_notify is None, incarnation


def test_a_signature_that_vouches_for_no_resent_fields_stays_valid(desk: Desk) -> None:
    signed = CONTENT.replace(b"h=From:", b"h=From:Resent-From:")
    old = ended(desk, {ANN: BOUNCED}, content=signed)
    assert desk.run("queue", "resend", old, "--yes").exit_code == 0
    (new,) = others(desk, old)
    content = content_of(desk, new)
    assert content.endswith(signed) and b"\r\nResent-" not in content[: -len(signed)]


def test_both_stories_and_the_audit_trail_name_each_other(desk: Desk) -> None:
    old = ended(desk, {ANN: BOUNCED})
    assert desk.run("queue", "resend", old, "--yes").exit_code == 0
    (new,) = others(desk, old)
    first = " ".join(desk.run("queue", "explain", old).stdout.split())
    assert f"sent it again, as {new.queue_id}" in first
    story = " ".join(desk.run("queue", "explain", new.queue_id).stdout.split())
    assert f"sent {old} again, as this message" in story
    assert "accepted as a copy of a message that came from client 127.0.0.1" in story
    (line,) = desk.lines("audit", "--action", "queue.resend", "--json")
    assert line["target"] == f"{old} {new.queue_id}" and line["detail"] == f"to {ANN}"


@pytest.mark.parametrize(
    ("outcomes", "words", "again"),
    [
        ({ANN: DELIVERED, BOB: BOUNCED}, [], [BOB]),
        ({ANN: DELIVERED, BOB: BOUNCED}, ["--delivered"], [ANN, BOB]),
        ({ANN: DELIVERED, BOB: DELIVERED}, [], [ANN, BOB]),
        ({ANN: DELIVERED, BOB: BOUNCED}, ["--to", "carl@cust.test"], ["carl@cust.test"]),
        ({ANN: DELIVERED}, ["--to", "ANN@CUST.TEST"], ["ANN@CUST.TEST"]),
    ],
    ids=["failed", "all", "only delivered", "another", "same"],
)
def test_who_gets_it(
    desk: Desk, outcomes: dict[str, RecipientState], words: list[str], again: list[str]
) -> None:
    old = ended(desk, outcomes)
    assert desk.run("queue", "resend", old, "--yes", *words).exit_code == 0
    (new,) = others(desk, old)
    assert [one.address for one in new.recipients] == again


def test_what_is_left_alone_and_why(desk: Desk) -> None:
    waiting, captured = desk.add(ANN), desk.add_captured(ANN)
    desk.store.close()
    desk.store = open_store(desk.url)
    gone = ended(desk, {ANN: BOUNCED})
    desk.add(BOB)  # what is claimed with it is recorded by nobody
    for queue_id, why in (
        (captured, f"it is captured; relaygw sandbox release {captured} sends it"),
        (gone, "its content is no longer kept; queue.keep_content: 7d in relaygw.yaml"),
        (waiting, "resend is for mail that was delivered, bounced or expired"),
    ):
        result = desk.run("queue", "resend", queue_id, "--yes")
        assert result.exit_code == 65
        assert f"{queue_id}: left alone: " in result.stderr and why in result.stderr
    missing = desk.run("queue", "resend", "1M8AH60XP5YKE8QBH", "--yes")
    assert missing.exit_code == 65 and "no such message" in missing.stderr


def test_mail_in_doubt_takes_force(desk: Desk) -> None:
    old = ended(desk, {ANN: EXPIRED}, doubted=True)
    refused = desk.run("queue", "resend", old, "--yes")
    assert refused.exit_code == 65
    assert "main may have sent it already; with --force it may be sent twice" in refused.stderr
    elsewhere = desk.run("queue", "resend", old, "--to", BOB, "--yes")
    assert elsewhere.exit_code == 0, elsewhere.output
    forced = desk.run("queue", "resend", old, "--force", "--yes")
    assert forced.exit_code == 0 and "it may be sent twice" in forced.stderr
    assert len(others(desk, old)) == 2


def test_several_take_their_number(desk: Desk) -> None:
    ids = [ended(desk, {ANN: BOUNCED}), ended(desk, {BOB: DELIVERED})]
    for words, code in (([], 64), (["--count", "3"], 65)):
        result = desk.run("queue", "resend", *ids, "--yes", *words)
        assert result.exit_code == code and "nothing sent again" in result.stderr
    assert others(desk, *ids) == []
    result = desk.run("queue", "resend", *ids, "--yes", "--count", "2")
    assert result.exit_code == 0 and len(others(desk, *ids)) == 2


def test_who_is_to_get_it_already_gets_it_once(desk: Desk) -> None:
    old = ended(desk, {ANN: BOUNCED})
    assert desk.run("queue", "resend", old, "--yes").exit_code == 0
    (new,) = others(desk, old)
    second = desk.run("queue", "resend", old, "--yes")
    assert second.exit_code == 65
    assert f"is already going to receive it: it was sent again as {new.queue_id}" in second.stderr
    assert desk.run("queue", "resend", old, "--to", BOB, "--yes").exit_code == 0


@pytest.mark.parametrize(("now", "then"), [("staging", "production"), ("production", "staging")])
def test_staging_reaches_nobody_off_the_list(desk: Desk, now: str, then: str) -> None:
    text = desk.config.read_text().replace("mode: production", f"mode: {now}")
    desk.config.write_text(text + f"recipients: {{allow: [{BOB}], block: ['@spam.test']}}\n")
    old = ended(desk, {ANN: BOUNCED, BOB: BOUNCED, EVE: BOUNCED}, mode=then)
    (result,) = desk.lines("queue", "resend", old, "--yes", "--json")
    assert [(one["address"], one["result"]) for one in result["recipients"]] == [
        (ANN, "captured"),
        (BOB, "sent again"),
        (EVE, "dropped"),
    ]
    (new,) = others(desk, old)
    assert new.mode == "staging" and new.captured_at_ms is not None
    states = {one.address: one.state.value for one in new.recipients}
    assert states == {ANN: "captured", BOB: "pending", EVE: "blocked"}


def test_a_large_message_is_stored_in_chunks(desk: Desk) -> None:
    pieces = [CONTENT + b"x" * 250_000 + b"\r\n", *[b"y" * 262_142 + b"\r\n"] * 5]
    size_bytes = sum(map(len, pieces))
    old = desk.add_large(ANN, pieces)
    assert desk.run("queue", "expire", old, "--yes").exit_code == 0
    result = desk.run("queue", "resend", old, "--yes")
    assert result.exit_code == 0, result.output
    (new,) = others(desk, old)
    assert new.size_bytes > size_bytes and new.chunk_count > 1
    assert content_of(desk, new).endswith(b"".join(pieces))


def test_a_recipient_that_is_no_address_keeps_nobody_else_from_it(desk: Desk) -> None:
    """As a file in the maildrop may name one: it was captured, the others were tried."""
    odd = NewRecipient(address='"n" <r@rd.test>', state=RecipientState.CAPTURED)
    old = ended(desk, {ANN: BOUNCED}, beside=[odd])
    assert desk.run("queue", "resend", old, "--yes").exit_code == 0
    (new,) = others(desk, old)
    assert [one.address for one in new.recipients] == [ANN]


def test_what_is_captured_is_not_called_sent_again(desk: Desk) -> None:
    old = ended(desk, {ANN: BOUNCED}, mode="staging")
    dry = desk.run("queue", "resend", old, "--dry-run")
    assert dry.stdout.splitlines()[-1] == "1 message would be captured, not sent"
    done = desk.run("queue", "resend", old, "--yes")
    (new,) = others(desk, old)
    assert done.stdout.splitlines()[-2:] == [
        "1 message captured, not sent",
        f"{old}: captured as {new.queue_id}",
    ]
    told = json.loads(desk.run("queue", "resend", old, "--yes", "--json").stdout)
    assert told["result"] == "captured"


def test_another_mode_than_the_files_is_told(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    old = ended(desk, {ANN: BOUNCED})
    one = RunningGateway(
        pid=1, user="relaygw", queue=desk.url, config="",
        state_dir="", mode="staging",
    )  # fmt: skip
    monkeypatch.setattr(service_file, "running_gateways", lambda _: [one])
    told = desk.run("queue", "resend", old, "--dry-run")
    assert "warning: the gateway runs in mode staging, but the configuration" in told.stderr
    assert "the running mode applies at each attempt as well" in told.stderr
