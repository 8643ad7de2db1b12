"""The next provider of a route while the first is down, and holds that stop only some mail."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from relaygw.mail.outcome import Scope
from relaygw.mail.state import DeliveryState, RecipientState
from relaygw.settings.provider import Provider
from relaygw.settings.routes import Route
from relaygw.store.audit import AuditEntry
from relaygw.store.holds import Hold
from tests.builders import accepted
from tests.e2e.ports import free_port
from tests.fakes.scripted_provider import Action, ScriptedProvider, Wait
from tests.integration.delivery_rig import Rig, running

BOTH = [Route(name="default", providers=("a", "b"))]
UNVERIFIED = (
    b"554 Message rejected: Email address is not verified. The following identities failed the "
    b"check in region US-EAST-1: a@shop.test\r\n"
)


def dead() -> Provider:
    return Provider(host="127.0.0.1", port=free_port(), tls="none")


async def test_the_second_provider_takes_over_within_seconds(tmp_path: Path) -> None:
    async with (
        ScriptedProvider() as b,
        running(tmp_path, {"a": dead(), "b": b.settings()}, routes=BOTH) as rig,
    ):
        first = accepted()
        rig.accept(first)
        await rig.wait_until(lambda: "provider a is down" in rig.log.getvalue())
        later = [accepted() for _ in range(20)]
        rig.accept(*later)
        for message in (first, *later):
            entry = await rig.wait_for(message, DeliveryState.FINISHED)
            assert entry.recipients[0].provider == "b"
    assert "the next provider of its routes is used" in rig.log.getvalue()


async def test_probes_of_an_unreachable_provider_cost_no_mail_an_attempt(tmp_path: Path) -> None:
    async with running(tmp_path, {"a": dead()}) as rig:
        messages = [accepted() for _ in range(10)]
        rig.accept(*messages)
        await rig.wait_until(lambda: rig.worker.gates["a"].failures >= 3)
        attempts = [rig.entry(message).recipients[0].attempts for message in messages]
    assert sum(attempts) <= 5, "only what was on its way when it was found out"


async def test_the_first_provider_is_used_again_when_it_is_back(tmp_path: Path) -> None:
    async with (
        ScriptedProvider() as a,
        ScriptedProvider() as b,
        running(tmp_path, {"a": a.settings(), "b": b.settings()}, routes=BOTH) as rig,
    ):
        a.script("greeting", *[(b"421 4.3.2 away\r\n", Action.DROP)] * 3)
        rig.accept(accepted())
        await rig.wait_until(lambda: "provider a is down" in rig.log.getvalue())
        rig.accept(accepted())
        await b.wait_for_messages(1)
        await a.wait_until(lambda: a.pending("greeting") == 0)
        await rig.wait_until(lambda: rig.worker.gates["a"].is_reached)
        rig.accept(accepted())
        await a.wait_for_messages(1)
    assert "provider a is back" in rig.log.getvalue()


async def test_a_provider_that_comes_back_and_refuses_its_key_is_held_and_not_down(
    tmp_path: Path,
) -> None:
    """Somebody has to change the key: an outage beside it would hide that."""
    async with (
        ScriptedProvider(users={"u": "k"}, tls="starttls") as a,
        running(tmp_path, {"a": a.settings(username="u", password="plain:k")}) as rig,
    ):
        a.script("greeting", *[(b"421 4.3.2 away\r\n", Action.DROP)] * 3)
        a.script("AUTH", *[b"535 5.7.8 no\r\n"] * 9)
        rig.accept(accepted())
        await rig.wait_until(lambda: "provider a is down" in rig.log.getvalue())
        await rig.wait_until(lambda: rig.worker.gates["a"].is_held)
        scopes = [Scope.CREDENTIAL]
        await rig.wait_until(lambda: [hold.scope for hold in rig.store.holds.in_force()] == scopes)
    assert "provider a is back" not in rig.log.getvalue()


async def test_a_silent_provider_is_found_out_without_waiting_for_its_timeouts(
    tmp_path: Path,
) -> None:
    async with (
        ScriptedProvider() as a,
        ScriptedProvider() as b,
        running(tmp_path, {"a": a.settings(), "b": b.settings()}, routes=BOTH) as rig,
    ):
        go_on = asyncio.Event()
        a.script("greeting", *[(Wait(go_on), Action.DROP)] * 50)
        messages = [accepted() for _ in range(30)]
        rig.accept(*messages)
        await b.wait_for_messages(30 - 5)  # all but those in the hands of the first
        go_on.set()


async def test_mail_in_doubt_is_never_sent_by_another_provider(tmp_path: Path) -> None:
    async with (
        ScriptedProvider() as a,
        ScriptedProvider() as b,
        running(tmp_path, {"a": a.settings(), "b": b.settings()}, routes=BOTH) as rig,
    ):
        a.script("CONTENT", (Action.RECORD, Action.RESET))
        lost = accepted()
        rig.accept(lost)
        await rig.wait_for(lost, DeliveryState.DEFERRED)
        rig.store.holds.put_hold(
            Hold(
                scope="provider",
                key="a",
                reason="test",
                remedy="",
                since_ms=0,
                probe_at_ms=None,
            )
        )
        await rig.wait_until(lambda: rig.worker.gates["a"].is_held)
        make_due(rig, lost.queue_id)
        other = accepted()
        rig.accept(other)
        await rig.wait_for(other, DeliveryState.FINISHED)
        await rig.wait_until(lambda: rig.entry(lost).deliveries[0].reason == "waits for provider a")
    assert len(a.messages) == 1
    assert len(b.messages) == 1


def make_due(rig: Rig, queue_id: str) -> None:
    """Let a deferred message be due now, without an operator."""
    with rig.store.database.write() as connection:
        connection.connection.exec_driver_sql(
            "UPDATE delivery SET due_at_ms = 0 WHERE queue_id = ?", (queue_id,)
        )
    for lane in rig.worker.lanes:
        lane.may_have_more = True


async def test_only_senders_that_are_allowed_go_to_the_second_provider(tmp_path: Path) -> None:
    async with (
        ScriptedProvider() as b,
        running(
            tmp_path, {"a": dead(), "b": b.settings(senders=["@shop.test"])}, routes=BOTH
        ) as rig,
    ):
        allowed, other = accepted(sender="a@shop.test"), accepted(sender="a@other.test")
        rig.accept(allowed, other)
        await rig.wait_for(allowed, DeliveryState.FINISHED)
        await rig.wait_until(lambda: rig.worker.gates["a"].is_down(1e12))
    assert [message.sender for message in b.messages] == ["a@shop.test"]


async def test_a_sender_that_no_provider_may_send_as_is_held_and_said(tmp_path: Path) -> None:
    async with (
        ScriptedProvider() as a,
        running(tmp_path, {"a": a.settings(senders=["@shop.test"])}) as rig,
    ):
        message = accepted(sender="x@other.test")
        rig.accept(message)
        entry = await rig.wait_for(message, DeliveryState.HELD)
    reason = "no provider of route default may send as x@other.test"
    assert entry.deliveries[0].reason == reason
    assert f"held ({reason})" in rig.log.getvalue()
    assert a.messages == []


async def test_an_unverified_sender_stops_only_its_own_domain(tmp_path: Path) -> None:
    async with (
        ScriptedProvider() as a,
        running(tmp_path, {"a": a.settings(preset="ses", max_connections=1)}) as rig,
    ):
        a.script("CONTENT", UNVERIFIED)
        first = accepted(sender="a@shop.test")
        rig.accept(first)
        await rig.wait_for(first, DeliveryState.HELD)
        (hold,) = await rig.wait_for_holds()
        assert (hold.scope, hold.key) == ("sender domain", "a shop.test")
        second, other = accepted(sender="b@shop.test"), accepted(sender="a@other.test")
        rig.accept(second, other)
        await rig.wait_for(second, DeliveryState.HELD)
        await rig.wait_for(other, DeliveryState.FINISHED)
        rig.store.holds.put_hold(
            Hold(
                scope=hold.scope,
                key=hold.key,
                reason=hold.reason,
                remedy="",
                since_ms=0,
                probe_at_ms=1,
            )
        )
        await rig.wait_for(first, DeliveryState.FINISHED)
        entry = await rig.wait_for(second, DeliveryState.FINISHED)
        assert rig.store.holds.in_force() == []
        assert entry.recipients[0].state is RecipientState.DELIVERED
        await rig.wait_until(lambda: len(rig.store.limits.senders()) == 3)
        notes = {note.sender: note for note in rig.store.limits.senders()}
        assert notes["a@shop.test"].refused_at_ms is not None
        assert "not verified" in (notes["a@shop.test"].reply or "")
        assert notes["a@other.test"].refused_at_ms is None
    assert "refuses sender domain shop.test" in rig.log.getvalue()


async def test_a_held_sender_domain_goes_by_the_second_provider(tmp_path: Path) -> None:
    async with (
        ScriptedProvider() as a,
        ScriptedProvider() as b,
        running(tmp_path, {"a": a.settings(preset="ses"), "b": b.settings()}, routes=BOTH) as rig,
    ):
        a.script("CONTENT", UNVERIFIED)
        rig.accept(accepted(sender="a@shop.test"))
        await rig.wait_for_holds()
        later = accepted(sender="a@shop.test")
        rig.accept(later)
        entry = await rig.wait_for(later, DeliveryState.FINISHED)
    assert entry.recipients[0].provider == "b"


async def test_a_key_that_was_rotated_heals_by_itself(tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("old\n")
    key.chmod(0o600)
    async with (
        ScriptedProvider(users={"u": "old"}, tls="starttls") as a,
        running(tmp_path, {"a": a.settings(username="u", password=f"file:{key}")}) as rig,
    ):
        rig.accept(accepted())
        await a.wait_for_messages(1)
        a.users["u"] = "new"  # revoked at the provider
        a.script("MAIL", (b"421 4.7.0 bye\r\n", Action.DROP))
        messages = [accepted() for _ in range(20)]
        rig.accept(*messages)
        (hold,) = await rig.wait_for_holds()
        assert hold.scope == "credential"
        key.write_text("new\n")
        async with asyncio.timeout(25):  # looked at each 5 s
            await a.wait_for_messages(21)
        for message in messages:
            await rig.wait_for(message, DeliveryState.FINISHED)
        assert rig.store.holds.in_force() == []


async def test_what_an_operator_holds_only_an_operator_releases(tmp_path: Path) -> None:
    async with (
        ScriptedProvider() as a,
        running(tmp_path, {"a": a.settings()}) as rig,
    ):
        hold = Hold(
            scope="provider", key="a", reason="upgrade", remedy="", since_ms=0, probe_at_ms=None
        )
        rig.store.holds.put_hold(hold)
        await rig.wait_until(lambda: rig.worker.gates["a"].is_held)
        message = accepted()
        rig.accept(message)
        for lane in rig.worker.lanes:
            lane.may_have_more = True
        await rig.wait_until(lambda: rig.worker.gates["a"].is_held)
        assert a.connections == []
        rig.store.holds.drop_hold("provider", "a")
        assert rig.store.holds.in_force(), "a probe does not end it"
        released = AuditEntry(
            at_ms=1, actor="op", action="provider.release", target="a", affected=1, detail=""
        )
        rig.store.holds.drop_hold("provider", "a", entry=released)
        await rig.wait_for(message, DeliveryState.FINISHED)


@pytest.mark.parametrize("verb", ["MAIL", "CONTENT"])
async def test_a_provider_that_greets_but_closes_the_service_is_down_too(
    tmp_path: Path, verb: str
) -> None:
    async with (
        ScriptedProvider() as a,
        ScriptedProvider() as b,
        running(tmp_path, {"a": a.settings(), "b": b.settings()}, routes=BOTH) as rig,
    ):
        a.script(verb, *[(b"421 4.3.2 shutting down\r\n", Action.DROP)] * 50)
        messages = [accepted() for _ in range(10)]
        rig.accept(*messages)
        for message in messages:
            await rig.wait_for(message, DeliveryState.FINISHED)
    assert len(b.messages) + len(a.messages) == 10
    assert b.messages


async def test_an_outage_is_told_to_all_workers_and_ends_for_all(tmp_path: Path) -> None:
    async with (
        ScriptedProvider() as a,
        running(tmp_path, {"a": a.settings()}) as rig,
    ):
        a.script("greeting", *[(b"421 4.3.2 away\r\n", Action.DROP)] * 3)
        rig.accept(accepted())
        await rig.wait_until(lambda: len(rig.store.holds.in_force()) == 1)
        (outage,) = rig.store.holds.in_force()
        assert (outage.scope, outage.key) == ("unreachable", "a")
        assert "421 4.3.2 away" in outage.reason
        await rig.wait_until(lambda: rig.store.holds.in_force() == [])
        await a.wait_for_messages(1)
    assert rig.log.getvalue().count("provider a is down") == 1
    assert rig.log.getvalue().count("provider a is back") == 1


async def test_an_outage_is_told_with_its_present_reason(tmp_path: Path) -> None:
    async with (
        ScriptedProvider() as a,
        running(tmp_path, {"a": a.settings()}) as rig,
    ):
        a.script("greeting", *[(b"421 4.3.2 away\r\n", Action.DROP)] * 3)
        a.script("greeting", *[(b"421 4.3.2 moved\r\n", Action.DROP)] * 3)
        rig.accept(accepted())
        (outage,) = await rig.wait_for_holds()
        assert "away" in outage.reason

        def reasons() -> list[str]:
            return [hold.reason for hold in rig.store.holds.in_force()]

        await rig.wait_until(lambda: any("moved" in reason for reason in reasons()))
        await a.wait_for_messages(1)
    assert rig.log.getvalue().count("provider a is down") == 1


async def test_the_next_probe_of_an_outage_is_known_all_through_it(tmp_path: Path) -> None:
    async with running(tmp_path, {"a": dead()}) as rig:
        rig.accept(accepted())
        (begun,) = await rig.wait_for_holds()
        gate = rig.worker.gates["a"]
        gate.blocked_until_s = 0.0  # it is probed at once

        def probe_ms() -> int:
            (outage,) = rig.store.holds.in_force()
            assert (outage.since_ms, outage.reason) == (begun.since_ms, begun.reason)
            return outage.probe_at_ms or 0

        await rig.wait_until(lambda: probe_ms() != begun.probe_at_ms)
        until_probe_s = probe_ms() / 1000 - time.time()
        assert until_probe_s == pytest.approx(gate.blocked_until_s - time.monotonic(), abs=2)


async def test_what_another_worker_found_out_costs_one_connection_not_mail(
    tmp_path: Path,
) -> None:
    async with (
        ScriptedProvider() as a,
        running(tmp_path, {"a": a.settings()}) as rig,
    ):
        a.script("greeting", *[(b"421 4.3.2 away\r\n", Action.DROP)] * 2)
        rig.store.holds.put_hold(
            Hold(
                scope="unreachable",
                key="a",
                reason="no route",
                remedy="",
                since_ms=0,
                probe_at_ms=1,
            )
        )
        await rig.wait_until(lambda: rig.worker.gates["a"].is_down(1e12))
        message = accepted()
        rig.accept(message)
        await a.wait_for_messages(1)
        await rig.wait_for(message, DeliveryState.FINISHED)
        assert rig.entry(message).recipients[0].attempts == 1, "only the one that went through"
        assert rig.store.holds.in_force() == []


async def test_an_outage_that_somebody_ended_is_told_again_while_it_goes_on(tmp_path: Path) -> None:
    async with running(tmp_path, {"a": dead()}) as rig:
        mail = accepted()
        rig.accept(mail)
        (hold,) = await rig.wait_for_holds()
        assert "refused" in rig.worker.unreached()["a"].reason
        deed = AuditEntry(at_ms=1, actor="x", action="x", target="x", affected=1, detail="")
        await rig.wait_for(mail, DeliveryState.DEFERRED)
        states = frozenset({DeliveryState.DEFERRED})
        rig.store.queue.change_state(
            [mail.queue_id], from_states=states, to=DeliveryState.DELETED, entry=deed
        )
        await rig.wait_for_look()
        assert "a" in rig.worker.unreached(), "it is held, and probed"
        rig.store.holds.drop_hold(hold.scope, hold.key)
        await rig.wait_until(lambda: rig.store.holds.in_force() == [])
        (again,) = await rig.wait_for_holds()
        assert again.scope == hold.scope, "it goes on, and who ended it is told so"


async def test_a_release_makes_no_secret_of_a_provider_that_mail_waits_for(tmp_path: Path) -> None:
    async with running(tmp_path, {"a": dead()}) as rig:
        rig.accept(accepted())
        (hold,) = await rig.wait_for_holds()
        before = rig.worker.unreached()["a"].seconds
        rig.store.holds.drop_hold(hold.scope, hold.key)
        for _ in range(2):
            await rig.wait_for_look()
        assert rig.worker.unreached()["a"].seconds > before
