"""Posts that cannot be read, or whose mail is not known yet, wait without holding up others."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import update

from relaygw.feedback import reading
from relaygw.feedback.format import Format
from relaygw.feedback.formats import FORMATS
from relaygw.mail.clock import clock_ms
from relaygw.mail.envelope import RecipientUpdate
from relaygw.mail.outcome import Stage, Verdict
from relaygw.mail.state import DeliveryState, RecipientState
from relaygw.mail.verdict import Event, Kind
from relaygw.store.feedback import MatchedEvent, NewPost
from relaygw.store.side_tables import event_post
from relaygw.store.store import Store
from relaygw.upstream.mark import KEY, Marks
from tests.builders import accepted, update_of
from tests.contract.conftest import clock_at
from tests.contract.test_store_contract import entry_of
from tests.feedback.documented import Sent, examples
from tests.integration.events_rig import Listening, listening_at


def _delivered(preset: str) -> Any:
    return next(one for one in examples(preset) if one.kind == "delivered")


def make_due(store: Store) -> None:
    """Have posts that wait read at once."""
    with store.database.write() as tx:
        tx.execute(update(event_post).values(due_at_ms=0))


async def tries(at: Listening, least: int) -> None:
    """Wait until a post was tried so often."""
    await at.until(lambda: any(row.tries >= least for row in at.rows(event_post)))


async def put_off(at: Listening) -> None:
    """Wait until each post that is left was put off; while it is read it has a lease only."""
    least_ms = 2 * reading.LEASE_MS
    await at.until(
        lambda: all(row.due_at_ms > clock_ms() + least_ms for row in at.rows(event_post))
    )


async def test_a_post_that_cannot_be_read_is_kept_and_others_are_read(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    real = FORMATS["postmark"]

    def read(body: bytes) -> list[Event]:
        if b"poison" in body:
            raise RuntimeError("a defect")
        return real.read(body)

    changed = {**FORMATS, "postmark": Format(real.verify, read, real.problem)}
    async with listening_at(store, reading={"formats": changed}) as at:
        _, sent = at.sent("postmark")
        good = at.signers["postmark"].sign([_delivered("postmark").make(sent)], clock_ms())
        posts = [NewPost(provider="postmark", body=b"poison"), NewPost(provider="gone", body=b"")]
        store.feedback.receive([*posts, NewPost(provider="postmark", body=good.body)])
        await at.until_read(left=2)
        assert [row.kind for row in at.events()] == ["delivered"]
        for _ in range(8):
            make_due(store)
        await tries(at, 2)
        assert len(at.rows(event_post)) == 2, "kept"
    told = [one.getMessage() for one in caplog.records if one.name == "relaygw.feedback"]
    assert len([one for one in told if "RuntimeError: a defect" in one]) <= 2
    assert any("providers has no gone" in one for one in told)


async def test_an_event_before_its_mail_is_known_waits_and_one_of_no_mail_is_kept(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    """Without a mark: the outcome comes later than the event."""
    caplog.set_level(logging.WARNING)
    late = {"look_again_ms": (3_600_000, 3_600_000)}
    async with listening_at(store, reading=late) as at:
        message = accepted("bob@cust.test", at_ms=clock_ms() - 60_000)
        store.intake.accept_batch([message])
        unmarked = {"mark": None, "message_id": "nowhere-123456@else.test"}
        sent = Sent(provider_id="nhIMmON9SFOPcT0ii4nt2A", **unmarked)
        foreign = Sent(provider_id="otherotherotherother22", **unmarked)
        # what was sent a moment ago has no words yet
        payloads = [_delivered("sendgrid").make(one) for one in (sent, foreign)]
        assert await at.post(at.signers["sendgrid"].sign(payloads, clock_ms()), "sendgrid") == 200
        await tries(at, 1)
        await put_off(at)
        assert at.events() == [], "their mail may come to be known"
        _words_of_all(store, "250 Ok: queued as nhIMmON9SFOPcT0ii4nt2A", at, message.queue_id)
        make_due(store)
        await at.until(at.events)
        assert [row.queue_id for row in at.events()] == [message.queue_id]
        assert at.verdicts() == {f"{message.queue_id}/0": "delivered"}
        await put_off(at)
        make_due(store)
        await at.until_read()
        assert [row.queue_id for row in at.events()] == [message.queue_id, None]
        await at.until(lambda: len(at.new) == 2)
    told = [one.getMessage() for one in caplog.records]
    assert len([one for one in told if "is not in this queue" in one]) == 1


def _words_of_all(store: Store, reply: str, at: Listening, queue_id: str) -> None:
    at.deliver(queue_id, "sendgrid", 1, reply)
    with clock_at(store, clock_ms() + 60_000):
        while store.find.index_batch(limit=100):
            pass


async def test_an_event_before_the_outcome_of_marked_mail_waits_for_it(store: Store) -> None:
    async with listening_at(store) as at:
        message = accepted("bob@cust.test", at_ms=clock_ms() - 60_000)
        store.intake.accept_batch([message])
        store.leases.claim("default", limit=9, incarnation="one", now_ms=clock_ms())
        sent = replace(at.sent("sendgrid", "else@cust.test")[1], address="bob@cust.test")
        sent = replace(sent, mark=Marks(store.feedback.shared_key(KEY)).mark_of(message.queue_id))
        for name in ("sendgrid", "mailgun"):
            signed = at.signers[name].sign([_delivered(name).make(sent)], clock_ms())
            assert await at.post(signed, name) == 200
        for _ in range(len(reading.LOOK_AGAIN_MS) + 2):  # however long it takes
            await at.until(lambda: all(row.due_at_ms > clock_ms() for row in at.rows(event_post)))
            make_due(store)
        assert (at.events(), len(at.rows(event_post))) == ([], 2)
        doubted = RecipientUpdate(
            rcpt_no=0,
            state=RecipientState.PENDING,
            reply="connection lost",
            dsn="4.4.2",
            provider="sendgrid",
            stage=Stage.CONTENT,
            verdict=Verdict.DOUBT,
        )
        waits = {"state": DeliveryState.DEFERRED, "due_at_ms": 2**50, "doubted": True}
        outcome = update_of(message.queue_id, provider="sendgrid", recipients=(doubted,), **waits)
        store.leases.record_batch([outcome], incarnation="one", now_ms=clock_ms())
        await at.until(lambda: (make_due(store), not at.rows(event_post))[1])
        told = {(row.provider, row.queue_id, row.rcpt_no) for row in at.events()}
        assert told == {("sendgrid", message.queue_id, 0), ("mailgun", None, None)}
        (person,) = entry_of(store, message.queue_id).recipients
        assert (person.state, person.provider) == ("delivered", "sendgrid")
        assert at.verdicts() == {f"{message.queue_id}/0": "delivered"}


async def test_an_event_of_mail_in_hand_is_read_again_as_soon_as_it_is_old(store: Store) -> None:
    async with listening_at(store) as at:
        message = accepted("bob@cust.test")
        store.intake.accept_batch([message])
        store.leases.claim("default", limit=9, incarnation="one", now_ms=clock_ms())
        mark = Marks(store.feedback.shared_key(KEY)).mark_of(message.queue_id)
        sent = Sent(address="bob@cust.test", mark=mark, at_ms=clock_ms())
        signed = at.signers["sendgrid"].sign([_delivered("sendgrid").make(sent)], clock_ms())
        assert await at.post(signed, "sendgrid") == 200
        (post,) = at.rows(event_post)
        lease_ends_ms = post.received_at_ms + reading.LEASE_MS
        await at.until(
            lambda: any(clock_ms() < r.due_at_ms < lease_ends_ms for r in at.rows(event_post))
        )
        (post,) = at.rows(event_post)
        age_ms = clock_ms() - post.received_at_ms
        assert post.due_at_ms - post.received_at_ms <= max(2 * age_ms, age_ms + 250)


async def test_feedback_that_names_nobody_of_several_judges_nobody(store: Store) -> None:
    async with listening_at(store) as at:
        queue_id, sent = at.sent("resend", "b@cust.test", "c@cust.test")
        complained = next(one for one in examples("resend") if one.kind == "complained")
        signed = at.signers["resend"].sign([complained.make(sent)], clock_ms())
        assert await at.post(signed, "resend") == 200
        await at.until_read()
        assert [(row.queue_id, row.rcpt_no) for row in at.events()] == [(queue_id, None)]
        assert at.verdicts() == {}


async def test_a_provider_that_reports_nothing_is_told_once(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    now_ms = clock_ms()
    store.watch.add_history(now_ms, {("delivered", "postmark"): 25, ("delivered", "brevo"): 25})
    store.feedback.take(
        [MatchedEvent(provider="brevo", event=Event(key="k", kind=Kind.DELIVERED, at_ms=now_ms))]
    )
    async with listening_at(store) as at:
        reader = reading.Reader(store, at.settings)
        for _ in range(3):
            reader.tell_of_silence()
    told = [one.getMessage() for one in caplog.records if "reported nothing" in one.getMessage()]
    assert len(told) == 1
    assert told[0].startswith("provider postmark took mail for 25 recipients")
