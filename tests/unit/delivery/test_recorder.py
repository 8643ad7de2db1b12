from __future__ import annotations

import asyncio
import io
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from relaygw.delivery.recorder import Recorder
from relaygw.errors import StoreUnavailable, Unstorable
from relaygw.mail.envelope import AcceptedMessage, DeliveryUpdate
from relaygw.mail.state import DeliveryState
from relaygw.store import migrate
from relaygw.store.protocol import Instance, Recorded, Selection
from relaygw.store.sqlite import SqliteStore
from tests.builders import NOW_MS, accepted
from tests.logs import text_log


class Picky(SqliteStore):
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
    url = f"sqlite:///{tmp_path}/queue.db"
    migrate.upgrade(url)
    store = Picky(url, keep_content=False)
    store.register(
        Instance(incarnation="w", name="gw", role="delivery", pid=1, version="1", fingerprint="f")
    )
    yield store
    store.close()


class Desk:
    """A recorder on a store, and what it said."""

    def __init__(self, store: SqliteStore) -> None:
        self.output = io.StringIO()
        self.lost = 0
        log = text_log(self.output)
        self.recorder = Recorder(store, log, incarnation="w", lost_leases=self._lose)

    def _lose(self) -> None:
        self.lost += 1

    async def record(self, messages: Sequence[AcceptedMessage]) -> None:
        update = DeliveryUpdate(
            queue_id="",
            delivery_no=0,
            state=DeliveryState.FINISHED,
            due_at_ms=NOW_MS + 50,
            provider="p",
            reason=None,
            recipients=(),
        )
        updates = [replace(update, queue_id=message.queue_id) for message in messages]
        await asyncio.gather(*(self.recorder.record(each, []) for each in updates))


def claim(store: SqliteStore, count: int) -> list[AcceptedMessage]:
    messages = [accepted() for _ in range(count)]
    store.accept_batch(messages)
    store.claim("default", limit=count, incarnation="w", now_ms=NOW_MS)
    return messages


def states(store: SqliteStore, messages: Sequence[AcceptedMessage]) -> list[DeliveryState]:
    ids = tuple(message.queue_id for message in messages)
    selection = Selection(queue_ids=ids, states=frozenset(DeliveryState))
    found = {e.queue_id: e.deliveries[0].state for e in store.search(selection, limit=100)}
    return [found[queue_id] for queue_id in ids]


@pytest.mark.parametrize("error", [Unstorable("no"), ValueError("a defect")])
async def test_an_outcome_with_a_defect_stops_no_other(store: Picky, error: Exception) -> None:
    messages = claim(store, 10)
    store.refused, store.error = frozenset({messages[4].queue_id}), error
    desk = Desk(store)
    await desk.record(messages)
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


async def test_a_lease_that_is_gone_is_told_of_exactly_those(store: Picky) -> None:
    messages = claim(store, 6)
    gone = [messages[1], messages[5]]
    store.give_back([(message.queue_id, 0) for message in gone], incarnation="w")
    desk = Desk(store)
    await desk.record(messages)
    warned = [line for line in desk.output.getvalue().splitlines() if "lease was lost" in line]
    assert len(warned) == 2
    assert all(any(message.queue_id in line for line in warned) for message in gone)
    assert "the message may be sent more than once" in warned[0]
    assert desk.lost == 0, "the incarnation lives"
    await desk.recorder.drain()


async def test_a_dead_incarnation_is_told_of_at_once(store: Picky) -> None:
    messages = claim(store, 3)
    store.bury("w")
    desk = Desk(store)
    await desk.record(messages)
    assert desk.output.getvalue().count("lease was lost") == 3
    assert desk.lost >= 1
    await desk.recorder.drain()
