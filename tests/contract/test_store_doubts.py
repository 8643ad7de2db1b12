"""What a store tells a worker that does not know what its last calls came to: every database."""

from __future__ import annotations

from dataclasses import replace

from relaygw.mail.envelope import DeliveryUpdate
from relaygw.mail.state import DeliveryState, RecipientState
from relaygw.store.outcomes import Recorded
from relaygw.store.store import Store
from tests.builders import NOW_MS, accepted, instance
from tests.contract.test_store_contract import claim, defer, entry_of, finish

# --- leases -------------------------------------------------------------------------------


def test_only_leases_that_are_not_known_are_freed(store: Store) -> None:
    messages = [accepted(at_ms=NOW_MS - number) for number in range(120)]
    promo, others = accepted(route="promo"), accepted()
    store.intake.accept_batch([*messages, promo])
    claimed = claim(store, limit=200)
    claim(store, route="promo")
    store.intake.accept_batch([others])
    store.instances.register(instance("two"))
    store.leases.claim("default", limit=10, incarnation="two", now_ms=NOW_MS)
    known = [(one.queue_id, one.delivery_no) for one in claimed[:50]]
    assert store.leases.free_unknown("default", known=known, incarnation="one") == 70
    assert store.leases.free_unknown("default", known=known, incarnation="one") == 0
    again = {one.queue_id for one in claim(store, limit=200)}
    assert again == {one.queue_id for one in claimed[50:]}, "not of others, not of other routes"
    assert store.leases.free_unknown("default", known=[], incarnation="stranger") == 0


def test_freed_leases_are_due_as_they_were_before(store: Store) -> None:
    tried, fresh = accepted(), accepted()
    store.intake.accept_batch([tried])
    claim(store)
    store.leases.record_batch(
        [defer(tried.queue_id, due_at_ms=NOW_MS)], incarnation="one", now_ms=NOW_MS
    )
    store.intake.accept_batch([fresh])
    claim(store)
    assert store.leases.free_unknown("default", known=[], incarnation="one") == 2
    states = [entry_of(store, one.queue_id).deliveries[0].state for one in (tried, fresh)]
    assert states == [DeliveryState.DEFERRED, DeliveryState.INCOMING]


# --- outcomes -----------------------------------------------------------------------------


def outcome(queue_id: str, *, delivery_no: int = 0) -> DeliveryUpdate:
    """Return an outcome as a worker makes it: later than the claim."""
    return replace(finish(queue_id, delivery_no=delivery_no), due_at_ms=NOW_MS + 50)


def test_an_outcome_whose_lease_is_gone_is_named_and_not_written(store: Store) -> None:
    kept, lost = accepted(), accepted()
    store.intake.accept_batch([kept, lost])
    claim(store)
    store.leases.give_back(
        [(lost.queue_id, 0)], incarnation="one"
    )  # as if a crash had forgotten it
    recorded = store.leases.record_batch(
        [outcome(kept.queue_id), outcome(lost.queue_id)], incarnation="one", now_ms=NOW_MS + 50
    )
    assert recorded == Recorded(is_alive=True, lost=((lost.queue_id, 0),))
    entry = entry_of(store, lost.queue_id)
    assert entry.deliveries[0].state is DeliveryState.INCOMING
    assert entry.recipients[0].state is RecipientState.PENDING


def test_an_outcome_that_another_instance_has_recorded_is_lost(store: Store) -> None:
    message = accepted()
    store.intake.accept_batch([message])
    claim(store)
    store.leases.give_back([(message.queue_id, 0)], incarnation="one")
    store.instances.register(instance("two"))
    store.leases.claim("default", limit=1, incarnation="two", now_ms=NOW_MS)
    theirs = replace(outcome(message.queue_id), due_at_ms=NOW_MS + 60)
    assert store.leases.record_batch([theirs], incarnation="two", now_ms=NOW_MS).lost == ()
    mine = store.leases.record_batch([outcome(message.queue_id)], incarnation="one", now_ms=NOW_MS)
    assert mine.lost == ((message.queue_id, 0),)


def test_an_outcome_that_was_recorded_before_is_not_lost(store: Store) -> None:
    done, later = accepted(), accepted()
    store.intake.accept_batch([done, later])
    claim(store)
    updates = [outcome(done.queue_id), defer(later.queue_id, due_at_ms=NOW_MS + 9000)]
    for try_ms in (NOW_MS, NOW_MS + 700):  # the answer to the first was lost
        recorded = store.leases.record_batch(updates, incarnation="one", now_ms=try_ms)
        assert recorded == Recorded(is_alive=True)
    assert entry_of(store, later.queue_id).recipients[0].attempts == 1, "counted once"


def test_outcomes_of_a_dead_incarnation_are_lost_but_for_those_recorded_before(
    store: Store,
) -> None:
    before, after = accepted(), accepted()
    store.intake.accept_batch([before, after])
    claim(store)
    store.leases.record_batch([outcome(before.queue_id)], incarnation="one", now_ms=NOW_MS)
    store.instances.bury("one")
    updates = [outcome(before.queue_id), outcome(after.queue_id)]
    recorded = store.leases.record_batch(updates, incarnation="one", now_ms=NOW_MS)
    assert recorded == Recorded(is_alive=False, lost=((after.queue_id, 0),))


# --- permits ------------------------------------------------------------------------------


def test_a_worker_can_count_its_permits(store: Store) -> None:
    store.instances.register(instance("two"))
    assert store.limits.acquire_permits("p", wanted=3, limit=9, incarnation="one") == 3
    assert store.limits.acquire_permits("p", wanted=2, limit=9, incarnation="two") == 2
    assert store.limits.acquire_permits("q", wanted=1, limit=9, incarnation="one") == 1
    assert store.limits.permits_held("p", incarnation="one") == 3
    store.limits.release_permits("p", count=2, incarnation="one")
    assert store.limits.permits_held("p", incarnation="one") == 1
    assert store.limits.permits_held("p", incarnation="two") == 2


def test_a_dead_incarnation_gets_no_permit(store: Store) -> None:
    store.instances.bury("one")
    assert store.limits.acquire_permits("p", wanted=1, limit=1, incarnation="one") == 0
    store.instances.register(instance("two"))
    assert store.limits.acquire_permits("p", wanted=1, limit=1, incarnation="two") == 1


# --- quota --------------------------------------------------------------------------------


def test_what_an_unanswered_request_took_of_a_quota_is_back_after_a_day(store: Store) -> None:
    assert store.limits.use_quota("p", wanted=10, quota=10).granted == 10  # and nobody was told
    assert store.limits.use_quota("p", wanted=1, quota=10).granted == 0
    with store.database.write() as connection:
        connection.connection.exec_driver_sql(
            "UPDATE usage SET slice_at_ms = slice_at_ms - 87000000"
        )
    assert store.limits.quota_used("p") == 0
    assert store.limits.use_quota("p", wanted=10, quota=10).granted == 10
