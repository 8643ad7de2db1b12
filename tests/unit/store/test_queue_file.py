"""The file of a SQLite queue and its log, at every moment that a kill may choose."""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, event

from relaygw.errors import QueueDamaged, StoreUnavailable
from relaygw.mail.state import DeliveryState
from relaygw.store import log_check, queue_lock
from relaygw.store.log_check import log_of, mark_of, read_only
from relaygw.store.migrate import current_revision, upgrade
from relaygw.store.recovery import examine
from relaygw.store.selection import Selection
from relaygw.store.store import Store, open_store
from tests.begun_log import begin_log_in_vain, tell_salts_apart
from tests.builders import NOW_MS, accepted
from tests.rights import needs

ANY = frozenset(DeliveryState)
COMMITS = 8
"""Of the queue in `live`: six messages, a mark after it was made and one after it was closed."""


def open_in(directory: Path) -> Store:
    url = f"sqlite:///{directory}/queue.db"
    upgrade(url)
    return open_store(url)


def stored(directory: Path) -> set[str]:
    store = open_in(directory)
    try:
        return {entry.queue_id for entry in store.queue.search(Selection(states=ANY), limit=1000)}
    finally:
        store.close()


class Moments:
    """Copies of a directory, as a kill would leave it before each statement that is run in it."""

    def __init__(self, directory: Path, copies: Path) -> None:
        self._directory = directory
        self._copies = copies
        self.acknowledged: set[str] = set()
        self.taken: list[tuple[Path, set[str]]] = []
        self._last: list[bytes] = []

    def take(self, *_: object) -> None:
        files = sorted(path for path in self._directory.rglob("*") if path.is_file())
        content = [path.read_bytes() for path in files]
        if content != self._last:
            self._last = content
            copy = self._copies / str(len(self.taken))
            shutil.copytree(self._directory, copy)
            self.taken.append((copy, set(self.acknowledged)))

    @contextmanager
    def watched(self) -> Iterator[None]:
        def watch(connection: Any, _record: object) -> None:
            connection.set_trace_callback(self.take)

        event.listen(Engine, "connect", watch)
        try:
            yield
        finally:
            event.remove(Engine, "connect", watch)
            self.take()


def live(directory: Path, moments: Moments) -> None:
    """Use a queue in all ways that change its files."""

    def accept(store: Store) -> None:
        message = accepted()
        store.intake.accept_batch([message])
        moments.acknowledged.add(message.queue_id)

    store = open_in(directory)
    accept(store)
    accept(store)
    store.janitor.checkpoint()
    accept(store)  # the log starts anew
    other = open_store(f"sqlite:///{directory}/queue.db")
    accept(other)
    store.close()
    accept(other)
    other.close()
    again = open_in(directory)
    accept(again)
    again.close()


@pytest.fixture(scope="module")
def moments(tmp_path_factory: pytest.TempPathFactory) -> Moments:
    directory, copies = tmp_path_factory.mktemp("live"), tmp_path_factory.mktemp("copies")
    found = Moments(directory, copies)
    with found.watched():
        live(directory, found)
    assert len(found.taken) > 20
    return found


def test_a_kill_at_any_moment_leaves_a_queue_that_starts_with_all_acknowledged_mail(
    moments: Moments, tmp_path: Path
) -> None:
    for moment, acknowledged in moments.taken:
        copy = shutil.copytree(moment, tmp_path / moment.name)
        assert acknowledged <= stored(copy), copy.name


def test_a_log_that_goes_after_a_kill_is_missed_unless_nothing_is_lost(
    moments: Moments, tmp_path: Path
) -> None:
    refused = 0
    for moment, acknowledged in moments.taken:
        copy = shutil.copytree(moment, tmp_path / moment.name)
        log_of(copy / "queue.db").unlink(missing_ok=True)
        try:
            assert acknowledged <= stored(copy), copy.name
        except QueueDamaged:
            refused += 1
    assert 0 < refused < len(moments.taken)


def test_a_copy_of_the_database_alone_is_refused_while_its_log_holds_mail(
    moments: Moments, tmp_path: Path
) -> None:
    refused = 0
    for moment, acknowledged in moments.taken:
        alone = tmp_path / moment.name
        alone.mkdir()
        shutil.copy(moment / "queue.db", alone)
        try:
            assert acknowledged <= stored(alone), moment.name
        except QueueDamaged:
            refused += 1
    assert 0 < refused < len(moments.taken)


def test_a_queue_that_was_closed_needs_no_log(tmp_path: Path) -> None:
    store = open_in(tmp_path)
    store.intake.accept_batch([accepted()])
    assert mark_of(tmp_path / "queue.db") is not None
    store.close()
    assert mark_of(tmp_path / "queue.db") is None
    assert not log_of(tmp_path / "queue.db").exists()


@pytest.mark.parametrize("use", ["one process", "another process", "beside a reader"])
def test_a_log_that_was_begun_in_vain_and_again_is_the_queues(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, use: str
) -> None:
    tell_salts_apart(monkeypatch)
    live_dir = tmp_path / "live"
    live_dir.mkdir()
    store = open_in(live_dir)
    found = Moments(live_dir, tmp_path / "copies")
    messages = [accepted() for _ in range(4)]
    store.intake.accept_batch(messages[:1])
    mark = mark_of(live_dir / "queue.db")
    begin_log_in_vain(live_dir / "queue.db")
    other = open_store(f"sqlite:///{live_dir}/queue.db") if use == "another process" else store
    with closing(read_only(live_dir / "queue.db")) as reader:
        if use == "beside a reader":
            reader.execute("BEGIN")
            reader.execute("SELECT count(*) FROM message").fetchall()
        found.acknowledged.add(messages[0].queue_id)
        with found.watched():
            for one, by in zip(messages[1:], (other, store, other), strict=True):
                by.leases.claim("default", limit=1, incarnation="x", now_ms=NOW_MS)  # unsynced
                by.intake.accept_batch([one])
                found.acknowledged.add(one.queue_id)
                found.take()
    salts = log_check.salts_of(log_of(live_dir / "queue.db"))
    assert mark and salts and not log_check.is_later(salts[0], mark), "the case itself"
    for moment, acknowledged in found.taken:
        assert examine(f"sqlite:///{moment}/queue.db") == [], moment.name
        copy = shutil.copytree(moment, tmp_path / "started" / moment.name)
        assert acknowledged <= stored(copy), moment.name
    for one in {id(one): one for one in (store, other)}.values():
        one.close()


def test_a_kill_between_the_header_of_a_log_and_its_first_page_is_no_loss(tmp_path: Path) -> None:
    store = open_in(tmp_path)
    first = accepted()
    store.intake.accept_batch([first])
    begin_log_in_vain(tmp_path / "queue.db")
    found = Moments(tmp_path, tmp_path.with_name("copies"))
    with found.watched():  # by a connection that has not begun a log before
        store.leases.claim("default", limit=1, incarnation="x", now_ms=NOW_MS)
    store.close()
    begun = [copy for copy, _ in found.taken if progress_of(copy)[:2] == log_check.ANY_SALTS]
    assert begun
    for copy in begun:
        log = log_of(copy / "queue.db")
        header = bytearray(log.read_bytes())
        header[16:24] = os.urandom(8)
        log.write_bytes(header)
        assert first.queue_id in stored(copy)


@contextmanager
def small_volume(place: Path) -> Iterator[Path]:
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", place], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", place], check=True)


@needs("mounts")
def test_a_full_disk_and_a_kill_leave_all_acknowledged_mail(tmp_path: Path) -> None:
    acknowledged, begun_anew = set(), 0
    with small_volume(tmp_path / "volume") as volume:
        stores = [open_in(volume), open_store(f"sqlite:///{volume}/queue.db")]
        for number in range(6):
            mark = mark_of(volume / "queue.db")
            stores[0].janitor.checkpoint()
            ballast = volume / "ballast"
            with ballast.open("wb", buffering=0) as file, suppress(OSError):
                while True:
                    file.write(bytes(4096))
            for store in stores:
                with pytest.raises(StoreUnavailable):
                    store.intake.accept_batch([accepted(content=b"x" * 3_000_000)])
            ballast.unlink()
            message = accepted()
            stores[number % 2].intake.accept_batch([message])
            acknowledged.add(message.queue_id)
            begun_anew += mark_of(volume / "queue.db") != mark
            killed = shutil.copytree(volume, tmp_path / str(number))
            assert acknowledged <= stored(killed)
        for store in stores:
            store.close()
    assert begun_anew > 1


def test_mail_that_is_committed_is_accepted_though_nothing_can_be_noted_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> int:
        raise OSError(errno.EIO, "Input/output error")

    (live := tmp_path / "live").mkdir()
    store = open_in(live)
    first, second, third = accepted(), accepted(), accepted()
    store.intake.accept_batch([first])
    with monkeypatch.context() as broken:
        broken.setattr(os, "pwrite", fail)
        store.intake.accept_batch([second])
    killed = shutil.copytree(live, tmp_path / "killed")
    assert stored(killed) == {first.queue_id, second.queue_id}
    store.intake.accept_batch([third])
    store.close()
    assert stored(live) == {first.queue_id, second.queue_id, third.queue_id}


def test_an_index_that_could_only_be_read_is_opened_again(tmp_path: Path) -> None:
    """As after an error of the moment: SQLite shares it among all connections of a process."""
    (live := tmp_path / "live").mkdir()
    store = open_in(live)
    store.intake.accept_batch([accepted()])
    killed = shutil.copytree(live, tmp_path / "killed")
    store.close()
    store = open_store(f"sqlite:///{killed}/queue.db")
    url = f"file:{killed}/queue.db?readonly_shm=1"
    with closing(log_check.driver.connect(url, uri=True)) as only_reads:
        only_reads.execute("SELECT count(*) FROM message").fetchall()
        with pytest.raises(StoreUnavailable, match="for reading only"):
            store.intake.accept_batch([accepted()])
    store.intake.accept_batch([accepted()])
    store.close()
    assert len(stored(killed)) == 2


def test_a_foreign_log_is_refused_whatever_its_database_is_told(tmp_path: Path) -> None:
    store = open_in(tmp_path)
    store.intake.accept_batch([accepted()])
    foreign, killed = tmp_path / "foreign", tmp_path / "killed"
    foreign.mkdir()
    other = open_in(foreign)
    other.intake.accept_batch([accepted()])
    shutil.copytree(foreign, killed)
    store.janitor.checkpoint()
    shutil.copy(tmp_path / "queue.db", killed)  # with the log and the notes of another
    other.close()
    with pytest.raises(QueueDamaged, match="may be of another database"):
        open_in(killed)
    store.close()


def progress_of(directory: Path) -> tuple[int, ...]:
    noted = log_check.progress_file_of(directory / "queue.db").read_bytes()
    return log_check.PROGRESS.unpack(noted.ljust(log_check.PROGRESS.size, b"\0"))


def test_a_long_reader_holds_up_the_mark_and_not_the_mail(tmp_path: Path) -> None:
    upgrade(f"sqlite:///{tmp_path}/queue.db")
    with closing(read_only(tmp_path / "queue.db")) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM message").fetchall()
        store = open_in(tmp_path)
        messages = [accepted(), accepted()]
        store.intake.accept_batch(messages[:1])
        assert mark_of(tmp_path / "queue.db") is None
    store.intake.accept_batch(messages[1:])
    assert mark_of(tmp_path / "queue.db") is not None
    store.close()
    assert stored(tmp_path) == {message.queue_id for message in messages}


def test_a_queue_of_an_older_version_starts_with_what_its_log_holds(tmp_path: Path) -> None:
    store = open_in(tmp_path)
    first = accepted()
    store.intake.accept_batch([first])
    store.close()
    copy = tmp_path / "copy"
    copy.mkdir()
    # written without a mark, and killed
    with closing(sqlite3.connect(tmp_path / "queue.db")) as connection:
        connection.execute("UPDATE message SET subject = 'of the log'")
        connection.commit()
        for name in ("queue.db", "queue.db-wal"):
            shutil.copy(tmp_path / name, copy)
    later = open_in(copy)
    (entry,) = later.queue.search(Selection(states=ANY), limit=10)
    later.close()
    assert (entry.queue_id, entry.subject) == (first.queue_id, "of the log")


def test_a_command_that_only_reads_leaves_the_log_of_a_killed_gateway(tmp_path: Path) -> None:
    live_dir, killed = tmp_path / "live", tmp_path / "killed"
    live_dir.mkdir()
    store = open_in(live_dir)
    message = accepted()
    store.intake.accept_batch([message])
    shutil.copytree(live_dir, killed)
    store.close()
    log = log_of(killed / "queue.db").read_bytes()
    assert current_revision(f"sqlite:///{killed}/queue.db") is not None
    assert log_of(killed / "queue.db").read_bytes() == log
    reader = open_store(f"sqlite:///{killed}/queue.db")
    assert reader.queue.search(Selection(states=ANY), limit=10)
    shutil.copytree(killed, tmp_path / "killed again")
    reader.close()
    assert stored(tmp_path / "killed again") == {message.queue_id}
    assert stored(killed) == {message.queue_id}


def test_a_log_that_another_program_moved_into_the_database_is_not_missed(
    moments: Moments, tmp_path: Path
) -> None:
    moved, missed = 0, []
    for moment, acknowledged in moments.taken:
        database = shutil.copytree(moment, tmp_path / moment.name) / "queue.db"
        had_log = log_of(database).exists()
        with closing(sqlite3.connect(database)) as connection:  # its end moves the log
            connection.execute("SELECT count(*) FROM sqlite_schema").fetchall()
        moved += had_log and not log_of(database).exists()
        try:
            assert acknowledged <= stored(database.parent), moment.name
        except QueueDamaged:
            missed.append(moment.name)
    assert moved > 10
    assert len(missed) <= COMMITS, "only between a commit and the note of it"


def remove(path: Path) -> None:
    path.unlink()


def replace(path: Path) -> None:
    copy = path.with_name("copy")
    shutil.copy(path, copy)
    copy.rename(path)


@pytest.mark.parametrize("change", [remove, replace])
@pytest.mark.parametrize("name", ["queue.db-wal", "queue.db-shm"])
def test_what_was_committed_when_the_log_went_is_there_for_the_next_process(
    tmp_path: Path, name: str, change: Callable[[Path], None]
) -> None:
    store = open_in(tmp_path)
    messages = [accepted(), accepted(), accepted()]
    store.intake.accept_batch(messages[:1])
    change(tmp_path / name)
    store.intake.accept_batch(messages[1:2])  # found out, and moved into the database
    with pytest.raises(QueueDamaged, match=name):
        store.intake.accept_batch(messages[2:])
    with pytest.raises(QueueDamaged):
        store.instances.heartbeat("x")
    with pytest.raises(QueueDamaged):
        store.watch.duty("watch", "x")
    with pytest.raises(QueueDamaged, match="stop and restart relaygw"):
        open_store(f"sqlite:///{tmp_path}/queue.db")
    killed = tmp_path / "killed"
    shutil.copytree(tmp_path, killed, ignore=shutil.ignore_patterns("killed", "queue.db-wal"))
    store.close()
    expected = {message.queue_id for message in messages[:2]}
    assert stored(killed) == expected
    if change is remove or name != "queue.db-wal":
        assert stored(tmp_path) == expected


@pytest.mark.parametrize("change", [remove, replace])
def test_nothing_is_acknowledged_once_the_database_itself_is_gone(
    tmp_path: Path, change: Callable[[Path], None]
) -> None:
    store = open_in(tmp_path)
    store.intake.accept_batch([accepted()])
    change(tmp_path / "queue.db")
    for _ in range(2):
        with pytest.raises(QueueDamaged, match=r"queue\.db: removed or replaced"):
            store.intake.accept_batch([accepted()])
    store.close()


def test_a_directory_that_was_renamed_away_and_back_is_used_again(tmp_path: Path) -> None:
    directory, away = tmp_path / "state", tmp_path / "away"
    directory.mkdir()
    store = open_in(directory)
    messages = [accepted() for _ in range(3)]
    store.intake.accept_batch(messages[:1])
    directory.rename(away)
    for _ in range(2):
        with pytest.raises(QueueDamaged, match=r"until this file is back"):
            store.intake.accept_batch([accepted()])
    away.rename(directory)
    for one in messages[1:]:
        store.intake.accept_batch([one])
    store.close()
    assert {one.queue_id for one in messages} <= stored(directory)


# --- somebody has it alone


@contextmanager
def had_alone(path: Path) -> Iterator[int]:
    """Have a queue as `relaygw db restore` has it; gives the descriptor of the lock."""
    users = queue_lock.open_lock_file(path, "users")
    assert queue_lock.is_alone(users)
    try:
        yield users
    finally:
        os.close(users)


def test_a_queue_that_somebody_has_alone_is_waited_for_said_and_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(queue_lock, "PATIENCE_S", 0.3)
    monkeypatch.setattr(queue_lock, "TOLD_AFTER_S", 0.0)
    open_in(tmp_path).close()
    path = tmp_path / "queue.db"
    problem = rf"queue\.db: process {os.getpid()} has had the queue locked .*; try again when"
    with had_alone(path):
        for use in (partial(open_in, tmp_path), partial(examine, f"sqlite:///{path}")):
            with pytest.raises(StoreUnavailable, match=problem):
                use()
    assert [one.message.partition(" (")[0] for one in caplog.records] == [
        f"{path}: process {os.getpid()} has locked the queue"
    ] * 2
    open_in(tmp_path).close()


def test_a_queue_that_becomes_free_is_looked_at_once_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_in(tmp_path)
    first = accepted()
    store.intake.accept_batch([first])
    store.close()
    path = tmp_path / "queue.db"
    looks = []

    def look(path: Path, *, is_alone: bool) -> log_check.LogFinding:
        looks.append(is_alone)
        if len(looks) == 1:  # one that waits gets the lock while it becomes a shared one
            monkeypatch.setattr(queue_lock, "is_shared", lambda users: bool(looks[1:]))
        return log_check.LogFinding(log_check.LogState.WHOLE)

    monkeypatch.setattr(log_check, "check_log", look)
    store = open_store(f"sqlite:///{path}")
    assert looks == [True, True]
    store.close()
