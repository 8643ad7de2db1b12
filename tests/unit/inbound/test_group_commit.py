"""Group commit: one transaction for many, and one bad message refuses nobody else."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from relaygw.errors import AlreadyAccepted, IntakeFull, Unstorable
from relaygw.inbound.committer import (
    MAX_PENDING_BYTES,
    PATIENT_BATCHES,
    PIECE_PAUSE_S,
    GroupCommitter,
)
from relaygw.mail.envelope import AcceptedMessage
from relaygw.store.batch_writer import BatchWriter
from relaygw.store.selection import Selection
from tests.altered_store import AlteredStore
from tests.builders import accepted
from tests.queues import make_queue


class GatedStore(AlteredStore):
    """A real store whose first batch waits until the test lets it go."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.gate = threading.Event()
        self.batches: list[int] = []

    def accept_batch(self, messages: Sequence[AcceptedMessage]) -> dict[str, str]:
        self.gate.wait(30)
        self.batches.append(len(messages))
        again: dict[str, str] = super().accept_batch(messages)
        return again


@pytest.fixture
def store(tmp_path: Path) -> GatedStore:
    url = f"sqlite:///{tmp_path}/queue.db"
    make_queue(url)
    return GatedStore(url)


async def test_what_waits_is_one_batch_and_durable_on_return(store: GatedStore) -> None:
    stored: list[str] = []
    committer = GroupCommitter(
        store, committed=lambda batch: stored.extend(m.queue_id for m in batch)
    )
    first = asyncio.create_task(committer.submit(accepted()))
    await asyncio.sleep(0)
    others = [asyncio.create_task(committer.submit(accepted())) for _ in range(9)]
    await asyncio.sleep(0)
    assert not first.done()
    store.gate.set()
    await asyncio.gather(first, *others)
    assert store.batches == [1, 9]
    assert len(store.queue.search(Selection(), limit=99)) == len(stored) == 10
    await committer.drain()
    store.close()


async def test_one_bad_message_is_refused_alone(store: GatedStore) -> None:
    store.gate.set()
    committer = GroupCommitter(store, committed=lambda _: None)
    twin = accepted()
    await committer.submit(twin)
    store.gate.clear()
    blocker = asyncio.create_task(committer.submit(accepted()))
    await asyncio.sleep(0)
    batch = [asyncio.create_task(committer.submit(m)) for m in (accepted(), twin, accepted())]
    await asyncio.sleep(0)
    store.gate.set()
    results = await asyncio.gather(blocker, *batch, return_exceptions=True)
    assert [type(result) for result in results] == [str, str, Unstorable, str]
    await committer.drain()
    store.close()


async def test_what_was_accepted_before_is_said_so_and_the_rest_goes_in(store: GatedStore) -> None:
    stored: list[str] = []
    committer = GroupCommitter(
        store, committed=lambda batch: stored.extend(m.queue_id for m in batch)
    )
    blocker = asyncio.create_task(committer.submit(accepted()))
    await asyncio.sleep(0)
    messages = [accepted(drop_id=drop_id) for drop_id in ("a", "b", "a", None, None)]
    batch = [asyncio.create_task(committer.submit(message)) for message in messages]
    await asyncio.sleep(0)
    store.gate.set()
    results = await asyncio.gather(blocker, *batch, return_exceptions=True)
    assert [type(result) for result in results] == [str, str, str, AlreadyAccepted, str, str]
    assert messages[2].queue_id not in stored
    assert len(stored) == 5
    await committer.drain()
    store.close()


async def test_a_client_that_leaves_does_not_withdraw_its_message(store: GatedStore) -> None:
    committer = GroupCommitter(store, committed=lambda _: None)
    leaving = asyncio.create_task(committer.submit(accepted()))
    await asyncio.sleep(0)
    leaving.cancel()
    await asyncio.sleep(0)
    store.gate.set()
    await committer.drain()
    assert len(store.queue.search(Selection(), limit=9)) == 1
    store.close()


async def test_too_much_waiting_mail_is_refused(store: GatedStore) -> None:
    committer = GroupCommitter(store, committed=lambda _: None)
    much = replace(accepted(), size_bytes=MAX_PENDING_BYTES - 10)
    first = asyncio.create_task(committer.submit(much))
    await asyncio.sleep(0)
    with pytest.raises(IntakeFull):
        await committer.submit(accepted(content=b"x" * 20))
    store.gate.set()
    await first
    await committer.drain()
    store.close()


@pytest.mark.parametrize("broken", ["what follows a commit", "the counting", "the thread"])
async def test_what_goes_wrong_around_a_commit_stops_no_acceptance(
    store: GatedStore, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    told: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, what: told.append(what))
    store.gate.set()

    def fail(*_: object) -> None:
        raise ValueError("odd text in the log's form")

    def nothing(_: object) -> None:
        pass

    committer = GroupCommitter(
        store,
        committed=fail if broken == "what follows a commit" else nothing,
        wrote=fail if broken == "the counting" else nothing,
    )
    if broken == "the thread":
        monkeypatch.setattr(BatchWriter, "_write", fail)
        with pytest.raises(Unstorable, match="it was not written: ValueError: odd text"):
            await committer.submit(accepted())
    else:
        await committer.submit(accepted())  # it is durable, so it is acknowledged
        assert len(store.queue.search(Selection(), limit=9)) == 1
    await asyncio.sleep(0)
    monkeypatch.undo()
    async with asyncio.timeout(60):
        await committer.submit(accepted())
        await committer.drain()
    assert len(told) == 2 * (broken == "what follows a commit")
    store.close()


async def busy_committer(store: GatedStore, *, pace_s: float = 3600.0) -> GroupCommitter:
    """Return a committer of batches of four, which would wait for ever for what it expects."""
    store.gate.set()
    committer = GroupCommitter(store, committed=lambda _: None, pace_s=pace_s)
    sessions = [object() for _ in range(4)]
    for _ in range(6):
        list(map(committer.expect, sessions))
        waiting = []
        for session in sessions:
            committer.dismiss(session)
            waiting.append(asyncio.create_task(committer.submit(accepted())))
        await asyncio.gather(*waiting)
    assert store.batches == [4] * 6
    return committer


async def gathering(committer: GroupCommitter, late: object) -> asyncio.Task[str]:
    """Submit a message whose batch waits for `late`, though the thread is free."""
    committer.expect(late)
    first = asyncio.create_task(committer.submit(accepted()))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    return first


async def test_a_busy_front_waits_for_the_sessions_that_are_about_to_hand_over(
    store: GatedStore,
) -> None:
    committer, late = await busy_committer(store), object()
    first = await gathering(committer, late)

    async def hand_over() -> None:
        committer.dismiss(late)
        await committer.submit(accepted())

    second = asyncio.create_task(hand_over())
    async with asyncio.timeout(60):
        await asyncio.gather(first, second)
    assert store.batches[6:] == [2]
    await committer.drain()
    store.close()


async def test_who_is_waited_for_and_leaves_keeps_nobody(store: GatedStore) -> None:
    committer, late = await busy_committer(store), object()
    first = await gathering(committer, late)
    second = asyncio.create_task(committer.submit(accepted()))
    await asyncio.sleep(0)
    committer.dismiss(late)
    async with asyncio.timeout(60):
        await asyncio.gather(first, second)
    assert store.batches[6:] == [2]
    await committer.drain()
    store.close()


async def test_who_does_not_come_is_not_waited_for_any_more(store: GatedStore) -> None:
    committer, silent = await busy_committer(store, pace_s=0.001), object()
    committer.expect(silent)
    for number in range(1, 2 * PATIENT_BATCHES + 1):
        waiting = [asyncio.create_task(committer.submit(accepted())) for _ in range(4)]
        async with asyncio.timeout(60):
            await asyncio.gather(*waiting)
        if number < PATIENT_BATCHES:
            assert committer.expected_of == {silent}
    assert committer.expected_of == set()
    await committer.drain()
    store.close()


async def test_a_front_that_is_not_busy_waits_for_nobody(store: GatedStore) -> None:
    committer = await busy_committer(store)
    for _ in range(5):  # batches of one
        async with asyncio.timeout(60):
            await committer.submit(accepted())
    committer.expect(object())
    async with asyncio.timeout(60):
        await committer.submit(accepted())
    assert store.batches[6:] == [1] * 6
    await committer.drain()
    store.close()


@pytest.mark.parametrize("is_expected", [True, False])
async def test_large_content_lets_small_mail_go_first(
    store: GatedStore, monkeypatch: pytest.MonkeyPatch, is_expected: bool
) -> None:
    pauses_s: list[float] = []  # of all threads of this process
    monkeypatch.setattr("relaygw.inbound.committer.time.sleep", pauses_s.append)
    committer = GroupCommitter(store, committed=lambda _: None)
    if is_expected:
        committer.expect(object())
    assert await committer.work_piece(lambda: 7) == 7
    assert pauses_s.count(PIECE_PAUSE_S) == is_expected
    await committer.drain()
    store.close()
