from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from relaygw.mail.envelope import DeliveryUpdate, NewDelivery, NewRecipient, Source
from relaygw.mail.hold import HoldCause, HoldCode
from relaygw.mail.search import EVERYTHING
from relaygw.mail.state import DeliveryState, RecipientState
from relaygw.operations.captured import delete_captured
from relaygw.operations.queue_actions import (
    ACTIONS,
    DELETE,
    HOLD,
    RELEASE,
    RETRY,
    Order,
    QueueAction,
    Result,
    change_queued,
    objection,
)
from relaygw.store.audit import AuditEntry
from relaygw.store.queue_entry import DeliveryEntry, QueueEntry
from relaygw.store.selection import Selection
from relaygw.store.store import Store, open_store
from tests.builders import NOW_MS, accepted, instance
from tests.queues import make_queue

D = DeliveryState
LATER_MS = NOW_MS + 60_000
ANN = Order(actor="ann")


def change(
    store: Store, action: QueueAction, *ids: str, order: Order = ANN, now_ms: int = LATER_MS
) -> Result:
    return change_queued(store, action, ids, order, now_ms=now_ms)


def entry_in(*states: DeliveryState) -> QueueEntry:
    """Return a message with one delivery in each of `states`."""
    return QueueEntry(
        queue_id="1M89BZ88N46GD3SE7",
        accepted_at_ms=NOW_MS,
        sender="a@shop.test",
        subject="x",
        message_id="<1@shop.test>",
        size_bytes=1,
        chunk_count=1,
        mode="production",
        source=Source(),
        captured_at_ms=None,
        read_at_ms=None,
        deliveries=tuple(
            DeliveryEntry(
                delivery_no=number,
                route="default",
                stream="transactional",
                state=state,
                due_at_ms=NOW_MS,
                attempts=0,
                provider=None,
                reason=None,
            )
            for number, state in enumerate(states)
        ),
        recipients=(),
    )


@pytest.mark.parametrize("name", ACTIONS)
def test_one_delivery_in_the_right_state_is_moved(name: str) -> None:
    action = ACTIONS[name]
    for state in D:
        left = objection(action, entry_in(state), ANN)
        assert (left is None) == (state in action.from_states)


@pytest.mark.parametrize("action", [HOLD, DELETE], ids=lambda action: action.name)
def test_a_message_with_an_active_part_is_not_stopped_by_halves(action: QueueAction) -> None:
    left = objection(action, entry_in(D.ACTIVE, D.DEFERRED), ANN)
    assert left is not None
    assert left.is_temporary
    assert left.why == "a worker is sending it now"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    url = f"sqlite:///{tmp_path}/queue.db"
    make_queue(url)
    store = open_store(url)
    yield store
    store.close()


def add(store: Store, **more: object) -> str:
    message = accepted(**more)
    store.intake.accept_batch([message])
    return message.queue_id


def entry(store: Store, queue_id: str) -> QueueEntry:
    (found,) = store.queue.search(Selection(queue_ids=(queue_id,), states=frozenset(D)), limit=1)
    return found


def test_hold_release_delete_on_a_store(store: Store) -> None:
    queue_id = add(store)
    held = change(store, HOLD, queue_id)
    assert held.changed == (queue_id,)
    assert entry(store, queue_id).deliveries[0].reason == "operator: ann"
    change(store, RELEASE, queue_id)
    assert entry(store, queue_id).deliveries[0].state is D.DEFERRED
    change(store, RETRY, queue_id, now_ms=LATER_MS + 1)
    assert entry(store, queue_id).deliveries[0].due_at_ms == LATER_MS + 1
    change(store, DELETE, queue_id)
    assert entry(store, queue_id).recipients[0].state is RecipientState.CANCELLED
    trail = store.audit.entries(limit=10)
    assert {(one.action, one.actor, one.target, one.affected) for one in trail} == {
        (f"queue.{action.name}", "ann", queue_id, 1) for action in (RETRY, HOLD, RELEASE, DELETE)
    }


def test_no_ids_change_nothing(store: Store) -> None:
    queue_id = add(store)
    for action in ACTIONS.values():
        assert change(store, action).changed == ()
    assert delete_captured(store, [], actor="ann", now_ms=LATER_MS).changed == ()
    assert entry(store, queue_id).deliveries[0].state is D.INCOMING
    assert store.audit.entries(limit=1) == []


def test_what_is_left_alone_leaves_no_trail(store: Store) -> None:
    queue_id = add(store)
    result = change(store, RELEASE, queue_id, queue_id)
    assert (result.changed, len(result.left)) == ((), 1)
    assert store.audit.entries(limit=1) == []


def test_only_captured_mail_leaves_the_sandbox(store: Store) -> None:
    queued = add(store)
    recipient = NewRecipient(address="b@cust.test", state=RecipientState.CAPTURED)
    part = NewDelivery(route="captured", stream="transactional", recipients=(recipient,))
    captured = add(store, deliveries=(part,))
    result = delete_captured(store, [queued, captured], actor="ann", now_ms=LATER_MS)
    assert result.changed == (captured,)
    assert [one.queue_id for one in result.left] == [queued]
    assert store.sandbox.captured_ids(EVERYTHING, limit=10) == []
    assert entry(store, queued).deliveries[0].state is D.INCOMING


def test_only_the_parts_that_an_action_is_meant_for_move(store: Store) -> None:
    parts = tuple(
        NewDelivery(
            route=route,
            stream="transactional",
            recipients=(NewRecipient(address=f"x@{route}.test"),),
        )
        for route in ("deferred", "held")
    )
    message = replace(accepted(), deliveries=parts)
    store.intake.accept_batch([message])
    store.instances.register(instance("w"))
    store.leases.claim("deferred", limit=1, incarnation="w", now_ms=NOW_MS)
    update = DeliveryUpdate(
        queue_id=message.queue_id,
        delivery_no=0,
        state=D.DEFERRED,
        due_at_ms=NOW_MS + 60_000,
        provider="p",
        reason="451 later",
        recipients=(),
    )
    store.leases.record_batch([update], incarnation="w", now_ms=NOW_MS)
    entry = AuditEntry(at_ms=NOW_MS, actor="a", action="x", target="", affected=0, detail="")
    store.queue.change_state(
        [message.queue_id],
        from_states=frozenset({D.INCOMING}),
        to=D.HELD,
        hold=HoldCause(HoldCode.OTHER, "operator"),
        entry=entry,
    )

    def states() -> list[DeliveryState]:
        selection = Selection(queue_ids=(message.queue_id,), states=frozenset(D))
        (found,) = store.queue.search(selection, limit=1)
        return [part.state for part in found.deliveries]

    assert states() == [D.DEFERRED, D.HELD]
    change(store, RETRY, message.queue_id, now_ms=NOW_MS)
    assert states() == [D.DEFERRED, D.HELD]
    change(store, RELEASE, message.queue_id, now_ms=NOW_MS)
    assert states() == [D.DEFERRED, D.DEFERRED]


def test_retry_makes_new_mail_due_as_well(store: Store) -> None:
    """It may have been accepted before the clock was set back."""
    queue_id = add(store)
    assert change(store, RETRY, queue_id, now_ms=1).changed == (queue_id,)
    assert entry(store, queue_id).deliveries[0].due_at_ms == 1


def test_new_mail_is_retried_whatever_the_routes(store: Store) -> None:
    queue_id = add(store)
    order = Order(actor="ann", routes=frozenset({"another"}))
    assert change(store, RETRY, queue_id, order=order).changed == (queue_id,)


def test_retry_leaves_new_mail_that_a_dead_worker_may_have_sent(store: Store) -> None:
    queue_id = add(store)
    store.instances.register(instance("w"))
    store.leases.claim("default", limit=1, incarnation="w", now_ms=LATER_MS)
    store.instances.bury("w", begun=[(queue_id, 0, "main")])
    assert entry(store, queue_id).deliveries[0].state is D.INCOMING
    (left,) = change(store, RETRY, queue_id).left
    assert "main may have sent it already" in left.why
    forced = change(store, RETRY, queue_id, order=Order(actor="a", is_forced=True))
    assert forced.changed == (queue_id,)
