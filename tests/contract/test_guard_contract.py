"""What every store must do for the guard: entries, what they cover, and mail that waits."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from relaygw.mail.clock import DAY_MS, HOUR_MS, clock_ms
from relaygw.mail.envelope import RecipientUpdate, Source
from relaygw.mail.mail_class import ClassCount, MailClass, shown_source
from relaygw.mail.state import DeliveryState, RecipientState
from relaygw.store.audit import AuditEntry
from relaygw.store.guard import GUARD, GuardAction, GuardEntry
from relaygw.store.guarded_mail import hold_waiting, release_left
from relaygw.store.store import Store
from tests.builders import accepted, update_of
from tests.contract.test_store_contract import claim

SCRIPT = ("10.0.0.5", ":25", "", 33, "60:index.php")
SOURCE = Source(client="10.0.0.5", listener="127.0.0.1:25", uid=33, script="60:index.php")


def class_of(template: str, source: tuple[Any, ...] = SCRIPT, **more: str) -> MailClass:
    fields = {"sender_domain": "shop.test", "stream": "transactional", **more}
    return MailClass.of(source, template=template, **fields)


def count(store: Store, one: MailClass, ago_ms: int, messages: int = 1) -> None:
    at_ms = clock_ms() - ago_ms
    store.sources.count_mail([ClassCount(one, at_ms, at_ms, messages, messages)])


def audited(action: str = "guard.hold") -> AuditEntry:
    return AuditEntry(
        at_ms=clock_ms(), actor="ann", action=action, target="t", affected=1, detail=""
    )


def held(one: MailClass, **more: Any) -> GuardEntry:
    values: dict[str, Any] = {
        "target": one.source_id,
        "source_id": one.source_id,
        "action": GuardAction.HOLD,
        "label": "index.php",
        "reason": "spam",
        "actor": "guard",
        "at_ms": clock_ms(),
    }
    return GuardEntry(**values | more)


def test_of_a_source_only_what_is_new_is_held(store: Store) -> None:
    old, spam = class_of("Order #"), class_of("Win #")
    moved = class_of("Shipped #", ("10.0.0.9", ":25", "", 33, "60:index.php"))
    count(store, old, 3 * DAY_MS)
    for days in (3, 1):
        count(store, moved, days * DAY_MS)
    count(store, class_of("Win #", ("10.0.0.8", "", "", None, "")), 2 * DAY_MS, 400)  # spam then
    count(store, spam, HOUR_MS, 40)
    new = held(spam, new_since_ms=clock_ms() - 2 * HOUR_MS)
    assert store.guard.put_guard_entry(new, entry=audited())
    assert not store.guard.put_guard_entry(new, entry=audited()), "another watch was faster"
    allowed = class_of("Reset")
    other = held(allowed, target=allowed.class_id, action=GuardAction.ALLOW, per_hour=9)
    assert store.guard.put_guard_entry(other, entry=audited("guard.allow"))
    (scope,) = store.guard.held_scopes()
    covered = {
        one.template
        for one in (old, spam, allowed, class_of("Shipped #"), class_of("x", stream="promotional"))
        if scope.holds_mail(one)
    }
    assert covered == {"Win #"}
    assert not scope.holds_mail(class_of("Win #", ("10.0.0.5", ":25", "", 34, "")))
    assert {one.target for one in store.guard.guard_entries()} == {new.target, other.target}
    known = store.guard.known_mail(clock_ms() - DAY_MS)
    assert {*known} == {("shop.test", one) for one in ("Shipped #", "Order #", "Win #")}
    (sender,) = known["shop.test", "Shipped #"]
    assert sender[:2] == (moved.source_id, "33 #:index.php")
    assert sender.last_ms - sender.first_ms == pytest.approx(2 * DAY_MS, abs=60_000)
    renewed = held(spam, actor="ann", new_since_ms=None)
    assert store.guard.put_guard_entry(renewed, entry=audited(), is_renewing=True)
    (scope,) = store.guard.held_scopes()
    assert scope.holds_mail(old), "an operator holds all of it"
    assert store.guard.drop_guard_entry(new.target, entry=audited("guard.release"))
    assert not store.guard.drop_guard_entry(new.target, entry=audited("guard.release"))
    assert sorted(one.action for one in store.audit.entries(limit=9)) == [
        "guard.allow",
        "guard.hold",
        "guard.hold",
        "guard.release",
    ]


def test_counts_of_a_source_and_its_mail(store: Store) -> None:
    spam, other = class_of("Win #"), class_of("Win #", ("10.0.0.7", "", "", None, ""))
    count(store, spam, 0, 40)
    count(store, other, 0, 5)
    count(store, spam, 30 * HOUR_MS, 70)
    sums = store.guard.source_sums(clock_ms() - HOUR_MS)
    assert {key: one.messages for key, one in sums.items()} == {
        spam.source_id: 40,
        other.source_id: 5,
    }
    assert store.guard.busiest_hour(spam.source_id, clock_ms() - DAY_MS) == 70
    since_ms = store.guard.counting_since_ms()
    assert since_ms is not None
    assert abs(clock_ms() - 30 * HOUR_MS - since_ms) < HOUR_MS
    mail = [
        accepted("a@web.test", source=SOURCE, subject="Win 17", at_ms=clock_ms()),
        accepted("b@mail.test", "c@mail.test", source=SOURCE, subject="Win 4", at_ms=clock_ms()),
        accepted("d@cust.test", source=SOURCE, subject="Order 8", at_ms=clock_ms()),
        accepted("e@cust.test", subject="Win 8", at_ms=clock_ms()),
    ]
    store.intake.accept_batch(mail)
    found = store.guard.recipient_domains(SCRIPT, [spam.class_id], since_ms=clock_ms() - HOUR_MS)
    assert found == ["mail.test", "web.test"]
    store.guard.put_guard_entry(held(spam, target=spam.class_id), entry=audited())
    (scope,) = store.guard.held_scopes()
    waiting, _ = store.guard.waiting_of(scope, SCRIPT)
    assert waiting == sorted([mail[0].queue_id, mail[1].queue_id])
    claim(store, now_ms=clock_ms())
    bounced = RecipientUpdate(
        rcpt_no=0, state=RecipientState.BOUNCED, reply="550 no", dsn="5.1.1", provider="main"
    )
    update = update_of(mail[0].queue_id, recipients=(bounced,), due_at_ms=clock_ms() + 1)
    store.leases.record_batch([update], incarnation="one", now_ms=clock_ms())
    assert store.guard.bounced_since(clock_ms() - HOUR_MS) == {spam.source_id: 1}


@pytest.mark.parametrize("script", ["60:index.php", "60:café.php", "60:wh\x07at.php", "", None])
def test_mail_of_a_script_is_known_however_it_is_written(store: Store, script: str | None) -> None:
    source = replace(SOURCE, script=script)
    other = replace(SOURCE, script="60:other.php")
    found = [
        accepted(f"a@{name}.test", source=one, subject="Win 5", at_ms=clock_ms())
        for name, one in (("own", source), ("other", other))
    ]
    store.intake.accept_batch(found)
    shown = shown_source((*SCRIPT[:4], script or ""))
    spam = class_of("Win #", shown)
    since_ms = clock_ms() - HOUR_MS
    assert store.guard.recipient_domains(shown, [spam.class_id], since_ms=since_ms) == ["own.test"]


def test_a_recipient_that_is_no_address_has_no_domain(store: Store) -> None:
    """As a file in the maildrop may name one; a look at the alerts must not end with it."""
    spam = class_of("Win #")
    odd = accepted('"n" <r@rd.test>', source=SOURCE, subject="Win 5", at_ms=clock_ms())
    right = accepted("a@web.test", "b@web.test", source=SOURCE, subject="Win 4", at_ms=clock_ms())
    store.intake.accept_batch([odd, right])
    found = store.guard.recipient_domains(SCRIPT, [spam.class_id], since_ms=clock_ms() - HOUR_MS)
    assert found == ["web.test", ""]


def test_what_was_released_is_not_held_again_unless_it_is_asked_for(store: Store) -> None:
    spam = class_of("Win #")
    count(store, spam, 0, 40)
    mail = [
        accepted("a@web.test", source=SOURCE, subject=f"Win {number}", at_ms=clock_ms())
        for number in range(3)
    ]
    store.intake.accept_batch(mail[:2])
    store.guard.put_guard_entry(held(spam), entry=audited())
    now_ms = clock_ms()
    assert hold_waiting(store, actor=GUARD, now_ms=now_ms) == 2
    store.queue.change_state(
        [mail[0].queue_id],
        from_states=frozenset({DeliveryState.HELD}),
        to=DeliveryState.DEFERRED,
        entry=replace(audited("queue.release"), at_ms=now_ms),  # at once, or the clock was set
    )
    store.intake.accept_batch(mail[2:])
    assert hold_waiting(store, actor=GUARD, now_ms=now_ms) == 1, "what came since"
    assert hold_waiting(store, actor=GUARD, now_ms=now_ms) == 0
    assert hold_waiting(store, actor="ann", now_ms=now_ms, target=spam.source_id) == 1


def test_mail_of_a_class_that_is_allowed_is_released_from_its_source(store: Store) -> None:
    spam, orders = class_of("Win #"), class_of("Order #")
    count(store, spam, 0, 40)
    count(store, orders, 0, 40)
    mail = [
        accepted("a@web.test", sender="a@shop.test", source=SOURCE, subject=one, at_ms=clock_ms())
        for one in ("Win 1", "Order 2", "Order 3")
    ]
    store.intake.accept_batch(mail)
    store.guard.put_guard_entry(held(spam), entry=audited())
    assert hold_waiting(store, actor=GUARD, now_ms=clock_ms()) == 3
    wanted = sorted(one.queue_id for one in mail[1:])
    assert store.guard.held_of(orders) == (wanted, "")
    release_left(store)
    assert store.guard.held_of(orders) == (wanted, "")
    allowed = held(orders, target=orders.class_id, action=GuardAction.ALLOW, per_hour=9)
    store.guard.put_guard_entry(allowed, entry=audited("guard.allow"))
    release_left(store)
    assert store.guard.held_of(orders) == ([], "")
    assert store.guard.held_of(spam)[0] == [mail[0].queue_id]
