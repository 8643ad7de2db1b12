"""Notices of mail that failed or waits, as people and programs get them from a real gateway."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest
from flufl.bounce import all_failures
from sqlalchemy import text

from relaygw.mail.state import RecipientState
from tests.campaign import on_a_database
from tests.e2e.gateway import Gateway, provider_settings
from tests.e2e.ports import free_port
from tests.fakes.scripted_provider import DEFAULT_EXTENSIONS, ReceivedMessage, ThreadedProvider
from tests.forked import run_relaygw

SENDER, GOOD, BAD = "a@shop.test", "good@cust.test", "bad@cust.test"
CONTENT = b"From: shop <a@shop.test>\r\nSubject: order 7\r\n\r\nThanks.\r\n"
NO = b"550 5.1.1 User unknown\r\n"
_NO_NOTICES = (
    "CREATE TRIGGER no_notice BEFORE INSERT ON message WHEN NEW.sender = '' "
    "BEGIN SELECT RAISE(ABORT, 'no notices today'); END"
)
TOLD = r"bounce\[\d+\]: (\w+): sender non-delivery notification: (\w+)"


@contextmanager
def serving(tmp_path: Path, *, dsn: bool = False, **more: Any) -> Iterator[Any]:
    extensions = (*DEFAULT_EXTENSIONS, *(["DSN"] if dsn else []))
    with ThreadedProvider(extensions=extensions) as provider:
        provider.recipients[BAD] = NO
        sections = {"bounces": {"to": "sender"}, **more}
        main = {"main": provider_settings(provider.port)}
        with Gateway(tmp_path, providers=main, **sections) as gateway:
            yield gateway, provider


def asked(gateway: Gateway, sender: str, *recipients: tuple[str, str], mail: str = "") -> str:
    """Send with parameters; return the queue id."""
    client = gateway.connect()
    assert "DSN" in client.command(b"EHLO c.test")
    commands = [f"MAIL FROM:<{sender}>{mail}"]
    commands += [f"RCPT TO:<{address}>{more}" for address, more in recipients]
    for command in commands:
        assert client.command(command.encode()).startswith("250"), command
    assert client.command(b"DATA").startswith("354")
    reply = client.command(CONTENT + b".")
    client.close()
    return reply.split()[-1]


def notices(provider: ThreadedProvider) -> list[ReceivedMessage]:
    return [one for one in provider.messages if one.sender == ""]


def report(content: bytes) -> list[Any]:
    whole = message_from_bytes(content, policy=policy.SMTP)
    assert isinstance(whole, EmailMessage)
    assert whole.get_content_type() == "multipart/report"
    parts: list[Any] = list(whole.iter_parts())
    return [block for block in parts[1].get_payload() if block.keys()]


def explain(gateway: Gateway, queue_id: str) -> str:
    words = ["--config", str(gateway.config), "queue", "explain", queue_id]
    told = run_relaygw(words, env=gateway.environment, capture_output=True, text=True)
    return " ".join(str(told.stdout).split())


@on_a_database
def test_one_notice_tells_the_sender_of_all_that_failed(tmp_path: Path) -> None:
    with serving(tmp_path) as (gateway, provider):
        provider.recipients["worse@cust.test"] = b"550 5.1.2 No such host\r\n"
        queue_id = gateway.send(SENDER, [GOOD, BAD, "worse@cust.test"], CONTENT)
        (line,) = gateway.wait_for_log(TOLD)
        match = re.search(TOLD, line)
        assert match is not None
        assert match[1] == queue_id
        provider.wait_for_messages(2)
        gateway.wait_until_empty()
        (notice,) = notices(provider)
        assert notice.recipients == (SENDER,)
        assert notice.content.startswith(b"Received: by gw.test (relaygw)\r\n\tid ")
        assert not [line for line in gateway.lines if "unknown[None]" in line]
        _, *people = report(notice.content)
        assert [(one["Final-Recipient"], one["Status"]) for one in people] == [
            (f"rfc822; {BAD}", "5.1.1"),
            ("rfc822; worse@cust.test", "5.1.2"),
        ]
        found = all_failures(message_from_bytes(notice.content))[1]
        assert set(found) == {BAD.encode(), b"worse@cust.test"}
        assert f"told {SENDER}, by {match[2]}" in explain(gateway, queue_id)
        assert f"made here, to tell of {queue_id}" in explain(gateway, match[2])
        gateway.wait_until(lambda: not gateway.entry(queue_id).chunk_count, "no content")


def test_what_cannot_be_told_or_must_not_be_ends_there(tmp_path: Path) -> None:
    with serving(tmp_path) as (gateway, provider):
        provider.recipients[SENDER] = NO
        gateway.send(SENDER, [BAD], CONTENT)
        gateway.wait_for_log(rf"to=<{SENDER}>.*status=bounced")
        listed = gateway.send("b@shop.test", [BAD], b"List-Id: news\r\n" + CONTENT)
        gateway.wait_for_log(rf"{listed}: no non-delivery notification: .*List-Id")
        gateway.send("", [BAD], CONTENT)
        gateway.wait_until_empty()
        last = gateway.send("c@shop.test", [BAD], CONTENT)
        gateway.wait_for_log(rf"{last}: sender non-delivery notification")
        provider.wait_for_messages(1)
        gateway.wait_until_empty()
        (notice,) = notices(provider)
        assert notice.recipients == ("c@shop.test",)
        assert len([line for line in gateway.lines if re.search(TOLD, line)]) == 2


def test_in_staging_a_notice_is_captured(tmp_path: Path) -> None:
    staging = {"bind": f"127.0.0.1:{free_port()}", "mode": "staging"}
    lists = {"recipients": {"allow": [BAD]}, "listeners": [staging]}
    with serving(tmp_path, **lists) as (gateway, provider):
        gateway.send(SENDER, [BAD], CONTENT)
        (line,) = gateway.wait_for_log(TOLD)
        (recipient,) = gateway.entry(line.split()[-1]).recipients
        assert (recipient.address, recipient.state) == (SENDER, RecipientState.CAPTURED)
        gateway.wait_until_empty()
        assert not provider.messages


def test_an_address_hears_of_all_of_it_instead_of_senders(tmp_path: Path) -> None:
    with serving(tmp_path, bounces={"to": "ops@shop.test"}) as (gateway, provider):
        asked(gateway, SENDER, (BAD, " NOTIFY=NEVER"))
        provider.wait_for_messages(1)
        gateway.send(SENDER, [BAD], b"Auto-Submitted: auto-generated\r\n" + CONTENT)
        provider.wait_for_messages(2)
        assert [one.recipients for one in notices(provider)] == [("ops@shop.test",)] * 2
        asked(gateway, SENDER, (BAD, " NOTIFY=FAILURE"))
        provider.wait_for_messages(4)
        last = {one.recipients for one in notices(provider)[2:]}
        assert last == {("ops@shop.test",), (SENDER,)}
        gateway.wait_for_log("postmaster non-delivery notification", count=3)


def test_what_is_asked_for_is_told_although_nothing_else_is(tmp_path: Path) -> None:
    with serving(tmp_path, bounces={"to": "none"}) as (gateway, provider):
        gateway.send(SENDER, [BAD], CONTENT)
        wanted = asked(
            gateway,
            SENDER,
            (BAD, " NOTIFY=FAILURE ORCPT=rfc822;orig+2Bx@cust.test"),
            (GOOD, " NOTIFY=SUCCESS"),
            mail=" RET=FULL ENVID=order+2B7",
        )
        provider.wait_for_messages(3)
        failed, relayed = sorted(notices(provider), key=lambda one: b"relayed" in one.content)
        about, one = report(failed.content)
        assert about["Original-Envelope-Id"] == "order+7"
        assert about["X-Relaygw-Queue-ID"] == wanted
        assert one["Original-Recipient"] == "rfc822; orig+x@cust.test"
        assert CONTENT in failed.content
        _, one = report(relayed.content)
        assert (one["Final-Recipient"], one["Action"]) == (f"rfc822; {GOOD}", "relayed")
        gateway.wait_until_empty()
        assert len(notices(provider)) == 2


def test_a_provider_with_dsn_gets_all_wishes_and_tells_success_itself(tmp_path: Path) -> None:
    with serving(tmp_path, dsn=True) as (gateway, provider):
        orcpt = r"ORCPT=utf-8;j\x{FC}rgen@cust.test"
        asked(gateway, SENDER, (GOOD, f" {orcpt} NOTIFY=SUCCESS,DELAY"), mail=" RET=HDRS ENVID=o1")
        provider.wait_for_messages(1)
        gateway.wait_until_empty()
        commands = b"\n".join(provider.connections[0].commands).decode()
        assert " RET=HDRS ENVID=o1" in commands
        assert f"RCPT TO:<{GOOD}> NOTIFY=SUCCESS,DELAY {orcpt}" in commands
        last = gateway.send(SENDER, [BAD], CONTENT)
        gateway.wait_for_log(rf"{last}: sender non-delivery")
        assert not any("delivery status notification" in line for line in gateway.lines)


@pytest.mark.parametrize(
    "command",
    [
        b"MAIL FROM:<a@shop.test> RET=ALL",
        b"MAIL FROM:<a@shop.test> ENVID=a=b",
        b"MAIL FROM:<a@shop.test> ENVID=" + b"x" * 101,
        b"MAIL FROM:<a@shop.test> RET=FULL RET=FULL",
        b"RCPT TO:<good@cust.test> NOTIFY=NEVER,FAILURE",
        b"RCPT TO:<good@cust.test> NOTIFY=",
        b"RCPT TO:<good@cust.test> ORCPT=good@cust.test",
        b"RCPT TO:<good@cust.test> ORCPT=rfc822;a+0a@x",
        b"RCPT TO:<good@cust.test> ORCPT=rfc822;\xc3\xbc@x",
        b"RCPT TO:<good@cust.test> ORCPT=rfc822;" + b"x" * 500,
    ],
)
def test_a_wrong_wish_is_refused(door: Gateway, command: bytes) -> None:
    client = door.connect()
    client.command(b"EHLO c.test")
    if command.startswith(b"RCPT"):
        client.command(b"MAIL FROM:<a@shop.test>")
    assert client.command(command).startswith("501 5.5.4")
    client.close()


@pytest.fixture(scope="module")
def door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with Gateway(tmp_path_factory.mktemp("door"), mode="sandbox") as gateway:
        yield gateway


def test_mail_that_waits_is_told_of_once_and_again_when_it_fails(tmp_path: Path) -> None:
    waits = {"first": "100ms", "max": "1s", "warn_after": "1s"}
    with serving(tmp_path, retry=waits) as (gateway, provider):
        provider.recipients[GOOD] = b"450 4.2.0 later\r\n"
        queue_id = gateway.send(SENDER, [GOOD], CONTENT)
        gateway.wait_for_log(rf"{queue_id}: sender delay notification: \w+")
        provider.wait_for_messages(1)
        (notice,) = notices(provider)
        _, one = report(notice.content)
        assert (one["Action"], one["Status"]) == ("delayed", "4.2.0")
        assert one["Will-Retry-Until"]
        gateway.wait_for_log("status=deferred", count=2, start=len(gateway.lines))
        provider.recipients[GOOD] = NO
        gateway.wait_for_log(rf"{queue_id}: sender non-delivery notification: \w+")
        gateway.wait_until_empty()
        provider.wait_for_messages(2)
        assert [report(one.content)[1]["Action"] for one in notices(provider)] == [
            *("delayed", "failed"),
        ]


def test_what_cannot_be_made_is_logged_and_leaves_the_mail_as_it_is(tmp_path: Path) -> None:
    with serving(tmp_path) as (gateway, _):
        with gateway.store.database.write() as tx:
            tx.execute(text(_NO_NOTICES))
        queue_id = gateway.send(SENDER, [BAD], CONTENT)
        gateway.wait_for_log(rf"{queue_id}: warning: its non-delivery notification cannot be made")
        (recipient,) = gateway.entry(queue_id).recipients
        assert recipient.state is RecipientState.BOUNCED
        assert gateway.entry(queue_id).chunk_count == 1
