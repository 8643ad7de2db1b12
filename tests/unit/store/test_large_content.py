"""Large content beside small mail: who stores it holds up nobody, and keeps the log short."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from relaygw.errors import StoreUnavailable
from relaygw.store import sqlite
from relaygw.store.migrate import upgrade
from relaygw.store.queue_file import QueueFile, frames_of
from relaygw.store.queue_lock import FileLock
from relaygw.store.store import Store, open_store
from tests.builders import accepted

CHUNK = b"x" * 2**18


@pytest.fixture
def url(tmp_path: Path) -> str:
    upgrade(f"sqlite:///{tmp_path}/queue.db")
    return f"sqlite:///{tmp_path}/queue.db"


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    with closing(open_store(url, first_in_line=True)) as store:
        yield store


def log_frames(store: Store) -> int:
    with store.database.read() as tx:
        return frames_of(tx.connection.connection.dbapi_connection)


def test_mail_is_stored_while_the_content_of_another_is_synced(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[bool] = []

    def sync_log(_: QueueFile) -> None:
        with ThreadPoolExecutor(1) as thread:  # would wait for ever, had this thread the lock
            thread.submit(store.intake.accept_batch, [accepted()]).result(60)
        synced.append(store.intake.read_chunk("large", 0) == CHUNK)

    monkeypatch.setattr(QueueFile, "sync_log", sync_log)
    store.intake.add_chunks("large", 0, [CHUNK])
    assert synced == [True], "it is committed before, once"


def test_content_is_durable_once_it_is_stored(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[int] = []
    sync = os.fdatasync

    def fdatasync(descriptor: int) -> None:
        sync(descriptor)
        synced.append(os.fstat(descriptor).st_ino)

    store.intake.accept_batch([accepted()])
    monkeypatch.setattr(os, "fdatasync", fdatasync)
    store.intake.add_chunks("large", 0, [CHUNK])
    assert synced == [(tmp_path / "queue.db-wal").stat().st_ino]


def test_content_that_cannot_be_synced_is_not_stored(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fdatasync(_: int) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", fdatasync)
        with pytest.raises(StoreUnavailable, match="Input/output error"):
            store.intake.add_chunks("large", 0, [CHUNK])
    store.intake.add_chunks("large", 1, [CHUNK])


@pytest.mark.skipif(
    not sqlite.CAN_CHECKPOINT_BESIDE_WRITERS, reason="such a SQLite moves the log under the lock"
)
def test_who_stores_much_moves_the_log(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite, "_BULK_FRAMES", 512)
    longest = 0
    for number in range(40):
        store.intake.add_chunks("large", number, [CHUNK])
        longest = max(longest, log_frames(store))
    assert longest < 2 * 512
    with monkeypatch.context() as patch:
        patch.setattr(sqlite, "_BULK_FRAMES", 1_000_000)
        for number in range(40, 60):
            store.intake.add_chunks("large", number, [CHUNK])
    assert log_frames(store) > 2 * 512, "else nothing was shown"


def test_a_log_that_cannot_be_moved_refuses_nobody(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def checkpoint() -> bool:
        raise StoreUnavailable("disk full")

    monkeypatch.setattr(sqlite, "_BULK_FRAMES", 1)
    monkeypatch.setattr(store.database._writers[sqlite.Write.BULK], "_move_log", checkpoint)  # type: ignore[attr-defined]
    store.intake.add_chunks("large", 0, [CHUNK])
    assert store.intake.read_chunk("large", 0) == CHUNK


class ToldTurn:
    """A turn that tells when somebody asks for it."""

    def __init__(self, turn: FileLock) -> None:
        self.turn = turn
        self.asked = threading.Event()

    def __enter__(self) -> None:
        self.asked.set()
        self.turn.__enter__()

    def __exit__(self, *how: object) -> None:
        self.turn.__exit__(*how)

    def close(self) -> None:
        self.turn.close()


@pytest.mark.parametrize("who", ["large content", "who moves the log"])
def test_they_take_turns_and_small_mail_does_not_wait(
    store: Store, tmp_path: Path, who: str
) -> None:
    database: Any = store.database
    turn = ToldTurn(database._bulk_turn)
    database._bulk_turn = database._writers[sqlite.Write.BULK]._turn = turn
    others = FileLock(tmp_path / "queue.db", "bulk")
    ended = threading.Event()

    def work() -> None:
        if who == "large content":
            store.intake.add_chunks("large", 0, [CHUNK])
        else:
            store.janitor.checkpoint()
        ended.set()

    store.intake.accept_batch([accepted()])
    with ThreadPoolExecutor(1) as thread:
        with others:  # as another process has it
            done = thread.submit(work)
            assert turn.asked.wait(60)
            store.intake.accept_batch([accepted()])
            assert not ended.is_set()
        done.result(60)
    others.close()


def test_content_is_synced_by_a_file_that_no_other_writer_closes(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    sync, seen = os.fdatasync, []

    def fdatasync(descriptor: int) -> None:
        store.database._file._open_log()  # type: ignore[attr-defined] - as beside a long reader
        sync(descriptor)
        seen.append(descriptor)

    monkeypatch.setattr(os, "fdatasync", fdatasync)
    store.intake.add_chunks("large", 0, [CHUNK])
    assert seen != [store.database._file._log_descriptor]  # type: ignore[attr-defined]
    assert len(seen) == 1
