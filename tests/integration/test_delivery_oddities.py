"""Odd combinations of providers, accounts, holds and silence: mail finds its way."""

from __future__ import annotations

import asyncio
import threading
import time
from pathlib import Path

import pytest

from relaygw.errors import StoreUnavailable
from relaygw.mail.envelope import AcceptedMessage
from relaygw.mail.hold import HoldCause, sender_refused
from relaygw.mail.state import DeliveryState, RecipientState
from relaygw.settings.routes import Route, Stream
from relaygw.store.audit import AuditEntry
from relaygw.store.holds import Hold, HoldsInForce
from relaygw.store.rules import NO_RULES, StoreRules
from tests.altered_store import AlteredStore
from tests.builders import NOW_MS, accepted
from tests.fakes.scripted_provider import Action, ScriptedProvider, Wait
from tests.integration.delivery_rig import PATIENCE_S, Rig, running

BOTH = [Route(name="default", providers=("a", "b"))]
UNVERIFIED = b"554 Message rejected: Email address is not verified. a@shop.test\r\n"
FULL = b"554 5.2.0 STOREDRV.Submission.Exception:SubmissionQuotaExceededException\r\n"


async def finished(rig: Rig, *messages: AcceptedMessage, limit_s: float = 25.0) -> None:
    async with asyncio.timeout(limit_s):
        for message in messages:
            await rig.wait_for(message, DeliveryState.FINISHED)


async def test_mail_whose_sender_the_first_provider_refuses_goes_by_the_second(
    tmp_path: Path,
) -> None:
    async with (
        ScriptedProvider() as a,
        ScriptedProvider() as b,
        running(tmp_path, {"a": a.settings(preset="ses"), "b": b.settings()}, routes=BOTH) as rig,
    ):
        a.script("CONTENT", UNVERIFIED)
        message = accepted(sender="a@shop.test")
        rig.accept(message)
        await rig.wait_for_holds()
        await finished(rig, message)
        assert rig.entry(message).recipients[0].provider == "b"


async def test_a_message_larger_than_the_daily_quota_stops_nobody_else(tmp_path: Path) -> None:
    async with (
        ScriptedProvider() as a,
        running(tmp_path, {"a": a.settings(daily_quota=5, quota_counts="recipients")}) as rig,
    ):
        large = accepted(*(f"r{n}@x.test" for n in range(8)), at_ms=NOW_MS)
        small = accepted("s@x.test", at_ms=NOW_MS + 1)
        rig.accept(large, small)
        await finished(rig, small)
        entry = await rig.wait_for(large, DeliveryState.HELD)
        assert (
            entry.deliveries[0].reason == "no daily_quota of route default covers its 8 recipients"
        )


async def test_a_message_that_the_rest_of_the_quota_does_not_cover_stops_nobody_else(
    tmp_path: Path,
) -> None:
    async with (
        ScriptedProvider() as a,
        running(tmp_path, {"a": a.settings(daily_quota=6, quota_counts="recipients")}) as rig,
    ):
        first = accepted(*(f"r{n}@x.test" for n in range(4)), at_ms=NOW_MS)
        rig.accept(first)
        await finished(rig, first)
        large = accepted(*(f"r{n}@x.test" for n in range(4)), at_ms=NOW_MS)
        small = accepted("s@x.test", at_ms=NOW_MS + 1)
        rig.accept(large, small)
        await finished(rig, small)


async def test_promotions_leave_an_account_s_connections_to_orders(tmp_path: Path) -> None:
    async with (
        ScriptedProvider() as orders,
        ScriptedProvider() as promo,
        running(
            tmp_path,
            {
                "orders": orders.settings(account="shop", max_connections=2),
                "promo": promo.settings(account="shop", max_connections=2),
            },
            routes=[
                Route(
                    name="promo",
                    stream=Stream.PROMOTIONAL,
                    sender=("@p.test",),
                    providers=("promo",),
                ),
                Route(name="default", providers=("orders",)),
            ],
        ) as rig,
    ):
        gates = [asyncio.Event() for _ in range(400)]
        promo.script("CONTENT", *[(Wait(gate), Action.DEFAULT) for gate in gates])
        rig.accept(*(accepted(route="promo") for _ in range(400)))
        await promo.wait_until(lambda: len(promo.connections) == 2)
        order = accepted()
        rig.accept(order)

        async def campaign() -> None:
            for gate in gates:
                gate.set()
                await asyncio.sleep(0.02)

        task = asyncio.create_task(campaign())
        try:
            await finished(rig, order, limit_s=25)
            assert len(promo.messages) < 300, "the order waited for the campaign"
        finally:
            for gate in gates:
                gate.set()
            await task


async def test_mail_for_a_slow_provider_does_not_keep_that_of_another_in_the_route(
    tmp_path: Path,
) -> None:
    slow = asyncio.Event()
    async with (
        ScriptedProvider() as a,
        ScriptedProvider() as b,
        running(
            tmp_path,
            {"a": a.settings(senders=["@shop.test"]), "b": b.settings(senders=["@other.test"])},
            routes=BOTH,
        ) as rig,
    ):
        a.script("CONTENT", *[(Wait(slow), Action.DEFAULT)] * 5)
        rig.accept(*(accepted(sender="a@shop.test", at_ms=NOW_MS) for _ in range(300)))
        await a.wait_until(lambda: len(a.connections) == 5)
        other = accepted(sender="a@other.test", at_ms=NOW_MS + 1)
        rig.accept(other)
        try:
            await finished(rig, other)
        finally:
            slow.set()


async def test_several_connections_that_are_refused_are_one_step_of_the_ladder(
    tmp_path: Path,
) -> None:
    refusal = b"451 Authentication failed: Maximum credits exceeded\r\n"
    async with (
        ScriptedProvider(users={"u": "k"}, tls="starttls") as a,
        running(
            tmp_path, {"a": a.settings(preset="sendgrid", username="u", password="plain:k")}
        ) as rig,
    ):
        together = asyncio.Event()
        a.script("AUTH", *[(Wait(together), refusal)] * 5)
        messages = [accepted() for _ in range(5)]
        rig.accept(*messages)
        await a.wait_until(lambda: a.pending("AUTH") == 0)
        together.set()
        for message in messages:
            await rig.wait_for(message, DeliveryState.DEFERRED)
        (hold,) = rig.store.holds.in_force()
        assert hold.probe_at_ms is not None
        assert hold.probe_at_ms <= (time.time() + 600) * 1000


async def test_a_probe_does_not_end_what_an_operator_holds_meanwhile(tmp_path: Path) -> None:
    go_on = asyncio.Event()
    async with (
        ScriptedProvider(users={"u": "k"}, tls="starttls") as a,
        running(tmp_path, {"a": a.settings(username="u", password="plain:k")}) as rig,
    ):
        a.script("AUTH", b"535 5.7.8 no\r\n", (Wait(go_on), b"235 2.7.0 ok\r\n"))
        message = accepted()
        rig.accept(message)
        (hold,) = await rig.wait_for_holds()
        rig.store.holds.put_hold(
            Hold(scope=hold.scope, key="a", reason="x", remedy="", since_ms=0, probe_at_ms=1)
        )
        await a.wait_until(lambda: a.pending("AUTH") == 0)  # the probe is on its way
        rig.store.holds.put_hold(
            Hold(scope="provider", key="a", reason="op", remedy="", since_ms=0, probe_at_ms=None)
        )
        gate = rig.worker.gates["a"]
        await rig.wait_until(lambda: gate.is_held and gate.probe_at_s is None)
        go_on.set()
        await rig.wait_until(lambda: not gate.is_probing)
        assert gate.is_held


async def test_a_small_second_provider_does_not_bounce_what_the_first_would_take(
    tmp_path: Path,
) -> None:
    async with (
        ScriptedProvider() as a,
        ScriptedProvider() as b,
        running(
            tmp_path, {"a": a.settings(), "b": b.settings(max_message_size=1000)}, routes=BOTH
        ) as rig,
    ):
        rig.store.holds.put_hold(
            Hold(scope="provider", key="a", reason="op", remedy="", since_ms=0, probe_at_ms=None)
        )
        await rig.wait_until(lambda: rig.worker.gates["a"].is_held)
        small, large = accepted(), accepted(content=b"Subject: x\r\n\r\n" + b"x" * 70 * 50)
        rig.accept(small, large)
        await finished(rig, small)
        await rig.wait_until(
            lambda: rig.entry(large).deliveries[0].state is not DeliveryState.INCOMING
        )
        assert rig.entry(large).recipients[0].state is not RecipientState.BOUNCED


async def test_a_large_second_provider_takes_what_is_too_large_for_the_first(
    tmp_path: Path,
) -> None:
    async with (
        ScriptedProvider() as a,
        ScriptedProvider() as b,
        running(
            tmp_path, {"a": a.settings(max_message_size=1000), "b": b.settings()}, routes=BOTH
        ) as rig,
    ):
        large = accepted(content=b"Subject: x\r\n\r\n" + b"x" * 70 * 50)
        rig.accept(large)
        await finished(rig, large)
        assert rig.entry(large).recipients[0].state is RecipientState.DELIVERED


async def test_parked_mail_of_a_provider_that_left_the_route_is_sent_after_a_reload(
    tmp_path: Path,
) -> None:
    async with ScriptedProvider() as a, ScriptedProvider() as b:
        providers = {"a": a.settings(preset="ses"), "b": b.settings()}
        a.script("CONTENT", UNVERIFIED)
        message = accepted(sender="a@shop.test")
        async with running(tmp_path, providers) as rig:
            rig.accept(message)
            await rig.wait_for(message, DeliveryState.HELD)
        only_b = [Route(name="default", providers=("b",))]
        async with running(tmp_path, providers, routes=only_b) as rig:
            await finished(rig, message)


async def test_a_provider_that_hangs_at_mail_is_taken_over_from(tmp_path: Path) -> None:
    timeouts = {"command": "500ms"}
    async with (
        ScriptedProvider() as a,
        ScriptedProvider() as b,
        running(
            tmp_path, {"a": a.settings(timeouts=timeouts), "b": b.settings()}, routes=BOTH
        ) as rig,
    ):
        a.script("MAIL", *[Action.HANG] * 500)
        messages = [accepted() for _ in range(20)]
        rig.accept(*messages)
        await finished(rig, *messages, limit_s=25)


async def test_a_sender_that_both_refuse_goes_by_the_one_that_takes_it_first(
    tmp_path: Path,
) -> None:
    async with (
        ScriptedProvider() as a,
        ScriptedProvider() as b,
        running(
            tmp_path,
            {"a": a.settings(preset="ses"), "b": b.settings(preset="ses")},
            routes=BOTH,
        ) as rig,
    ):
        a.script("CONTENT", *[UNVERIFIED] * 20)
        b.script("CONTENT", UNVERIFIED)
        first, second, third = (accepted(at_ms=NOW_MS + n) for n in range(3))
        rig.accept(first)
        await rig.wait_until(lambda: len(rig.store.holds.in_force()) == 2)
        rig.accept(second, third)
        await rig.wait_for(third, DeliveryState.HELD)
        released = AuditEntry(
            at_ms=1, actor="op", action="provider.release", target="b", affected=1, detail=""
        )
        rig.store.holds.drop_hold("sender domain", "b shop.test", entry=released)
        await finished(rig, first, second, third)
        assert len(b.messages) == 3


async def test_idle_connections_of_a_provider_leave_its_account_to_another(
    tmp_path: Path,
) -> None:
    async with (
        ScriptedProvider() as one,
        ScriptedProvider() as other,
        running(
            tmp_path,
            {
                "one": one.settings(account="shop", max_connections=2, idle_close="1h"),
                "other": other.settings(account="shop", max_connections=2),
            },
            routes=[
                Route(name="one", sender=("@one.test",), providers=("one",)),
                Route(name="default", providers=("other",)),
            ],
        ) as rig,
    ):
        rig.accept(*(accepted(route="one") for _ in range(20)))
        await one.wait_for_messages(20)
        # one more may be made: the other provider asks for a permit as soon as there is mail
        assert len(one.connections) >= 2, "all of the account, and open for `idle_close`"
        message = accepted()
        rig.accept(message)
        await finished(rig, message, limit_s=PATIENCE_S)


async def test_a_refused_ehlo_is_what_is_said_where_helo_could_not_help(tmp_path: Path) -> None:
    async with (
        ScriptedProvider(tls="starttls") as a,
        running(tmp_path, {"a": a.settings(preset="brevo")}) as rig,
    ):
        a.script("EHLO", *[b"501 5.5.4 Invalid domain name\r\n"] * 20)
        message = accepted()
        rig.accept(message)
        await rig.wait_for(message, DeliveryState.DEFERRED)
        (hold,) = await asyncio.wait_for(rig.wait_for_holds(), 5)
        assert "Invalid domain name" in hold.reason


@pytest.mark.parametrize("verb", ["EHLO", "STARTTLS", "AUTH"])
async def test_a_silent_provider_s_stage_and_time_are_said(tmp_path: Path, verb: str) -> None:
    timeouts = {"command": "2s"}
    async with (
        ScriptedProvider(tls="starttls", users={"u": "k"}) as a,
        running(
            tmp_path,
            {"a": a.settings(username="u", password="plain:k", timeouts=timeouts)},
        ) as rig,
    ):
        a.script(verb, Action.HANG)
        message = accepted()
        rig.accept(message)
        await finished(rig, message)  # it was put off for half a second, hard to see
    (line,) = [line for line in rig.log.getvalue().splitlines() if "status=deferred" in line]
    assert "TimeoutError" not in line
    assert verb in line
    assert "2 s" in line


async def test_a_hold_does_not_end_by_a_probe_that_was_refused(tmp_path: Path) -> None:
    async with (
        ScriptedProvider() as a,
        running(tmp_path, {"a": a.settings(preset="microsoft365", max_connections=1)}) as rig,
    ):
        a.recipients["bad@x.test"] = b"550 5.1.1 no such user\r\n"
        a.script("CONTENT", *[FULL] * 20)
        rig.accept(accepted())
        (hold,) = await rig.wait_for_holds()
        bad = accepted("bad@x.test", at_ms=NOW_MS - 1)
        rig.accept(bad)
        rig.store.holds.put_hold(
            Hold(scope=hold.scope, key="a", reason="x", remedy="", since_ms=0, probe_at_ms=1)
        )
        await finished(rig, bad)
    assert "its hold has ended" not in rig.log.getvalue()


async def test_a_provider_that_always_drops_after_the_dot_is_given_no_more(
    tmp_path: Path,
) -> None:
    async with (
        ScriptedProvider() as a,
        running(tmp_path, {"a": a.settings(max_connections=2)}) as rig,
    ):
        a.script("CONTENT", *[Action.DROP] * 200)
        messages = [accepted() for _ in range(100)]
        rig.accept(*messages)
        gate = rig.worker.gates["a"]

        def doubts() -> int:
            return rig.log.getvalue().count("may be sent more than once")

        await rig.wait_until(lambda: doubts() == 100 or not gate.is_open(time.monotonic()))
        assert doubts() < 50


class LateStore(AlteredStore):
    """What its second look at the holds found is handed over once a hold was put since."""

    def __init__(self, url: str, *, rules: StoreRules = NO_RULES) -> None:
        super().__init__(url, rules=rules)
        self.is_put = threading.Event()
        self.begun = self.ended = 0

    def all_in_force(self) -> HoldsInForce:
        found = super().all_in_force()
        self.begun += 1
        if self.begun == 2:
            self.is_put.wait()
        self.ended += 1
        return found

    def put_hold(self, hold: Hold, *, entry: AuditEntry | None = None) -> bool:
        is_new = super().put_hold(hold, entry=entry)
        self.is_put.set()
        return is_new


async def test_a_hold_is_not_undone_by_a_look_that_began_before_it(tmp_path: Path) -> None:
    async with (
        ScriptedProvider() as a,
        running(tmp_path, {"a": a.settings(preset="microsoft365")}, store_class=LateStore) as rig,
    ):
        store = rig.store
        assert isinstance(store, LateStore)
        a.script("CONTENT", FULL)
        first, second = accepted(at_ms=NOW_MS), accepted(at_ms=NOW_MS + 1)
        await rig.wait_until(lambda: store.begun == 2)
        rig.accept(first)
        rig.worker.wake()
        await rig.wait_until(lambda: store.ended == 2)
        rig.accept(second)
        rig.worker.wake()
        await rig.wait_until(lambda: store.ended == 4)
        assert a.messages == []


class DeafStore(AlteredStore):
    """Cannot say what is held, nor end a hold, once it is `deaf`."""

    deaf = False

    def __init__(self, url: str, *, rules: StoreRules = NO_RULES) -> None:
        super().__init__(url, rules=rules)
        self.in_vain = threading.Semaphore(0)  # questions while it was deaf

    def held_causes(self) -> list[HoldCause]:
        if self.deaf:
            self.in_vain.release()
            raise StoreUnavailable("gone for a moment")
        return super().held_causes()


async def refused(rig: Rig, provider: ScriptedProvider) -> tuple[DeafStore, AcceptedMessage, Hold]:
    """Send mail of a sender that the provider refuses; return it once it is held."""
    store = rig.store
    assert isinstance(store, DeafStore)
    message = accepted(sender="a@shop.test", at_ms=NOW_MS)
    provider.script("CONTENT", UNVERIFIED)
    rig.accept(message)
    (hold,) = await rig.wait_for_holds()
    await rig.wait_for(message, DeliveryState.HELD)
    return store, message, hold


async def test_mail_of_a_hold_that_ended_while_the_store_was_away_is_released_later(
    tmp_path: Path,
) -> None:
    async with (
        ScriptedProvider() as a,
        running(tmp_path, {"a": a.settings(preset="ses")}, store_class=DeafStore) as rig,
    ):
        store, message, hold = await refused(rig, a)
        store.deaf = True
        assert store.holds.drop_hold(hold.scope, hold.key)
        for _ in range(2):  # it tries again
            assert await asyncio.to_thread(store.in_vain.acquire, timeout=PATIENCE_S)
        store.deaf = False
        await rig.wait_for(message, DeliveryState.FINISHED)


async def test_what_was_taken_is_delivered_though_what_it_teaches_cannot_be_stored(
    tmp_path: Path,
) -> None:
    async with (
        ScriptedProvider() as a,
        running(tmp_path, {"a": a.settings(preset="ses")}, store_class=DeafStore) as rig,
    ):
        store, first, hold = await refused(rig, a)
        store.deaf = True
        probing = sender_refused("shop.test", ["a"])  # as when the hold is due to be probed
        assert store.holds.release_held(probing, limit=1, probing=probing).due == 1
        rig.worker.wake()
        entry = await rig.wait_for(first, DeliveryState.FINISHED)
        assert entry.recipients[0].state is RecipientState.DELIVERED
        assert hold.key == "a shop.test"
        assert len(a.messages) == 1
