"""Outcomes of a part of an attempt, and what is told with a lease that is over: every database."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from relaygw.mail.attempt_state import AttemptState
from relaygw.mail.envelope import AcceptedMessage, DeliveryUpdate, RecipientUpdate
from relaygw.mail.outcome import Stage, Verdict
from relaygw.mail.state import DeliveryState, RecipientState
from relaygw.store.store import Store
from tests.builders import NOW_MS, accepted, instance
from tests.contract.test_store_contract import claim, entry_of

TAKEN, WAITS = RecipientState.DELIVERED, RecipientState.PENDING


def change(rcpt_no: int, state: RecipientState, verdict: Verdict) -> RecipientUpdate:
    return RecipientUpdate(
        rcpt_no=rcpt_no,
        state=state,
        reply=f"reply {rcpt_no}",
        dsn="2.0.0",
        provider="main",
        stage=Stage.CONTENT,
        verdict=verdict,
    )


def told(
    message: AcceptedMessage, *changes: RecipientUpdate, state: DeliveryState, **more: Any
) -> DeliveryUpdate:
    values: dict[str, Any] = {
        "queue_id": message.queue_id,
        "delivery_no": 0,
        "state": state,
        "due_at_ms": NOW_MS + 7,
        "provider": "main",
        "reason": None,
        "recipients": changes,
        "relay": "smtp.provider.test[192.0.2.1]:587",
        "is_first_try": True,
    }
    return DeliveryUpdate(**values | more)


def in_hand(store: Store, *recipients: str) -> AcceptedMessage:
    message = accepted(*recipients)
    store.intake.accept_batch([message])
    claim(store)
    return message


def part_of(message: AcceptedMessage, **more: Any) -> DeliveryUpdate:
    """Return what came of the first two of three recipients: one taken, one in doubt."""
    return told(
        message,
        change(0, TAKEN, Verdict.DELIVERED),
        change(1, WAITS, Verdict.DOUBT),
        state=DeliveryState.ACTIVE,
        doubted=True,
        **more,
    )


THREE = ("b@cust.test", "c@cust.test", "d@cust.test")


def test_a_part_is_kept_and_the_lease_goes_on(store: Store) -> None:
    message = in_hand(store, *THREE)
    recorded = store.leases.record_batch([part_of(message)], incarnation="one", now_ms=NOW_MS)
    assert (recorded.is_alive, recorded.lost) == (True, ())
    entry = entry_of(store, message.queue_id)
    (delivery,) = entry.deliveries
    assert (delivery.state, delivery.attempts, delivery.is_in_doubt) == ("active", 1, True)
    assert [one.state for one in entry.recipients] == [TAKEN, WAITS, WAITS]
    assert [one.attempts for one in entry.recipients] == [1, 1, 0]
    (facts,) = store.queue.record_of(message.queue_id).deliveries
    assert (facts.lease, facts.doubts) == ("one", 1)
    assert claim(store, now_ms=NOW_MS + 100) == []
    rest = told(
        message,
        change(2, TAKEN, Verdict.DELIVERED),
        state=DeliveryState.DEFERRED,
        due_at_ms=NOW_MS + 8,
        charged=False,
    )
    assert store.leases.record_batch([rest], incarnation="one", now_ms=NOW_MS).lost == ()
    entry = entry_of(store, message.queue_id)
    assert (entry.deliveries[0].state, entry.deliveries[0].attempts) == ("deferred", 1)
    (again,) = claim(store, now_ms=NOW_MS + 100)
    assert [one.address for one in again.recipients] == ["c@cust.test"]


def test_a_claim_tells_the_due_time_which_no_outcome_of_it_may_have(store: Store) -> None:
    """It is by another one that the store knows that a part was recorded before."""
    store.intake.accept_batch([accepted(*THREE)])
    (first,) = claim(store)
    assert first.due_at_ms == NOW_MS
    message = replace(accepted(), queue_id=first.queue_id)
    same = part_of(message, due_at_ms=first.due_at_ms)
    store.leases.record_batch([same], incarnation="one", now_ms=NOW_MS)
    assert [one.state for one in entry_of(store, message.queue_id).recipients] == [WAITS] * 3
    other = part_of(message, due_at_ms=first.due_at_ms + 1)
    store.leases.record_batch([other], incarnation="one", now_ms=NOW_MS)
    assert entry_of(store, message.queue_id).recipients[0].state is TAKEN
    rest = told(message, state=DeliveryState.DEFERRED, due_at_ms=NOW_MS + 50)
    store.leases.record_batch([rest], incarnation="one", now_ms=NOW_MS)
    (again,) = claim(store, now_ms=NOW_MS + 100)
    assert again.due_at_ms == NOW_MS + 50


def test_what_was_put_off_is_not_in_doubt(store: Store) -> None:
    message = in_hand(store)
    put_off = told(message, change(0, WAITS, Verdict.RETRY), state=DeliveryState.DEFERRED)
    store.leases.record_batch([put_off], incarnation="one", now_ms=NOW_MS)
    (delivery,) = entry_of(store, message.queue_id).deliveries
    assert (delivery.state, delivery.provider, delivery.is_in_doubt) == ("deferred", "main", False)


def test_a_part_that_is_told_again_changes_nothing(store: Store) -> None:
    message = in_hand(store, *THREE)
    other = in_hand(store)
    part = part_of(message)
    end = told(other, change(0, TAKEN, Verdict.DELIVERED), state=DeliveryState.FINISHED)
    for _ in range(2):  # as when the answer of the first time was lost
        recorded = store.leases.record_batch([part, end], incarnation="one", now_ms=NOW_MS)
        assert recorded.lost == ()
    entry = entry_of(store, message.queue_id)
    assert [one.attempts for one in entry.recipients] == [1, 1, 0]
    assert entry.deliveries[0].attempts == 1
    assert len(store.queue.attempts(message.queue_id)) == 1
    assert store.queue.record_of(message.queue_id).deliveries[0].doubts == 1


def test_who_dies_between_two_parts_leaves_the_first_as_it_is(store: Store) -> None:
    message = in_hand(store, *THREE)
    store.leases.record_batch(
        [part_of(message, due_at_ms=NOW_MS + 300_000)], incarnation="one", now_ms=NOW_MS
    )
    store.instances.bury("one", begun=[(message.queue_id, 0, "main")])
    store.instances.register(instance("two"))
    assert store.leases.claim("default", limit=9, incarnation="two", now_ms=NOW_MS + 299_999) == []
    (again,) = store.leases.claim("default", limit=9, incarnation="two", now_ms=NOW_MS + 300_000)
    assert [one.address for one in again.recipients] == ["c@cust.test", "d@cust.test"]
    assert (again.doubts, again.reclaims) == (1, 1)


def test_a_part_told_with_a_lease_that_is_over_is_lost(store: Store) -> None:
    message = in_hand(store, *THREE)
    store.leases.give_back([(message.queue_id, 0)], incarnation="one")
    recorded = store.leases.record_batch([part_of(message)], incarnation="one", now_ms=NOW_MS)
    assert (recorded.is_alive, recorded.lost) == (True, ((message.queue_id, 0),))
    assert [one.state for one in entry_of(store, message.queue_id).recipients] == [WAITS] * 3


def test_what_was_sent_with_a_lease_that_is_over_is_written_as_a_doubt(store: Store) -> None:
    taken, refused = in_hand(store), in_hand(store)
    store.instances.bury("one")
    end = told(taken, change(0, TAKEN, Verdict.DELIVERED), state=DeliveryState.FINISHED)
    late = told(refused, change(0, WAITS, Verdict.RETRY), state=DeliveryState.DEFERRED)
    recorded = store.leases.record_batch([end, late], incarnation="one", now_ms=NOW_MS)
    assert not recorded.is_alive
    (attempt,) = store.queue.attempts(taken.queue_id)
    assert (attempt.state, attempt.provider) == (AttemptState.IN_DOUBT, "main")
    assert attempt.reply == "told after its lease was lost: reply 0"
    assert store.queue.attempts(refused.queue_id) == [], "nobody has it twice"
    assert entry_of(store, taken.queue_id).deliveries[0].state is DeliveryState.INCOMING


def test_each_delivery_of_a_worker_that_nobody_can_ask_is_told_of(store: Store) -> None:
    messages = [in_hand(store), in_hand(store)]
    free = accepted()
    store.intake.accept_batch([free])
    assert store.instances.bury("one", begun=None) == 2
    for message in messages:
        (attempt,) = store.queue.attempts(message.queue_id)
        assert (attempt.state, attempt.stage) == (AttemptState.INTERRUPTED, Stage.LOCAL)
        assert attempt.reply.startswith("the worker that had it is unreachable")
        (facts,) = store.queue.record_of(message.queue_id).deliveries
        assert (facts.reclaims, facts.lease) == (0, None)
    assert store.queue.attempts(free.queue_id) == []


def test_given_back_untried_it_is_as_it_was(store: Store) -> None:
    message = in_hand(store)
    back = told(message, state=DeliveryState.INCOMING, due_at_ms=NOW_MS, charged=False)
    back = replace(back, provider=None, relay=None)
    store.leases.record_batch([back], incarnation="one", now_ms=NOW_MS + 5)
    (delivery,) = entry_of(store, message.queue_id).deliveries
    assert (delivery.state, delivery.attempts, delivery.provider) == ("incoming", 0, None)
    assert store.queue.attempts(message.queue_id) == []
    assert [one.queue_id for one in claim(store)] == [message.queue_id]
