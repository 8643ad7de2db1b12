from __future__ import annotations

import asyncio
import io
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from relaygw.delivery import recorder
from relaygw.delivery.recorder import Recorder, _Entry
from relaygw.errors import StoreUnavailable, Unstorable
from relaygw.mail.clock import awake_s, clock_ms
from relaygw.mail.envelope import AcceptedMessage, DeliveryUpdate, RecipientUpdate, Warned
from relaygw.mail.outcome import AttemptReport
from relaygw.mail.state import DeliveryState, RecipientState
from relaygw.mail.suppression import Action, Cause, Listed, Suppression
from relaygw.observe.events import Attempted
from relaygw.observe.observer import DeliveryObserver
from relaygw.settings.model import Settings
from relaygw.store.outcomes import Recorded
from relaygw.store.selection import Selection
from relaygw.store.store import Store
from tests.altered_store import AlteredStore
from tests.builders import NOW_MS, accepted, claimed, taken
from tests.logs import text_log
from tests.queues import queue_with_worker
from tests.unit.delivery.worker_context import worker_context


class Picky(AlteredStore):
    """A store that refuses any batch with certain messages, and is away at times."""

    refused: frozenset[str] = frozenset()
    error: Exception = Unstorable("no")
    away = 0

    def record_batch(
        self, updates: Sequence[DeliveryUpdate], *, incarnation: str, now_ms: int
    ) -> Recorded:
        if self.away:
            self.away -= 1
            raise StoreUnavailable("away")
        if self.refused & {update.queue_id for update in updates}:
            raise self.error
        return super().record_batch(updates, incarnation=incarnation, now_ms=now_ms)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Picky]:
    store = queue_with_worker(tmp_path, Picky)
    yield store
    store.close()


class Desk:
    """A recorder on a store, and what it said."""

    def __init__(self, store: Store) -> None:
        self.output = io.StringIO()
        self.lost = 0
        self.log = text_log(self.output)
        self.observer = DeliveryObserver(self.log)
        context = worker_context(store, observer=self.observer)
        self.recorder = Recorder(context, self._lose)

    def _lose(self) -> None:
        self.lost += 1

    async def record(self, messages: Sequence[AcceptedMessage]) -> list[bool]:
        """Record that these are finished; return which of that was written."""
        updates = [finished(message) for message in messages]
        return await asyncio.gather(*(self.recorder.record(each, None) for each in updates))


def finished(message: AcceptedMessage, **more: Any) -> DeliveryUpdate:
    update = DeliveryUpdate(
        queue_id=message.queue_id,
        delivery_no=0,
        state=DeliveryState.FINISHED,
        due_at_ms=NOW_MS + 50,
        provider="p",
        reason=None,
        recipients=(),
    )
    return replace(update, **more)


def claim(store: Store, count: int) -> list[AcceptedMessage]:
    messages = [accepted() for _ in range(count)]
    store.intake.accept_batch(messages)
    store.leases.claim("default", limit=count, incarnation="w", now_ms=NOW_MS)
    return messages


def states(store: Store, messages: Sequence[AcceptedMessage]) -> list[DeliveryState]:
    ids = tuple(message.queue_id for message in messages)
    selection = Selection(queue_ids=ids, states=frozenset(DeliveryState))
    found = {e.queue_id: e.deliveries[0].state for e in store.queue.search(selection, limit=100)}
    return [found[queue_id] for queue_id in ids]


@pytest.mark.parametrize("error", [Unstorable("no"), ValueError("a defect")])
async def test_an_outcome_with_a_defect_stops_no_other(store: Picky, error: Exception) -> None:
    messages = claim(store, 10)
    store.refused, store.error = frozenset({messages[4].queue_id}), error
    desk = Desk(store)
    assert await desk.record(messages) == [number != 4 for number in range(10)]
    expected = [DeliveryState.FINISHED] * 10
    expected[4] = DeliveryState.ACTIVE
    assert states(store, messages) == expected
    assert desk.output.getvalue().count("cannot be recorded") == 1
    assert "lease was lost" not in desk.output.getvalue()
    more = claim(store, 3)
    await desk.record(more)
    assert states(store, more) == [DeliveryState.FINISHED] * 3
    await desk.recorder.drain()


async def test_outcomes_wait_for_a_store_that_is_away(store: Picky) -> None:
    messages = claim(store, 5)
    store.away = 2
    desk = Desk(store)
    await desk.record(messages)
    assert states(store, messages) == [DeliveryState.FINISHED] * 5
    assert "outcomes wait to be recorded" in desk.output.getvalue()
    await desk.recorder.drain()


async def test_an_outcome_that_waits_while_the_clock_is_set_is_due_as_was_meant(
    store: Picky, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody else sees it: it is written after the clock was set, by a time from before."""
    (message,) = claim(store, 1)
    desk = Desk(store)
    waits = {"state": DeliveryState.DEFERRED, "due_at_ms": clock_ms() + 30_000, "charged": False}
    told = desk.recorder.record(finished(message, **waits), None)
    hour_ms = 3_600_000
    monkeypatch.setattr(recorder, "clock_ms", lambda: clock_ms() - hour_ms)
    assert await told
    selection = Selection(queue_ids=(message.queue_id,))
    (entry,) = store.queue.search(selection, limit=1)
    meant_ms = waits["due_at_ms"] - hour_ms
    assert abs(entry.deliveries[0].due_at_ms - meant_ms) < 2
    await desk.recorder.drain()


async def test_a_lease_that_is_gone_is_told_of_exactly_those(store: Picky) -> None:
    messages = claim(store, 6)
    gone = [messages[1], messages[5]]
    store.leases.give_back([(message.queue_id, 0) for message in gone], incarnation="w")
    desk = Desk(store)
    await desk.record(messages)
    warned = [line for line in desk.output.getvalue().splitlines() if "lease was lost" in line]
    assert len(warned) == 2
    assert all(any(message.queue_id in line for line in warned) for message in gone)
    assert "the message may be sent more than once" in warned[0]
    assert desk.lost == 0, "the incarnation lives"
    claimed = store.leases.claim("default", limit=9, incarnation="w", now_ms=NOW_MS)
    assert {one.queue_id for one in claimed} == {message.queue_id for message in gone}
    assert await desk.record(gone) == [True, True], "this lease is another one"
    await desk.recorder.drain()


async def test_a_dead_incarnation_is_told_of_at_once(store: Picky) -> None:
    messages = claim(store, 3)
    store.instances.bury("w")
    desk = Desk(store)
    await desk.record(messages)
    assert desk.output.getvalue().count("lease was lost") == 3
    assert desk.lost >= 1
    await desk.recorder.drain()


class Choosy(AlteredStore):
    """A store that refuses an outcome for what it says of recipients."""

    def record_batch(
        self, updates: Sequence[DeliveryUpdate], *, incarnation: str, now_ms: int
    ) -> Recorded:
        if any(change.reply == "bad" for update in updates for change in update.recipients):
            raise Unstorable("no such text")
        return super().record_batch(updates, incarnation=incarnation, now_ms=now_ms)


async def test_a_delivery_whose_outcome_is_refused_is_held_and_not_sent_again(
    store: Picky, tmp_path: Path
) -> None:
    choosy = Choosy(f"sqlite:///{tmp_path}/queue.db")
    (message,) = claim(store, 1)
    bad = RecipientUpdate(
        rcpt_no=0, state=RecipientState.DELIVERED, reply="bad", dsn="2.0.0", provider="p"
    )
    desk = Desk(choosy)
    assert not await desk.recorder.record(finished(message, recipients=(bad,)), None)
    (entry,) = store.queue.search(Selection(queue_ids=(message.queue_id,)), limit=1)
    (part,) = entry.deliveries
    assert (part.state, part.reason) == (DeliveryState.HELD, "in_doubt")
    assert part.is_in_doubt
    assert "it is held, and may have been sent" in desk.output.getvalue()
    assert [one.reply for one in store.queue.attempts(message.queue_id)] == ["in_doubt"]
    await desk.recorder.drain()
    choosy.close()


async def test_of_a_delivery_one_outcome_is_written_at_a_time_and_in_order(store: Picky) -> None:
    first, second = claim(store, 2)
    desk = Desk(store)
    partial = finished(first, state=DeliveryState.ACTIVE, due_at_ms=NOW_MS + 7)
    told = [desk.recorder.record(finished(second), None)]  # the writer has this in hand
    told += [desk.recorder.record(partial, None), desk.recorder.record(finished(first), None)]
    assert await asyncio.gather(*told) == [True] * 3
    assert states(store, [first, second]) == [DeliveryState.FINISHED] * 2
    await desk.recorder.drain()


async def test_a_cancelled_caller_withdraws_nothing_and_what_waits_for_the_end_is_told(
    store: Picky,
) -> None:
    (message,) = claim(store, 1)
    store.away = 1
    desk = Desk(store)
    ended: list[str] = []
    told = desk.recorder.record(finished(message), None, lambda: ended.append(message.queue_id))
    told.cancel()
    await asyncio.sleep(0)
    assert ended == [], "its trace must stay until it is recorded"
    await desk.recorder.drain()
    assert ended == [message.queue_id]
    assert states(store, [message]) == [DeliveryState.FINISHED]


@pytest.mark.parametrize("broken", ["log", "counting", "end", "lease"])
async def test_what_goes_wrong_around_an_outcome_stops_no_other(
    store: Picky, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    def fail(*_: object) -> None:
        raise ValueError("odd text in the log's form")

    messages = claim(store, 3)
    desk = Desk(store)
    if broken == "log":
        monkeypatch.setattr(desk.log, "write", fail)
    elif broken == "counting":
        monkeypatch.setattr(desk.observer, "wrote", fail)
    elif broken == "lease":
        monkeypatch.setattr(desk.recorder, "_lost_leases", fail)
    async with asyncio.timeout(60):
        for message in messages[:2]:
            end = fail if broken == "end" else None
            assert await desk.recorder.record(finished(message), None, end)
        if broken == "lease":
            store.instances.bury("w")
            assert not await desk.recorder.record(finished(messages[2]), None)
        await desk.recorder.drain()
    assert states(store, messages[:2]) == [DeliveryState.FINISHED] * 2
    assert "cannot be recorded" not in desk.output.getvalue()


async def test_outcomes_that_the_store_does_not_take_in_time_are_told(store: Picky) -> None:
    (message,) = claim(store, 1)
    store.away = 1000
    desk = Desk(store)
    ended: list[str] = []
    told = desk.recorder.record(finished(message), None, lambda: ended.append("slot"))
    await desk.recorder.drain(0.05)
    assert not told.done()
    assert ended == [], "its trace stays for whoever buries this worker"
    assert (
        f"{message.queue_id}: warning: its outcome is not recorded: the store did not take it in "
        "0.05 s; the message may be sent more than once"
    ) in desk.output.getvalue()


async def test_who_was_sent_to_although_suppressed_is_told_with_the_outcome(store: Picky) -> None:
    written, lost = claim(store, 2)
    store.leases.give_back([(lost.queue_id, 0)], incarnation="w")
    entry = Suppression(address="b@cust.test", cause=Cause.BOUNCE, created_at_ms=NOW_MS)
    who = Warned(0, "b@cust.test", Listed(entry, Action.WARN))
    desk = Desk(store)
    updates = [finished(message, warned=(who,)) for message in (written, lost)]
    told = [desk.recorder.record(update, None) for update in updates]
    assert await asyncio.gather(*told) == [True, False]
    lines = [line for line in desk.output.getvalue().splitlines() if "is sent to although" in line]
    assert len(lines) == 1
    assert f"{written.queue_id}: warning: b@cust.test is sent to although" in lines[0]
    await desk.recorder.drain()


async def test_an_attempt_is_told_of_in_the_log_once_it_is_durable(store: Picky) -> None:
    (message,) = claim(store, 1)
    mail = claimed("b@cust.test", queue_id=message.queue_id)
    update = finished(message, recipients=(taken(0),))
    taken_by = AttemptReport(provider="p", relay="mx.test[10.0.0.1]:25", outcomes=())
    desk = Desk(store)
    store.away = 1
    told = desk.recorder.record(update, Attempted(mail, update, taken_by, NOW_MS))
    assert "relay=" not in desk.output.getvalue()
    assert await told
    assert "to=<b@cust.test>" in desk.output.getvalue()
    await desk.recorder.drain()


@pytest.mark.parametrize(("doubts", "wait_s"), [(0, 5), (1, 15), (2, 60)])
async def test_a_refused_outcome_is_asked_for_again_by_its_key_on_the_ladder_of_keys(
    store: Picky, doubts: int, wait_s: float
) -> None:
    """What was done is one try more: the ladder goes on behind it."""
    (message,) = claim(store, 1)
    key = {"header": "X-Key", "life": "24h"}
    settings = Settings.model_validate(
        {
            "mode": "production",
            "hostname": "gw.test",
            "providers": {"p": {"host": "smtp.test", "idempotency": key}},
            "routes": [{"name": "default", "providers": ["p"]}],
        }
    )
    recorder = Recorder(worker_context(store, settings=settings), lambda: None)
    mail = claimed(queue_id=message.queue_id, doubts=doubts)
    update = finished(message, due_at_ms=NOW_MS)
    report = AttemptReport(provider="p", relay="none", outcomes=())
    now_ms = clock_ms()
    beyond_ms = now_ms - int(awake_s() * 1000)
    entry = _Entry((message.queue_id, 0), update, Attempted(mail, update, report, now_ms), None, 0)
    retried, words = recorder._doubted(entry._replace(beyond_ms=beyond_ms))
    assert retried.state is DeliveryState.DEFERRED
    assert retried.due_at_ms - now_ms == pytest.approx(wait_s * 1000, abs=2000)
    assert "its provider knows it by its key" in words
