"""What commands on the queue do to it, on every database: trash, expiry, moves, counts, trail."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import Any

import pytest

from relaygw.mail.envelope import NewDelivery, NewRecipient, RecipientUpdate
from relaygw.mail.hold import HoldCause, HoldCode
from relaygw.mail.state import DeliveryState, RecipientState
from relaygw.store.audit import AuditEntry, Trail
from relaygw.store.queue_entry import QueueEntry, Way
from relaygw.store.selection import Selection
from relaygw.store.shape import ShapeKey
from relaygw.store.store import Store
from tests.builders import NOW_MS, accepted, part_on, selected, update_of
from tests.contract.conftest import clock_at, purge_before

D, R = DeliveryState, RecipientState
ALL_STATES = frozenset(D)
HOUR_MS = 3_600_000


def entry_of(store: Store, queue_id: str) -> QueueEntry:
    (found,) = store.queue.search(Selection(queue_ids=(queue_id,), states=ALL_STATES), limit=1)
    return found


def audit(action: str = "queue.test", *, at_ms: int = NOW_MS, **more: Any) -> AuditEntry:
    entry = AuditEntry(at_ms=at_ms, actor="root", action=action, target="x", affected=0, detail="")
    return replace(entry, **more)


def change(store: Store, queue_id: str, to: DeliveryState, *, at_ms: int = NOW_MS) -> None:
    changed = store.queue.change_state(
        [queue_id],
        from_states=ALL_STATES,
        to=to,
        hold=HoldCause(HoldCode.OPERATOR, "why"),
        entry=audit(at_ms=at_ms),
    )
    assert changed


def attempt(
    store: Store,
    state: DeliveryState = D.DEFERRED,
    *,
    doubted: bool = False,
    reason: str = "451 later",
) -> None:
    """Let a worker try everything that is due; nobody gets it."""
    updates = [
        update_of(
            one.queue_id,
            delivery_no=one.delivery_no,
            state=state,
            due_at_ms=NOW_MS + HOUR_MS,
            reason=reason,
            recipients=tuple(
                RecipientUpdate(
                    rcpt_no=who.rcpt_no, state=R.PENDING, reply=reason, dsn="4.0.0", provider="main"
                )
                for who in one.recipients
            ),
            doubted=doubted,
        )
        for one in store.leases.claim(
            "default", limit=100, incarnation="one", now_ms=NOW_MS + HOUR_MS
        )
    ]
    assert store.leases.record_batch(updates, incarnation="one", now_ms=NOW_MS).is_alive


def add(store: Store, *recipients: str, **more: Any) -> str:
    message = accepted(*recipients, **more)
    store.intake.accept_batch([message])
    return message.queue_id


# --- the trash ----------------------------------------------------------------------------


def test_what_was_due_is_due_again(store: Store) -> None:
    queue_id = add(store)
    attempt(store)
    change(store, queue_id, D.DELETED)
    assert store.queue.undelete([queue_id], entry=audit(at_ms=NOW_MS + HOUR_MS)) == 1
    entry = entry_of(store, queue_id)
    assert entry.deliveries[0].state is D.DEFERRED
    assert entry.recipients[0].state is R.PENDING
    (claimed,) = store.leases.claim("default", limit=9, incarnation="one", now_ms=NOW_MS + HOUR_MS)
    assert claimed.attempts == 1
    assert claimed.held_ms == HOUR_MS  # time in the trash is no age


def test_what_was_held_is_held_again_for_the_same_reason(store: Store) -> None:
    queue_id = add(store)
    change(store, queue_id, D.HELD)
    change(store, queue_id, D.DELETED, at_ms=NOW_MS + 1000)
    assert store.queue.undelete([queue_id], entry=audit(at_ms=NOW_MS + 2000)) == 1
    (part,) = entry_of(store, queue_id).deliveries
    assert (part.state, part.reason) == (D.HELD, "operator: why")
    change(store, queue_id, D.DEFERRED, at_ms=NOW_MS + 3000)
    (claimed,) = store.leases.claim("default", limit=9, incarnation="one", now_ms=NOW_MS + HOUR_MS)
    assert claimed.held_ms == 3000


def test_what_was_held_for_the_mode_is_due_as_the_mode_may_be_another_one(store: Store) -> None:
    queue_id = add(store)
    ids = [queue_id]
    mode = HoldCause(HoldCode.MODE)
    may_leave = frozenset({D.INCOMING})
    store.queue.change_state(ids, from_states=may_leave, to=D.HELD, hold=mode, entry=audit())
    change(store, queue_id, D.DELETED, at_ms=NOW_MS + 1000)
    assert store.queue.undelete(ids, entry=audit(at_ms=NOW_MS + 2000)) == 1
    (part,) = entry_of(store, queue_id).deliveries
    assert (part.state, part.hold) == (D.DEFERRED, None)
    (claimed,) = store.leases.claim("default", limit=9, incarnation="one", now_ms=NOW_MS + 2000)
    assert (claimed.held_ms, claimed.probes) == (2000, None)


def test_only_the_trash_is_undeleted(store: Store) -> None:
    queue_id = add(store)
    assert store.queue.undelete([queue_id], entry=audit()) == 0
    assert entry_of(store, queue_id).deliveries[0].state is D.INCOMING


def test_what_came_out_of_the_trash_is_not_finished(store: Store) -> None:
    """A part was deleted, the rest was delivered: the message was finished then."""
    parts = tuple(part_on(route, f"x@{route}.test") for route in ("default", "other"))
    message = replace(accepted(), deliveries=parts, content=(), stored_chunks=2)
    store.intake.add_chunks(message.queue_id, 0, [b"one", b"two"])
    store.intake.accept_batch([message])
    store.leases.claim("default", limit=9, incarnation="one", now_ms=NOW_MS)
    change(store, message.queue_id, D.DELETED)
    done = update_of(message.queue_id)
    store.leases.record_batch([done], incarnation="one", now_ms=NOW_MS)
    assert store.queue.undelete([message.queue_id], entry=audit()) == 1
    purge_before(store, {"finished": NOW_MS + HOUR_MS}, limit=9)
    assert [part.state for part in entry_of(store, message.queue_id).deliveries] == [
        D.FINISHED,
        D.DEFERRED,
    ]


# --- the end ------------------------------------------------------------------------------


def test_expired_mail_keeps_why_and_what_was_said_last(store: Store) -> None:
    tried, fresh = add(store), None
    attempt(store)
    fresh = add(store)
    assert store.queue.expire([tried, fresh], reason="expired by ann", entry=audit()) == 2
    for queue_id, reply in (
        (tried, "expired by ann; before: 451 later"),
        (fresh, "expired by ann"),
    ):
        entry = entry_of(store, queue_id)
        assert entry.deliveries[0].state is D.FINISHED
        (recipient,) = entry.recipients
        assert (recipient.state, recipient.reply, recipient.dsn) == (R.EXPIRED, reply, "4.4.7")
        assert entry.chunk_count == 0
    assert store.queue.search(Selection(), limit=9) == []
    purge_before(store, {"finished": NOW_MS + 1}, limit=9)
    assert store.queue.search(Selection(states=ALL_STATES), limit=9) == []


def test_what_is_being_sent_does_not_expire_and_the_rest_of_its_recipients_stays(
    store: Store,
) -> None:
    queue_id = add(store)
    store.leases.claim("default", limit=9, incarnation="one", now_ms=NOW_MS)
    assert store.queue.expire([queue_id], reason="expired by ann", entry=audit()) == 0
    assert entry_of(store, queue_id).recipients[0].state is R.PENDING


# --- moves --------------------------------------------------------------------------------


def move(
    store: Store, queue_id: str, *, is_forced: bool = False, ended: Collection[HoldCause] = ()
) -> int:
    return store.queue.move(
        [queue_id],
        provider="other",
        ended=ended,
        is_forced=is_forced,
        entry=audit(at_ms=NOW_MS + 1),
    )


def claimed_on(store: Store, route: str) -> list[str]:
    claimed = store.leases.claim(route, limit=9, incarnation="one", now_ms=NOW_MS + 1)
    return [one.queue_id for one in claimed]


def test_moved_mail_is_on_the_route_of_its_provider_and_due_now(store: Store) -> None:
    queue_id = add(store)
    attempt(store)
    assert move(store, queue_id) == 1
    assert claimed_on(store, "default") == []
    assert claimed_on(store, "provider:other") == [queue_id]


def test_promotional_mail_stays_apart_when_it_is_moved(store: Store) -> None:
    part = NewDelivery(
        route="promo", stream="promotional", recipients=(NewRecipient(address="b@x.test"),)
    )
    queue_id = add(store, deliveries=(part,))
    assert move(store, queue_id) == 1
    assert claimed_on(store, "provider:other:promotional") == [queue_id]


def test_what_is_being_sent_is_not_moved(store: Store) -> None:
    queue_id = add(store)
    store.leases.claim("default", limit=9, incarnation="one", now_ms=NOW_MS)
    assert move(store, queue_id) == 0


def test_mail_in_doubt_elsewhere_is_moved_by_force_only(store: Store) -> None:
    queue_id = add(store)
    attempt(store, doubted=True)
    assert entry_of(store, queue_id).deliveries[0].is_in_doubt
    assert move(store, queue_id) == 0
    assert move(store, queue_id, is_forced=True) == 1
    (part,) = entry_of(store, queue_id).deliveries
    assert (part.route, part.is_in_doubt) == ("provider:other", False)


def test_a_doubt_outlives_hold_and_trash(store: Store) -> None:
    queue_id = add(store)
    attempt(store, doubted=True)
    change(store, queue_id, D.HELD)
    change(store, queue_id, D.DELETED)
    store.queue.undelete([queue_id], entry=audit())
    assert entry_of(store, queue_id).deliveries[0].is_in_doubt
    change(store, queue_id, D.DEFERRED)  # an operator let it go
    assert not entry_of(store, queue_id).deliveries[0].is_in_doubt


def test_held_mail_stays_held_unless_its_reason_is_over(store: Store) -> None:
    refused = HoldCause(HoldCode.OTHER, "refused there")
    for ended, state in ((set(), D.HELD), ({refused}, D.DEFERRED)):
        queue_id = add(store)
        attempt(store, D.HELD, reason="refused there")
        assert move(store, queue_id, ended=ended) == 1
        (part,) = entry_of(store, queue_id).deliveries
        assert (part.state, part.route) == (state, "provider:other")


# --- looks --------------------------------------------------------------------------------


def test_what_waits_is_told_as_mailq_tells_it(store: Store) -> None:
    deferred = add(store, "b@x.test", "c@x.test")
    finished = add(store, "gone@x.test", at_ms=NOW_MS + 1)
    attempt(store)
    store.queue.expire([finished], reason="x", entry=audit())
    held = add(store, "d@x.test", at_ms=NOW_MS + 2)
    fresh = add(store, "e@x.test", at_ms=NOW_MS + 3)
    change(store, held, D.HELD)
    found = store.queue.waiting(limit=2)
    assert [one.queue_id for one in found] == [deferred, held]
    due = Way("default", "shop.test", None, is_due=True)
    assert found[0].recipients == (
        ("b@x.test", "451 later", due),
        ("c@x.test", "451 later", due),
    )
    assert found[1].states == {"held"}
    assert found[1].recipients == (("d@x.test", "operator: why", None),)
    (last,) = store.queue.waiting(limit=2, after=held)
    assert (last.queue_id, last.recipients) == (
        fresh,
        (("e@x.test", "", due),),
    )
    assert (last.sender, last.size_bytes, last.accepted_at_ms) == ("a@shop.test", 21, NOW_MS + 3)


def test_a_message_on_two_routes_is_one_of_those_that_wait(store: Store) -> None:
    parts = tuple(part_on(route, f"x@{route}.test") for route in ("default", "other"))
    queue_id = add(store, deliveries=parts)
    store.leases.claim("other", limit=9, incarnation="one", now_ms=NOW_MS)
    (found,) = store.queue.waiting(limit=9)
    assert found.states == {"incoming", "active"}
    assert [(who, bool(way)) for who, _, way in found.recipients] == [
        ("x@default.test", True),
        ("x@other.test", False),
    ]
    (listed,) = store.queue.search(Selection(), limit=9)
    assert listed.queue_id == queue_id


def test_the_last_reply_selects(store: Store) -> None:
    queue_id = add(store)
    attempt(store, reason="451 4.7.1 Slow Down")
    add(store)
    (found,) = store.queue.search(selected(reply="slow down"), limit=9)
    assert found.queue_id == queue_id


BOUNDS_MS = (5 * 60_000, 10 * 60_000)


def shape(store: Store, by: ShapeKey, **conditions: Any) -> set[tuple[str, int, int]]:
    with clock_at(store, NOW_MS + 20 * 60_000):
        counts = store.queue.shape(selected(**conditions), by=by, bounds_ms=BOUNDS_MS)
    return {(one.key, one.step, one.number) for one in counts}


@pytest.mark.parametrize(
    ("by", "expected"),
    [
        (ShapeKey.RECIPIENT, {("x.test", 2, 2), ("y.test", 2, 1), ("x.test", 0, 1)}),
        (ShapeKey.SENDER, {("a@shop.test", 2, 1), ("a@shop.test", 0, 1)}),
        (ShapeKey.ROUTE, {("default", 2, 1), ("default", 0, 1)}),
        (ShapeKey.PROVIDER, {("main", 2, 1), ("", 0, 1)}),
        (ShapeKey.REASON, {("451 later", 2, 1), ("", 0, 1)}),
    ],
)
def test_what_waits_is_counted_by_age(
    store: Store, by: ShapeKey, expected: set[tuple[str, int, int]]
) -> None:
    add(store, "b@X.test", '"odd@one"@x.test', "d@y.test")
    attempt(store)
    add(store, "e@x.test", at_ms=NOW_MS + 16 * 60_000)
    assert shape(store, by) == expected
    assert shape(store, by, subject="nothing like it") == set()


def test_the_shape_by_reason_tells_by_which_way_what_waits_goes(store: Store) -> None:
    add(store, sender="a@Shop.test")
    attempt(store, reason="451 later", doubted=True)
    add(store, sender="", at_ms=NOW_MS + 1)
    change(store, add(store, at_ms=NOW_MS + 2), D.HELD)
    with clock_at(store, NOW_MS + 60_000):
        counts = store.queue.shape(Selection(), by=ShapeKey.REASON, bounds_ms=BOUNDS_MS)
    assert {(it.key, it.way and it.way[:3]) for it in counts} == {
        ("451 later", ("default", "shop.test", "main")),
        ("", ("default", "", None)),
        ("operator: why", None),
    }
    assert {it.way.is_due for it in counts if it.way is not None} == {False, True}


# --- the trail ----------------------------------------------------------------------------


def test_the_trail_is_searched(store: Store) -> None:
    for number, (actor, action) in enumerate(
        [("ann", "queue.delete"), ("bob", "queue.hold"), ("Ann", "provider.hold")]
    ):
        store.audit.add(audit(action, at_ms=NOW_MS + number, actor=actor))

    def found(**conditions: Any) -> list[str]:
        trail = Trail(**conditions)
        return [one.action for one in store.audit.entries(limit=9, trail=trail)]

    assert found() == ["provider.hold", "queue.hold", "queue.delete"]
    assert found(actor="ANN") == ["provider.hold", "queue.delete"]
    assert found(action="queue") == ["queue.hold", "queue.delete"]
    assert found(action="queue.hold") == ["queue.hold"]
    assert found(action="que") == []
    assert found(since_ms=NOW_MS + 1) == ["provider.hold", "queue.hold"]
    assert found(target="y") == []
    assert [one.at_ms for one in store.audit.entries(limit=1)] == [NOW_MS + 2]


def test_one_line_follows_another(store: Store) -> None:
    first = audit("settings.change", detail="1")
    assert store.audit.add(first)
    for second in (audit("settings.change", detail="2"), audit("settings.change", detail="3")):
        is_first = second.detail == "2"
        assert store.audit.add(second, only_after=first) is is_first
    assert {one.detail for one in store.audit.entries(limit=9)} == {"1", "2"}
