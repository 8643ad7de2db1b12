"""Mail to bounces.inbound by a real front: kept, read, and believed for mail that we sent."""

from __future__ import annotations

import asyncio
import io
import smtplib
import socket
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from relaygw.feedback.bounce_mail import MAX_BYTES, BounceReader
from relaygw.inbound.intake import Intake
from relaygw.inbound.listeners import FrontService
from relaygw.mail import drop
from relaygw.mail.clock import clock_ms
from relaygw.mail.state import CaptureCode, RecipientState, capture_code
from relaygw.mail.suppression import Action, SuppressionRules
from relaygw.mail.verdict import BOUNCE_MAIL, Kind
from relaygw.observe.observer import FrontObserver
from relaygw.store.queue_tables import delivery, message, recipient
from relaygw.store.rules import StoreRules
from relaygw.store.side_tables import event_post
from relaygw.store.store import Store, store_on
from tests.builders import accepted, part_on
from tests.contract.conftest import clock_at
from tests.feedback import bounces
from tests.feedback.bounces import Mail, complaint, postfix, report, status
from tests.feedback.documented import Sent, examples
from tests.feedback.test_bounce_reader import nested
from tests.integration.events_rig import Listening, listening_at, settings_for
from tests.integration.inbound.front_rig import until
from tests.logs import text_log
from tests.real_postfix import PostfixInstance
from tests.rights import needs
from tests.unit.mail.test_notice import content as notice_content
from tests.unit.mail.test_notice import due, failed

INBOUND = "bounces@shop.test"
MORE: dict[str, Any] = {"bounces": {"inbound": INBOUND}, "hostname": bounces.HOSTNAME}


class Front:
    """A front of this process, and what came in by it."""

    def __init__(self, at: Listening, port: int) -> None:
        self.at, self.port = at, port

    async def send(self, content: bytes, *people: str, sender: str = "") -> None:
        """Hand in a mail; returns once it was accepted."""
        await asyncio.to_thread(self._send, content, people or (INBOUND,), sender)

    def _send(self, content: bytes, people: tuple[str, ...], sender: str) -> None:
        with smtplib.SMTP(
            "127.0.0.1", self.port, timeout=60, local_hostname="client.test"
        ) as client:
            client.sendmail(sender, list(people), content)

    def kept(self) -> list[Any]:
        """Return the recipients of what came in."""
        with self.at.store.database.read() as tx:
            found = tx.execute(select(recipient).where(recipient.c.address == INBOUND))
            return list(found)

    def posts(self) -> list[Any]:
        return self.at.rows(event_post)


@asynccontextmanager
async def front_at(
    store: Store,
    directory: Path,
    *,
    reads: bool = True,
    reading: Mapping[str, Any] | None = None,
    **more: Any,
) -> AsyncIterator[Front]:
    listener = {"bind": "127.0.0.1:0", **more.pop("listener", {})}
    async with listening_at(store, reads=reads, reading=reading, **{**MORE, **more}) as at:
        settings = settings_for(
            at.signers,
            **{**MORE, **more},
            listeners=[listener],
            queue={"min_free": "0%"},
            maildrop={"path": str(directory / "maildrop")},
        )
        service = FrontService(
            settings,
            store,
            FrontObserver(text_log(io.StringIO())),
            intake=Intake(settings, state_dir=directory),
            notify=lambda: None,
            flush=lambda _actor, _queue_id: 0,
            look_around=lambda: lambda way: "",
        )
        sock = socket.create_server(("127.0.0.1", 0))
        await service.start([sock])
        await until((directory / "maildrop" / drop.QUEUE_SOCKET).exists)
        try:
            yield Front(at, sock.getsockname()[1])
        finally:
            await service.stop()


def as_sent(queue_id: str, sent: Sent) -> Mail:
    """Return a mail as its bounce shows it."""
    return Mail(
        to=sent.address, message_id=f"<{sent.message_id}>", queue_id=queue_id, mark=sent.mark
    )


async def test_a_bounce_becomes_a_verdict(store: Store, tmp_path: Path) -> None:
    async with front_at(store, tmp_path) as front:
        queue_id, sent = front.at.sent("sendgrid")
        await front.send(postfix(as_sent(queue_id, sent)))
        await front.at.until_read()
        assert front.at.verdicts() == {f"{queue_id}/0": Kind.HARD}
        (event,) = front.at.events()
        assert (event.provider, event.queue_id, event.rcpt_no) == (BOUNCE_MAIL, queue_id, 0)
        assert event.dsn == "5.1.1" and "final-recipient: " in event.raw
        # people may look at it; nobody is sent anything
        (kept,) = front.kept()
        assert kept.state == RecipientState.CAPTURED
        assert capture_code(kept.reply) is CaptureCode.BOUNCE_MAIL
        content = store.intake.read_chunk(kept.queue_id, 0)
        assert content is not None and b"Final-Recipient" in content
        assert {row.state for row in front.at.rows(delivery)} == {"finished"}


async def test_a_copy_for_the_archive_makes_no_bounce_less_credible(
    store: Store, tmp_path: Path
) -> None:
    async with front_at(store, tmp_path, archive_to="Archive@shop.test") as front:
        queue_id, sent = front.at.sent("sendgrid", "bob@cust.test", "archive@shop.test")
        mail = replace(as_sent(queue_id, sent), to="bob@cust.test")
        await front.send(postfix(mail))
        await front.at.until_read()
        assert front.at.verdicts() == {f"{queue_id}/0": Kind.HARD}


@pytest.mark.parametrize("form", sorted(bounces.FORMS))
async def test_each_form(store: Store, tmp_path: Path, form: str) -> None:
    async with front_at(store, tmp_path) as front:
        queue_id, sent = front.at.sent("sendgrid", "a@cust.test", "bob@cust.test")
        mail = as_sent(queue_id, sent)
        await front.send(bounces.FORMS[form](Mail(**{**vars_of(mail), "to": "bob@cust.test"})))
        await front.at.until_read()
        # soft: another recipient may have written it
        assert front.at.verdicts() == {f"{queue_id}/1": Kind.SOFT}


def vars_of(mail: Mail) -> dict[str, Any]:
    return {name: getattr(mail, name) for name in ("to", "message_id", "queue_id", "mark")}


@pytest.mark.parametrize("named_by", ["mark", "queue_id", "message_id"])
async def test_one_name_is_enough(store: Store, tmp_path: Path, named_by: str) -> None:
    async with front_at(store, tmp_path) as front:
        queue_id, sent = front.at.sent("sendgrid", message_id="long-order-0001@shop.test")
        if named_by == "message_id":
            index_words(store)
        mail = as_sent(queue_id, sent)
        nothing: dict[str, Any] = {"mark": None, "queue_id": "x", "message_id": ""}
        only = {**vars_of(mail), **nothing, named_by: getattr(mail, named_by)}
        await front.send(report(Mail(**only), status(mail)))
        await front.at.until_read()
        assert front.at.verdicts() == {f"{queue_id}/0": Kind.HARD}


def index_words(store: Store) -> None:
    """Write the words of all mail, as the web role does each second."""
    with clock_at(store, clock_ms() + 60_000):  # it has settled by then
        while store.find.index_batch(limit=100):
            pass


async def test_it_counts_once_however_often_it_comes(store: Store, tmp_path: Path) -> None:
    async with front_at(store, tmp_path) as front:
        queue_id, sent = front.at.sent("sendgrid")
        mail = as_sent(queue_id, sent)
        for _ in range(5):
            await front.send(postfix(mail))
            await front.send(bounces.qmail(mail))
        await front.at.until_read()
        await front.at.until(lambda: front.at.new)
        assert len(front.at.events()) == len(front.at.new) == 1
        await front.send(complaint(mail))
        await front.at.until_read()
        assert front.at.verdicts() == {f"{queue_id}/0": Kind.COMPLAINED}


async def test_a_complaint_that_hides_the_recipient(store: Store, tmp_path: Path) -> None:
    async with front_at(store, tmp_path) as front:
        queue_id, sent = front.at.sent("sendgrid")
        mail = as_sent(queue_id, sent)
        hidden = complaint(mail, rcpt=()).replace(f"To: Bob <{mail.to}>".encode(), b"To: you")
        await front.send(hidden)
        await front.at.until_read()
        assert front.at.verdicts() == {f"{queue_id}/0": Kind.COMPLAINED}


async def test_the_address_that_was_sent_to_counts(store: Store, tmp_path: Path) -> None:
    """It was forwarded, and the server there tells both addresses."""
    async with front_at(store, tmp_path) as front:
        queue_id, sent = front.at.sent("sendgrid")
        mail = as_sent(queue_id, sent)
        fields = status(Mail(to="new@else.test"), Original_Recipient=f"rfc822;{mail.to}")
        await front.send(report(mail, fields))
        await front.at.until_read()
        assert front.at.verdicts() == {f"{queue_id}/0": Kind.HARD}


async def test_spoofed_ones_have_no_effect(store: Store, tmp_path: Path) -> None:
    async with front_at(store, tmp_path, reading={"look_again_ms": ()}) as front:
        queue_id, sent = front.at.sent("sendgrid")
        mail = as_sent(queue_id, sent)
        waiting = accepted(at_ms=clock_ms(), deliveries=(part_on("default", "eve@cust.test"),))
        store.intake.accept_batch([waiting])
        not_sent = Mail(to="eve@cust.test", queue_id=waiting.queue_id, mark=None, message_id="")
        spoofs = {
            "another recipient": report(mail, status(Mail(to="eve@cust.test"))),
            "mail that waits": report(not_sent, status(not_sent)),
            "unknown mail": report(Mail(), status(Mail())),
            "another mark": report(
                Mail(mark="A" * 40, queue_id="x", message_id="<x@y>"), status(mail)
            ),
            "no mail": report(Mail(mark=None, queue_id="x", message_id=""), status(mail)),
            "no recipient": report(mail, "Action: failed\nStatus: 5.1.1\n"),
            "hidden, by Message-ID": complaint(
                Mail(**{**vars_of(mail), "mark": None, "to": "you"}), rcpt=()
            ),
            "not spam": complaint(mail, "not-spam"),
            "no report": b"Subject: bounced!\n\nbob@cust.test is gone, believe me.\n",
        }
        for content in spoofs.values():
            await front.send(content)
        await front.at.until_read()
        assert front.at.verdicts() == {}
        assert {row.queue_id for row in front.at.events()} <= {None}
        assert len(front.kept()) == len(spoofs)  # nothing is lost


def suppressing(store: Store) -> Store:
    """Return a store on the same queue that suppresses whom reports are about."""
    rules = SuppressionRules(transactional=Action.BLOCK, promotional=Action.BLOCK)
    return store_on(store.database, StoreRules(suppression=rules))


@pytest.mark.parametrize(
    ("write", "kind"),
    [
        (lambda mail: report(mail, status(mail)), Kind.SOFT),
        (bounces.qmail, Kind.SOFT),
        (complaint, Kind.COMPLAINED),
        (lambda mail: complaint(mail, "opt-out"), Kind.UNSUBSCRIBED),
    ],
    ids=["report", "old form", "complaint", "opt-out"],
)
@pytest.mark.parametrize("named_by", ["mark", "queue_id", "message_id"])
async def test_who_got_a_mail_suppresses_none_of_its_other_recipients(
    store: Store,
    tmp_path: Path,
    write: Callable[[Mail], bytes],
    kind: Kind,
    named_by: str,
) -> None:
    store = suppressing(store)
    async with front_at(store, tmp_path) as front:
        message_id = "long-order-0001@shop.test"
        queue_id, sent = front.at.sent(
            "sendgrid", "bob@cust.test", "eve@cust.test", message_id=message_id
        )
        index_words(store)
        mail = as_sent(queue_id, sent)
        nothing: dict[str, Any] = {"mark": None, "queue_id": "x", "message_id": ""}
        await front.send(
            write(Mail(**{**vars_of(mail), **nothing, named_by: getattr(mail, named_by)}))
        )
        await front.at.until_read()
        assert front.at.verdicts() == {f"{queue_id}/0": kind}  # it is told in the mail's story
        assert store.suppressions.suppressed(limit=9) == []
        # of a mail that nobody else has it counts
        message_id = "long-order-0002@shop.test"
        alone, sent = front.at.sent("sendgrid", "bob@cust.test", message_id=message_id)
        index_words(store)
        await front.send(write(as_sent(alone, sent)))
        await front.at.until_read()
        (entry,) = store.suppressions.suppressed(limit=9)
        assert (entry.address, entry.queue_id) == ("bob@cust.test", alone)


async def test_who_got_a_copy_of_the_same_message_id_suppresses_nobody(
    store: Store, tmp_path: Path
) -> None:
    """A program hands over one message for each of its recipients, under one Message-ID."""
    store = suppressing(store)
    async with front_at(store, tmp_path) as front:
        message_id = "long-order-0001@shop.test"
        bobs, sent = front.at.sent("sendgrid", "bob@cust.test", message_id=message_id)
        front.at.sent("sendgrid", "eve@cust.test", message_id=message_id)
        index_words(store)
        forged = Mail(**{**vars_of(as_sent("x", sent)), "mark": None, "queue_id": "x"})
        await front.send(report(forged, status(forged)))
        await front.at.until_read()
        assert front.at.verdicts() == {f"{bobs}/0": Kind.SOFT}
        assert store.suppressions.suppressed(limit=9) == []
        # what only Bob has names his copy alone
        only = as_sent(bobs, sent)
        await front.send(report(only, status(only)))
        await front.at.until_read()
        assert front.at.verdicts() == {f"{bobs}/0": Kind.HARD}
        assert [one.address for one in store.suppressions.suppressed(limit=9)] == ["bob@cust.test"]


async def test_expensive_mail_is_set_aside_and_others_are_read(
    store: Store, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with front_at(store, tmp_path, reads=False) as front:
        await front.send(nested(MAX_BYTES))
        expensive = {row.queue_id for row in front.kept()}
        queue_id, sent = front.at.sent("sendgrid")
        await front.send(postfix(as_sent(queue_id, sent)))
        patient = {
            "bounces": BounceReader(bounces.HOSTNAME, patience_s=300.0)
        }  # others are busy, too
        async with listening_at(store, front.at.signers, reading=patient, **MORE) as at:
            await at.until_read(patience_s=240)  # the process has what others leave
            assert at.verdicts() == {f"{queue_id}/0": Kind.HARD}
    lines = [line for line in caplog.messages if "set aside" in line]
    assert {line.split()[2] for line in lines} == expensive and len(lines) == 1
    assert all("processor time" in line and "relaygw sandbox show" in line for line in lines)
    assert {row.queue_id for row in front.kept()} > expensive  # people may look at them


async def test_posts_of_providers_do_not_wait_for_bounce_mails(
    store: Store, tmp_path: Path
) -> None:
    """Also where the process that reads those stands still."""
    flag, child = tmp_path / "go on", tmp_path / "child.py"
    child.write_text(
        f"import os, time\nwhile not os.path.exists({str(flag)!r}):\n    time.sleep(0.01)\n"
    )
    standing = {"bounces": BounceReader(bounces.HOSTNAME, patience_s=300.0, child=child)}
    async with front_at(store, tmp_path, reading=standing) as front:
        at = front.at
        queue_id, sent = at.sent("sendgrid")
        await front.send(postfix(as_sent(queue_id, sent)))
        await at.until(lambda: at.rows(event_post)[0].tries)
        delivered = next(one for one in examples("sendgrid") if one.kind == "delivered")
        signed = at.signers["sendgrid"].sign([delivered.make(sent)], clock_ms())
        assert await at.post(signed, "sendgrid") == 200
        await at.until(at.events)
        (left,) = at.rows(event_post)
        assert left.provider == BOUNCE_MAIL
        flag.touch()


async def test_a_reader_that_is_killed_thrice_sets_a_mail_aside(
    store: Store, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """An operator, or a machine without memory, may end the reader of an innocent mail."""
    hurried = {"bounces": BounceReader(bounces.HOSTNAME, patience_s=0.0), "try_again_ms": (0,)}
    async with front_at(store, tmp_path, reading=hurried) as front:
        await front.send(postfix(Mail()))
        await front.at.until_read()
    kept, aside = (
        [line for line in caplog.messages if what in line] for what in ("is kept", "set aside")
    )
    assert (len(kept), len(aside)) == (2, 1)
    assert "ended with signal 9" in aside[0]


async def test_it_is_durable_before_the_250(store: Store, tmp_path: Path) -> None:
    async with front_at(store, tmp_path, reads=False) as front:
        queue_id, sent = front.at.sent("sendgrid")
        await front.send(postfix(as_sent(queue_id, sent)))
        (post,) = front.posts()
        (kept,) = front.kept()
        assert (post.provider, bytes(post.body).decode()) == (BOUNCE_MAIL, kept.queue_id)
        # another process reads it later
        async with listening_at(store, front.at.signers, **MORE) as later:
            await later.until_read()
            assert later.verdicts() == {f"{queue_id}/0": Kind.HARD}


async def test_only_that_recipient_is_read(store: Store, tmp_path: Path) -> None:
    """Other recipients of the same mail are treated as ever; so is mail without the setting."""
    async with front_at(store, tmp_path, reads=False) as front:
        await front.send(
            b"Subject: x\n\nx\n", "Bounces@SHOP.test", "bob@cust.test", sender="a@b.test"
        )
        states = {row.address: row.state for row in front.at.rows(recipient)}
        assert states == {"Bounces@SHOP.test": "captured", "bob@cust.test": "pending"}
    async with front_at(store, tmp_path, reads=False, bounces={}) as front:
        before = len(front.posts())
        await front.send(b"Subject: y\n\ny\n")
        assert [row.state for row in front.kept()] == ["pending"]
        assert len(front.posts()) == before


async def test_who_may_not_send_may_not_send_bounces(store: Store, tmp_path: Path) -> None:
    listener = {"allow": ["192.0.2.0/24"]}
    async with front_at(store, tmp_path, reads=False, listener=listener) as front:
        with pytest.raises(smtplib.SMTPRecipientsRefused) as refused:
            await front.send(postfix(Mail()))
        assert all(code == 554 for code, _ in refused.value.recipients.values())
        assert front.posts() == [] and front.at.rows(message) == []


async def test_in_staging_and_in_the_sandbox_nothing_leaves(store: Store, tmp_path: Path) -> None:
    for mode in ("staging", "sandbox"):
        async with front_at(store, tmp_path, reads=False, mode=mode) as front:
            await front.send(postfix(Mail()))
    assert {row.state for row in front.kept()} == {"captured"}


async def test_a_large_one(store: Store, tmp_path: Path) -> None:
    async with front_at(store, tmp_path) as front:
        queue_id, sent = front.at.sent("sendgrid")
        content = postfix(as_sent(queue_id, sent)) + b"x" * 70 + b"\r\n"
        await front.send(content + (b"x" * 70 + b"\r\n") * 60_000)
        await front.at.until_read()
        assert front.at.verdicts() == {f"{queue_id}/0": Kind.HARD}


async def test_our_own_notices(store: Store, tmp_path: Path) -> None:
    """That of this gateway is known; one of the gateway behind it is a bounce like any."""
    async with front_at(store, tmp_path) as front:
        queue_id, sent = front.at.sent("sendgrid", reply="250 2.0.0 Ok: queued as 06NEXTGATEWAY1")
        head = as_sent(queue_id, sent).header.replace("\n", "\r\n").encode() + b"\r\n"
        for hostname in (bounces.HOSTNAME, "next.test"):
            notice = due(failed(sent.address), queue_id="06NEXTGATEWAY1", sender=INBOUND)
            await front.send(notice_content(notice, head, hostname=hostname))
            await front.at.until_read()
            hard = {f"{queue_id}/0": Kind.HARD}
            assert front.at.verdicts() == ({} if hostname == bounces.HOSTNAME else hard)


@needs("root")
async def test_a_real_postfix_bounces(store: Store, tmp_path: Path) -> None:
    """Ours goes to a Postfix that cannot deliver it; its bounce comes back through our front."""
    async with front_at(store, tmp_path) as front:
        main = (
            f"relayhost = [127.0.0.1]:{front.port}\n"
            "smtpd_reject_unlisted_recipient = no\n"
            "transport_maps = inline:{ { cust.test = error:5.1.1 user unknown } }\n"
        )
        queue_id, sent = front.at.sent("sendgrid")
        mail = as_sent(queue_id, sent)
        with PostfixInstance(main=main) as server:

            def submit() -> None:
                with smtplib.SMTP(
                    "127.0.0.1", server.port, timeout=60, local_hostname="client.test"
                ) as client:
                    client.sendmail(INBOUND, [mail.to], f"{mail.header}\nDear Bob\n".encode())

            await asyncio.to_thread(submit)
            await asyncio.wait_for(until(lambda: bool(front.at.events())), 60)
        assert front.at.verdicts() == {f"{queue_id}/0": Kind.HARD}
        (event,) = front.at.events()
        assert event.dsn == "5.1.1" and event.address == mail.to
