"""Transactions of two gateways that overlap: neither takes the content away under the other."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest
from sqlalchemy import text

from relaygw.errors import StoreUnavailable
from relaygw.mail.envelope import AcceptedMessage
from relaygw.mail.state import DeliveryState, RecipientState
from relaygw.store import doubts, intake, janitor, limits, queue
from relaygw.store.audit import AuditEntry
from relaygw.store.outcomes import record
from relaygw.store.rules import NO_RULES
from relaygw.store.store import Store, open_store
from tests.builders import NOW_MS, accepted, instance, part_on
from tests.contract.conftest import purge_before
from tests.contract.test_store_contract import entry_of, finish

ENTRY = AuditEntry(at_ms=NOW_MS, actor="a", action="queue.x", target="t", affected=0, detail="")
LATE_MS = 4_000_000_000_000


@pytest.fixture
def one(queue_url: str) -> Iterator[Store]:
    store = open_store(queue_url)
    store.instances.register(instance("one"))
    yield store
    store.close()


@pytest.fixture
def other(one: Store, queue_url: str) -> Iterator[Store]:
    store = open_store(queue_url)
    yield store
    store.close()


@contextmanager
def meanwhile(store: Store, call: Callable[[], object]) -> Iterator[list[object]]:
    """Let another gateway make a call and wait for a lock; what came of it is there at the end."""
    said: list[object] = []

    def run() -> None:
        try:
            said.append(call())
        except StoreUnavailable as error:
            said.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    while thread.is_alive() and not _is_waited_for(store):
        time.sleep(0.01)
    yield said
    thread.join()


def _is_waited_for(store: Store) -> bool:
    with store.database.read() as connection:
        waiting = connection.connection.exec_driver_sql("SELECT 1 FROM pg_locks WHERE NOT granted")
        return waiting.first() is not None


def test_the_end_of_one_part_leaves_the_content_to_a_part_that_comes_back(
    one: Store, other: Store
) -> None:
    message = two_parts(one)
    delete(one, message.queue_id)
    with one.database.write() as connection:
        update = finish(message.queue_id, delivery_no=1, rcpt_nos=(1,))
        record(connection, [update], incarnation="one", now_ms=NOW_MS, rules=NO_RULES)
        with meanwhile(
            other, lambda: other.queue.undelete([message.queue_id], entry=ENTRY)
        ) as said:
            connection.connection.commit()
    assert said == [1]
    assert entry_of(one, message.queue_id).chunk_count == 1
    assert one.intake.read_chunk(message.queue_id, 0) is not None


def test_the_trash_is_not_emptied_under_mail_that_comes_back(one: Store, other: Store) -> None:
    message = accepted()
    one.intake.accept_batch([message])
    delete(one, message.queue_id)
    with one.database.write() as connection:
        assert queue._undelete(connection, [message.queue_id], NOW_MS) == 1
        with meanwhile(other, lambda: purge_before(other, {"deleted": LATE_MS}, limit=9)) as said:
            connection.connection.commit()
    assert said == [0]
    assert one.intake.read_chunk(message.queue_id, 0) is not None


def test_mail_does_not_come_back_while_the_trash_is_emptied(one: Store, other: Store) -> None:
    message = accepted()
    one.intake.accept_batch([message])
    delete(one, message.queue_id)
    cutoffs = {"deleted": LATE_MS}
    with one.database.write() as connection:
        found = {"deleted": [message.queue_id]}
        assert janitor._purge(connection, found, cutoffs) == 1
        with meanwhile(
            other, lambda: other.queue.undelete([message.queue_id], entry=ENTRY)
        ) as said:
            connection.connection.commit()
    assert said == [0]
    assert entry_of(one, message.queue_id).deliveries[0].state is DeliveryState.DELETED


def test_a_message_that_is_being_taken_keeps_its_content(one: Store, other: Store) -> None:
    large = replace(accepted(), content=(), stored_chunks=1)
    one.intake.add_chunks(large.queue_id, 0, [b"x"])
    with one.database.write() as connection:
        intake.insert_messages(connection, [large])
        with meanwhile(other, lambda: purge_before(other, {"orphans": LATE_MS}, limit=9)) as said:
            connection.connection.commit()
    assert said == [0]
    assert one.intake.read_chunk(large.queue_id, 0) == b"x"


def test_a_message_is_not_taken_while_its_content_is_purged(one: Store, other: Store) -> None:
    large = replace(accepted(), content=(), stored_chunks=1)
    one.intake.add_chunks(large.queue_id, 0, [b"x"])
    cutoffs = {"orphans": LATE_MS}
    with one.database.write() as connection:
        janitor._purge(connection, {"orphans": [large.queue_id]}, cutoffs)
        with meanwhile(other, lambda: other.intake.accept_batch([large])) as said:
            connection.connection.commit()
    (error,) = said
    assert isinstance(error, StoreUnavailable)
    assert one.queue.counts() == []


def test_two_who_use_a_quota_for_the_first_time_get_no_more_than_it(
    one: Store, other: Store
) -> None:
    with one.database.write() as tx:  # as far as `use_quota` comes before its commit
        limits._ADD_ACCOUNT.run(tx, [("p",)])
        limits._NEXT_SLOT.fetch(tx, "p")
        limits._USE.run(tx, [("p", tx.now_ms(), 10)])
        with meanwhile(other, lambda: other.limits.use_quota("p", wanted=3, quota=10)) as said:
            tx.connection.commit()
    assert [tokens.granted for tokens in said] == [0]
    assert one.limits.quota_used("p") == 10


@pytest.mark.parametrize("change", ["delete", "release", "expire"])
def test_an_event_and_an_operator_who_change_the_same_mail_do_not_lock_each_other_out(
    one: Store, other: Store, change: str
) -> None:
    message = accepted()
    one.intake.accept_batch([message])
    (part,) = message.deliveries
    with one.database.write() as tx:
        tx.execute(
            text("UPDATE delivery SET state = 'held', held_at_ms = 1, doubts = 1, provider = 'p'")
        )
    calls = {
        "delete": lambda: changed(other, message.queue_id, DeliveryState.DELETED),
        "release": lambda: changed(other, message.queue_id, DeliveryState.DEFERRED),
        "expire": lambda: other.queue.expire([message.queue_id], reason="old", entry=ENTRY),
    }
    (recipient,) = part.recipients
    with one.database.write() as tx:
        told = (message.queue_id, recipient.address, "p", "its event tells", NOW_MS)
        assert len(doubts._SETTLE.fetch(tx, [told])) == 1  # as far as it comes before the delivery
        with meanwhile(other, calls[change]) as said:
            doubts._end(tx, {(message.queue_id, 0)}, NO_RULES)
            tx.connection.commit()
    assert said == [0]
    assert entry_of(one, message.queue_id).recipients[0].state is RecipientState.DELIVERED


def changed(store: Store, queue_id: str, to: DeliveryState) -> int:
    """Move what waits of a message, or is held, to a state; return how much."""
    states = frozenset({DeliveryState.INCOMING, DeliveryState.DEFERRED, DeliveryState.HELD})
    return store.queue.change_state([queue_id], from_states=states, to=to, entry=ENTRY)


def two_parts(store: Store) -> AcceptedMessage:
    """Store a message on two routes, the second of which is being sent."""
    parts = (("b", "x@b.test"), ("default", "y@a.test"))
    message = accepted(deliveries=tuple(part_on(route, address) for route, address in parts))
    store.intake.accept_batch([message])
    assert len(store.leases.claim("default", limit=5, incarnation="one", now_ms=NOW_MS)) == 1
    return message


def delete(store: Store, queue_id: str) -> None:
    """Put what waits of a message into the trash."""
    changed = store.queue.change_state(
        [queue_id],
        from_states=frozenset({DeliveryState.INCOMING}),
        to=DeliveryState.DELETED,
        entry=ENTRY,
    )
    assert changed == 1
