"""Several reads of one thread may be of one moment; other threads see what is there now."""

from __future__ import annotations

import threading

import pytest

from relaygw.errors import StoreUnavailable
from relaygw.store.queue_entry import QueueEntry
from relaygw.store.selection import Selection
from relaygw.store.store import Store
from tests.builders import accepted


def entries(store: Store) -> list[QueueEntry]:
    return store.queue.search(Selection(), limit=10)


def run_beside(work: object) -> None:
    thread = threading.Thread(target=work)  # type: ignore[arg-type]
    thread.start()
    thread.join()


def test_what_comes_meanwhile_is_seen_by_others_and_afterwards(store: Store) -> None:
    elsewhere: list[QueueEntry] = []

    def accept_and_look() -> None:
        store.intake.accept_batch([accepted()])
        elsewhere.extend(entries(store))

    with store.database.snapshot():
        assert entries(store) == []
        run_beside(accept_and_look)
        assert entries(store) == []
    assert entries(store) == elsewhere != []


def test_an_error_within_it_ends_it(store: Store) -> None:
    with pytest.raises(StoreUnavailable), store.database.snapshot():
        assert entries(store) == []
        with store.database.read() as tx:
            tx.connection.exec_driver_sql("SELECT no_such_column FROM message")
    store.intake.accept_batch([accepted()])
    assert len(entries(store)) == 1
