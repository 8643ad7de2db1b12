"""What an attempt teaches about its provider, and what that means for the mail."""

from __future__ import annotations

from typing import Any

import pytest

from relaygw.delivery.gate import Gate
from relaygw.delivery.holds import Holds
from relaygw.delivery.lanes import Lane
from relaygw.delivery.learning import MOST_SENDERS, Learning, SenderNotes
from relaygw.mail.envelope import ClaimedDelivery
from relaygw.mail.outcome import AttemptReport, Meaning, RecipientOutcome, Scope, Stage, Verdict
from relaygw.mail.reply import SmtpReply
from relaygw.policy.recipients import Screen
from relaygw.policy.retry import Consequence
from relaygw.settings.provider import Provider
from relaygw.settings.routes import Stream
from relaygw.store.store import Store
from tests.builders import claimed
from tests.tables import each_of
from tests.unit.delivery.worker_context import worker_context


class Desk:
    """A gate that learns, on a store."""

    def __init__(self, store: Store, **more: Any) -> None:
        context = worker_context(store)
        self.gate = Gate(provider="p", settings=Provider(host="smtp.example.com"), **more)
        lane = Lane(route="default", stream=Stream.TRANSACTIONAL, gates=[self.gate])
        self.holds = Holds(context, {}, Screen(context.settings))
        self.learning = Learning(context, self.holds, [lane], {})

    async def learn(
        self, *outcomes: RecipientOutcome, mail: ClaimedDelivery | None = None
    ) -> Consequence:
        report = AttemptReport(provider="p", relay="none", outcomes=outcomes)
        return await self.learning.from_report(
            self.gate, mail or claimed(), report, was_held=self.gate.is_held
        )


def said(
    code: int,
    verdict: Verdict,
    scope: Scope = Scope.RECIPIENT,
    stage: Stage = Stage.RCPT,
    text: str = "no",
) -> RecipientOutcome:
    meaning = Meaning(verdict=verdict, scope=scope)
    reply = SmtpReply(code, (text,)) if code else None
    return RecipientOutcome(rcpt_no=0, meaning=meaning, stage=stage, reply=reply, detail=text)


TAKEN = said(250, Verdict.DELIVERED, stage=Stage.CONTENT)
BOUNCES = said(550, Verdict.BOUNCE)
SILENT = said(0, Verdict.RETRY, stage=Stage.CONTENT)


@pytest.mark.parametrize(
    ("stage", "has_alternative", "wait_s"),
    [
        (Stage.AUTH, False, 1.0),  # its own mail was no part of it
        (Stage.AUTH, True, 1.0),
        (Stage.MAIL, False, 305.0),  # it may be the cause: another one probes
        (Stage.CONTENT, False, 305.0),
        (Stage.CONTENT, True, 1.0),  # the next provider takes it
    ],
)
async def test_mail_that_met_a_held_provider_waits_unless_it_is_innocent(
    store: Store, stage: Stage, has_alternative: bool, wait_s: float
) -> None:
    desk = Desk(store, has_alternative=has_alternative)
    consequence = await desk.learn(said(550, Verdict.HOLD, Scope.PROVIDER, stage))
    assert desk.gate.is_held
    assert desk.gate.is_probed_by_mail == (stage is not Stage.AUTH)
    assert consequence.wait_s == wait_s


async def test_a_provider_that_answers_works_whatever_it_answers(store: Store) -> None:
    desk = Desk(store)
    for outcomes in ([BOUNCES], [TAKEN], [SILENT, TAKEN], [BOUNCES]):
        for _ in range(4):
            await desk.learn(*outcomes)
            assert (desk.gate.failures, desk.gate.silences) == (0, 0)
            assert desk.gate.is_open(1e9)
    for _ in range(3):
        await desk.learn(SILENT)
    assert desk.gate.failures == 1


async def test_only_mail_that_was_taken_ends_the_hold_of_its_sender(store: Store) -> None:
    desk = Desk(store)
    refused = said(550, Verdict.HOLD, Scope.SENDER_DOMAIN, Stage.MAIL)
    consequence = await desk.learn(refused)
    assert consequence.hold is not None
    assert list(desk.gate.held_senders) == ["shop.test"]
    for mail, outcome in ((claimed(), BOUNCES), (claimed(sender="a@other.test"), TAKEN)):
        await desk.learn(outcome, mail=mail)
        assert [one.key for one in store.holds.in_force()] == ["p shop.test"]
    await desk.learn(TAKEN)
    assert not desk.gate.held_senders
    assert not store.holds.in_force()


async def test_trouble_found_here_is_not_the_provider_s(store: Store) -> None:
    desk = Desk(store)
    await desk.learn(said(550, Verdict.HOLD, Scope.PROVIDER, Stage.LOCAL))
    assert not desk.gate.is_held
    await desk.learn(said(421, Verdict.RETRY, Scope.PROVIDER, Stage.GREETING))
    assert (desk.gate.failures, desk.gate.is_reached) == (1, False)


@each_of(
    "text, domain",
    [
        ("Mail from domain not verified", "shop.test"),
        ("brand.test is not a verified domain", "brand.test"),
        ("identities failed the check in region EU: a@SHOP.test", "shop.test"),
        ("identities failed the check in region EU: a@brand.test, a@shop.test", "shop.test"),
        ("identities failed the check in region EU: a@brand.test, brand.test", "brand.test"),
        ("identities failed the check in region EU: a@myshop.test, b@shop.test.example", None),
        ("identities failed the check in region EU: b@cust.test, c@cust.test", None),
    ],
)
async def test_a_refusal_that_names_identities_is_about_those(
    store: Store, text: str, domain: str | None
) -> None:
    content = b'From: "a@shop.test via Brand" <a@BRAND.test>\r\n\r\nhello\r\n'
    mail = claimed(content=content)
    for code in (554, 0):
        desk = Desk(store)
        outcome = said(code, Verdict.HOLD, Scope.SENDER_DOMAIN, Stage.CONTENT, text)
        consequence = await desk.learn(outcome, mail=mail)
        assert list(desk.gate.held_senders) == [domain] * (domain is not None)
        assert (consequence.hold is None) == (domain is None)
        assert desk.gate.held_domain(mail) == domain


async def test_another_mail_of_a_refused_author_does_not_run_into_it(store: Store) -> None:
    content = b"Subject: x\r\nFrom: Brand <a@brand.test>\r\n\r\nhello\r\n"
    desk, mail = Desk(store), claimed(content=content)
    text = "identities failed the check in region EU: a@brand.test"
    refused = said(554, Verdict.HOLD, Scope.SENDER_DOMAIN, Stage.CONTENT, text)
    await desk.learn(refused, mail=mail)
    assert [one.key for one in store.holds.in_force()] == ["p brand.test"]
    others = (claimed(sender="b@else.test", content=content), claimed(sender="c@brand.test"))
    assert [desk.gate.held_domain(one) for one in others] == ["brand.test"] * 2
    assert desk.gate.held_domain(claimed()) is None, "its sender is not refused"
    await desk.learn(TAKEN)
    assert store.holds.in_force(), "the sender's domain alone shows nothing of the author's"
    await desk.learn(TAKEN, mail=mail)
    assert not store.holds.in_force()


def test_no_more_senders_are_kept_than_fit() -> None:
    notes = SenderNotes()
    report = AttemptReport(provider="p", relay="none", outcomes=(TAKEN,))
    for number in range(MOST_SENDERS + 2):
        notes.add("p", f"{number}@shop.test", report)
    unwritten = [one.sender for one in notes.take_unwritten()]
    assert unwritten == [f"{number}@shop.test" for number in range(MOST_SENDERS)]
    refused = said(550, Verdict.RETRY, Scope.MESSAGE, Stage.MAIL)
    notes.add("p", "1@shop.test", AttemptReport(provider="p", relay="none", outcomes=(refused,)))
    assert [one.reply for one in notes.take_unwritten()] == ["550 no"], "news of one that is known"
