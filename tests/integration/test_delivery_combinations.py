"""Limits, holds and failover in odd combinations: each does its work beside the others."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from relaygw.mail.envelope import AcceptedMessage
from relaygw.mail.state import DeliveryState
from relaygw.settings.provider import Provider, TlsPolicy
from relaygw.settings.routes import Route, Stream
from relaygw.store.holds import Hold
from tests.builders import accepted
from tests.e2e.ports import free_port
from tests.fakes.limited_provider import LimitedProvider
from tests.fakes.scripted_provider import Action, ScriptedProvider
from tests.integration.delivery_rig import PATIENCE_S, Rig, running

BOTH = [Route(name="default", providers=("a", "b"))]
CROSSED = [
    Route(name="one", sender=("@one.test",), providers=("a", "b")),
    Route(name="default", providers=("b", "a")),
]
UNVERIFIED = b"554 Message rejected: Email address is not verified. a@shop.test\r\n"
CLOSED = (b"421 4.3.2 away\r\n", Action.DROP)
TOO_MANY = b"432 4.3.2 Concurrent connections limit exceeded. Visit https://aka.ms/x\r\n"


async def finished(rig: Rig, *messages: AcceptedMessage) -> list[str]:
    """Wait until all are delivered; return the provider of each.

    A hold that nobody ends is probed after minutes: that would be too late.
    """
    async with asyncio.timeout(PATIENCE_S):
        return [
            (await rig.wait_for(message, DeliveryState.FINISHED)).recipients[0].provider or ""
            for message in messages
        ]


def operators(provider: str) -> Hold:
    return Hold(
        scope="provider", key=provider, reason="op", remedy="", since_ms=0, probe_at_ms=None
    )


async def test_routes_with_the_same_providers_in_opposite_orders(tmp_path: Path) -> None:
    async with (
        ScriptedProvider() as a,
        ScriptedProvider() as b,
        running(tmp_path, {"a": a.settings(), "b": b.settings()}, routes=CROSSED) as rig,
    ):
        one = [accepted(route="one") for _ in range(30)]
        two = [accepted() for _ in range(30)]
        rig.accept(*one, *two)
        assert set(await finished(rig, *one)) == {"a"}
        assert set(await finished(rig, *two)) == {"b"}
        rig.store.holds.put_hold(operators("a"))
        await rig.wait_until(lambda: rig.worker.gates["a"].is_held)
        one = [accepted(route="one") for _ in range(30)]
        two = [accepted() for _ in range(30)]
        rig.accept(*one, *two)
        assert set(await finished(rig, *one, *two)) == {"b"}


async def test_two_dead_providers_in_opposite_orders_lose_nothing(tmp_path: Path) -> None:
    async with (
        ScriptedProvider() as a,
        ScriptedProvider() as b,
        running(tmp_path, {"a": a.settings(), "b": b.settings()}, routes=CROSSED) as rig,
    ):
        for provider in (a, b):
            provider.script("greeting", *[CLOSED] * 2)
        messages = [accepted(route=name) for name in ("one", "default") for _ in range(20)]
        rig.accept(*messages)
        await finished(rig, *messages)
        assert len(a.messages) + len(b.messages) == 40


async def test_parked_senders_are_tried_at_once_after_a_restart(tmp_path: Path) -> None:
    async with ScriptedProvider() as a:
        providers = {"a": a.settings(preset="ses", max_connections=1)}
        a.script("CONTENT", UNVERIFIED)
        messages = [accepted() for _ in range(30)]
        async with running(tmp_path, providers) as rig:
            rig.accept(*messages)
            for message in messages:
                await rig.wait_for(message, DeliveryState.HELD)
        async with running(tmp_path, providers) as rig:
            await finished(rig, *messages)
            assert rig.store.holds.in_force() == []
        assert len(a.messages) == 30


async def test_a_restart_with_a_probe_that_fails_parks_one_message_again(tmp_path: Path) -> None:
    async with ScriptedProvider() as a:
        providers = {"a": a.settings(preset="ses", max_connections=1)}
        a.script("CONTENT", *[UNVERIFIED] * 2)
        messages = [accepted() for _ in range(10)]
        async with running(tmp_path, providers) as rig:
            rig.accept(*messages)
            for message in messages:
                await rig.wait_for(message, DeliveryState.HELD)
        async with running(tmp_path, providers) as rig:
            await rig.wait_until(lambda: a.pending("CONTENT") == 0)
            for message in messages:
                await rig.wait_for(message, DeliveryState.HELD)
            other = accepted(sender="x@other.test")
            rig.accept(other)
            await finished(rig, other)
        assert len(a.messages) == 1


async def test_the_second_takes_over_while_the_quota_of_the_first_is_used_up(
    tmp_path: Path,
) -> None:
    async with (
        ScriptedProvider() as a,
        ScriptedProvider() as b,
        running(tmp_path, {"a": a.settings(daily_quota=3), "b": b.settings()}, routes=BOTH) as rig,
    ):
        messages = [accepted() for _ in range(30)]
        rig.accept(*messages)
        await finished(rig, *messages)
        assert (len(a.messages), len(b.messages)) == (3, 27)


@pytest.mark.parametrize("preset", ["microsoft365", "ses"])
async def test_one_connection_that_is_one_too_many_loses_nothing(
    tmp_path: Path, preset: str
) -> None:
    async with (
        ScriptedProvider() as a,
        running(tmp_path, {"a": a.settings(preset=preset, max_connections=1)}) as rig,
    ):
        first = accepted()
        rig.accept(first)
        await finished(rig, first)
        a.script("CONTENT", TOO_MANY)
        messages = [accepted() for _ in range(10)]
        rig.accept(*messages)
        await finished(rig, *messages)
        assert [rig.entry(message).recipients[0].attempts for message in messages] == [1] * 10
        assert rig.worker.gates["a"].max_connections() == 1


async def test_orders_go_before_promotions_at_a_provider_that_said_slower(tmp_path: Path) -> None:
    routes = [
        Route(name="promo", sender=("@p.test",), stream=Stream.PROMOTIONAL, providers=("p",)),
        Route(name="default", providers=("p",)),
    ]
    async with (
        LimitedProvider(rate_per_s=30, connections=8) as provider,
        running(
            tmp_path, {"p": provider.settings(preset="ses", rate="300/s")}, routes=routes
        ) as rig,
    ):
        rig.accept(*(accepted(f"p{n}@x.test", route="promo") for n in range(400)))
        await rig.wait_until(lambda: "asks to slow down" in rig.log.getvalue())
        orders = [accepted() for _ in range(10)]
        rig.accept(*orders)
        await finished(rig, *orders)
        taken = [message.recipients[0] for message in provider.messages]
        last = max(place for place, address in enumerate(taken) if address == "b@cust.test")
        assert last < 300, "the orders did not wait for the campaign"


async def test_chained_transactions_keep_rate_and_quota(tmp_path: Path) -> None:
    async with (
        LimitedProvider(rate_per_s=1000, connections=10) as provider,
        running(
            tmp_path,
            {"p": provider.settings(chain_transactions=True, rate="40/s", daily_quota=60)},
        ) as rig,
    ):
        began_s = time.monotonic()  # the first may be late, on a busy machine
        rig.accept(*(accepted(f"r{n}@x.test") for n in range(70)))
        (hold,) = await rig.wait_for_holds()
        assert "daily_quota of 60 is used up" in hold.reason
        await provider.wait_for_messages(60)
        assert rig.store.limits.quota_used("p") == 60
    assert provider.accepted_at_s[-1] - began_s >= 59 / 40 * 0.9
    assert len({message.recipients for message in provider.messages}) == 60


async def test_mail_in_doubt_goes_to_its_provider_although_the_sender_is_not_its_own_any_more(
    tmp_path: Path,
) -> None:
    async with ScriptedProvider() as a, ScriptedProvider() as b:
        a.script("CONTENT", Action.DROP)
        lost = accepted()
        async with running(
            tmp_path, {"a": a.settings(senders=["@shop.test"]), "b": b.settings()}, routes=BOTH
        ) as rig:
            rig.accept(lost)
            await rig.wait_for(lost, DeliveryState.DEFERRED)
        async with running(
            tmp_path, {"a": a.settings(senders=["@new.test"]), "b": b.settings()}, routes=BOTH
        ) as rig:
            with rig.store.database.write() as connection:
                connection.connection.exec_driver_sql("UPDATE delivery SET due_at_ms = 0")
            assert await finished(rig, lost) == ["a"]


async def test_a_rotated_key_is_found_as_fast_where_another_provider_is_down(
    tmp_path: Path,
) -> None:
    key = tmp_path / "key"
    key.write_text("old\n")
    key.chmod(0o600)
    dead = Provider(host="127.0.0.1", port=free_port(), tls=TlsPolicy.NONE)
    async with (
        ScriptedProvider(users={"u": "new"}, tls="starttls") as a,
        running(
            tmp_path,
            {"a": a.settings(username="u", password=f"file:{key}"), "b": dead},
            routes=BOTH,
        ) as rig,
    ):
        messages = [accepted() for _ in range(10)]
        rig.accept(*messages)
        await rig.wait_for_holds()
        await rig.wait_until(lambda: "provider b is down" in rig.log.getvalue())
        await rig.wait_until(
            lambda: all(
                rig.entry(message).deliveries[0].state is DeliveryState.DEFERRED
                for message in messages
            )
        )
        key.write_text("new\n")
        await finished(rig, *messages)


async def test_what_is_wrong_with_the_file_of_a_new_key_is_told_while_it_is(
    tmp_path: Path,
) -> None:
    key = tmp_path / "key"

    def write(word: str) -> None:
        key.touch(mode=0o600)
        key.write_text(f"{word}\n")

    write("old")
    async with ScriptedProvider(users={"u": "right"}, tls="starttls") as a:
        settings = a.settings(username="u", password=f"file:{key}")
        async with running(tmp_path, {"a": settings}) as rig:

            async def told(*words: str) -> None:
                def is_told() -> bool:
                    reasons = [hold.reason for hold in rig.store.holds.in_force()]
                    return len(reasons) == len(words) and all(map(str.__contains__, reasons, words))

                await rig.wait_until(is_told)

            message = accepted()
            rig.accept(message)
            await told("535")
            key.unlink()
            await told("535", "cannot be read (No such file or directory)")
            assert "provider a is down (file:" in rig.log.getvalue()
            key.mkdir()
            await told("535", "is not a regular file")
            key.rmdir()
            write("old")  # the refused one again: what was wrong with the file is over
            await told("535")
            write("right")
            await finished(rig, message)
            await told()
