"""Mail that an operator moved goes by that provider alone, and to nobody who may not have it."""

from __future__ import annotations

import asyncio
from pathlib import Path

from relaygw.mail.clock import clock_ms
from relaygw.mail.state import DeliveryState, RecipientState
from relaygw.operations.queue_actions import MOVE, RELEASE, Order, change_queued
from relaygw.settings.provider import Provider
from tests.builders import accepted
from tests.e2e.ports import free_port
from tests.fakes.scripted_provider import Action, ScriptedProvider
from tests.integration.delivery_rig import Rig, running

D, R = DeliveryState, RecipientState


def dead() -> Provider:
    return Provider(host="127.0.0.1", port=free_port(), tls="none")


async def move(rig: Rig, provider: str, settings: Provider, *ids: str, force: bool = False) -> None:
    order = Order(actor="ann", provider=provider, senders=settings.senders, is_forced=force)
    result = await asyncio.to_thread(change_queued, rig.store, MOVE, ids, order, now_ms=clock_ms())
    assert sorted(result.changed) == sorted(ids), result.left


async def test_moved_mail_goes_by_the_other_provider_and_the_rest_does_not(tmp_path: Path) -> None:
    async with (
        ScriptedProvider() as b,
        running(tmp_path, {"a": dead(), "b": b.settings()}) as rig,  # the route has only a
    ):
        moved, stays = accepted(), accepted()
        rig.accept(moved, stays)
        await rig.wait_for(moved, D.DEFERRED)
        await rig.wait_for(stays, D.DEFERRED)
        await move(rig, "b", b.settings(), moved.queue_id)
        entry = await rig.wait_for(moved, D.FINISHED)
        assert (entry.recipients[0].state, entry.recipients[0].provider) == (R.DELIVERED, "b")
        assert len(b.messages) == 1
        assert rig.entry(stays).deliveries[0].route == "default"


async def test_a_provider_that_refuses_moved_mail_is_not_the_last_word(tmp_path: Path) -> None:
    async with (
        ScriptedProvider() as b,
        running(tmp_path, {"a": dead(), "b": b.settings()}) as rig,
    ):
        b.script("RCPT", b"451 4.7.1 later\r\n")
        message = accepted()
        rig.accept(message)
        await rig.wait_for(message, D.DEFERRED)
        await move(rig, "b", b.settings(), message.queue_id)
        await rig.wait_for(message, D.FINISHED)
        assert len(b.messages) == 1


async def test_mail_in_doubt_waits_for_its_provider_unless_it_is_forced(tmp_path: Path) -> None:
    async with (
        ScriptedProvider() as a,
        ScriptedProvider() as b,
        running(tmp_path, {"a": a.settings(), "b": b.settings()}) as rig,
    ):
        a.script("CONTENT", Action.DROP)
        message = accepted()
        rig.accept(message)
        entry = await rig.wait_for(message, D.DEFERRED)
        assert entry.deliveries[0].is_in_doubt
        order = Order(actor="ann", provider="b")
        (left,) = (
            await asyncio.to_thread(
                change_queued, rig.store, MOVE, [message.queue_id], order, now_ms=1
            )
        ).left
        assert "may be sent twice" in left.why
        await move(rig, "b", b.settings(), message.queue_id, force=True)
        entry = await rig.wait_for(message, D.FINISHED)
        assert entry.recipients[0].provider == "b"


async def test_on_staging_moved_mail_still_reaches_no_customer(tmp_path: Path) -> None:
    async with (
        ScriptedProvider() as b,
        running(
            tmp_path,
            {"a": dead(), "b": b.settings()},
            mode="staging",
            recipients={"allow": ["dev@agency.test"]},
        ) as rig,
    ):
        allowed = accepted("dev@agency.test", mode="production")
        customer = accepted("customer@cust.test", mode="production")  # taken before the flip
        rig.accept(allowed, customer)
        await rig.wait_for(allowed, D.DEFERRED)
        await rig.wait_for(customer, D.HELD)
        await move(rig, "b", b.settings(), allowed.queue_id, customer.queue_id)
        await rig.wait_for(allowed, D.FINISHED)
        assert rig.entry(customer).deliveries[0].route == "provider:b"
        # and when somebody lets it go there
        ann, ids = Order(actor="ann"), [customer.queue_id]
        await asyncio.to_thread(change_queued, rig.store, RELEASE, ids, ann, now_ms=clock_ms())
        entry = await rig.wait_for(customer, D.HELD)
        assert entry.recipients[0].state is R.PENDING
        assert [message.recipients for message in b.messages] == [("dev@agency.test",)]
