"""The clock of a queue is set forward or back by an hour: everything goes on as before."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace

import pytest

from relaygw.mail.hold import HoldCause, HoldCode
from relaygw.mail.state import DeliveryState
from relaygw.store.audit import AuditEntry
from relaygw.store.holds import Hold
from relaygw.store.sessions import WebSession
from relaygw.store.store import Store
from tests.builders import accepted, instance, part_on
from tests.contract.conftest import open_store
from tests.contract.test_store_contract import defer, entry_of, finish

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
NEAR_MS = 60_000


class Clock:
    """The clock of a queue, that of its database or its host, and those who go by it."""

    def __init__(self, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
        self.store = store
        self.set_by_ms = 0
        self.monotonic_s = 1000.0
        kind = type(store.database)
        now_us = kind._now_us
        monkeypatch.setattr(
            kind, "_now_us", lambda one, connection: now_us(one, connection) + self.set_by_ms * 1000
        )
        for room in ("instances", "janitor"):
            monkeypatch.setattr(f"relaygw.store.{room}.running_s", lambda: self.monotonic_s)
        monkeypatch.setattr("relaygw.store.instances.awake_s", lambda: self.monotonic_s)

    def now_ms(self) -> int:
        """Return the time of a caller: on PostgreSQL its own clock is right all along."""
        is_its_own = self.store.database.is_shared
        return time.time_ns() // 1_000_000 + (0 if is_its_own else self.set_by_ms)

    def set(self, by_ms: int) -> None:
        self.set_by_ms = by_ms
        self.store.instances.heartbeat("one")  # as each five seconds

    def entry(self) -> AuditEntry:
        return AuditEntry(
            at_ms=self.now_ms(), actor="a", action="x", target="t", affected=0, detail=""
        )


@pytest.fixture
def clock(url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Clock]:
    store = open_store(url)
    clock = Clock(store, monkeypatch)
    for name in ("one", "two"):
        store.instances.register(instance(name))
    yield clock
    store.close()


def claimed(clock: Clock, *, route: str = "default") -> set[str]:
    found = clock.store.leases.claim(route, limit=20, incarnation="one", now_ms=clock.now_ms())
    for one in found:
        assert abs(clock.now_ms() - one.accepted_at_ms) < HOUR_MS + NEAR_MS
    return {one.queue_id for one in found}


@pytest.mark.parametrize("hours", [1, -1], ids=["forward", "back"])
def test_an_hour_more_or_less_stops_nothing_and_takes_nothing_away(
    clock: Clock, hours: int
) -> None:
    store, now_ms = clock.store, clock.now_ms()
    new, in_hand, put_off, held, trash, parted = (accepted(at_ms=now_ms) for _ in range(6))
    parts = tuple(
        part_on(route, address) for route, address in (("b", "x@b.test"), ("default", "y@a.test"))
    )
    parted = replace(parted, deliveries=parts)
    large = replace(accepted(at_ms=now_ms), content=(), stored_chunks=2)
    store.intake.accept_batch([in_hand, put_off, held, trash, parted])
    store.intake.add_chunks(large.queue_id, 0, [b"x"])
    assert claimed(clock) == {m.queue_id for m in (in_hand, put_off, held, trash, parted)}
    store.leases.give_back([(held.queue_id, 0), (trash.queue_id, 0)], incarnation="one")
    update = defer(put_off.queue_id, due_at_ms=clock.now_ms() + 30_000)
    store.leases.record_batch([update], incarnation="one", now_ms=clock.now_ms())
    for one, to in ((held, DeliveryState.HELD), (trash, DeliveryState.DELETED)):
        change(clock, one.queue_id, to=to, from_states={DeliveryState.INCOMING})
    change(clock, parted.queue_id, to=DeliveryState.DELETED, from_states={DeliveryState.INCOMING})
    store.intake.accept_batch([new])
    assert store.limits.acquire_permits("p", wanted=2, limit=2, incarnation="two") == 2
    assert store.limits.take_tokens("p", wanted=1, per_s=2.0).granted == 1
    assert store.limits.use_quota("p", wanted=3, quota=5).granted == 3
    assert store.watch.duty("watch", "two")
    probe = Hold(
        scope="provider",
        key="p",
        reason="full",
        remedy="",
        since_ms=now_ms,
        probe_at_ms=now_ms + NEAR_MS,
    )
    store.holds.put_hold(probe)
    session = WebSession(
        token_hash="h",
        user_name="u",
        created_at_ms=now_ms,
        seen_at_ms=now_ms,
        expires_at_ms=now_ms + 12 * HOUR_MS,
    )
    store.sessions.put(session)
    store.instances.stale_incarnations(20.0)

    clock.set(hours * HOUR_MS)

    # nobody is dead, nobody loses what it holds, and who is dead is known in time
    assert store.instances.stale_incarnations(20.0) == []
    assert store.limits.permits_held("p", incarnation="two") == 2
    assert store.limits.acquire_permits("p", wanted=1, limit=2, incarnation="one") == 0
    for _ in range(4):
        clock.monotonic_s += 5
        clock.set_by_ms += 1  # beats of one millisecond would look like one
        store.instances.heartbeat("one")
        stale = store.instances.stale_incarnations(20.0)
    assert stale == ["two"]
    store.instances.bury("two", unless_heard=True)
    assert store.limits.acquire_permits("p", wanted=1, limit=2, incarnation="one") == 1
    assert store.watch.duty("watch", "one")

    # limits and holds
    assert store.limits.take_tokens("p", wanted=1, per_s=2.0).granted == 1
    assert store.limits.quota_used("p") == 3
    assert store.limits.use_quota("p", wanted=3, quota=5).granted == 2
    assert [hold.key for hold in store.holds.in_force()] == ["p"]
    assert store.holds.drop_hold("provider", "p")
    held_ms = store.holds.stopped_ms("p", since_ms=clock.now_ms() - DAY_MS)
    assert 0 <= held_ms <= HOUR_MS + NEAR_MS

    # mail: what is new, in hand, put off, held
    done = replace(finish(in_hand.queue_id), due_at_ms=clock.now_ms())
    assert store.leases.record_batch([done], incarnation="one", now_ms=clock.now_ms()).lost == ()
    store.janitor.restart_waits(limit=9)
    due_at_ms = entry_of(store, put_off.queue_id).deliveries[0].due_at_ms
    assert due_at_ms <= clock.now_ms() + 30_000
    assert new.queue_id in claimed(clock)
    change(clock, held.queue_id, to=DeliveryState.DEFERRED, from_states={DeliveryState.HELD})
    (record,) = store.queue.record_of(held.queue_id).deliveries
    assert 0 <= record.held_ms <= HOUR_MS + NEAR_MS
    assert claimed(clock) >= {held.queue_id}

    # content: of what is in the trash, and of what is on its way
    done = finish(parted.queue_id, delivery_no=1, rcpt_nos=(1,))
    done = replace(done, due_at_ms=clock.now_ms())
    assert store.leases.record_batch([done], incarnation="one", now_ms=clock.now_ms()).lost == ()
    ages_ms = {"deleted": 7 * DAY_MS, "finished": 7 * DAY_MS, "captured": 30 * DAY_MS}
    assert store.janitor.purge(ages_ms | {"orphans": HOUR_MS}, limit=50) == 0
    assert not store.janitor.shed_content(DAY_MS)
    store.intake.add_chunks(large.queue_id, 1, [b"y"])
    store.intake.accept_batch([large])
    assert large.queue_id in claimed(clock)
    back = [trash.queue_id, parted.queue_id]
    assert store.queue.undelete(back, entry=clock.entry()) == 2
    assert claimed(clock) >= {trash.queue_id}
    assert claimed(clock, route="b") == {parted.queue_id}
    for one in (trash, parted):
        assert store.intake.read_chunk(one.queue_id, 0) is not None

    # people stay logged in
    kept = store.sessions.get("h")
    assert kept is not None
    assert kept.expires_at_ms - clock.now_ms() > 10 * HOUR_MS


def change(
    clock: Clock, queue_id: str, *, to: DeliveryState, from_states: set[DeliveryState]
) -> None:
    changed = clock.store.queue.change_state(
        [queue_id],
        from_states=frozenset(from_states),
        to=to,
        hold=HoldCause(HoldCode.OTHER, "why"),
        entry=clock.entry(),
    )
    assert changed == 1
