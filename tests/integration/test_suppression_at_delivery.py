"""Suppressed addresses as a worker meets them: nobody is asked, or it is told once."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest

from relaygw.delivery.waits import Waits
from relaygw.mail.clock import clock_ms
from relaygw.mail.envelope import AcceptedMessage, NewDelivery, NewRecipient
from relaygw.mail.state import DeliveryState, RecipientState
from relaygw.mail.suppression import Cause, Suppression
from relaygw.operations.story import tell_story
from relaygw.policy.story import EventKind, Story
from relaygw.settings.model import Settings
from relaygw.settings.suppression import Suppression as Section
from relaygw.store.audit import AuditEntry
from relaygw.store.leases import Leases
from relaygw.store.rules import StoreRules
from relaygw.store.store import Store, open_store
from tests.builders import accepted
from tests.fakes.scripted_provider import ScriptedProvider
from tests.integration.delivery_rig import Rig, running

D, R = DeliveryState, RecipientState
ANN, BOB = "ann@cust.test", "bob@cust.test"
ROUTES = [{"name": "default", "stream": "promotional", "providers": ["main"]}]
opened = partial(open_store, rules=StoreRules(suppression=Section().rules()))


def mail(*people: str, stream: str = "promotional", **more: Any) -> AcceptedMessage:
    recipients = tuple(NewRecipient(address=one) for one in people)
    part = NewDelivery(route="default", stream=stream, recipients=recipients)
    return accepted(at_ms=clock_ms(), deliveries=(part,), sender="news@shop.test", **more)


def suppress(store: Store, address: str = ANN) -> None:
    entry = Suppression(
        address=address,
        sender_domain="shop.test",
        cause=Cause.COMPLAINT,
        source="ses",
        detail="abuse",
        created_at_ms=clock_ms(),
    )
    audit = AuditEntry(
        at_ms=clock_ms(), actor="a", action="suppression.add", target="", affected=1, detail=""
    )
    store.suppressions.suppress([entry], entry=audit)


def story_of(rig: Rig, provider: ScriptedProvider, message: AcceptedMessage) -> Story:
    settings = Settings.model_validate(
        {"mode": "production", "providers": {"main": provider.settings()}, "routes": ROUTES}
    )
    story = tell_story(rig.store, settings, message.queue_id, now_ms=clock_ms())
    assert story is not None
    return story


async def test_nobody_is_asked_about_a_suppressed_address(tmp_path: Path) -> None:
    async with (
        ScriptedProvider() as provider,
        running(tmp_path, {"main": provider.settings()}, store_class=opened) as rig,
    ):
        suppress(rig.store)
        alone, both = mail(ANN), mail("ANN@cust.test", BOB)
        rig.accept(alone, both)
        entry = await rig.wait_for(alone, D.FINISHED)
        assert [one.state for one in entry.recipients] == [R.BLOCKED]
        assert entry.recipients[0].reply is not None
        assert entry.recipients[0].reply.startswith("suppressed: spam complaint, ses, ")
        assert entry.recipients[0].attempts == 0
        entry = await rig.wait_for(both, D.FINISHED)
        assert [one.state for one in entry.recipients] == [R.BLOCKED, R.DELIVERED]
        assert [one.recipients for one in provider.messages] == [(BOB,)]
        story = story_of(rig, provider, alone)
    lines = [line for line in rig.log.getvalue().splitlines() if "status=blocked" in line]
    assert len(lines) == 2
    assert all("relay=none, " in line and "delays=0/0/0/0, " in line for line in lines)
    command = f"relaygw suppress remove {ANN} --sender-domain shop.test"
    assert all("(suppressed: spam complaint, ses, " in line for line in lines)
    assert all(command in line for line in lines)
    assert EventKind.BLOCKED in [one.kind for one in story.events]
    assert "its recipient is suppressed: spam complaint, ses" in story.headline.lower()
    assert command in [one.command for one in story.advice]


async def test_a_warning_is_told_once_however_often_it_is_tried(tmp_path: Path) -> None:
    async with (
        ScriptedProvider() as provider,
        running(tmp_path, {"main": provider.settings()}, store_class=opened) as rig,
    ):
        suppress(rig.store)
        for _ in range(2):
            provider.script("RCPT", b"451 4.7.1 later\r\n")
        message = mail(ANN, stream="transactional")
        rig.accept(message)
        await rig.wait_for(message, D.FINISHED)
        assert len(provider.messages) == 1
        story = story_of(rig, provider, message)
    kinds = [one.kind for one in story.events]
    assert kinds.count(EventKind.WARNED) == 1
    assert kinds.count(EventKind.DEFERRED) == 2
    assert kinds[-1] is EventKind.DELIVERED
    told = [line for line in rig.log.getvalue().splitlines() if "is sent to although" in line]
    assert len(told) == 1
    assert f"warning: {ANN} is sent to although it is suppressed: spam complaint" in told[0]


@pytest.mark.parametrize(
    ("reply", "is_dead"),
    [
        (b"550 5.1.1 no such user\r\n", True),
        (b"550 5.1.10 null MX\r\n", True),
        (b"550 5.1.8 sender's domain is unknown\r\n", False),
        (b"550 5.2.1 mailbox is disabled\r\n", False),
        (b"550 no such user\r\n", False),
    ],
)
async def test_two_refusals_of_a_dead_address_suppress_it(
    tmp_path: Path, reply: bytes, is_dead: bool
) -> None:
    async with (
        ScriptedProvider() as provider,
        running(tmp_path, {"main": provider.settings()}, store_class=opened) as rig,
    ):
        for _ in range(2):
            provider.script("RCPT", reply)
            message = mail(ANN)
            rig.accept(message)
            await rig.wait_until(lambda one=message: bool(rig.store.queue.attempts(one.queue_id)))
        found = rig.store.suppressions.suppressed(limit=9)
        assert [one.cause for one in found] == [Cause.REFUSED] * is_dead
        if is_dead:
            third = mail(ANN)
            rig.accept(third)
            entry = await rig.wait_for(third, D.FINISHED)
            assert entry.recipients[0].state is R.BLOCKED
            assert provider.messages == []
            assert f"warning: {ANN} is suppressed for mail of shop.test" in rig.log.getvalue()


async def test_what_was_claimed_before_learns_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim = Leases.claim

    def claim_first(self: Leases, *args: Any, **more: Any) -> Any:
        found = claim(self, *args, **more)
        if found:
            suppress(rig.store)
        return found

    monkeypatch.setattr(Leases, "claim", claim_first)
    async with (
        ScriptedProvider() as provider,
        running(
            tmp_path,
            {"main": provider.settings()},
            store_class=opened,
            waits=Waits(stale_s=-1.0),
        ) as rig,
    ):
        message = mail(ANN)
        rig.accept(message)
        entry = await rig.wait_for(message, D.FINISHED)
        assert entry.recipients[0].state is R.BLOCKED
        assert provider.messages == []


async def test_what_is_off_is_sent_without_a_word(tmp_path: Path) -> None:
    off = {"transactional": "off", "promotional": "off"}
    rules = StoreRules(suppression=Section.model_validate(off).rules())
    async with (
        ScriptedProvider() as provider,
        running(
            tmp_path,
            {"main": provider.settings()},
            store_class=partial(open_store, rules=rules),
            suppression=off,
        ) as rig,
    ):
        suppress(rig.store)
        message = mail(ANN)
        rig.accept(message)
        await rig.wait_for(message, D.FINISHED)
        assert len(provider.messages) == 1
    assert "suppress" not in rig.log.getvalue()
