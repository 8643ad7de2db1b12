"""Two processes at one captured message: whoever comes second sees what the first one did."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest

from relaygw.mail.content_facts import ContentFacts
from relaygw.mail.search import parse_search
from relaygw.store import captured_index, sandbox
from relaygw.store.store import Store, open_store
from tests.builders import NOW_MS
from tests.contract.captured import AUDITED, capture, found, indexed
from tests.contract.test_captured_contract import FACTS, rows_left


@pytest.fixture
def shared(queue_url: str) -> Iterator[Store]:
    store = open_store(queue_url)
    yield store
    store.close()


def in_turn(shared: Store, first: Callable[..., object], second: Callable[[], object]) -> None:
    """Let `second` begin while `first` is not committed yet."""
    committed = threading.Event()
    locked = threading.Event()

    def run_first() -> None:
        with shared.database.write() as connection:
            first(connection)
            locked.set()
            assert committed.wait(60)

    thread = threading.Thread(target=run_first)
    thread.start()
    assert locked.wait(60)
    other = threading.Thread(target=second)
    other.start()
    try:
        _wait_for_a_lock(shared, other)
    finally:
        committed.set()
        thread.join()
        other.join()


def _wait_for_a_lock(shared: Store, other: threading.Thread) -> None:
    pause = threading.Event()
    while True:
        with shared.database.read() as connection:
            found = connection.connection.exec_driver_sql(
                "SELECT count(*) FROM pg_stat_activity"
                " WHERE datname = current_database() AND wait_event_type = 'Lock'"
            )
            if found.scalar_one():
                return
        assert other.is_alive(), "it did not wait"
        pause.wait(0.01)


def test_a_message_is_not_indexed_twice(shared: Store) -> None:
    queue_id = capture(shared)
    facts = {queue_id: FACTS}
    in_turn(
        shared,
        lambda connection: captured_index.write_index(connection, facts),
        lambda: shared.sandbox.index({queue_id: ContentFacts(words="other")}),
    )
    assert found(shared, "order") == [queue_id]
    assert rows_left(shared) == [1, 1, 1, 0]


def test_an_index_row_does_not_outlive_a_message_deleted_meanwhile(shared: Store) -> None:
    queue_id = capture(shared)
    in_turn(
        shared,
        lambda connection: captured_index.write_index(connection, {queue_id: FACTS}),
        lambda: shared.sandbox.delete_captured([queue_id], entry=AUDITED),
    )
    assert rows_left(shared) == [0, 0, 0, 0]


def test_a_message_that_was_deleted_is_not_indexed(shared: Store) -> None:
    queue_id = capture(shared)
    in_turn(
        shared,
        lambda connection: sandbox.uncapture(connection, [queue_id]),
        lambda: shared.sandbox.index({queue_id: FACTS}),
    )
    assert rows_left(shared) == [0, 0, 0, 0]


def test_a_message_opened_while_it_is_indexed_is_read(shared: Store) -> None:
    queue_id = capture(shared)
    in_turn(
        shared,
        lambda connection: captured_index.write_index(connection, {queue_id: FACTS}),
        lambda: shared.sandbox.mark_read([queue_id], is_read=True),
    )
    assert found(shared, "is:read") == [queue_id]


def test_a_message_opened_before_it_is_indexed_is_read(shared: Store) -> None:
    queue_id = capture(shared)
    in_turn(
        shared,
        lambda connection: sandbox._mark_read(connection, [queue_id], 5),
        lambda: shared.sandbox.index({queue_id: FACTS}),
    )
    assert found(shared, "is:read") == [queue_id]


def test_a_deleted_message_gets_no_tags(shared: Store) -> None:
    queue_id = indexed(shared)
    in_turn(
        shared,
        lambda connection: sandbox.uncapture(connection, [queue_id]),
        lambda: shared.sandbox.set_tags([queue_id], ["x"]),
    )
    assert rows_left(shared) == [0, 0, 0, 0]


def test_tags_of_a_message_deleted_meanwhile_go(shared: Store) -> None:
    queue_id = indexed(shared)
    in_turn(
        shared,
        lambda connection: sandbox._set_tags(connection, [queue_id], {"x": "x"}),
        lambda: shared.sandbox.delete_captured([queue_id], entry=AUDITED),
    )
    assert rows_left(shared) == [0, 0, 0, 0]


def test_many_threads_index_and_delete(store: Store) -> None:
    ids = [capture(store, at_ms=NOW_MS + number) for number in range(80)]

    def index_all() -> None:
        for one in ids:
            store.sandbox.index({one: FACTS})

    def delete_half() -> None:
        for one in ids[::2]:
            store.sandbox.delete_captured([one], entry=AUDITED)

    threads = [threading.Thread(target=each) for each in (index_all, delete_half, index_all)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found(store, "order") == ids[:0:-2]
    assert rows_left(store) == [40, 40, 40, 0]
    assert store.sandbox.count_captured(parse_search("order")) == (40, 40)
