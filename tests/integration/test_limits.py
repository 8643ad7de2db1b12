"""Rates, quotas and what providers teach of their limits: nothing is lost, nothing bounces."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from relaygw.mail.state import DeliveryState
from relaygw.settings.routes import Route
from tests.builders import accepted
from tests.fakes.limited_provider import LimitedProvider
from tests.fakes.scripted_provider import ScriptedProvider, Wait
from tests.integration.delivery_rig import running


async def test_a_configured_rate_is_kept(tmp_path: Path) -> None:
    async with (
        LimitedProvider(rate_per_s=1000, connections=10) as provider,
        running(tmp_path, {"p": provider.settings(rate="20/s")}) as rig,
    ):
        began_s = time.monotonic()  # the first may be late, on a busy machine
        rig.accept(*(accepted() for _ in range(60)))
        await provider.wait_for_messages(60)
    assert provider.accepted_at_s[-1] - began_s >= 59 / 20 * 0.95


async def test_a_rate_of_recipients_counts_recipients(tmp_path: Path) -> None:
    async with (
        LimitedProvider(rate_per_s=1000, connections=10) as provider,
        running(tmp_path, {"p": provider.settings(rate="20/s", rate_counts="recipients")}) as rig,
    ):
        began_s = time.monotonic()
        rig.accept(*(accepted("a@x.test", "b@x.test", "c@x.test", "d@x.test") for _ in range(10)))
        await provider.wait_for_messages(10)
    assert provider.accepted_at_s[-1] - began_s >= 9 * 4 / 20 * 0.95


async def test_two_providers_on_one_account_share_its_rate(tmp_path: Path) -> None:
    async with (
        LimitedProvider(rate_per_s=1000, connections=10) as one,
        LimitedProvider(rate_per_s=1000, connections=10) as other,
        running(
            tmp_path,
            {
                "one": one.settings(rate="20/s", account="shared"),
                "other": other.settings(rate="20/s", account="shared"),
            },
            routes=[
                Route(name="r", sender=("a@other.test",), providers=("other",)),
                Route(name="default", providers=("one",)),
            ],
        ) as rig,
    ):
        began_s = time.monotonic()
        rig.accept(*(accepted() for _ in range(20)), *(accepted(route="r") for _ in range(20)))
        await one.wait_for_messages(20)
        await other.wait_for_messages(20)
    assert max(one.accepted_at_s + other.accepted_at_s) - began_s >= 39 / 20 * 0.95


async def test_an_unknown_rate_is_found_and_nothing_is_lost(tmp_path: Path) -> None:
    async with (
        LimitedProvider(rate_per_s=30, connections=4) as provider,
        running(
            tmp_path,
            {"p": provider.settings(preset="ses", rate="500/s", max_connections=12)},
        ) as rig,
    ):
        messages = [accepted() for _ in range(400)]
        rig.accept(*messages)
        await provider.wait_for_messages(400)
        for message in messages:
            entry = await rig.wait_for(message, DeliveryState.FINISHED)
            assert entry.recipients[0].attempts <= 1, "a throttle charges no attempt"
        (account,) = rig.store.limits.accounts().values()
        assert account.ceiling_connections is not None
        assert account.ceiling_connections <= 4
        assert account.ceiling_per_s is not None
    assert len(provider.messages) == 400
    late = [at_s for at_s in provider.refused_at_s if at_s > provider.accepted_at_s[0] + 5]
    assert len(late) <= 40, "once it is known there are few refusals; bench/alone counts them"
    assert "asks to slow down" in rig.log.getvalue()


async def test_a_quota_holds_the_provider_until_there_is_room(tmp_path: Path) -> None:
    async with (
        ScriptedProvider() as provider,
        running(tmp_path, {"p": provider.settings(daily_quota=5)}) as rig,
    ):
        rig.accept(*(accepted() for _ in range(8)))
        await provider.wait_for_messages(5)
        (hold,) = await rig.wait_for_holds()
        assert hold.key == "p"
        assert "daily_quota of 5 is used up" in hold.reason
        assert hold.probe_at_ms is not None
        assert hold.probe_at_ms < (time.time() + 601) * 1000, "others may give some back"
        assert rig.store.limits.quota_used("p") == 5
        assert len(provider.messages) == 5


async def test_what_was_taken_of_a_quota_and_not_used_is_given_back(tmp_path: Path) -> None:
    async with (
        ScriptedProvider() as provider,
        running(tmp_path, {"p": provider.settings(daily_quota=10_000)}) as rig,
    ):
        rig.accept(*(accepted() for _ in range(3)))
        await provider.wait_for_messages(3)
        await rig.wait_until(lambda: rig.store.limits.quota_used("p") == 3)


@pytest.mark.parametrize("counts", ["messages", "recipients"])
async def test_what_the_provider_refuses_uses_up_no_quota(tmp_path: Path, counts: str) -> None:
    async with ScriptedProvider() as provider:
        settings = provider.settings(daily_quota=4, quota_counts=counts)
        async with running(tmp_path, {"p": settings}) as rig:
            provider.recipients["full@cust.test"] = b"452 4.2.2 mailbox full\r\n"
            provider.recipients["gone@cust.test"] = b"550 5.1.1 no such user\r\n"
            refused = [accepted("gone@cust.test") for _ in range(5)]
            full = accepted("full@cust.test")
            rig.accept(full, *refused)
            for message in refused:
                await rig.wait_for(message, DeliveryState.FINISHED)
            await rig.wait_until(lambda: rig.entry(full).recipients[0].attempts >= 5)
            half = accepted("a@cust.test", "gone@cust.test")
            taken = [half, accepted("b@cust.test"), accepted("c@cust.test")]
            rig.accept(*taken)
            for message in taken:
                await rig.wait_for(message, DeliveryState.FINISHED)
            assert len(provider.messages) == 3
            assert not rig.store.holds.in_force()


async def test_mail_over_the_rest_of_a_quota_waits_for_what_is_under_way(tmp_path: Path) -> None:
    async with ScriptedProvider() as provider:
        settings = provider.settings(daily_quota=2, quota_counts="recipients")
        async with running(tmp_path, {"p": settings}) as rig:
            answers = asyncio.Event()
            provider.script("RCPT", (Wait(answers), b"550 5.1.1 no such user\r\n"))
            slow, two = accepted("slow@cust.test"), accepted("a@cust.test", "b@cust.test")
            rig.accept(slow)
            await rig.wait_until(lambda: rig.store.limits.quota_used("p") == 1)
            rig.accept(two)
            await rig.wait_until(lambda: rig.store.limits.quota_used("p") == 2)
            answers.set()
            await rig.wait_for(slow, DeliveryState.FINISHED)
            await rig.wait_for(two, DeliveryState.FINISHED)
            assert len(provider.messages) == 1


async def test_a_quota_survives_a_restart(tmp_path: Path) -> None:
    async with ScriptedProvider() as provider:
        for expected in (3, 4):
            async with running(tmp_path, {"p": provider.settings(daily_quota=4)}) as rig:
                rig.accept(*(accepted() for _ in range(3)))
                await provider.wait_for_messages(expected)
        assert len(provider.messages) == 4
