"""Standing holds as workers obey them: what waits and what comes, with real providers."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from relaygw.mail.clock import clock_ms
from relaygw.mail.envelope import AcceptedMessage, Source
from relaygw.mail.hold import HoldCause, HoldCode
from relaygw.mail.state import DeliveryState, RecipientState
from relaygw.operations.queue_actions import MOVE, RELEASE, Order, change_queued
from relaygw.operations.standing_holds import ADD, END, waiting_of
from relaygw.operations.verb import Asked
from relaygw.settings.model import Settings
from relaygw.store.holds import ended_entry
from relaygw.store.store import Store
from tests.builders import accepted, part_on
from tests.fakes.scripted_provider import Action, ScriptedProvider, Wait
from tests.integration.delivery_rig import Rig, running
from tests.tables import each_of

D, R = DeliveryState, RecipientState


def ask(rig: Rig, **given: str) -> dict[str, Any]:
    return ADD.carry_out(given, asked_of(rig.store, rig.settings)).answer


def asked_of(store: Store, settings: Settings) -> Asked:
    return Asked(store=store, settings=settings, actor="ann", now_ms=clock_ms())


def end(rig: Rig, hold_id: str) -> int:
    done = END.carry_out({"id": hold_id}, asked_of(rig.store, rig.settings))
    released: int = done.answer["released"]
    return released


def ids(rig: Rig) -> list[str]:
    return [hold.hold_id for hold, _ in waiting_of(rig.store)]


def is_held_by(rig: Rig, mail: AcceptedMessage, hold_id: str) -> bool:
    (part,) = rig.entry(mail).deliveries
    return part.hold is not None and part.hold.hold_id == hold_id


def actions(store: Store) -> Sequence[tuple[str, str]]:
    return [(one.action, one.actor) for one in reversed(store.audit.entries(limit=20))]


async def obeyed(rig: Rig, hold_id: str) -> None:
    """Wait until the worker knows of a hold: mail like it is held, and none of it is sent."""
    probe = accepted("probe@gmx.test", at_ms=clock_ms(), subject="invoice")
    rig.accept(probe)
    entry = await rig.wait_for(probe, D.HELD)
    assert entry.deliveries[0].hold is not None
    assert entry.deliveries[0].hold.hold_id == hold_id


async def test_what_waits_and_what_comes_is_held_and_goes_in_order(tmp_path: Path) -> None:
    async with (
        ScriptedProvider() as provider,
        running(tmp_path, {"main": provider.settings(max_connections=1)}) as rig,
    ):
        provider.script("RCPT", b"451 4.7.1 later\r\n")
        waits = accepted("first@gmx.test", at_ms=clock_ms())
        rig.accept(waits)
        await rig.wait_until(lambda: bool(rig.store.queue.attempts(waits.queue_id)))
        done = ask(rig, recipient_domain="@GMX.test", reason="their server is down")
        assert (done["scope"], done["value"], done["by"]) == ("recipient_domain", "gmx.test", "ann")
        await rig.wait_for(waits, D.HELD)
        await obeyed(rig, done["id"])
        now_ms = clock_ms() - 1000
        comes = [accepted(f"n{n}@gmx.test", at_ms=now_ms + n) for n in range(30)]
        other = accepted("bob@web.test", at_ms=clock_ms())
        rig.accept(*reversed(comes), other)
        for one in comes:
            await rig.wait_for(one, D.HELD)
        await rig.wait_for(other, D.FINISHED)
        assert [one.recipients for one in provider.messages] == [("bob@web.test",)]
        assert [number for _, number in waiting_of(rig.store)] == [32]
        (left,) = change_queued(
            rig.store, RELEASE, [waits.queue_id], Order(actor="bob"), now_ms=clock_ms()
        ).left
        assert f"relaygw hold end {done['id']}" in left.why
        assert end(rig, done["id"]) == 32
        for one in (waits, *comes):
            await rig.wait_for(one, D.FINISHED)
        assert [one.action for one in rig.store.audit.entries(limit=9)] == ["hold.end", "hold.add"]
        assert waiting_of(rig.store) == []
    assert len(provider.messages) == 33
    sent = [one.recipients[0] for one in provider.messages[1:]]
    later = [int(one[1 : one.index("@")]) for one in sent if one.startswith("n")]
    assert later == sorted(later)


SCOPES = {
    "recipient_domain": "gmx.test",
    "recipient": "ann@gmx.test",
    "sender": "shop@mail.test",
    "sender_domain": "mail.test",
    "subject": "invoice",
    "route": "default",
    "client": "10.1.0.0/16",
}


@pytest.mark.parametrize("scope", SCOPES)
async def test_mail_accepted_once_a_hold_is_set_is_not_sent(tmp_path: Path, scope: str) -> None:
    """However soon it is claimed: the worker has not looked at the holds since."""
    async with (
        ScriptedProvider() as provider,
        running(tmp_path, {"main": provider.settings()}) as rig,
    ):
        before = accepted("bob@web.test", at_ms=clock_ms())
        rig.accept(before)
        await rig.wait_for(before, D.FINISHED)
        done = ask(rig, **{scope: SCOPES[scope]})
        comes = accepted(
            *("ann@gmx.test", "eve@gmx.test") if scope != "recipient" else ("ann@gmx.test",),
            at_ms=clock_ms(),
            sender="shop@mail.test",
            subject="Your invoice",
            source=Source(client="10.1.2.3"),
        )
        rig.accept(comes)
        rig.worker.wake()
        await rig.wait_until(lambda: rig.entry(comes).deliveries[0].state in {D.HELD, D.FINISHED})
        assert is_held_by(rig, comes, done["id"])
    assert len(provider.messages) == 1


async def test_what_is_being_sent_when_a_hold_is_set_is_counted(tmp_path: Path) -> None:
    async with (
        ScriptedProvider() as provider,
        running(tmp_path, {"main": provider.settings()}) as rig,
    ):
        answer = asyncio.Event()
        provider.script("CONTENT", (Wait(answer), Action.DEFAULT))
        goes = accepted("ann@gmx.test", "bob@web.test", at_ms=clock_ms())
        rig.accept(goes)
        await rig.wait_until(lambda: rig.entry(goes).deliveries[0].state is D.ACTIVE)
        done = ADD.carry_out({"recipient_domain": "gmx.test"}, asked_of(rig.store, rig.settings))
        assert done.answer["being_sent"] == 1
        assert "in force; at most 1 message already being sent" in done.lines[0]
        answer.set()
        await rig.wait_for(goes, D.FINISHED)


async def test_a_mail_to_others_as_well_is_sent_to_these(tmp_path: Path) -> None:
    async with (
        ScriptedProvider() as provider,
        running(tmp_path, {"main": provider.settings()}) as rig,
    ):
        done = ask(rig, recipient_domain="gmx.test")
        await obeyed(rig, done["id"])
        both = accepted("ann@gmx.test", "bob@web.test", at_ms=clock_ms())
        rig.accept(both)
        entry = await rig.wait_for(both, D.FINISHED, D.HELD)
        assert [one.state for one in entry.recipients] == [R.PENDING, R.DELIVERED]
        end(rig, done["id"])
        await rig.wait_for(both, D.FINISHED, D.FINISHED)
    sent = [one.recipients for one in provider.messages if "probe@gmx.test" not in one.recipients]
    assert sent == [("bob@web.test",), ("ann@gmx.test",)]


async def test_a_hold_ends_by_itself_and_another_one_stays(tmp_path: Path) -> None:
    async with (
        ScriptedProvider() as provider,
        running(tmp_path, {"main": provider.settings()}) as rig,
    ):
        short = ask(rig, recipient_domain="gmx.test", until="3s")
        long = ask(rig, subject="INVOICE")
        plain = accepted("ann@gmx.test", at_ms=clock_ms())
        invoice = accepted("ann@gmx.test", at_ms=clock_ms(), subject="Your invoice 17")
        rig.accept(plain, invoice)
        await rig.wait_for(plain, D.FINISHED)
        entry = await rig.wait_for(invoice, D.HELD)
        assert entry.deliveries[0].hold is not None
        await rig.wait_until(
            lambda: [one.hold_id for one, _ in waiting_of(rig.store)] == [long["id"]]
        )
        assert ("hold.end", "relaygw") in actions(rig.store)
        await rig.wait_until(lambda: is_held_by(rig, invoice, long["id"]))
        assert short["id"] != long["id"]
        assert end(rig, long["id"]) == 1
        await rig.wait_for(invoice, D.FINISHED)
    assert len(provider.messages) == 2


@each_of("is_ended_before", [True, False], ids=["ended while nobody runs", "row is gone"])
async def test_no_mail_stays_behind_where_who_ended_a_hold_died(
    tmp_path: Path, is_ended_before: bool
) -> None:
    """The hold is ended, its mail was not let go: a worker finds it at its start."""
    async with (
        ScriptedProvider() as provider,
        running(tmp_path, {"main": provider.settings()}) as rig,
    ):
        done = ask(rig, recipient_domain="gmx.test", until="1d")
        await obeyed(rig, done["id"])
        (hold,) = rig.store.holds.standing()
        if not is_ended_before:
            orphan = accepted("ann@gmx.test", at_ms=clock_ms())
            rig.store.intake.accept_batch([orphan])
            await rig.wait_for(orphan, D.HELD)
        await rig.stop()
        entry = ended_entry(hold, "ann", clock_ms(), "")
        assert rig.store.holds.drop_hold(hold.scope.value, hold.value, entry=entry)
        assert rig.store.holds.held_causes()
    async with running(tmp_path, {"main": provider.settings()}, incarnation="w2") as again:
        await again.wait_until(lambda: not again.store.holds.held_causes())


async def test_mail_of_the_guard_that_is_released_is_held_by_the_hold(tmp_path: Path) -> None:
    """One mechanism: what one hold lets go another may keep."""
    async with (
        ScriptedProvider() as provider,
        running(tmp_path, {"main": provider.settings()}) as rig,
    ):
        done = ask(rig, sender_domain="shop.test")
        by_guard = HoldCause(HoldCode.GUARD, "0123456789abcdef much")
        mail = accepted("ann@gmx.test", at_ms=clock_ms(), holds=(by_guard,))
        rig.accept(mail)
        await rig.wait_for(mail, D.HELD)
        assert rig.store.holds.release_held(by_guard, limit=9).due == 1
        await rig.wait_until(lambda: is_held_by(rig, mail, done["id"]))
        assert not provider.messages
        assert end(rig, done["id"]) == 1
        await rig.wait_for(mail, D.FINISHED)


async def test_held_mail_spends_nothing_of_a_rate(tmp_path: Path) -> None:
    async with ScriptedProvider() as provider:
        settings = provider.settings(rate="1/s")
        async with running(tmp_path, {"main": settings}) as rig:
            done = ask(rig, recipient_domain="gmx.test")
            await obeyed(rig, done["id"])
            rig.accept(*(accepted("ann@gmx.test", at_ms=clock_ms()) for _ in range(300)))
            other = accepted("bob@web.test", at_ms=clock_ms())
            rig.accept(other)
            await rig.wait_for(other, D.FINISHED)
            await rig.wait_until(lambda: waiting_of(rig.store)[0][1] == 301)
            assert len(provider.messages) == 1


async def test_a_route_that_is_held_and_mail_that_is_moved_away(tmp_path: Path) -> None:
    async with (
        ScriptedProvider() as provider,
        running(tmp_path, {"main": provider.settings()}) as rig,
    ):
        done = ask(rig, route="default")
        mail = accepted(at_ms=clock_ms(), deliveries=(part_on("default", "ann@gmx.test"),))
        rig.accept(mail)
        await rig.wait_for(mail, D.HELD)
        order = Order(actor="ann", provider="main")
        change_queued(rig.store, MOVE, [mail.queue_id], order, now_ms=clock_ms())
        await rig.wait_for(mail, D.FINISHED)
        assert end(rig, done["id"]) == 0
