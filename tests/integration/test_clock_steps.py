"""The clock of a SQLite queue is the host's: a worker sees it set forward and back."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from relaygw.mail.state import DeliveryState
from relaygw.store.holds import Hold
from tests.builders import accepted
from tests.fakes.scripted_provider import ScriptedProvider
from tests.integration.delivery_rig import running

HOUR_S = 3600
LATER = b"450 4.2.1 later\r\n"
SetClock = Callable[[int], None]


@pytest.fixture
def set_clock(monkeypatch: pytest.MonkeyPatch) -> SetClock:
    """Return what sets the time of day for all of this process, in seconds beside the right one."""
    right_s, right_ns = time.time, time.time_ns
    beside = [0]
    monkeypatch.setattr(time, "time", lambda: right_s() + beside[0])
    monkeypatch.setattr(time, "time_ns", lambda: right_ns() + beside[0] * 10**9)

    def set_by(seconds: int) -> None:
        beside[0] = seconds

    return set_by


def now_ms() -> int:
    return time.time_ns() // 1_000_000


@pytest.mark.parametrize("hours", [1, -1], ids=["forward", "back"])
async def test_mail_goes_on_when_the_clock_is_set(
    tmp_path: Path, set_clock: SetClock, hours: int
) -> None:
    retry = {"first": "2s", "max": "2s", "jitter": "0%"}
    async with ScriptedProvider() as provider:
        provider.script("RCPT", LATER)
        async with running(tmp_path, {"p": provider.settings()}, retry=retry) as rig:
            put_off, new = accepted(at_ms=now_ms()), accepted(at_ms=now_ms())
            rig.accept(put_off)
            rig.worker.wake()
            # by its log: on a busy machine it is not deferred any more by the time one looks
            await rig.wait_until(lambda: "status=deferred" in rig.log.getvalue())
            await rig.wait_for_look()  # at the clock, and at holds
            assert rig.worker.clock.recent_step() is None
            set_clock(hours * HOUR_S)
            rig.accept(new)
            for message in (put_off, new):
                await rig.wait_for(message, DeliveryState.FINISHED)
            await rig.wait_until(lambda: rig.worker.clock.recent_step() is not None)
            assert len(provider.messages) == 2
    direction = "forward" if hours > 0 else "back"
    told = rig.worker.clock.recent_step()
    assert told is not None
    assert told.startswith(f"set {direction} by 3")  # 3600 s, give or take
    assert f"warning: the clock of the queue was {told}" in rig.log.getvalue()


async def test_a_held_provider_is_tried_when_the_clock_was_set_back(
    tmp_path: Path, set_clock: SetClock
) -> None:
    async with (
        ScriptedProvider() as provider,
        running(tmp_path, {"p": provider.settings()}) as rig,
    ):
        await rig.wait_for_look()
        since_ms = now_ms()
        hold = Hold(
            scope="provider",
            key="p",
            reason="full",
            remedy="",
            since_ms=since_ms,
            probe_at_ms=since_ms + 60_000,
        )
        rig.store.holds.put_hold(hold)
        await rig.wait_until(lambda: rig.worker.gates["p"].is_held)
        message = accepted(at_ms=since_ms)
        rig.accept(message)
        set_clock(-HOUR_S)
        await rig.wait_for(message, DeliveryState.FINISHED)
        assert rig.store.holds.in_force() == []
