"""What a worker starts at once, without waiting for its look around once a second."""

from __future__ import annotations

import asyncio
import io
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from relaygw.delivery.gate import DOWN_AFTER_FAILURES
from relaygw.delivery.waits import USUAL, Waits
from relaygw.delivery.worker import Worker
from relaygw.mail.clock import clock_ms
from relaygw.mail.envelope import AcceptedMessage
from relaygw.mail.hold import HoldCode, provider_down
from relaygw.mail.outcome import Scope
from relaygw.mail.state import DeliveryState
from relaygw.observe.observer import DeliveryObserver
from relaygw.policy.retry import unsent
from relaygw.settings.model import Settings
from relaygw.settings.provider import Provider
from relaygw.store.holds import UNREACHABLE, Hold
from relaygw.store.instances import Lifeline
from relaygw.store.queue_entry import DeliveryEntry
from relaygw.store.selection import Selection
from relaygw.store.store import Store
from tests.builders import NOW_MS, accepted
from tests.fakes.scripted_provider import ScriptedProvider
from tests.logs import text_log
from tests.queues import queue_with_worker

ALL_STATES = frozenset(DeliveryState)


class Desk:
    """A worker that does not look around: what happens was started by what it is told."""

    def __init__(self, store: Store, worker: Worker, log: io.StringIO) -> None:
        self.store, self.worker, self.log = store, worker, log
        self.scheduler, self.gates, self.lanes = worker.scheduler, worker.gates, worker.lanes

    def accept(self, *messages: AcceptedMessage) -> None:
        self.store.intake.accept_batch(messages)

    def part(self, message: AcceptedMessage) -> DeliveryEntry:
        selection = Selection(queue_ids=(message.queue_id,), states=ALL_STATES)
        (entry,) = self.store.queue.search(selection, limit=1)
        (part,) = entry.deliveries
        return part

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(60):
            while not await asyncio.to_thread(condition):  # noqa: ASYNC110 - nobody signals it
                await asyncio.sleep(0.02)


async def looked(one: Desk) -> bool:
    """Let the worker look around; return whether it asked the store."""
    with mock.patch.object(
        one.store.database, "snapshot", wraps=one.store.database.snapshot
    ) as asked:
        await one.worker.look_around()
    return asked.called


@asynccontextmanager
async def desk(
    directory: Path,
    providers: Mapping[str, Provider | Mapping[str, Any]],
    *,
    order: Sequence[str] = ("a",),
    waits: Waits = USUAL,
) -> AsyncIterator[Desk]:
    store = queue_with_worker(directory)
    settings = Settings.model_validate(
        {
            "mode": "production",
            "hostname": "gw.test",
            "providers": providers,
            "routes": [{"name": "default", "providers": list(order)}],
        }
    )
    log, lifeline = io.StringIO(), Lifeline(directory, "w")
    observer = DeliveryObserver(text_log(log))
    worker = Worker(
        settings,
        store,
        observer,
        incarnation="w",
        in_flight=lifeline,
        hints=None,
        waits=waits,
    )
    beat = asyncio.create_task(worker.leases.renew_until_cancelled())
    made = Desk(store, worker, log)
    await made.until(worker.leases.is_held)
    try:
        yield made
    finally:
        await worker.drain()
        beat.cancel()
        store.instances.bury("w")
        lifeline.release()
        store.close()


async def test_nothing_leaves_before_it_is_open_and_a_hint_is_enough_after_that(
    tmp_path: Path,
) -> None:
    async with ScriptedProvider() as p, desk(tmp_path, {"a": p.settings()}) as one:
        first, second = accepted(), accepted()
        one.accept(first)
        one.worker.wake()
        assert not one.scheduler.is_open
        assert not any(lane.is_claiming for lane in one.lanes)
        one.scheduler.open()
        assert one.scheduler.is_open
        await one.until(lambda: one.part(first).state is DeliveryState.FINISHED)
        one.accept(second)
        one.worker.wake()
        await one.until(lambda: one.part(second).state is DeliveryState.FINISHED)
        await one.until(lambda: not one.gates["a"].in_flight)
        assert one.worker.connections() == {"a": (0, 1)}
        one.gates["a"].in_flight = 3
        assert one.worker.connections() == {"a": (3, 0)}
        one.gates["a"].in_flight = 0


async def test_what_no_provider_may_take_is_held_as_soon_as_it_is_claimed(tmp_path: Path) -> None:
    settings = {"host": "127.0.0.1", "port": 9, "tls": "none", "senders": ["@shop.test"]}
    async with desk(tmp_path, {"a": settings}) as one:
        message = accepted(sender="a@other.test")
        one.accept(message)
        one.scheduler.open()
        await one.until(lambda: one.part(message).state is DeliveryState.HELD)
        cause = one.part(message).hold
        assert cause is not None
        assert cause.code is HoldCode.NO_SENDER


async def test_mail_behind_one_that_a_provider_holds_goes_by_the_next_at_once(
    tmp_path: Path,
) -> None:
    async with ScriptedProvider(users={"u": "new"}, tls="starttls") as a, ScriptedProvider() as b:
        old = a.settings(max_connections=1, username="u", password="plain:old")
        async with desk(tmp_path, {"a": old, "b": b.settings()}, order=("a", "b")) as one:
            one.accept(*(accepted() for _ in range(3)))
            one.scheduler.open()
            await one.until(lambda: len(b.messages) >= 2)
            assert one.gates["a"].is_held
            assert not a.messages


async def test_what_was_put_off_for_a_provider_goes_as_soon_as_it_is_seen_to_be_back(
    tmp_path: Path,
) -> None:
    async with ScriptedProvider() as p, desk(tmp_path, {"a": p.settings()}) as one:
        message = accepted()
        one.accept(message)
        (claimed,) = one.store.leases.claim("default", limit=9, incarnation="w", now_ms=NOW_MS)
        due_at_ms = clock_ms() + 3_600_000
        update = unsent(claimed, DeliveryState.DEFERRED, due_at_ms, provider_down("a"))
        one.store.leases.record_batch([update], incarnation="w", now_ms=clock_ms())
        one.scheduler.open()
        lane = one.lanes[0]
        await one.until(lambda: not (lane.may_have_more or lane.is_claiming))
        one.scheduler._shut = {"a"}  # as of the last look
        one.scheduler.hurry_reopened()
        await one.until(lambda: one.part(message).state is DeliveryState.FINISHED)


async def test_what_was_given_back_goes_as_soon_as_its_provider_is_open_again(
    tmp_path: Path,
) -> None:
    async with ScriptedProvider() as p, desk(tmp_path, {"a": p.settings()}) as one:
        gate, lane, message = one.gates["a"], one.lanes[0], accepted()
        gate.is_held = True
        one.scheduler.open()
        one.accept(message)
        lane.take(await one.worker.leases.claim(lane.route, 9))
        lane.may_have_more = False
        assert one.part(message).state is DeliveryState.ACTIVE
        one.scheduler.run(gate)
        await one.until(lambda: one.part(message).state is DeliveryState.INCOMING)
        gate.is_held = False
        one.scheduler.run(gate)
        await one.until(lambda: one.part(message).state is DeliveryState.FINISHED)


async def test_what_others_found_out_is_known_at_the_next_look(tmp_path: Path) -> None:
    async with ScriptedProvider() as p, desk(tmp_path, {"a": p.settings()}) as one:
        now_ms, gate = clock_ms(), one.gates["a"]
        outage = Hold(
            scope=UNREACHABLE,
            key="a",
            reason="connection refused",
            remedy="",
            since_ms=now_ms,
            probe_at_ms=now_ms + 1000,
        )
        one.store.holds.put_hold(outage)
        one.store.holds.put_hold(replace(outage, scope=Scope.CREDENTIAL, probe_at_ms=None))
        await one.worker.look_around()
        assert (gate.is_outage_known, gate.is_held) == (True, True)
        assert gate.is_down(time.monotonic())
        assert gate.failures == DOWN_AFTER_FAILURES


@pytest.mark.parametrize("rest_s", [1e9, 0.0])
async def test_nobody_looks_at_a_queue_that_is_at_rest_until_somebody_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rest_s: float
) -> None:
    waits = Waits(rest_s=rest_s)
    async with ScriptedProvider() as p, desk(tmp_path, {"a": p.settings()}, waits=waits) as one:
        mark: int | None = 1
        monkeypatch.setattr(one.store.database, "change_mark", lambda: mark)
        one.lanes[0].may_have_more = False
        is_believed = rest_s > 0  # not for ever
        assert [await looked(one), await looked(one)] == [True, not is_believed]
        mark = 2
        assert [await looked(one), await looked(one)] == [True, not is_believed]
        one.lanes[0].may_have_more = True
        assert await looked(one)
        one.lanes[0].may_have_more = False
        assert await looked(one) is not is_believed
        mark = None
        assert [await looked(one), await looked(one)] == [True, True], "it is not known"


@pytest.mark.parametrize("is_held", [True, False])
async def test_where_something_waits_each_look_is_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_held: bool
) -> None:
    async with ScriptedProvider() as p, desk(tmp_path, {"a": p.settings()}) as one:
        mark = 1
        monkeypatch.setattr(one.store.database, "change_mark", lambda: mark)
        one.lanes[0].may_have_more = False
        assert [await looked(one), await looked(one)] == [True, False]
        hold = Hold(scope=UNREACHABLE, key="a", reason="", remedy="", since_ms=1, probe_at_ms=None)
        if is_held:
            one.store.holds.put_hold(hold)
        else:
            one.accept(accepted(route="default"))
        mark = 2
        assert await looked(one)
        one.lanes[0].may_have_more = False
        assert await looked(one)
