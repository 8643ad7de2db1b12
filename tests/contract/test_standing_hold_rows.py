"""Standing holds and their mail, on both databases."""

from __future__ import annotations

from dataclasses import replace

from relaygw.mail.clock import clock_ms
from relaygw.mail.hold import HoldCause, HoldCode
from relaygw.mail.standing_hold import HoldScope, StandingHold
from relaygw.mail.state import DeliveryState
from relaygw.store.audit import AuditEntry
from relaygw.store.holds import Hold, ended_entry
from relaygw.store.store import Store
from tests.builders import accepted, selected, standing_hold

D = DeliveryState


def set_hold(store: Store, **more: object) -> StandingHold:
    now_ms = clock_ms()
    ends = {"reason": "down", "since_ms": now_ms, "until_ms": now_ms + 60_000}
    hold = standing_hold(HoldScope.RECIPIENT_DOMAIN, "gmx.test", **ends | more)
    entry = AuditEntry(
        at_ms=now_ms, actor=hold.by, action="hold.add", target=hold.words, affected=1, detail=""
    )
    assert store.holds.put_standing(hold, entry=entry)
    return hold


def test_a_standing_hold_is_kept_beside_those_of_providers(store: Store) -> None:
    stop = Hold(scope="provider", key="main", reason="550", remedy="", since_ms=1, probe_at_ms=None)
    store.holds.put_hold(stop)
    hold = set_hold(store)
    assert store.holds.standing() == [hold]
    assert [one.key for one in store.holds.in_force()] == ["main"]
    again = set_hold(store, by="bob", reason="up?", until_ms=None)
    assert store.holds.standing() == [replace(again, since_ms=hold.since_ms)]
    assert store.holds.drop_hold("provider", "main") is False  # an operator's
    entry = ended_entry(hold, "ann", clock_ms(), "")
    assert store.holds.drop_hold(hold.scope.value, hold.value, entry=entry)
    assert not store.holds.drop_hold(hold.scope.value, hold.value, entry=entry)
    assert store.holds.standing() == []
    assert len(store.holds.in_force()) == 1
    found = [(one.action, one.actor) for one in store.audit.entries(limit=9)]
    assert found == [("hold.end", "ann"), ("hold.add", "bob"), ("hold.add", "ann")]
    set_hold(store, hold_id="11111111")  # the same again, once it had ended
    assert [one.hold_id for one in store.holds.standing()] == ["11111111"]


def test_what_ended_or_stands_by_another_id_is_not_renewed(store: Store) -> None:
    """Whoever read it before its end has to set a new one: "held" means that a hold is there."""
    hold = set_hold(store)
    entry, deeds = ended_entry(hold, "ann", clock_ms(), ""), len(store.audit.entries(limit=9))
    assert not store.holds.put_standing(replace(hold, hold_id="00000000"), entry=entry)
    assert store.holds.standing() == [hold]
    assert store.holds.drop_hold(hold.scope.value, hold.value, entry=entry)
    assert not store.holds.put_standing(hold, entry=entry)
    assert store.holds.standing() == []
    assert len(store.audit.entries(limit=9)) == deeds + 1, "of the end alone"


def test_who_ends_what_is_over_does_not_end_what_was_prolonged(store: Store) -> None:
    hold = set_hold(store, until_ms=clock_ms() - 1)
    entry, where = ended_entry(hold, "relaygw", clock_ms(), ""), (hold.scope.value, hold.value)
    longer = set_hold(store, until_ms=clock_ms() + 60_000)
    assert not store.holds.drop_hold(*where, entry=entry, if_over=True)
    set_hold(store, until_ms=None)
    assert not store.holds.drop_hold(*where, entry=entry, if_over=True)
    assert [one.until_ms for one in store.holds.standing()] == [None]
    set_hold(store, until_ms=longer.since_ms - 1)
    assert store.holds.drop_hold(*where, entry=entry, if_over=True)
    assert store.holds.standing() == []


def test_mail_is_parked_and_let_go_as_it_was_due(store: Store) -> None:
    now_ms = clock_ms()
    hold = set_hold(store)
    mail = [accepted("a@gmx.test", at_ms=now_ms - 9_000 + n) for n in range(7)]
    store.intake.accept_batch(mail)
    (active,) = store.leases.claim("default", limit=1, incarnation="one", now_ms=now_ms)
    keys = [(one.queue_id, 0) for one in mail]
    assert store.holds.park(keys, hold.cause) == 6  # what is being sent stays as it is
    assert store.holds.park(keys, hold.cause) == 0
    held = selected(states=frozenset({D.HELD}), reason="standing hold 3f2a9c1d")
    entries = store.queue.search(held, limit=9)
    assert {one.deliveries[0].hold for one in entries} == {hold.cause}
    assert store.holds.release_standing({"00000000"}).due == 0
    assert store.holds.release_standing({"3f2a9c1d", "00000000"}).due == 6
    assert store.holds.held_causes() == []
    claimed = store.leases.claim("default", limit=9, incarnation="one", now_ms=clock_ms())
    left = [one for one in mail if one.queue_id != active.queue_id]
    assert [one.queue_id for one in claimed] == [one.queue_id for one in left]
    assert [one.due_at_ms for one in claimed] == [one.accepted_at_ms for one in left]


def test_only_its_own_mail_is_let_go(store: Store) -> None:
    hold = set_hold(store)
    other = HoldCause(HoldCode.OPERATOR, "3f2a9c1d is no id here")
    mail, alone = (accepted("a@gmx.test", holds=(cause,)) for cause in (hold.cause, other))
    store.intake.accept_batch([mail, alone])
    assert store.holds.release_standing({hold.hold_id}).due == 1
    assert store.holds.held_causes() == [other]
