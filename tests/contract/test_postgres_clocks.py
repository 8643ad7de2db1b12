"""Instances whose clocks are minutes off share a PostgreSQL queue as if they were not."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace

import pytest

from relaygw.mail.state import DeliveryState
from relaygw.store import migrate
from relaygw.store.postgres import PostgresStore
from relaygw.store.protocol import AuditEntry, Hold, Selection
from relaygw.store.watching import Incident
from tests.builders import accepted
from tests.contract.conftest import instance
from tests.contract.test_store_contract import defer, finish

FAST_MS = 600_000
TOLERANCE_MS = 5_000


class FastStore(PostgresStore):
    """The store of a machine whose clock is ten minutes fast."""

    def _here_ms(self) -> int:
        return super()._here_ms() + FAST_MS


@pytest.fixture
def right(postgres_url: str) -> Iterator[PostgresStore]:
    """Return the store of a machine that has the database's time."""
    migrate.upgrade(postgres_url)
    store = PostgresStore(postgres_url, keep_content=False)
    store.register(instance("right"))
    yield store
    store.close()


@pytest.fixture
def fast(right: PostgresStore, postgres_url: str) -> Iterator[FastStore]:
    store = FastStore(postgres_url, keep_content=False)
    store.register(instance("fast"))
    yield store
    store.close()


def claimed(store: PostgresStore, *, in_ms: int = 0) -> list[str]:
    """Return what a store's machine gets when it asks by its own clock."""
    name = "fast" if isinstance(store, FastStore) else "right"
    now_ms = store._here_ms() + in_ms
    found = store.claim("default", limit=10, incarnation=name, now_ms=now_ms)
    for one in found:
        age_ms = now_ms - one.accepted_at_ms
        assert abs(age_ms - in_ms) < TOLERANCE_MS, "mail is as old as it is"
    return [one.queue_id for one in found]


def test_new_mail_of_a_fast_machine_is_due_for_all(right: PostgresStore, fast: FastStore) -> None:
    message = accepted(at_ms=fast._here_ms())
    fast.accept_batch([message])
    due_at_ms = right.next_due_at_ms("default")
    assert due_at_ms is not None
    assert abs(due_at_ms - right._here_ms()) < TOLERANCE_MS
    assert claimed(right) == [message.queue_id]


def test_what_a_fast_machine_puts_off_waits_as_long_as_it_says(
    right: PostgresStore, fast: FastStore
) -> None:
    message = accepted(at_ms=right._here_ms())
    right.accept_batch([message])
    assert claimed(fast) == [message.queue_id]
    now_ms = fast._here_ms()
    update = defer(message.queue_id, due_at_ms=now_ms + 60_000)
    assert fast.record_batch([update], incarnation="fast", now_ms=now_ms).lost == ()
    for store in (right, fast):
        assert claimed(store, in_ms=50_000) == []
        due_at_ms = store.next_due_at_ms("default")
        assert due_at_ms is not None
        assert abs(due_at_ms - store._here_ms() - 60_000) < TOLERANCE_MS
    assert claimed(right, in_ms=65_000) == [message.queue_id]


def test_a_fast_machine_deletes_nothing_before_its_time(
    right: PostgresStore, fast: FastStore
) -> None:
    old, orphan = (accepted(at_ms=right._here_ms()) for _ in range(2))
    right.accept_batch([old])
    right.add_chunks(orphan.queue_id, 0, [b"x"])
    claimed(right)
    right.record_batch([finish(old.queue_id)], incarnation="right", now_ms=right._here_ms())
    retention_ms = FAST_MS // 2
    cutoff_ms = fast._here_ms() - retention_ms
    assert fast.purge({"finished": cutoff_ms, "orphans": cutoff_ms}, limit=10) == 0
    assert right.read_chunk(orphan.queue_id, 0) == b"x"


def test_what_one_learnt_of_a_provider_is_as_old_for_all(
    right: PostgresStore, fast: FastStore
) -> None:
    for store in (right, fast):
        group = type(store).__name__
        store.lower_rate(group, per_s=30.0, guard_s=1.0)
        store.lower_connections(group, own=3, incarnation="right", guard_s=1.0)
        store.acquire_permits(group, wanted=1, limit=0, incarnation="right")
    for store in (right, fast):
        for account in store.accounts().values():
            for at_ms in (account.ceiling_at_ms, account.connections_at_ms, account.wanted_at_ms):
                assert abs(at_ms - store._here_ms()) < TOLERANCE_MS


def test_the_guard_against_one_trouble_counted_twice_holds_between_clocks(
    right: PostgresStore, fast: FastStore
) -> None:
    right.lower_rate("p", per_s=30.0, guard_s=60.0)
    fast.lower_rate("p", per_s=5.0, guard_s=60.0)
    assert right.accounts()["p"].ceiling_per_s == 30.0
    fast.lower_connections("p", own=3, incarnation="fast", guard_s=60.0)
    right.lower_connections("p", own=8, incarnation="right", guard_s=60.0)
    assert right.accounts()["p"].ceiling_connections == 3


def test_a_hold_is_probed_at_one_time_and_counted_once(
    right: PostgresStore, fast: FastStore
) -> None:
    now_ms = fast._here_ms()
    fast.put_hold(
        Hold(
            scope="provider",
            key="p",
            reason="r",
            remedy="",
            since_ms=now_ms - 60_000,
            probe_at_ms=now_ms + 60_000,
        )
    )
    for store in (right, fast):
        (hold,) = store.holds()
        assert hold.probe_at_ms is not None
        assert abs(hold.since_ms + 60_000 - store._here_ms()) < TOLERANCE_MS
        assert abs(hold.probe_at_ms - 60_000 - store._here_ms()) < TOLERANCE_MS
    right.drop_hold("provider", "p", now_ms=right._here_ms())
    for store in (right, fast):
        until_ms = store._here_ms()
        held_ms = store.held_ms("p", since_ms=until_ms - 3_600_000, now_ms=until_ms)
        assert abs(held_ms - 60_000) < TOLERANCE_MS


def test_time_held_by_operators_is_by_one_clock(right: PostgresStore, fast: FastStore) -> None:
    message = accepted(at_ms=right._here_ms())
    right.accept_batch([message])
    entry = AuditEntry(at_ms=0, actor="a", action="x", target="t", affected=0, detail="")
    for store, to in ((fast, DeliveryState.HELD), (right, DeliveryState.DEFERRED)):
        store.change_state(
            [message.queue_id],
            from_states=frozenset(DeliveryState),
            to=to,
            reason="operator",
            due_at_ms=store._here_ms(),
            entry=replace(entry, at_ms=store._here_ms()),
        )
    assert claimed(fast) == [message.queue_id]
    (shown,) = right.search(Selection(queue_ids=(message.queue_id,)), limit=1)
    assert shown.deliveries[0].attempts == 0
    (found,) = right.audit_entries(limit=1)
    assert abs(found.at_ms - time.time_ns() // 1_000_000) < TOLERANCE_MS


def test_older_than_means_the_same_everywhere(right: PostgresStore, fast: FastStore) -> None:
    message = accepted(at_ms=right._here_ms())
    right.accept_batch([message])
    young = Selection(accepted_before_ms=fast._here_ms() - FAST_MS // 2)
    assert fast.search(young, limit=1) == []
    old = Selection(accepted_before_ms=fast._here_ms() + FAST_MS // 2)
    assert len(fast.search(old, limit=1)) == 1


def test_heartbeats_are_as_old_as_they_are(right: PostgresStore, fast: FastStore) -> None:
    for store in (right, fast):
        for one in store.instances():
            assert abs(one.heartbeat_at_ms - store._here_ms()) < TOLERANCE_MS
            assert abs(one.started_at_ms - store._here_ms()) < TOLERANCE_MS


def test_a_clock_that_is_set_is_noticed_with_the_next_heartbeat(right: PostgresStore) -> None:
    assert right._ahead_ms == 0
    right._here_ms = lambda: time.time_ns() // 1_000_000 - FAST_MS
    right.heartbeat("right")
    assert abs(right._ahead_ms - FAST_MS) < TOLERANCE_MS


def test_history_and_incidents_have_one_time_for_all(right: PostgresStore, fast: FastStore) -> None:
    fast.add_history(fast._here_ms(), {("x", "a"): 1})
    right.add_history(right._here_ms(), {("x", "a"): 2})
    assert sum(point.amount for point in right.history(right._here_ms() - 300_000)) == 3
    assert sum(point.amount for point in fast.history(fast._here_ms() - 300_000)) == 3
    since_ms = fast._here_ms()
    fast.open_incident(
        Incident(incident_id="1", rule="x", key="", summary="", remedy="", since_ms=since_ms)
    )
    right.end_incident("1", at_ms=right._here_ms() + 5000)
    (seen,) = right.incidents(right._here_ms())
    assert abs(seen.since_ms - right._here_ms()) < TOLERANCE_MS
    (seen,) = fast.incidents(fast._here_ms())
    assert seen.recovered_at_ms is not None
    assert abs(seen.recovered_at_ms - fast._here_ms() - 5000) < TOLERANCE_MS
    assert fast.incidents(fast._here_ms() + 60_000) == []
