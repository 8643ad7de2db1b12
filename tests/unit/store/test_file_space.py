"""Files of a SQLite queue stay small: the log is moved, and space of deleted mail given back."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from relaygw.mail import clock
from relaygw.store import sqlite
from relaygw.store.log_check import log_of
from relaygw.store.migrate import upgrade
from relaygw.store.store import Store, open_store
from tests.builders import accepted


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    upgrade(f"sqlite:///{tmp_path}/queue.db")  # a new file, which may shrink
    store = open_store(f"sqlite:///{tmp_path}/queue.db")
    yield store
    store.close()


def pages(store: Store, what: str) -> int:
    with store.database.read() as tx:
        return int(tx.connection.exec_driver_sql(f"PRAGMA {what}").scalar_one())


def test_what_deleted_mail_leaves_is_given_back_step_by_step(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.intake.accept_batch([accepted(content=b"x" * 4_000_000)])
    with store.database.write() as tx:
        tx.connection.exec_driver_sql("DELETE FROM chunk")
    free, whole = pages(store, "freelist_count"), pages(store, "page_count")
    store.janitor.shrink()
    assert pages(store, "page_count") == whole, "so few are kept for the mail to come"
    monkeypatch.setattr(sqlite, "_SPARE_PAGES", free - 1)
    store.janitor.shrink()
    assert pages(store, "page_count") == whole - sqlite.FREE_PAGES_A_STEP
    store.janitor.shrink()
    assert pages(store, "page_count") == whole - sqlite.FREE_PAGES_A_STEP, "it is small enough"


def test_deleting_writes_less_than_the_mail_itself_did(store: Store, tmp_path: Path) -> None:
    store.intake.accept_batch([accepted(content=b"x" * 400_000)])
    log = log_of(tmp_path / "queue.db")
    before_bytes = log.stat().st_size
    with store.database.write() as tx:
        (is_secure,) = tx.connection.exec_driver_sql("PRAGMA secure_delete").one()
        tx.connection.exec_driver_sql("DELETE FROM chunk")
    assert is_secure == 0, "as Debian's SQLite has it by itself"
    assert log.stat().st_size - before_bytes < 100_000


@pytest.mark.parametrize("is_beside", [True, False], ids=["beside writers", "older SQLite"])
def test_the_log_begins_anew_once_all_of_it_was_moved(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_beside: bool
) -> None:
    monkeypatch.setattr(sqlite, "CAN_CHECKPOINT_BESIDE_WRITERS", is_beside)
    log = log_of(tmp_path / "queue.db")
    for number in range(3):
        store.intake.accept_batch([accepted(content=b"x" * 400_000)])
        if not number:
            first_bytes = log.stat().st_size
        store.janitor.checkpoint()
    assert log.stat().st_size < 2 * first_bytes
    assert store.janitor.checkpoint() is False, "nothing was written since"


def test_each_write_changes_the_mark_of_a_queue(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        clock, "_TICK_NS", 10**15
    )  # what was written just now, however slow this is
    log = log_of(tmp_path / "queue.db")

    def mark() -> int | None:
        with store.database.read():  # who reads changes nothing
            return store.database.change_mark()

    store.intake.accept_batch([accepted()])
    assert mark() is None, "another write of this moment would not show in the file's time"
    os.utime(log, (1e9, 1e9))
    assert mark() == mark() == 10**18
    store.janitor.checkpoint()
    assert mark() == 10**18
    with contextlib.closing(open_store(f"sqlite:///{tmp_path}/queue.db")) as other:
        other.intake.accept_batch([accepted()])
        assert mark() is None
        os.utime(log, (1e9, 1.1e9))
        assert mark() == 11 * 10**17
