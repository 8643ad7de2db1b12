"""Captured mail that is let go: new deliveries, and content that stays as long as they wait."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import psycopg
import pytest

from relaygw.mail.envelope import ClaimedDelivery, NewDelivery, NewRecipient, Released
from relaygw.mail.hold import HoldCause, HoldCode
from relaygw.mail.state import DeliveryState, RecipientState
from relaygw.store import release
from relaygw.store.audit import AuditEntry
from relaygw.store.queue_entry import QueueEntry
from relaygw.store.release import Release
from relaygw.store.selection import Selection
from relaygw.store.store import Store, read_content
from tests.builders import NOW_MS, accepted, instance, taken, update_of
from tests.contract.conftest import open_store, purge_before, shed_content

DAY_MS = 86_400_000
LATER_MS = NOW_MS + 20 * DAY_MS  # of the release: long after the usual lifetime
CONTENT = b"Subject: x\r\n\r\nhello\r\n"
AUDIT = AuditEntry(at_ms=LATER_MS, actor="ann", action="x", target="", affected=0, detail="")
STATES = frozenset(DeliveryState)


def captured(*addresses: str) -> tuple[NewRecipient, ...]:
    return tuple(
        NewRecipient(address=address, state=RecipientState.CAPTURED, reason="staging")
        for address in addresses or ("b@cust.test",)
    )


def add(store: Store, *addresses: str, **more: Any) -> str:
    message = accepted(*captured(*addresses), mode="staging", **more)
    store.intake.accept_batch([message])
    return message.queue_id


def part(
    *addresses: str, released: Released = Released.ALLOWED, route: str = "default"
) -> NewDelivery:
    return NewDelivery(
        released=released,
        route=route,
        stream="transactional",
        recipients=tuple(
            NewRecipient(address=address, original="b@cust.test", dsn_notify="NEVER")
            for address in addresses or ("dev@agency.test",)
        ),
    )


def let_go(queue_id: str, *parts: NewDelivery) -> Release:
    entry = replace(AUDIT, action="sandbox.release", target=queue_id, affected=1, detail="to dev")
    return Release(queue_id=queue_id, deliveries=parts or (part(),), entry=entry)


def entry_of(store: Store, queue_id: str) -> QueueEntry:
    (found,) = store.queue.search(Selection(queue_ids=(queue_id,), states=STATES), limit=1)
    return found


def claim(store: Store, *, route: str = "default") -> list[ClaimedDelivery]:
    return store.leases.claim(route, limit=10, incarnation="one", now_ms=LATER_MS)


def finish(store: Store, queue_id: str, *, delivery_no: int = 1, rcpt_no: int = 1) -> None:
    change = taken(rcpt_no)
    update = update_of(queue_id, delivery_no=delivery_no, due_at_ms=LATER_MS, recipients=(change,))
    assert store.leases.record_batch([update], incarnation="one", now_ms=LATER_MS).is_alive


# --- the new delivery ---------------------------------------------------------------------


def test_a_release_is_a_new_delivery_that_is_due_and_what_was_captured_stays(store: Store) -> None:
    queue_id = add(store)
    assert claim(store) == []
    assert store.sandbox.release_captured([let_go(queue_id)]) == {queue_id}
    (claimed,) = claim(store)
    assert (claimed.queue_id, claimed.delivery_no, claimed.released) == (queue_id, 1, "allowed")
    assert claimed.content == CONTENT
    (recipient,) = claimed.recipients
    assert (recipient.rcpt_no, recipient.address, recipient.original, recipient.dsn_notify) == (
        1,
        "dev@agency.test",
        "b@cust.test",
        "NEVER",
    )
    entry = entry_of(store, queue_id)
    assert [(one.state, one.released) for one in entry.deliveries] == [
        (DeliveryState.FINISHED, None),
        (DeliveryState.ACTIVE, "allowed"),
    ]
    assert [one.state for one in entry.recipients] == [
        RecipientState.CAPTURED,
        RecipientState.PENDING,
    ]
    assert entry.captured_at_ms == NOW_MS


def test_mail_that_was_never_captured_has_no_mark(store: Store) -> None:
    store.intake.accept_batch([accepted()])
    (claimed,) = claim(store)
    assert claimed.released is None


def test_the_lifetime_begins_with_the_release(store: Store) -> None:
    queue_id = add(store)
    store.sandbox.release_captured([let_go(queue_id)])
    (claimed,) = claim(store)
    assert LATER_MS - claimed.accepted_at_ms - claimed.held_ms == 0


def test_each_part_has_its_mark_and_its_route(store: Store) -> None:
    queue_id = add(store, "b@cust.test", "c@cust.test")
    anyone = part("b@cust.test", released=Released.ANYONE, route="promo")
    store.sandbox.release_captured([let_go(queue_id, part(), anyone)])
    (allowed,), (other,) = claim(store), claim(store, route="promo")
    assert (allowed.delivery_no, allowed.released) == (1, "allowed")
    assert (other.delivery_no, other.released) == (2, "anyone")
    assert [(one.rcpt_no, one.address) for one in other.recipients] == [(3, "b@cust.test")]


def test_recipients_held_apart_keep_the_mark(store: Store) -> None:
    queue_id = add(store)
    both = part("dev@agency.test", "qa@agency.test", released=Released.ANYONE)
    store.sandbox.release_captured([let_go(queue_id, both)])
    claim(store)
    finished = update_of(
        queue_id,
        delivery_no=1,
        due_at_ms=LATER_MS,
        held_apart=(2,),
        held_apart_for=HoldCause(HoldCode.MODE),
    )
    store.leases.record_batch([finished], incarnation="one", now_ms=LATER_MS)
    held = entry_of(store, queue_id).deliveries[2]
    assert (held.state, held.released) == (DeliveryState.HELD, "anyone")


@pytest.mark.parametrize(
    ("address", "needs_it"), [("d\u00e9v@agency.test", True), ("dev@agency.test", False)]
)
def test_an_address_beyond_ascii_needs_smtputf8(store: Store, address: str, needs_it: bool) -> None:
    queue_id = add(store)
    store.sandbox.release_captured([let_go(queue_id, part(address))])
    (claimed,) = claim(store)
    assert claimed.smtputf8 == needs_it


def test_each_message_leaves_a_line_in_the_trail(store: Store) -> None:
    first, second = add(store), add(store)
    store.sandbox.release_captured([let_go(first), let_go(second)])
    trail = store.audit.entries(limit=9)
    assert {(one.action, one.actor, one.target, one.detail) for one in trail} == {
        ("sandbox.release", "ann", first, "to dev"),
        ("sandbox.release", "ann", second, "to dev"),
    }


# --- what is not released -----------------------------------------------------------------


def test_only_captured_mail_with_its_content_is_released(store: Store) -> None:
    queued = accepted(mode="staging")
    dropped = accepted(
        NewRecipient(address="b@cust.test", state=RecipientState.BLOCKED), mode="staging"
    )
    store.intake.accept_batch([queued, dropped])
    captured_id = add(store)
    ids = (queued.queue_id, dropped.queue_id, "1M89BZ88N46GD3SE7", captured_id)
    assert store.sandbox.release_captured([let_go(queue_id) for queue_id in ids]) == {captured_id}
    assert [one.target for one in store.audit.entries(limit=9)] == [captured_id]
    assert {one.queue_id for one in claim(store)} == {queued.queue_id, captured_id}


def test_who_is_to_get_it_already_does_not_get_it_twice(store: Store) -> None:
    queue_id = add(store)
    store.sandbox.release_captured([let_go(queue_id)])
    for address in ("dev@agency.test", "DEV@Agency.test"):
        assert store.sandbox.release_captured([let_go(queue_id, part(address))]) == set()
    assert store.sandbox.release_captured([let_go(queue_id, part("qa@agency.test"))]) == {queue_id}
    assert len(claim(store)) == 2
    finish(store, queue_id)
    # it was delivered: whoever asks again wants it again
    assert store.sandbox.release_captured([let_go(queue_id)]) == {queue_id}
    assert [one.delivery_no for one in claim(store)] == [3]


# --- content while a release waits ----------------------------------------------------------


def sweep(store: Store) -> None:
    """Do all that a janitor does with mail that is over every time."""
    end_ms = LATER_MS + 1000 * DAY_MS
    cutoffs = dict.fromkeys(("finished", "captured", "deleted", "orphans"), end_ms)
    purge_before(store, cutoffs, limit=100)
    store.janitor.trim_captured(keep=0, limit=100)
    while shed_content(store, end_ms):
        pass
    purge_before(store, cutoffs, limit=100)


@pytest.mark.parametrize("chunks", [1, 3])
@pytest.mark.parametrize("is_deleted", [False, True])
def test_a_release_is_kept_whatever_becomes_of_the_sandbox(
    store: Store, chunks: int, is_deleted: bool
) -> None:
    body = tuple(CONTENT for _ in range(chunks))
    queue_id = add(store, content=CONTENT, size_bytes=len(CONTENT) * chunks)
    if chunks > 1:
        message = replace(accepted(*captured()), content=body, size_bytes=len(CONTENT) * chunks)
        store.intake.accept_batch([message])
        queue_id = message.queue_id
    store.sandbox.release_captured([let_go(queue_id)])
    if is_deleted:
        store.sandbox.delete_captured([queue_id], entry=AUDIT)
    sweep(store)
    (claimed,) = claim(store)
    sweep(store)  # while it is being sent, too
    entry = entry_of(store, queue_id)
    assert claimed.chunk_count == entry.chunk_count == chunks
    assert b"".join(read_content(store, entry)) == CONTENT * chunks
    assert entry.captured_at_ms is None
    finish(store, queue_id)
    while shed_content(store, LATER_MS + 1):
        pass
    assert entry_of(store, queue_id).chunk_count == 0
    assert store.intake.read_chunk(queue_id, 0) is None
    sweep(store)
    assert store.queue.search(Selection(queue_ids=(queue_id,), states=STATES), limit=1) == []


def test_what_is_still_in_the_sandbox_keeps_its_content_after_its_release(store: Store) -> None:
    queue_id = add(store)
    store.sandbox.release_captured([let_go(queue_id)])
    claim(store)
    finish(store, queue_id)
    assert shed_content(store, LATER_MS + 1) is False
    purge_before(store, {"finished": LATER_MS + DAY_MS}, limit=9)
    assert b"".join(read_content(store, entry_of(store, queue_id))) == CONTENT
    assert entry_of(store, queue_id).captured_at_ms == NOW_MS


def test_a_release_that_was_put_into_the_trash_goes_with_it(store: Store) -> None:
    queue_id = add(store)
    store.sandbox.release_captured([let_go(queue_id)])
    store.queue.change_state(
        [queue_id],
        from_states=frozenset({DeliveryState.INCOMING}),
        to=DeliveryState.DELETED,
        entry=AUDIT,
    )
    assert claim(store) == []
    entry = entry_of(store, queue_id)
    assert [one.state for one in entry.recipients] == [
        RecipientState.CAPTURED,
        RecipientState.CANCELLED,
    ]
    assert purge_before(store, {"deleted": LATER_MS + DAY_MS}, limit=9) == 1
    assert b"".join(read_content(store, entry)) == CONTENT  # of the sandbox
    assert store.sandbox.release_captured([let_go(queue_id)]) == {queue_id}


def test_a_mixed_message_is_finished_when_all_of_it_is(store: Store) -> None:
    allowed = NewRecipient(address="dev@agency.test")
    parts = (
        NewDelivery(route="default", stream="transactional", recipients=(allowed, *captured())),
    )
    message = accepted(deliveries=parts, mode="staging")
    store.intake.accept_batch([message])
    queue_id = message.queue_id
    store.sandbox.release_captured([let_go(queue_id, part("qa@agency.test"))])
    assert [one.delivery_no for one in claim(store)] == [0, 1]
    finish(store, queue_id, delivery_no=0, rcpt_no=0)
    store.sandbox.delete_captured([queue_id], entry=AUDIT)
    sweep(store)
    assert b"".join(read_content(store, entry_of(store, queue_id))) == CONTENT
    finish(store, queue_id, rcpt_no=2)
    assert entry_of(store, queue_id).chunk_count == 0


# --- several at once, on PostgreSQL ---------------------------------------------------------


@pytest.fixture
def shared(queue_url: str) -> Iterator[Store]:
    store = open_store(queue_url)
    store.instances.register(instance("one"))
    yield store
    store.close()


@pytest.mark.parametrize("what", ["delete", "trim", "held apart"])
def test_nobody_gets_between(shared: Store, queue_url: str, what: str) -> None:
    """Deleting, or adding another delivery, waits for a release that is being written."""
    message = accepted(
        NewRecipient(address="dev@agency.test"),
        NewRecipient(address="old@agency.test"),
        *captured(),
        mode="staging",
    )
    shared.intake.accept_batch([message])
    queue_id = message.queue_id
    claim(shared)
    if what != "held apart":
        finish(shared, queue_id, delivery_no=0, rcpt_no=0)

    def disturb() -> None:
        if what == "delete":
            shared.sandbox.delete_captured([queue_id], entry=AUDIT)
        elif what == "trim":
            shared.janitor.trim_captured(keep=0, limit=9)
        else:
            update = update_of(
                queue_id,
                due_at_ms=LATER_MS,
                held_apart=(1,),
                held_apart_for=HoldCause(HoldCode.MODE),
            )
            shared.leases.record_batch([update], incarnation="one", now_ms=LATER_MS)

    thread = threading.Thread(target=disturb)
    with shared.database.write() as connection:
        release.release(connection, [let_go(queue_id, part("qa@agency.test"))])
        thread.start()
        wait_for_lock(queue_url)
    thread.join()
    numbers = [one.delivery_no for one in entry_of(shared, queue_id).deliveries]
    assert numbers == ([0, 1, 2] if what == "held apart" else [0, 1])
    (claimed,) = claim(shared)
    assert claimed.content == CONTENT


def test_the_end_of_another_delivery_at_that_moment_does_not_end_the_message(
    shared: Store, queue_url: str
) -> None:
    message = accepted(NewRecipient(address="old@agency.test"), *captured(), mode="staging")
    shared.intake.accept_batch([message])
    queue_id = message.queue_id
    claim(shared)
    thread = threading.Thread(target=lambda: finish(shared, queue_id, delivery_no=0, rcpt_no=0))
    with shared.database.write() as connection:
        release.release(connection, [let_go(queue_id)])
        thread.start()
        wait_for_lock(queue_url)
    thread.join()
    shared.sandbox.delete_captured([queue_id], entry=AUDIT)
    sweep(shared)
    (claimed,) = claim(shared)
    assert claimed.content == CONTENT


def wait_for_lock(url: str) -> None:
    """Return when somebody waits for a lock on a row."""
    deadline_s = time.monotonic() + 30
    query = (
        "SELECT count(*) FROM pg_stat_activity "
        "WHERE datname = current_database() AND wait_event_type = 'Lock'"
    )
    with psycopg.connect(url, autocommit=True) as connection:
        while True:
            row = connection.execute(query).fetchone()
            if row is not None and row[0]:
                return
            assert time.monotonic() < deadline_s, "nobody waits"
            time.sleep(0.01)
