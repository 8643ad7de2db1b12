"""What every store must tell of mail that stands still, and of instances that are gone."""

from __future__ import annotations

from dataclasses import replace

import pytest
from sqlalchemy import delete

from relaygw.mail.envelope import AcceptedMessage, DeliveryUpdate
from relaygw.mail.hold import HoldCause, HoldCode, cause_of
from relaygw.mail.rerouting import Rerouting, RouteWay
from relaygw.mail.state import DeliveryState
from relaygw.store.audit import AuditEntry
from relaygw.store.queue_entry import QueueEntry
from relaygw.store.queue_tables import instance as table
from relaygw.store.store import Store
from tests.builders import NOW_MS, accepted, instance
from tests.contract.conftest import clock_at, forget_watched
from tests.contract.test_store_contract import claim

D = DeliveryState
DEED = AuditEntry(
    at_ms=NOW_MS, actor="x", action="queue.reroute", target="t", affected=1, detail=""
)
LONG_AGO = 0


def leave(store: Store, message: AcceptedMessage, **more: object) -> None:
    """Claim a message and record `more` of it."""
    (claimed,) = claim(store, route=message.deliveries[0].route)
    values: dict[str, object] = {
        "queue_id": claimed.queue_id,
        "delivery_no": claimed.delivery_no,
        "state": D.DEFERRED,
        "due_at_ms": NOW_MS + 5,
        "provider": "p",
        "reason": None,
        "recipients": (),
    }
    update = DeliveryUpdate(**values | more)  # type: ignore[arg-type]
    store.leases.record_batch([update], incarnation="one", now_ms=NOW_MS)


def hold(store: Store, reason: str, *, route: str = "default") -> AcceptedMessage:
    message = accepted(route=route)
    store.intake.accept_batch([message])
    leave(store, message, state=D.HELD, reason=reason, hold=cause_of(reason))
    return message


def entry_of(store: Store, message: AcceptedMessage) -> QueueEntry:
    (found,) = store.queue.entries([message.queue_id])
    return found


# --- held ---------------------------------------------------------------------------------


def test_held_mail_is_counted_by_route_and_reason(store: Store) -> None:
    first, second = hold(store, "mode"), hold(store, "mode")
    other = hold(store, "poison", route="bulk")
    store.intake.accept_batch([accepted()])
    found = {(one.route, one.cause.sentence): one for one in store.holds.held_mail()}
    assert {key: one.deliveries for key, one in found.items()} == {
        ("default", "mode"): 2,
        ("bulk", "poison"): 1,
    }
    assert found["default", "mode"].examples == tuple(sorted((first.queue_id, second.queue_id)))
    assert found["bulk", "poison"].examples == (other.queue_id,)
    assert found["default", "mode"].since_ms == NOW_MS


def test_what_is_let_go_by_its_key_is_due_and_the_rest_stays_held(store: Store) -> None:
    goes, stays, other = hold(store, "mode"), hold(store, "mode"), hold(store, "poison")
    keys = [(goes.queue_id, 0), (other.queue_id, 0)]
    due_at_ms = entry_of(store, goes).deliveries[0].due_at_ms
    assert due_at_ms < NOW_MS + 7
    with clock_at(store, NOW_MS + 7):
        assert store.holds.let_go(keys, HoldCause(HoldCode.MODE)).due == 1
    states = [entry_of(store, one).deliveries[0].state for one in (goes, stays, other)]
    assert states == [D.DEFERRED, D.HELD, D.HELD]
    assert entry_of(store, goes).deliveries[0].due_at_ms == due_at_ms, "before younger mail"


# --- in hand ------------------------------------------------------------------------------


def test_mail_that_is_long_in_hand_is_told_with_its_worker(store: Store) -> None:
    message = accepted("a@cust.test", "b@cust.test")
    store.intake.accept_batch([message])
    claim(store, now_ms=NOW_MS)
    assert store.watch.in_hand_since(NOW_MS) == []
    (found,) = store.watch.in_hand_since(NOW_MS + 1)
    assert (found.queue_id, found.route, found.recipients) == (message.queue_id, "default", 2)
    assert (found.worker, found.pid, found.since_ms) == ("gw", 1, NOW_MS)


# --- routes -------------------------------------------------------------------------------


def test_the_routes_that_mail_waits_on_are_told_once_each(store: Store) -> None:
    assert store.leases.routes_waiting() == []
    store.intake.accept_batch([accepted(route=name) for name in ("b", "a", "b", "c", "held")])
    leave(store, accepted(route="a"))
    leave(store, accepted(route="held"), state=D.HELD, reason="mode")
    claim(store, route="c")
    assert store.leases.routes_waiting() == ["a", "b"]


def way(route: str, *numbers: int, stream: str = "promotional") -> RouteWay:
    return RouteWay(route=route, stream=stream, rcpt_nos=numbers)


def step(message: AcceptedMessage, *ways: RouteWay) -> Rerouting:
    return Rerouting(queue_id=message.queue_id, delivery_no=0, route="default", ways=ways)


def test_a_delivery_takes_another_route_with_its_due_time(store: Store) -> None:
    message = accepted()
    store.intake.accept_batch([message])
    leave(store, message)
    assert store.leases.reroute([step(message, way("main", 0))], entry=DEED) == 1
    (part,) = entry_of(store, message).deliveries
    assert (part.route, part.stream, part.state) == ("main", "promotional", D.DEFERRED)
    assert (part.due_at_ms, part.attempts) == (NOW_MS + 5, 1)
    assert [one.affected for one in store.audit.entries(limit=9)] == [1]
    assert claim(store, route="default", now_ms=NOW_MS + 9) == []
    assert len(claim(store, route="main", now_ms=NOW_MS + 9)) == 1


def test_a_delivery_parts_where_its_recipients_part(store: Store) -> None:
    message = accepted("a@cust.test", "b@cust.test", "c@cust.test")
    store.intake.accept_batch([message])
    assert store.leases.reroute([step(message, way("one", 0, 2), way("two", 1))], entry=DEED) == 2
    entry = entry_of(store, message)
    assert [(one.delivery_no, one.route) for one in entry.deliveries] == [(0, "one"), (1, "two")]
    assert [one.delivery_no for one in entry.recipients] == [0, 1, 0]
    (claimed,) = claim(store, route="two")
    assert [one.address for one in claimed.recipients] == ["b@cust.test"]


@pytest.mark.parametrize("ways", [(way("main", 0),), (way("main", 0), way("two", 1))])
def test_what_changed_meanwhile_keeps_its_route(store: Store, ways: tuple[RouteWay, ...]) -> None:
    doubtful, held, moved, in_hand = changed = [
        accepted("a@cust.test", "b@cust.test") for _ in range(4)
    ]
    store.intake.accept_batch([doubtful])
    leave(store, doubtful, doubted=True)
    store.intake.accept_batch([held])
    leave(store, held, state=D.HELD, reason="mode")
    store.intake.accept_batch([moved])
    store.leases.reroute([step(moved, way("other", 0, 1))], entry=DEED)
    store.intake.accept_batch([in_hand])
    claim(store)
    before = [entry_of(store, one) for one in changed]
    late = replace(DEED, actor="late")
    assert store.leases.reroute([step(one, *ways) for one in changed], entry=late) == 0
    assert [entry_of(store, one) for one in changed] == before
    assert "late" not in {one.actor for one in store.audit.entries(limit=9)}


# --- instances ----------------------------------------------------------------------------


def test_a_lost_instance_is_remembered_until_one_of_its_name_and_role_is_back(store: Store) -> None:
    store.instances.register(replace(instance("lost"), name="gw2", pid=7))
    store.intake.accept_batch([accepted()])
    store.leases.claim("default", limit=1, incarnation="lost", now_ms=NOW_MS)
    (before,) = [one for one in store.instances.registered() if one.incarnation == "lost"]
    assert store.instances.bury("lost", is_lost=True) == 1
    (found,) = store.watch.lost_instances(LONG_AGO)
    assert (found.name, found.role, found.pid, found.leases) == ("gw2", "delivery", 7, 1)
    assert abs(found.heartbeat_at_ms - before.heartbeat_at_ms) <= 1
    assert store.watch.lost_instances(found.heartbeat_at_ms + 60_000) == []
    assert "lost" not in {one.incarnation for one in store.instances.registered()}
    store.instances.register(replace(instance("front", role="front"), name="gw2"))
    assert store.watch.lost_instances(LONG_AGO), "another role of its host is no worker"
    store.instances.register(replace(instance("again"), name="gw2"))
    assert store.watch.lost_instances(LONG_AGO) == []


def test_who_said_goodbye_or_was_leaving_is_not_lost(store: Store) -> None:
    for name in ("stopped", "leaving", "twice"):
        store.instances.register(replace(instance(name), name=name))
    store.instances.bury("stopped")
    store.instances.heartbeat("leaving", state="draining")
    store.instances.bury("leaving", is_lost=True)
    store.instances.bury("twice", is_lost=True)
    store.instances.bury("twice", is_lost=True)
    assert [one.name for one in store.watch.lost_instances(LONG_AGO)] == ["twice"]


def test_lost_instances_are_forgotten_after_a_while(store: Store) -> None:
    store.instances.register(replace(instance("lost"), name="gw2"))
    store.instances.bury("lost", is_lost=True)
    (found,) = store.watch.lost_instances(LONG_AGO)
    forget_watched(store, found.heartbeat_at_ms - 60_000)
    assert store.watch.lost_instances(LONG_AGO)
    forget_watched(store, found.heartbeat_at_ms + 60_000)
    assert store.watch.lost_instances(LONG_AGO) == []


def test_leases_of_nobody_are_found_and_can_be_freed(store: Store) -> None:
    store.intake.accept_batch([accepted(), accepted()])
    claim(store)
    store.limits.acquire_permits("p", wanted=1, limit=1, incarnation="one")
    assert store.instances.ownerless() == []
    forget_registration(store, "one")
    assert store.instances.ownerless() == ["one"]
    assert store.instances.bury("one") == 2
    assert store.instances.ownerless() == []
    store.instances.register(instance("two"))
    assert store.limits.acquire_permits("p", wanted=1, limit=1, incarnation="two") == 1
    assert len(store.leases.claim("default", limit=9, incarnation="two", now_ms=NOW_MS)) == 2


def forget_registration(store: Store, incarnation: str) -> None:
    """Take a row away as a hand in the database would."""
    with store.database.write() as connection:  # type: ignore[attr-defined]
        connection.execute(delete(table).where(table.c.incarnation == incarnation))
