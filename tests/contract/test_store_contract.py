"""What every store must do: one suite for every database."""

from __future__ import annotations

import multiprocessing
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import update

from relaygw.errors import AlreadyAccepted, StoreUnavailable
from relaygw.mail.envelope import DeliveryUpdate, NewRecipient, RecipientUpdate
from relaygw.mail.hold import HoldCause, HoldCode, sender_refused
from relaygw.mail.search import EVERYTHING
from relaygw.mail.state import DeliveryState, RecipientState
from relaygw.store.audit import AuditEntry
from relaygw.store.holds import Hold
from relaygw.store.limits import SenderNote
from relaygw.store.queue_entry import QueueEntry
from relaygw.store.queue_tables import account, usage
from relaygw.store.selection import Selection
from relaygw.store.side_tables import duty
from relaygw.store.store import Store, read_content
from tests.builders import NOW_MS, accepted, instance, part_on, selected, taken, update_of
from tests.contract.conftest import clock_at, open_store, purge_before, shed_content
from tests.processes import PROCESSES

ALL_STATES = frozenset(DeliveryState)
ENTRY = AuditEntry(at_ms=NOW_MS, actor="a", action="queue.x", target="t", affected=0, detail="")
LATE_MS = 4_000_000_000_000


def entry_of(store: Store, queue_id: str) -> QueueEntry:
    (found,) = store.queue.search(Selection(queue_ids=(queue_id,), states=ALL_STATES), limit=1)
    return found


def finish(
    queue_id: str, *, delivery_no: int = 0, rcpt_nos: tuple[int, ...] = (0,)
) -> DeliveryUpdate:
    return update_of(
        queue_id, delivery_no=delivery_no, recipients=tuple(taken(number) for number in rcpt_nos)
    )


def defer(queue_id: str, *, due_at_ms: int) -> DeliveryUpdate:
    return update_of(
        queue_id,
        state=DeliveryState.DEFERRED,
        due_at_ms=due_at_ms,
        reason="451 later",
        recipients=(
            RecipientUpdate(
                rcpt_no=0,
                state=RecipientState.PENDING,
                reply="451 later",
                dsn="4.0.0",
                provider="main",
            ),
        ),
    )


def claim(store: Store, *, route: str = "default", limit: int = 10, now_ms: int = NOW_MS):
    return store.leases.claim(route, limit=limit, incarnation="one", now_ms=now_ms)


# --- accepting ----------------------------------------------------------------------------


def test_an_accepted_message_is_claimed_whole(store: Store) -> None:
    message = accepted("b@cust.test", "c@cust.test", smtputf8=True)
    store.intake.accept_batch([message])
    (found,) = claim(store)
    assert found.queue_id == message.queue_id
    assert found.content == message.content[0]
    assert [r.address for r in found.recipients] == ["b@cust.test", "c@cust.test"]
    assert (found.sender, found.smtputf8, found.mode) == ("a@shop.test", True, "production")


def test_a_batch_is_all_or_nothing(store: Store) -> None:
    first, second = accepted(), accepted()
    store.intake.accept_batch([first])
    with pytest.raises(StoreUnavailable):
        store.intake.accept_batch([second, first])
    assert [entry.queue_id for entry in store.queue.search(Selection(), limit=10)] == [
        first.queue_id
    ]


def test_a_drop_id_is_accepted_once(store: Store) -> None:
    first, other, twin = accepted(drop_id="d1"), accepted(drop_id="d2"), accepted(drop_id="d1")
    store.intake.accept_batch(
        [first, accepted(), accepted()]
    )  # without an id there is nothing to repeat
    with pytest.raises(AlreadyAccepted):
        store.intake.accept_batch([other, twin])
    for message in (other, twin):  # as the front does with a batch that failed
        with suppress(AlreadyAccepted):
            store.intake.accept_batch([message])
    queue_ids = {entry.queue_id for entry in store.queue.search(Selection(), limit=10)}
    assert len(queue_ids) == 4
    assert {first.queue_id, other.queue_id} < queue_ids
    assert not issubclass(AlreadyAccepted, StoreUnavailable)
    store.leases.record_batch([], incarnation="one", now_ms=NOW_MS)  # the store works on


def test_large_content_is_stored_ahead_and_read_by_chunks(store: Store) -> None:
    message = accepted(content=b"", stored_chunks=2, size_bytes=2_000_000)
    message = replace(message, content=())
    store.intake.add_chunks(message.queue_id, 0, [b"one"])
    store.intake.add_chunks(message.queue_id, 1, [b"two"])
    store.intake.accept_batch([message])
    (found,) = claim(store)
    assert (found.content, found.chunk_count) == (None, 2)
    assert b"".join(read_content(store, entry_of(store, message.queue_id))) == b"onetwo"


def test_dropped_mail_leaves_its_record_only(store: Store) -> None:
    blocked = NewRecipient(
        address="b@x.test", state=RecipientState.BLOCKED, reason="on the block list"
    )
    message = accepted(blocked)
    store.intake.accept_batch([message])
    assert claim(store) == []
    entry = entry_of(store, message.queue_id)
    assert entry.recipients[0].state is RecipientState.BLOCKED
    assert entry.chunk_count == 0


# --- claims and leases --------------------------------------------------------------------


def test_a_claimed_delivery_is_claimed_once(store: Store) -> None:
    store.intake.accept_batch([accepted() for _ in range(5)])
    first = claim(store, limit=3)
    second = claim(store, limit=10)
    assert (len(first), len(second)) == (3, 2)
    assert not {c.queue_id for c in first} & {c.queue_id for c in second}


def test_the_oldest_is_claimed_first(store: Store) -> None:
    late, early = accepted(at_ms=NOW_MS), accepted(at_ms=NOW_MS - 1000)
    store.intake.accept_batch([late, early])
    assert [c.queue_id for c in claim(store)] == [early.queue_id, late.queue_id]


def test_only_a_living_incarnation_claims(store: Store) -> None:
    store.intake.accept_batch([accepted()])
    assert store.leases.claim("default", limit=1, incarnation="stranger", now_ms=NOW_MS) == []
    store.instances.bury("one")
    assert claim(store) == []


def test_only_the_named_route_is_claimed(store: Store) -> None:
    store.intake.accept_batch([accepted(route="promo")])
    assert claim(store, route="default") == []
    assert len(claim(store, route="promo")) == 1


def test_retries_and_new_mail_share_a_claim(store: Store) -> None:
    store.intake.accept_batch([accepted() for _ in range(6)])
    for found in claim(store, limit=6):
        store.leases.record_batch(
            [defer(found.queue_id, due_at_ms=NOW_MS)], incarnation="one", now_ms=NOW_MS
        )
    fresh = [accepted() for _ in range(6)]
    store.intake.accept_batch(fresh)
    got = {found.queue_id for found in claim(store, limit=6)}
    assert len(got & {message.queue_id for message in fresh}) == 3


@pytest.mark.parametrize("fresh", [0, 2])
def test_retries_take_what_new_mail_leaves_of_a_claim(store: Store, fresh: int) -> None:
    """Else what is released leaves at half a window a poll: each claim would look like the last."""
    clients = [f"10.0.{number}.0/24" for number in range(12)]
    store.intake.accept_batch([accepted(client_key=client) for client in clients])
    for found in claim(store, limit=12):
        store.leases.record_batch(
            [defer(found.queue_id, due_at_ms=NOW_MS)], incarnation="one", now_ms=NOW_MS
        )
    new = [accepted() for _ in range(fresh)]
    store.intake.accept_batch(new)
    first, second = claim(store, limit=8), claim(store, limit=8)
    assert {one.queue_id for one in new} <= {one.queue_id for one in first}
    assert (len(first), len(second)) == (8, 4 + fresh)
    turns = [one.client_key for one in (*first, *second) if one.client_key in clients]
    assert sorted(turns) == sorted(clients)


def test_clients_take_turns(store: Store) -> None:
    store.intake.accept_batch([accepted(client_key="a") for _ in range(20)])
    store.intake.accept_batch([accepted(client_key="b") for _ in range(2)])
    keys = [found.client_key for found in claim(store, limit=8)]
    assert (keys.count("a"), keys.count("b")) == (6, 2)


def test_every_client_has_its_turn_however_many_there_are(store: Store) -> None:
    clients = [f"10.0.{number}.0/24" for number in range(30)]
    store.intake.accept_batch([accepted(client_key=client) for client in clients for _ in range(5)])
    for _ in range(2):
        seen = [one.client_key for _ in range(3) for one in claim(store, limit=10)]
        assert sorted(seen) == sorted(clients)


def test_one_of_very_many_clients_is_found_when_it_is_due(store: Store) -> None:
    messages = [accepted(client_key=f"10.{number}.0.0/24") for number in range(1000, 1250)]
    store.intake.accept_batch(messages)
    while got := claim(store, limit=200):
        later = [defer(one.queue_id, due_at_ms=NOW_MS + 3_600_000) for one in got]
        store.leases.record_batch(later, incarnation="one", now_ms=NOW_MS)
    last = messages[-1].queue_id
    store.queue.change_state(
        [last],
        from_states=frozenset({DeliveryState.DEFERRED}),
        to=DeliveryState.DEFERRED,
        entry=ENTRY,
    )
    assert store.leases.next_due_at_ms("default") == NOW_MS
    assert [one.queue_id for one in claim(store)] == [last]


def test_a_deferred_delivery_waits_until_it_is_due(store: Store) -> None:
    message = accepted()
    store.intake.accept_batch([message])
    claim(store)
    update = defer(message.queue_id, due_at_ms=NOW_MS + 1000)
    assert store.leases.record_batch([update], incarnation="one", now_ms=NOW_MS).is_alive
    assert claim(store, now_ms=NOW_MS + 999) == []
    assert store.leases.next_due_at_ms("default") == NOW_MS + 1000
    (again,) = claim(store, now_ms=NOW_MS + 1000)
    assert (again.attempts, again.recipients[0].attempts) == (1, 1)


def test_only_pending_recipients_are_claimed_again(store: Store) -> None:
    message = accepted("b@cust.test", "c@cust.test")
    store.intake.accept_batch([message])
    claim(store)
    update = finish(message.queue_id)  # the first only
    update = replace(update, state=DeliveryState.DEFERRED)
    store.leases.record_batch([update], incarnation="one", now_ms=NOW_MS)
    (again,) = claim(store)
    assert [r.address for r in again.recipients] == ["c@cust.test"]


def test_what_is_given_back_is_due_again_without_an_attempt(store: Store) -> None:
    message = accepted()
    store.intake.accept_batch([message])
    claim(store)
    store.leases.give_back([(message.queue_id, 0)], incarnation="one")
    (again,) = claim(store)
    assert again.attempts == 0


def test_a_buried_incarnations_mail_is_free_and_its_outcomes_are_refused(store: Store) -> None:
    message = accepted()
    store.intake.accept_batch([message])
    claim(store)
    assert store.instances.bury("one") == 1
    late = store.leases.record_batch([finish(message.queue_id)], incarnation="one", now_ms=NOW_MS)
    assert not late.is_alive
    store.instances.register(instance("two"))
    again = store.leases.claim("default", limit=1, incarnation="two", now_ms=NOW_MS * 2)
    assert [found.queue_id for found in again] == [message.queue_id]


def test_a_delivery_whose_workers_die_is_held_as_poison(store: Store) -> None:
    message = accepted()
    store.intake.accept_batch([message])
    for name in ("p1", "p2", "p3"):
        store.instances.register(instance(name))
        store.leases.claim("default", limit=1, incarnation=name, now_ms=NOW_MS * 2)
        store.instances.bury(name, begun=[(message.queue_id, 0, "main")])
    (delivery,) = entry_of(store, message.queue_id).deliveries
    assert (delivery.state, delivery.reason) == (DeliveryState.HELD, "poison")


def test_mail_that_only_waited_with_a_dead_worker_is_never_poison(store: Store) -> None:
    message = accepted()
    store.intake.accept_batch([message])
    for number in range(5):
        store.instances.register(instance(f"p{number}"))
        store.leases.claim("default", limit=1, incarnation=f"p{number}", now_ms=NOW_MS * 2)
        store.instances.bury(f"p{number}")
    assert len(claim(store)) == 1


class Watch:
    """The monotonic clock of a process that looks at the others, and the database's clock.

    The second goes with the first: else two heartbeats might fall into one millisecond.
    """

    def __init__(self, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now_s = 1000.0
        self.set_by_ms = 0
        kind = type(store.database)
        now_us = kind._now_us
        monkeypatch.setattr("relaygw.store.instances.running_s", lambda: self.now_s)
        monkeypatch.setattr("relaygw.store.instances.awake_s", lambda: self.now_s)
        monkeypatch.setattr(
            kind, "_now_us", lambda one, connection: now_us(one, connection) + self.moved_us
        )

    @property
    def moved_us(self) -> int:
        return self.set_by_ms * 1000 + int((self.now_s - 1000) * 1e6)


@pytest.fixture
def watch(url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Store, Watch]]:
    store = open_store(url)
    watch = Watch(store, monkeypatch)
    for name in ("one", "two"):
        store.instances.register(instance(name))
    yield store, watch
    store.close()


@pytest.mark.parametrize("hours", [0, 1, -1], ids=["right", "forward", "back"])
def test_who_is_dead_is_told_by_a_heartbeat_that_does_not_change_and_never_by_its_age(
    watch: tuple[Store, Watch], hours: int
) -> None:
    """Whatever the database's clock is set to, and takeover takes no longer for it."""
    store, clock = watch
    assert not store.instances.heartbeat("stranger")

    def stale_after(wait_s: float, *beating: str) -> list[str]:
        clock.now_s += wait_s
        for name in beating:
            store.instances.heartbeat(name)
        return store.instances.stale_incarnations(20.0)

    assert stale_after(0) == []
    assert [stale_after(5, "one", "two") for _ in range(4)] == [[]] * 4
    clock.set_by_ms = hours * 3_600_000
    assert store.instances.stale_incarnations(20.0) == [], "none had time to renew its own"
    assert [stale_after(5, "one") for _ in range(3)] == [[]] * 3
    assert stale_after(5, "one") == ["two"]
    assert stale_after(1, "one", "two") == []


def test_who_looks_for_the_first_time_calls_nobody_dead(watch: tuple[Store, Watch]) -> None:
    store, clock = watch
    clock.now_s += 3600
    store.instances.heartbeat("one")
    assert store.instances.stale_incarnations(0.1) == []


def test_who_renews_at_the_last_moment_is_not_buried(watch: tuple[Store, Watch]) -> None:
    store, clock = watch
    message = accepted()
    store.intake.accept_batch([message])
    assert len(store.leases.claim("default", limit=1, incarnation="two", now_ms=NOW_MS)) == 1
    store.instances.stale_incarnations(20.0)
    for _ in range(4):
        clock.now_s += 5
        store.instances.heartbeat("one")
    assert store.instances.stale_incarnations(20.0) == ["two"]
    time.sleep(0.002)  # heartbeats have milliseconds
    store.instances.heartbeat("two")
    assert store.instances.bury("two", unless_heard=True) == 0
    assert store.instances.heartbeat("two")
    assert store.instances.stale_incarnations(20.0) == []
    for _ in range(4):
        clock.now_s += 5
        store.instances.heartbeat("one")
    assert store.instances.stale_incarnations(20.0) == ["two"]
    assert store.instances.bury("two", unless_heard=True) == 1
    assert not store.instances.heartbeat("two")


# --- a clock that was set back -------------------------------------------------------------


HOUR_MS = 3_600_000


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def test_new_mail_is_due_whatever_the_clock_was_set_to(store: Store) -> None:
    message = accepted(at_ms=now_ms() + HOUR_MS)
    store.intake.accept_batch([message])
    due_at_ms = store.leases.next_due_at_ms("default")
    assert due_at_ms is not None
    assert due_at_ms <= now_ms()
    assert [one.queue_id for one in claim(store, now_ms=now_ms())] == [message.queue_id]


def test_mail_that_was_put_off_before_the_clock_was_set_back_waits_anew_and_no_longer(
    store: Store,
) -> None:
    ahead_ms = now_ms() + HOUR_MS
    early, late, plain, given_back = (accepted(at_ms=ahead_ms) for _ in range(4))
    store.intake.accept_batch([early, late, plain, given_back])
    claim(store, now_ms=ahead_ms)
    updates = [
        defer(early.queue_id, due_at_ms=ahead_ms + 1_000),
        defer(late.queue_id, due_at_ms=ahead_ms + 600_000),
        defer(given_back.queue_id, due_at_ms=ahead_ms),
    ]
    store.leases.record_batch(updates, incarnation="one", now_ms=ahead_ms)
    claim(store, now_ms=ahead_ms)
    store.leases.give_back([(given_back.queue_id, 0)], incarnation="one")
    later_ms = now_ms() + 2 * HOUR_MS
    store.leases.record_batch(
        [defer(plain.queue_id, due_at_ms=later_ms)], incarnation="one", now_ms=now_ms()
    )
    assert claim(store, now_ms=now_ms()) == []
    assert store.janitor.restart_waits(limit=2) == 2
    assert store.janitor.restart_waits(limit=2) == 1
    assert store.janitor.restart_waits(limit=2) == 0
    dues_ms = [
        entry_of(store, one.queue_id).deliveries[0].due_at_ms - now_ms()
        for one in (early, late, given_back)
    ]
    for due_ms, wait_ms in zip(dues_ms, (1_000, 600_000, 0), strict=True):
        assert wait_ms - 20_000 < due_ms <= wait_ms
    assert entry_of(store, plain.queue_id).deliveries[0].due_at_ms == later_ms
    found = claim(store, now_ms=now_ms() + 1_000)
    assert {one.queue_id for one in found} == {early.queue_id, given_back.queue_id}


def test_a_rate_goes_on_when_the_clock_is_set_back(store: Store) -> None:
    assert store.limits.take_tokens("p", wanted=1, per_s=2.0).granted == 1
    with store.database.write() as connection:
        ahead_us = time.time_ns() // 1000 + HOUR_MS * 1000
        connection.execute(update(account).values(next_slot_us=ahead_us))
    assert store.limits.take_tokens("p", wanted=1, per_s=2.0).granted == 1
    tokens = store.limits.take_tokens("slow", wanted=1, per_s=0.001)
    assert tokens.granted == 1
    tokens = store.limits.take_tokens("slow", wanted=1, per_s=0.001)
    assert tokens.granted == 0, "its next one is a quarter of an hour away"
    assert tokens.starts_in_s > 900


def test_a_provider_teaches_when_the_clock_was_set_back(store: Store) -> None:
    store.limits.lower_rate("p", per_s=30.0, guard_s=1.0)
    store.limits.lower_connections("p", own=3, incarnation="one", guard_s=1.0)
    with store.database.write() as connection:
        ahead_ms = now_ms() + HOUR_MS
        connection.execute(
            update(account).values(ceiling_at_ms=ahead_ms, connections_at_ms=ahead_ms)
        )
    store.limits.lower_rate("p", per_s=5.0, guard_s=1.0)
    store.limits.lower_connections("p", own=4, incarnation="one", guard_s=1.0)
    learnt = store.limits.accounts()["p"]
    assert (learnt.ceiling_per_s, learnt.ceiling_connections) == (5.0, 4)
    assert learnt.ceiling_at_ms <= now_ms() + 5_000


def test_a_duty_changes_hands_when_the_clock_was_set_back(store: Store) -> None:
    """Who had it may not have renewed it for an hour."""
    store.instances.register(instance("two"))
    assert store.watch.duty("watch", "one")
    assert not store.watch.duty("watch", "two")
    with store.database.write() as connection:
        connection.execute(update(duty).values(renewed_at_ms=now_ms() + HOUR_MS))
    assert store.watch.duty("watch", "two")
    assert not store.watch.duty("watch", "one")


# --- outcomes -----------------------------------------------------------------------------


def test_a_finished_message_loses_its_content_and_keeps_its_record(store: Store) -> None:
    message = accepted()
    store.intake.accept_batch([message])
    claim(store)
    store.leases.record_batch([finish(message.queue_id)], incarnation="one", now_ms=NOW_MS)
    entry = entry_of(store, message.queue_id)
    assert entry.recipients[0].state is RecipientState.DELIVERED
    assert entry.recipients[0].reply == "250 2.0.0 Ok"
    assert (entry.chunk_count, store.intake.read_chunk(message.queue_id, 0)) == (0, None)
    assert store.queue.search(Selection(), limit=10) == []


def test_content_stays_until_the_last_delivery_is_finished(store: Store) -> None:
    message = accepted()
    parts = tuple(part_on(route, f"{route}@x.test") for route in ("default", "promo"))
    message = replace(message, deliveries=parts)
    store.intake.accept_batch([message])
    claim(store)
    store.leases.record_batch([finish(message.queue_id)], incarnation="one", now_ms=NOW_MS)
    (found,) = claim(store, route="promo")
    assert found.content == message.content[0]


def test_captured_content_stays_after_delivery(store: Store) -> None:
    captured = NewRecipient(address="c@x.test", state=RecipientState.CAPTURED, reason="staging")
    message = accepted("b@cust.test", captured)
    store.intake.accept_batch([message])
    claim(store)
    store.leases.record_batch([finish(message.queue_id)], incarnation="one", now_ms=NOW_MS)
    shown = store.sandbox.captured_entry(message.queue_id)
    assert shown is not None
    assert b"".join(read_content(store, shown.entry)) == message.content[0]
    assert store.sandbox.count_captured(EVERYTHING) == (1, 1)


def test_recipients_held_apart_get_a_delivery_of_their_own(store: Store) -> None:
    message = accepted("b@cust.test", "c@cust.test")
    store.intake.accept_batch([message])
    claim(store)
    update = replace(
        finish(message.queue_id), held_apart=(1,), held_apart_for=HoldCause(HoldCode.MODE)
    )
    store.leases.record_batch([update], incarnation="one", now_ms=NOW_MS)
    entry = entry_of(store, message.queue_id)
    states = [(d.state, d.reason) for d in entry.deliveries]
    assert states == [(DeliveryState.FINISHED, None), (DeliveryState.HELD, "mode")]
    assert [r.delivery_no for r in entry.recipients] == [0, 1]
    assert entry.chunk_count == 1


# --- limits and holds ---------------------------------------------------------------------


def test_permits_never_exceed_the_limit(store: Store) -> None:
    store.instances.register(instance("two"))
    assert store.limits.acquire_permits("p", wanted=3, limit=5, incarnation="one") == 3
    assert store.limits.acquire_permits("p", wanted=3, limit=5, incarnation="two") == 2
    assert store.limits.acquire_permits("p", wanted=1, limit=5, incarnation="one") == 0
    store.limits.release_permits("p", count=1, incarnation="one")
    assert store.limits.acquire_permits("p", wanted=3, limit=5, incarnation="two") == 1
    store.instances.bury("two")
    assert store.limits.acquire_permits("p", wanted=9, limit=5, incarnation="one") == 3


def test_a_hold_is_set_once_renewed_and_dropped(store: Store) -> None:
    hold = Hold(scope="provider", key="ses", reason="r", remedy="m", since_ms=1, probe_at_ms=3)
    assert store.holds.put_hold(hold)
    assert not store.holds.put_hold(replace(hold, reason="again", probe_at_ms=5))
    (found,) = store.holds.in_force()
    assert (found.reason, found.probe_at_ms, found.since_ms) == ("again", 5, 1)
    assert store.holds.drop_hold("provider", "ses")
    assert store.holds.in_force() == []
    assert not store.holds.drop_hold("provider", "ses")
    assert store.holds.put_hold(hold)


def test_only_an_operator_renews_the_hold_of_an_operator(store: Store) -> None:
    hold = Hold(scope="provider", key="ses", reason="r", remedy="m", since_ms=1, probe_at_ms=3)
    done = replace(audit("hold"), target="ses")
    assert store.holds.put_hold(replace(hold, reason="operator", probe_at_ms=None), entry=done)
    assert not store.holds.put_hold(replace(hold, reason="a reply"))
    (found,) = store.holds.in_force()
    assert (found.reason, found.probe_at_ms) == ("operator", None)
    assert not store.holds.put_hold(replace(hold, reason="again", probe_at_ms=None), entry=done)
    assert store.holds.in_force()[0].reason == "again"
    assert not store.holds.drop_hold("provider", "ses"), "a probe does not end it"
    assert store.holds.drop_hold("provider", "ses", entry=done)
    assert not store.holds.drop_hold("provider", "ses", entry=done)
    assert [entry.affected for entry in store.audit.entries(limit=10)] == [1, 1, 1]


def test_a_probe_is_renewed_of_a_hold_in_force_that_is_no_operator_s(store: Store) -> None:
    hold = Hold(scope="unreachable", key="ses", reason="r", remedy="", since_ms=1, probe_at_ms=3)
    store.holds.renew_probe("unreachable", "ses", 5)
    assert store.holds.in_force() == [], "none is set by it"
    store.holds.put_hold(hold)
    store.holds.put_hold(replace(hold, scope="provider", probe_at_ms=None))
    for scope in ("unreachable", "provider"):
        store.holds.renew_probe(scope, "ses", 5)
    found = {one.scope: one.probe_at_ms for one in store.holds.in_force()}
    assert found == {"unreachable": 5, "provider": None}


def test_the_time_of_holds_is_added_up_once(store: Store) -> None:
    hold = Hold(scope="provider", key="p", reason="r", remedy="", since_ms=100, probe_at_ms=1)
    store.holds.put_hold(hold)
    store.holds.put_hold(replace(hold, scope="credential", since_ms=150))
    for scope, at_ms in (("provider", 200), ("credential", 300)):
        with clock_at(store, at_ms):
            store.holds.drop_hold(scope, "p")
    store.holds.put_hold(replace(hold, since_ms=1000))
    with clock_at(store, 1500):
        assert store.holds.stopped_ms("p", since_ms=0) == 200 + 500
        assert store.holds.stopped_ms("p", since_ms=250) == 50 + 500
        assert store.holds.stopped_ms("other", since_ms=0) == 0


# --- the operator -------------------------------------------------------------------------


def audit(action: str) -> AuditEntry:
    return AuditEntry(at_ms=NOW_MS, actor="root", action=action, target="x", affected=0, detail="")


def test_hold_and_release_and_delete(store: Store) -> None:
    message = accepted()
    store.intake.accept_batch([message])

    def change(to: DeliveryState) -> int:
        return store.queue.change_state(
            [message.queue_id],
            from_states=ALL_STATES,
            to=to,
            hold=HoldCause(HoldCode.OTHER, "operator"),
            entry=audit(to),
        )

    assert change(DeliveryState.HELD) == 1
    assert claim(store) == []
    assert change(DeliveryState.DEFERRED) == 1
    assert change(DeliveryState.DELETED) == 1
    entry = entry_of(store, message.queue_id)
    assert entry.recipients[0].state is RecipientState.CANCELLED
    assert claim(store) == []
    assert change(DeliveryState.DEFERRED) == 1  # out of the trash again
    assert len(claim(store)) == 1
    assert [entry.affected for entry in store.audit.entries(limit=10)] == [1, 1, 1, 1]


def test_an_operator_never_takes_a_lease_away(store: Store) -> None:
    message = accepted()
    store.intake.accept_batch([message])
    claim(store)
    for to in (DeliveryState.HELD, DeliveryState.DELETED, DeliveryState.DEFERRED):
        changed = store.queue.change_state(
            [message.queue_id], from_states=ALL_STATES, to=to, entry=audit(to)
        )
        assert changed == 0, to


def test_time_held_is_counted(store: Store) -> None:
    message = accepted()
    store.intake.accept_batch([message])
    for to, at_ms in ((DeliveryState.HELD, NOW_MS), (DeliveryState.DEFERRED, NOW_MS + 7000)):
        store.queue.change_state(
            [message.queue_id], from_states=ALL_STATES, to=to, entry=replace(audit(to), at_ms=at_ms)
        )
    assert claim(store, now_ms=NOW_MS + 7000)[0].held_ms == 7000


@pytest.mark.parametrize(
    "selection",
    [
        selected(sender="SHOP.test"),
        selected(recipient="b@cust"),
        selected(subject="ORDER"),
        selected(route="default"),
        selected(stream="transactional"),
        selected(client="127.0.0.1"),
        Selection(accepted_before_ms=NOW_MS + 1),
        Selection(states=frozenset({DeliveryState.INCOMING})),
    ],
    ids=["sender", "recipient", "subject", "route", "stream", "client", "age", "state"],
)
def test_selections_find_and_narrow(store: Store, selection: Selection) -> None:
    wanted = accepted(subject="Your order 100%_\\")
    other = accepted(
        "x@else.test",
        route="other",
        at_ms=NOW_MS + 10,
        sender="n@news.test",
        subject="News",
        source=replace(wanted.source, client="10.0.0.1"),
    )
    part = replace(other.deliveries[0], stream="promotional")
    store.intake.accept_batch([wanted, replace(other, deliveries=(part,))])
    found = [entry.queue_id for entry in store.queue.search(selection, limit=10)]
    assert wanted.queue_id in found
    if selection.states != frozenset({DeliveryState.INCOMING}):
        assert other.queue_id not in found


def test_search_treats_wildcards_as_text(store: Store) -> None:
    store.intake.accept_batch([accepted(subject="100% sure"), accepted(subject="100 sure")])
    assert len(store.queue.search(selected(subject="100%"), limit=10)) == 1
    assert store.queue.search(selected(subject="' OR 1=1--"), limit=10) == []


def test_counts_are_of_open_deliveries(store: Store) -> None:
    captured = NewRecipient(address="c@cust.test", state=RecipientState.CAPTURED)
    messages = [accepted("a@cust.test", "b@cust.test", captured) for _ in range(3)]
    store.intake.accept_batch(messages)
    claim(store, limit=1)
    counts = {one.state: (one.deliveries, one.recipients) for one in store.queue.counts()}
    assert counts == {DeliveryState.ACTIVE: (1, 2), DeliveryState.INCOMING: (2, 4)}


# --- the janitor --------------------------------------------------------------------------


def test_purge_takes_what_is_over_its_time_and_nothing_else(store: Store) -> None:
    old, fresh, queued = accepted(), accepted(at_ms=NOW_MS + 5000), accepted()
    store.intake.accept_batch([old, fresh])
    claim(store, now_ms=NOW_MS + 5000)
    for message, at_ms in ((old, NOW_MS + 10), (fresh, NOW_MS + 6000)):
        store.leases.record_batch([finish(message.queue_id)], incarnation="one", now_ms=at_ms)
    store.intake.accept_batch([queued])
    assert purge_before(store, {"finished": NOW_MS + 5000}, limit=10) == 1
    left = store.queue.search(Selection(states=ALL_STATES), limit=10)
    assert {entry.queue_id for entry in left} == {fresh.queue_id, queued.queue_id}


def test_large_content_of_finished_mail_goes_piece_by_piece(store: Store) -> None:
    large, small = accepted(content=b""), accepted()
    store.intake.add_chunks(large.queue_id, 0, [b"x"] * 9)
    store.intake.accept_batch([replace(large, content=(), stored_chunks=9), small])
    claim(store, now_ms=NOW_MS)
    for message in (large, small):
        store.leases.record_batch([finish(message.queue_id)], incarnation="one", now_ms=NOW_MS + 10)
    assert store.intake.read_chunk(small.queue_id, 0) is None
    assert store.intake.read_chunk(large.queue_id, 8) is not None
    assert not shed_content(store, NOW_MS + 10)  # not before its time
    left = []
    while shed_content(store, NOW_MS + 11):
        left.append(sum(store.intake.read_chunk(large.queue_id, n) is not None for n in range(9)))
    assert left == [5, 1, 0]
    assert entry_of(store, large.queue_id).chunk_count == 0


@pytest.mark.parametrize("is_sent_first", [True, False], ids=["sent_first", "deleted_first"])
def test_a_part_in_the_trash_keeps_the_content_until_its_own_time_is_over(
    store: Store, is_sent_first: bool
) -> None:
    parts = (("b", "x@b.test"), ("default", "y@a.test"), ("c", "z@c.test"))
    message = accepted(deliveries=tuple(part_on(route, address) for route, address in parts))
    store.intake.accept_batch([message])

    def send(route: str, number: int) -> None:
        claim(store, route=route)
        update = finish(message.queue_id, delivery_no=number, rcpt_nos=(number,))
        store.leases.record_batch([update], incarnation="one", now_ms=NOW_MS)

    def delete(at_ms: int) -> None:
        store.queue.change_state(
            [message.queue_id],
            from_states=frozenset({DeliveryState.INCOMING}),
            to=DeliveryState.DELETED,
            entry=replace(ENTRY, at_ms=at_ms),
        )

    if is_sent_first:
        send("default", 1)
    else:
        claim(store, route="default")
    claim(store, route="c")
    delete(NOW_MS)  # the first part
    store.leases.give_back([(message.queue_id, 2)], incarnation="one")
    delete(NOW_MS + 1000)  # the last part
    if not is_sent_first:
        update = finish(message.queue_id, delivery_no=1, rcpt_nos=(1,))
        store.leases.record_batch([update], incarnation="one", now_ms=NOW_MS)
    assert store.intake.read_chunk(message.queue_id, 0) is not None
    assert not shed_content(store, NOW_MS * 2)
    assert purge_before(store, {"deleted": NOW_MS + 500, "finished": NOW_MS * 2}, limit=9) == 0
    assert store.queue.undelete([message.queue_id], entry=ENTRY) == 2
    assert entry_of(store, message.queue_id).chunk_count == 1
    send("c", 2)
    store.queue.change_state(
        [message.queue_id],
        from_states=frozenset({DeliveryState.DEFERRED}),
        to=DeliveryState.DELETED,
        entry=ENTRY,
    )
    assert store.intake.read_chunk(message.queue_id, 0) is not None
    assert purge_before(store, {"deleted": NOW_MS * 2}, limit=9) == 1
    assert store.intake.read_chunk(message.queue_id, 0) is None
    assert store.queue.undelete([message.queue_id], entry=ENTRY) == 0
    assert purge_before(store, {"finished": LATE_MS}, limit=9) == 1


def test_emptying_the_trash_ends_where_messages_still_wait(store: Store) -> None:
    """What waits beside a part in the trash is not found again and again."""
    parts = (("b", "x@b.test"), ("default", "y@a.test"))
    message = accepted(deliveries=tuple(part_on(route, address) for route, address in parts))
    store.intake.accept_batch([message])
    claim(store)
    store.queue.change_state(
        [message.queue_id],
        from_states=frozenset({DeliveryState.INCOMING}),
        to=DeliveryState.DELETED,
        entry=ENTRY,
    )
    assert purge_before(store, {"deleted": NOW_MS * 2}, limit=9) == 0


def test_orphaned_chunks_are_cleared(store: Store) -> None:
    orphan, message = accepted(), accepted()
    store.intake.add_chunks(orphan.queue_id, 0, [b"x"])
    store.intake.accept_batch([message])
    assert purge_before(store, {"orphans": time.time_ns() // 1_000_000 + 60_000}, limit=10) == 1
    assert store.intake.read_chunk(orphan.queue_id, 0) is None
    assert store.intake.read_chunk(message.queue_id, 0) is not None


@pytest.mark.parametrize("hours", [-2, 2], ids=["slow", "fast"])
def test_content_on_its_way_is_no_orphan_whatever_the_clock_of_who_takes_it(
    store: Store, hours: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is one when for an hour of those who look nothing of it came, and no message."""
    watch = SimpleNamespace(now_s=1000.0)
    monkeypatch.setattr("relaygw.store.janitor.running_s", lambda: watch.now_s)
    now_ms = time.time_ns() // 1_000_000
    coming, left = (accepted(at_ms=now_ms + hours * 3_600_000) for _ in range(2))

    def purged_after(age_s: float) -> int:
        watch.now_s += age_s
        return purge_before(store, {"orphans": time.time_ns() // 1_000_000 - 3_600_000}, limit=10)

    for message in (coming, left):
        store.intake.add_chunks(message.queue_id, 0, [b"x"])
    assert purged_after(0) == 0
    store.intake.add_chunks(coming.queue_id, 1, [b"y"])
    assert purged_after(3000) == 0
    assert purged_after(700) == 1
    assert store.intake.read_chunk(left.queue_id, 0) is None
    store.intake.accept_batch([replace(coming, content=(), stored_chunks=2)])
    assert purged_after(7200) == 0
    assert store.intake.read_chunk(coming.queue_id, 1) == b"y"


def test_a_message_whose_content_is_not_all_there_is_not_taken(store: Store) -> None:
    large = replace(accepted(), content=(), stored_chunks=2)
    store.intake.add_chunks(large.queue_id, 0, [b"x"])
    with pytest.raises(StoreUnavailable, match="1 of its 2 chunks"):
        store.intake.accept_batch([accepted(), large])
    assert store.queue.counts() == []
    store.intake.add_chunks(large.queue_id, 1, [b"y"])
    store.intake.accept_batch([large])
    assert [lane.deliveries for lane in store.queue.counts()] == [1]


def test_the_sandbox_keeps_the_newest(store: Store) -> None:
    captured = NewRecipient(address="c@x.test", state=RecipientState.CAPTURED)
    messages = [accepted(captured, at_ms=NOW_MS + n) for n in range(5)]
    store.intake.accept_batch(messages)
    assert store.janitor.trim_captured(keep=2, limit=10) == 3
    left = store.sandbox.captured_ids(EVERYTHING, limit=10)
    assert left == [messages[3].queue_id, messages[4].queue_id]


def test_captured_mail_that_is_still_queued_only_leaves_the_sandbox(store: Store) -> None:
    captured = NewRecipient(address="c@x.test", state=RecipientState.CAPTURED)
    message = accepted("b@cust.test", captured)
    store.intake.accept_batch([message])
    assert store.sandbox.delete_captured(None, entry=audit("delete")) == 1
    assert store.sandbox.count_captured(EVERYTHING) == (0, 0)
    assert claim(store)[0].content == message.content[0]


# --- many at once -------------------------------------------------------------------------


def _claim_all(url: str, name: str, got: multiprocessing.Queue[list[str]]) -> None:
    store = open_store(url)
    store.instances.register(instance(name))
    mine: list[str] = []
    while found := store.leases.claim("default", limit=7, incarnation=name, now_ms=NOW_MS * 2):
        mine += [entry.queue_id for entry in found]
    got.put(mine)
    store.close()


def test_two_processes_never_claim_the_same(store: Store, url: str) -> None:
    messages = [accepted() for _ in range(300)]
    store.intake.accept_batch(messages)
    got: multiprocessing.Queue[list[str]] = PROCESSES.Queue()
    processes = [
        PROCESSES.Process(target=_claim_all, args=(url, name, got)) for name in ("p1", "p2")
    ]
    for process in processes:
        process.start()
    claimed = got.get(timeout=60) + got.get(timeout=60)
    for process in processes:
        process.join(60)
    assert sorted(claimed) == sorted(message.queue_id for message in messages)


def test_threads_share_a_store(store: Store) -> None:
    def accept_many() -> None:
        for _ in range(20):
            store.intake.accept_batch([accepted()])

    threads = [threading.Thread(target=accept_many) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(store.queue.search(Selection(), limit=1000)) == 80


# --- limits -------------------------------------------------------------------------------


def test_tokens_of_a_rate_follow_one_another(store: Store) -> None:
    first = store.limits.take_tokens("p", wanted=100, per_s=20.0)
    since_s = time.monotonic()
    assert 1 <= first.granted <= 7, "a quarter of a second's worth, and what was late"
    assert first.starts_in_s <= 0
    second = store.limits.take_tokens("p", wanted=100, per_s=20.0)
    third = store.limits.take_tokens("p", wanted=100, per_s=20.0)
    assert second.granted + third.granted <= 2 + 20.0 * (time.monotonic() - since_s)
    assert store.limits.take_tokens("other", wanted=2, per_s=20.0).granted == 2


def test_no_token_is_granted_long_before_its_time(store: Store) -> None:
    assert store.limits.take_tokens("p", wanted=1, per_s=1.0).granted == 1
    later = store.limits.take_tokens("p", wanted=1, per_s=1.0)
    assert later.granted == 0
    assert 0.3 <= later.starts_in_s <= 1.0


def test_a_quota_counts_what_was_taken_and_given_back(store: Store) -> None:
    assert store.limits.use_quota("p", wanted=7, quota=10).granted == 7
    assert store.limits.use_quota("p", wanted=7, quota=10).granted == 3
    empty = store.limits.use_quota("p", wanted=1, quota=10)
    assert empty.granted == 0
    assert 24 * 3600 <= empty.starts_in_s <= 24 * 3600 + 600
    store.limits.use_quota("p", wanted=-2, quota=10)
    assert store.limits.quota_used("p") == 8
    assert store.limits.use_quota("p", wanted=7, quota=10).granted == 2
    assert store.limits.quota_used("other") == 0


def test_a_quota_holds_for_any_24_hours(store: Store) -> None:
    """Also where a slice of ten minutes was begun just before, and something is given back."""
    store.limits.use_quota("p", wanted=5, quota=10)
    shift(store, "p", hours=-24)  # its slice may have begun up to ten minutes before
    assert store.limits.use_quota("p", wanted=9, quota=10).granted == 5
    store.limits.use_quota("p", wanted=-3, quota=10)
    shift(store, "p", minutes=-11)
    assert store.limits.quota_used("p") == 2
    store.limits.use_quota("p", wanted=-3, quota=10)
    assert store.limits.quota_used("p") == 0
    assert store.limits.use_quota("p", wanted=99, quota=10).granted == 10


def shift(store: Store, limit_group: str, *, hours: int = 0, minutes: int = 0) -> None:
    """Move what was taken of a quota in time."""
    shift_ms = (hours * 60 + minutes) * 60_000
    with store.database.write() as connection:
        connection.execute(
            update(usage)
            .where(usage.c.limit_group == limit_group)
            .values(slice_at_ms=usage.c.slice_at_ms + shift_ms)
        )


def test_what_a_provider_taught_is_kept_and_one_trouble_counts_once(store: Store) -> None:
    assert store.limits.accounts() == {}
    store.limits.lower_rate("p", per_s=30.0, guard_s=60.0)
    store.limits.lower_rate("p", per_s=5.0, guard_s=60.0)
    assert store.limits.accounts()["p"].ceiling_per_s == 30.0
    store.limits.lower_rate("p", per_s=20.0, guard_s=0.0)
    assert store.limits.accounts()["p"].ceiling_per_s == 20.0


def test_connections_of_others_count_towards_what_a_provider_bears(store: Store) -> None:
    for name in ("w1", "w2"):
        store.instances.register(instance(name))
    store.limits.acquire_permits("p", wanted=3, limit=10, incarnation="w2")
    store.limits.lower_connections("p", own=4, incarnation="w1", guard_s=60.0)
    assert store.limits.accounts()["p"].ceiling_connections == 7
    store.limits.lower_connections("p", own=2, incarnation="w1", guard_s=60.0)
    assert store.limits.accounts()["p"].ceiling_connections == 5, "fewer at once, more only later"
    store.limits.lower_connections("p", own=6, incarnation="w1", guard_s=60.0)
    assert store.limits.accounts()["p"].ceiling_connections == 5


def test_senders_are_remembered_with_both_answers(store: Store) -> None:
    note = SenderNote(provider="p", sender="a@shop.test")
    store.limits.note_senders([replace(note, accepted_at_ms=5)])
    store.limits.note_senders([replace(note, refused_at_ms=7, reply="554 not verified")])
    store.limits.note_senders([replace(note, provider="q", accepted_at_ms=9)])
    first, second = store.limits.senders()
    assert first == replace(note, accepted_at_ms=5, refused_at_ms=7, reply="554 not verified")
    assert (second.provider, second.accepted_at_ms) == ("q", 9)


def test_what_is_held_for_one_reason_is_released_in_batches(store: Store) -> None:
    messages = [accepted() for _ in range(5)]
    store.intake.accept_batch(messages)
    claimed = store.leases.claim("default", limit=10, incarnation="one", now_ms=NOW_MS + 1)
    updates = [
        update_of(
            one.queue_id,
            state=DeliveryState.HELD,
            provider="p",
            reason="sender domain a is refused by p" if number < 4 else "other",
            hold=sender_refused("a", ["p"]) if number < 2 else None,
            charged=False,
        )
        for number, one in enumerate(claimed)
    ]
    store.leases.record_batch(updates, incarnation="one", now_ms=NOW_MS + 10)
    cause = sender_refused("a", ["p"])
    assert store.holds.held_causes() == [HoldCause(HoldCode.OTHER, "other"), cause]
    with clock_at(store, NOW_MS + 110):
        assert store.holds.release_held(cause, limit=3).due == 3
        assert store.holds.release_held(cause, limit=3).due == 1
    again = store.leases.claim("default", limit=10, incarnation="one", now_ms=NOW_MS + 120)
    assert [one.held_ms for one in again] == [100] * 4
    assert [one.provider for one in again] == ["p"] * 4


def test_a_connection_in_use_while_all_are_closed_is_closed_when_it_is_given_back(url: str) -> None:
    store = open_store(url)
    with store.database.read() as tx:
        raw: Any = tx.connection.connection.dbapi_connection
        store.close()
    with pytest.raises(Exception, match="closed"):
        raw.execute("SELECT 1")
