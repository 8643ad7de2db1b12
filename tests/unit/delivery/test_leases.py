"""Leases on a real store: what is given back and claimed again at the same moment."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from relaygw.delivery.context import WorkerContext
from relaygw.delivery.gate import Gate
from relaygw.delivery.leases import Leases
from relaygw.delivery.permits import Permits
from relaygw.delivery.waits import Waits
from relaygw.settings.provider import Provider
from relaygw.store.queue_tables import Key
from relaygw.store.store import Store
from tests.altered_store import AlteredStore
from tests.builders import accepted
from tests.queues import queue_with_worker
from tests.unit.delivery.worker_context import worker_context

AT_ONCE = Waits(unknown_leases_s=0.0)


class SlowAnswers(AlteredStore):
    """Answers a give-back, which is done by then, when `may_answer` is set."""

    may_answer: threading.Event

    def give_back(self, keys: Collection[Key], *, incarnation: str) -> Any:
        done = super().give_back(keys, incarnation=incarnation)
        self.may_answer.wait()
        return done


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SlowAnswers]:
    store = queue_with_worker(tmp_path, SlowAnswers)
    yield store
    store.close()


@pytest.fixture
def context(store: SlowAnswers) -> Iterator[WorkerContext]:
    with ThreadPoolExecutor(max_workers=2) as threads:
        yield worker_context(store, threads=threads)


async def test_what_is_claimed_again_before_its_give_back_is_answered_is_at_hand(
    store: SlowAnswers, context: WorkerContext
) -> None:
    store.may_answer = threading.Event()
    message = accepted("b@cust.test")
    store.intake.accept_batch([message])
    leases = Leases(context)
    given = await leases.claim("default", 8)
    assert [one.queue_id for one in given] == [message.queue_id]
    back = asyncio.create_task(leases.give_back(given))
    await asyncio.to_thread(_wait_until_incoming, store)
    again = asyncio.create_task(leases.claim("default", 8))
    await asyncio.sleep(0)
    # behind a claim that did not wait, on the one thread that is left
    await asyncio.get_running_loop().run_in_executor(context.threads, lambda: None)
    store.may_answer.set()
    await back
    assert [one.queue_id for one in await again] == [message.queue_id]
    assert not leases.is_unsure("default")


async def test_leases_that_are_not_known_are_ended(
    store: SlowAnswers, context: WorkerContext
) -> None:
    messages = [accepted("b@cust.test") for _ in range(3)]
    store.intake.accept_batch(messages)
    leases = Leases(context)
    (known,) = await leases.claim("default", 1)
    lost = store.leases.claim("default", limit=9, incarnation="w", now_ms=known.claimed_at_ms)
    assert await leases.free_unknown("default") == len(lost) == 2
    assert await leases.free_unknown("other") == 0
    leases.forget([known])
    assert await leases.free_unknown("default") == 1


async def test_what_nobody_here_works_on_is_looked_for_each_minute(
    store: SlowAnswers, context: WorkerContext
) -> None:
    store.intake.accept_batch([accepted("b@cust.test")])
    store.may_answer = threading.Event()
    leases = Leases(context)
    (known,) = await leases.claim("default", 1)
    leases.forget([known])  # its outcome is in the queue, until a standby has it no more
    assert not leases.is_unsure("default")
    leases = Leases(replace(context, waits=AT_ONCE))
    assert await leases.free_unknown("other") == 0
    assert leases.is_unsure("other")
    assert await leases.free_unknown("default") == 1
    assert len(await leases.claim("default", 1)) == 1


async def test_permits_that_a_standby_has_still_are_counted(
    store: SlowAnswers, context: WorkerContext
) -> None:
    gate = Gate(provider="p", settings=Provider(host="smtp.test", max_connections=2))
    permits = Permits(replace(context, waits=AT_ONCE), [gate])
    most = gate.max_connections()
    of_group = {"incarnation": "w", "limit": most, "wanted": most}
    assert store.limits.acquire_permits(gate.limit_group, **of_group) == most  # here unknown
    await permits.acquire(gate, 1)
    assert gate.permits == most
    store.limits.release_permits(gate.limit_group, count=most, incarnation="w")
    await permits.return_spare(gate, most, is_sharing=False)
    assert gate.permits == 0


def _wait_until_incoming(store: Store) -> None:
    while store.leases.next_due_at_ms("default") is None:
        pass
