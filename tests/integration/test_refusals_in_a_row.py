"""A provider that refuses everybody with the same words is held, whatever the words are."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

from relaygw.mail.envelope import AcceptedMessage
from relaygw.mail.state import RecipientState as R
from tests.builders import NOW_MS, accepted
from tests.fakes.scripted_provider import ScriptedProvider
from tests.integration.delivery_rig import Rig, running

IN_A_ROW = 20


def refuse_all(provider: ScriptedProvider, mail: list[AcceptedMessage]) -> None:
    """Refuse each recipient as a server does whose table of users is gone."""
    for number, message in enumerate(mail):
        (one,) = message.deliveries[0].recipients
        name = one.address.partition("@")[0]
        said = f"550 5.1.1 <{one.address}>: User unknown: {name} ({number}a7)\r\n"
        provider.recipients[one.address] = said.encode()


def messages(count: int) -> list[AcceptedMessage]:
    return [
        accepted(f"cust{number}@x{number}.test", at_ms=NOW_MS + number) for number in range(count)
    ]


def states(rig: Rig, mail: list[AcceptedMessage]) -> Counter[R]:
    return Counter(one.state for message in mail for one in rig.entry(message).recipients)


def answered(rig: Rig, mail: list[AcceptedMessage]) -> int:
    return sum(bool(one.reply) for message in mail for one in rig.entry(message).recipients)


def probe_now(rig: Rig) -> None:
    (hold,) = rig.store.holds.in_force()
    rig.store.holds.put_hold(replace(hold, probe_at_ms=time.time_ns() // 1_000_000))


async def test_a_provider_that_refuses_twenty_in_a_row_alike_is_held(tmp_path: Path) -> None:
    mail = messages(40)
    async with ScriptedProvider() as provider:
        refuse_all(provider, mail)
        settings = {"main": provider.settings(max_connections=1)}
        async with running(tmp_path, settings) as rig:
            rig.accept(*mail)
            rig.worker.wake()
            await rig.wait_until(lambda: answered(rig, mail) >= IN_A_ROW)
            (hold,) = await rig.wait_for_holds()
            assert (hold.scope, hold.key) == ("provider", "main")
            assert "in a row" in hold.reason and "User unknown" in hold.reason
            assert "relaygw provider release main" in hold.remedy
            bounced = {R.BOUNCED: IN_A_ROW - 1, R.PENDING: len(mail) - IN_A_ROW + 1}
            assert states(rig, mail) == bounced
            # a probe that is refused as well bounces nobody
            probe_now(rig)
            await rig.wait_until(lambda: answered(rig, mail) > IN_A_ROW)
            assert states(rig, mail) == bounced
        # neither does a restart
        async with running(tmp_path, settings) as rig:
            await rig.wait_until(lambda: answered(rig, mail) > IN_A_ROW + 1)
            assert states(rig, mail) == bounced
            # the provider is well again: what was kept goes out, but for what probed a moment ago
            provider.recipients.clear()
            probe_now(rig)
            await rig.wait_until(lambda: not rig.store.holds.in_force())
            await rig.wait_until(lambda: states(rig, mail)[R.DELIVERED] >= len(mail) - IN_A_ROW - 2)


async def test_one_that_is_taken_lets_the_next_ones_bounce(tmp_path: Path) -> None:
    mail = messages(45)
    async with ScriptedProvider() as provider:
        refuse_all(provider, mail)
        for taken in mail[4::8]:  # close together: mail is claimed in parts, not quite in order
            del provider.recipients[taken.deliveries[0].recipients[0].address]
        settings = {"main": provider.settings(max_connections=1)}
        async with running(tmp_path, settings) as rig:
            rig.accept(*mail)
            rig.worker.wake()
            await rig.wait_until(lambda: answered(rig, mail) == len(mail))
            assert states(rig, mail) == {R.BOUNCED: 39, R.DELIVERED: 6}
            assert rig.store.holds.in_force() == []
