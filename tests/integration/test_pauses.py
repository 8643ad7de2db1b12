"""A provider that takes nothing for its pace or its connections: a pause, which all see."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from relaygw.delivery import gate as gate_module
from relaygw.delivery import holds as holds_module
from relaygw.mail.clock import clock_ms
from relaygw.mail.state import DeliveryState
from relaygw.operations.provider_holds import RELEASE
from relaygw.operations.queue_actions import RETRY, Order, change_queued
from relaygw.operations.story import tell_story
from relaygw.operations.verb import Asked
from relaygw.settings.routes import Route
from relaygw.store.holds import PAUSED
from tests.builders import accepted
from tests.fakes.limited_provider import TOO_FAST, TOO_MANY
from tests.fakes.scripted_provider import Action, Script, ScriptedProvider
from tests.integration.delivery_rig import Rig, running

BOTH = [Route(name="default", providers=("a", "b"))]
ACTIVE, FINISHED, LONG_S = DeliveryState.ACTIVE, DeliveryState.FINISHED, 600.0
UNVERIFIED = (
    b"554 Message rejected: Email address is not verified. The following identities failed the "
    b"check in region EU-CENTRAL-1: Brand <news@brand.test>\r\n"
)


class Throttling(ScriptedProvider):
    """Takes nothing while `is_full`: it says so after the content, or at each connection."""

    is_full = True
    is_crowded = False
    refused = 0

    async def next_action(self, verb: str) -> Script:
        """Refuse; see ScriptedProvider."""
        if self.is_full and verb == ("greeting" if self.is_crowded else "CONTENT"):
            self.refused += 1
            return (TOO_MANY, Action.DROP) if self.is_crowded else TOO_FAST
        return await super().next_action(verb)


@pytest.fixture
def set_waits(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Let the ladder be another one: its last step is a pause."""

    def set_(*ladder_s: float) -> None:
        monkeypatch.setattr(gate_module, "THROTTLE_LADDER_S", ladder_s)
        monkeypatch.setattr("relaygw.delivery.learning.PAUSE_FROM_S", ladder_s[-1])
        for module in (gate_module, holds_module):
            monkeypatch.setattr(module, "PAUSE_LONGEST_S", ladder_s[-1])

    return set_


def release(rig: Rig, _: str) -> None:
    asked = Asked(store=rig.store, settings=rig.settings, actor="ann", now_ms=clock_ms())
    assert RELEASE.carry_out({"name": "a"}, asked).answer["ended"]


def retry(rig: Rig, queue_id: str) -> None:
    order = Order(actor="ann", pauses_of=rig.settings)
    result = change_queued(rig.store, RETRY, [queue_id], order, now_ms=clock_ms())
    assert result.changed == (queue_id,)


@pytest.mark.parametrize("end", [release, retry])
@pytest.mark.parametrize(
    ("is_crowded", "told"),
    [(False, "454 Throttling failure: Max"), (True, "421 Too many concurrent SMTP conn")],
)
async def test_a_pause_is_seen_and_ended_by_hand(
    tmp_path: Path,
    set_waits: Callable[..., None],
    end: Callable[[Rig, str], None],
    is_crowded: bool,
    told: str,
) -> None:
    set_waits(0.1, LONG_S)
    async with Throttling() as a, running(tmp_path, {"a": a.settings()}) as rig:
        a.is_crowded = is_crowded
        mail = [accepted() for _ in range(3)]
        rig.accept(*mail)
        (hold,) = await rig.wait_for_holds()
        assert (hold.scope, hold.key, hold.reason.startswith(told)) == (PAUSED, "a", True)
        await rig.wait_until(
            lambda: all(rig.entry(one).deliveries[0].state is not ACTIVE for one in mail)
        )
        for one in mail:
            story = tell_story(rig.store, rig.settings, one.queue_id, now_ms=clock_ms())
            assert story is not None
            assert story.headline.startswith(f"a is paused ({told}")
            assert "next try" in story.headline
            assert [step.command for step in story.advice] == ["relaygw provider release a"]
        a.is_full = False
        end(rig, mail[0].queue_id)
        assert rig.store.holds.in_force() == []
        for one in mail:
            # what was refused before the pause, and is not retried, keeps its time
            if end is release or one is mail[0]:
                await rig.wait_for(one, FINISHED)
    assert "provider a is paused: " in rig.log.getvalue()


async def test_one_message_at_a_time_finds_out_that_a_pause_is_over(
    tmp_path: Path, set_waits: Callable[..., None]
) -> None:
    set_waits(0.05, 0.2, 0.5)
    async with Throttling() as a, running(tmp_path, {"a": a.settings()}) as rig:
        mail = [accepted() for _ in range(20)]
        rig.accept(*mail)
        await rig.wait_for_holds()
        refused = a.refused
        await rig.wait_until(lambda: a.refused >= refused + 2)
        a.is_full = False
        for one in mail:
            await rig.wait_for(one, FINISHED)
        assert rig.store.holds.in_force() == []
        attempts = [rig.entry(one).recipients[0].attempts for one in mail]
    assert set(attempts) == {1}, "a throttle charges no attempt"
    assert "provider a works again" in rig.log.getvalue()


async def test_the_next_provider_takes_over_from_one_that_is_paused(
    tmp_path: Path, set_waits: Callable[..., None]
) -> None:
    set_waits(0.05, LONG_S)
    async with (
        Throttling() as a,
        ScriptedProvider() as b,
        running(tmp_path, {"a": a.settings(), "b": b.settings()}, routes=BOTH) as rig,
    ):
        mail = [accepted() for _ in range(10)]
        rig.accept(*mail)
        for one in mail:
            entry = await rig.wait_for(one, FINISHED)
            assert entry.recipients[0].provider == "b"
        assert [hold.scope for hold in rig.store.holds.in_force()] == [PAUSED]


async def test_all_workers_share_a_pause_and_its_end(
    tmp_path: Path, set_waits: Callable[..., None]
) -> None:
    set_waits(0.05, LONG_S)
    async with Throttling() as a, AsyncExitStack() as workers:
        one, other = [
            await workers.enter_async_context(
                running(tmp_path, {"a": a.settings()}, incarnation=name)
            )
            for name in ("w", "v")
        ]
        gates = [rig.worker.gates["a"] for rig in (one, other)]
        one.accept(accepted())
        await one.wait_for_holds()
        await one.wait_until(lambda: all(gate.is_paused for gate in gates))
        refused = a.refused
        mail = [accepted() for _ in range(10)]
        one.accept(*mail)
        for rig in (one, other):
            await rig.wait_for_look()
        assert a.refused == refused
        a.is_full = False
        release(other, "")
        for message in mail:
            await one.wait_for(message, FINISHED)
        await one.wait_until(lambda: not any(gate.is_paused for gate in gates))


async def test_a_refused_author_is_held_shown_and_released(tmp_path: Path) -> None:
    content = b"From: Brand <news@brand.test>\r\nSubject: x\r\n\r\nhello\r\n"
    ses = {"preset": "ses", "region": "eu-central-1", "username": "u", "password": "plain:k"}
    async with ScriptedProvider() as a:
        rows = a.settings().model_copy(update={"preset": ses["preset"]})
        async with running(tmp_path, {"a": rows}) as rig:
            a.script("CONTENT", UNVERIFIED)
            first = accepted(content=content)
            rig.accept(first)
            held = await rig.wait_for(first, DeliveryState.HELD)
            assert held.deliveries[0].reason == "sender domain brand.test is refused by a"
            (hold,) = rig.store.holds.in_force()
            assert hold.key == "a brand.test"
            later, other = accepted(content=content), accepted()
            rig.accept(later, other)
            await rig.wait_for(other, FINISHED)
            await rig.wait_for(later, DeliveryState.HELD)
            assert len(a.messages) == 1, "what is refused does not run into it again"
            release(rig, "")
            for one in (first, later):
                await rig.wait_for(one, FINISHED)
