"""`relaygw db backup` and `restore`: a copy of a queue in use, and a queue from a copy."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import sqlite3
import stat
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from unittest.mock import Mock

import click
import pytest

from relaygw import roles
from relaygw.errors import StoreFull
from relaygw.mail.state import DeliveryState
from relaygw.store import exchange, log_check, queue_lock
from relaygw.store.store import open_store
from tests.integration.cli.conftest import Desk
from tests.queues import make_queue

POSTGRES = """\
mode: production
queue: {url: "postgresql://relaygw@db.test/relaygw"}
providers: {p: {host: p.test}}
routes: [{name: default, providers: [p]}]
"""


def close(desk: Desk) -> Path:
    """Let go of the queue, as a gateway that stops does; return its file."""
    desk.store.close()
    desk.store = Mock()
    return Path(desk.url.removeprefix("sqlite:///"))


def sql(copy: Path, statement: str) -> None:
    with closing(sqlite3.connect(copy, isolation_level=None)) as connection:
        connection.execute(statement)


def standing(desk: Desk) -> dict[str, tuple[str, str | None]]:
    """Return state and reason of all that is in the queue that is there now."""
    desk.store = open_store(desk.url)
    lines = desk.lines("queue", "list", "--state", "all", "--json")
    return {one["queue_id"]: (one["state"], one["reason"]) for one in lines}


def test_what_was_not_finished_is_held_and_what_was_stays_so(desk: Desk, tmp_path: Path) -> None:
    copy = tmp_path / "queue.copy"
    deferred = desk.add("a@cust.test")
    desk.attempt(DeliveryState.DEFERRED, reason="451 later")
    finished = desk.add("b@cust.test")
    desk.run("queue", "expire", finished, "--yes")
    by_hand, refused = desk.add("c@cust.test"), desk.add("d@cust.test")
    desk.run("queue", "hold", by_hand, refused, "--yes", "--note", "ask first")
    with desk.store.database.write() as tx:
        change = "UPDATE delivery SET hold_code='mode', hold_key='', reason='mode' WHERE queue_id=?"
        tx.connection.exec_driver_sql(change, (refused,))
    captured = desk.add_captured()
    sent = desk.add("e@cust.test")
    desk.claim()
    waiting = desk.add("f@cust.test")

    done = desk.run("db", "backup", str(copy))
    assert done.exit_code == 0, done.stderr
    assert done.stdout.startswith(f"{copy}: 7 messages, 5 not finished, ")
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    later = desk.add("g@cust.test")
    queue = close(desk)

    done = desk.run("db", "restore", str(copy), "--yes")
    assert done.exit_code == 0, done.stderr
    first, held, aside = done.stdout.splitlines()
    assert first == "restored: 7 messages, 5 not finished"
    assert held.startswith("held: 4 deliveries, because they may have been sent since; check the")
    assert held.endswith("relaygw queue release --reason restored")
    assert standing(desk) == {
        **dict.fromkeys((deferred, sent, waiting), ("held", "restored")),
        refused: ("held", "several causes: mode; restored"),
        by_hand: ("held", "operator: ask first"),
        finished: ("finished", None),
        captured: ("finished", None),
    }
    kept = Path(aside.removeprefix("the old queue: "))
    assert kept.parent == queue.parent
    with closing(sqlite3.connect(kept)) as old:
        assert old.execute("SELECT 1 FROM message WHERE queue_id = ?", (later,)).fetchone()
    assert "replaced the queue with a copy" in desk.run("audit").stdout
    assert desk.lines("audit", "--json")[0]["action"] == "db.restore"
    explained = " ".join(desk.run("queue", "explain", sent).stdout.split())
    assert "restored from a backup, and this may have been sent since" in explained
    assert desk.run("queue", "release", "--reason", "restored", "--yes").exit_code == 0
    assert standing(desk)[waiting] == ("deferred", None)


@pytest.mark.parametrize("is_released", [False, True])
def test_a_notice_that_may_have_been_sent_since_is_not_sent_again(
    desk: Desk, tmp_path: Path, is_released: bool
) -> None:
    copy = tmp_path / "queue.copy"
    queue_id = desk.add("a@cust.test")
    desk.run("queue", "expire", queue_id, "--yes")
    desk.run("db", "backup", str(copy))
    sql(copy, f"INSERT INTO notice VALUES ('{queue_id}', 'failed', 0, 1, 0, NULL, NULL, NULL)")
    close(desk)
    words = ["--release"] if is_released else []
    assert desk.run("db", "restore", str(copy), "--yes", *words).exit_code == 0
    desk.store = open_store(desk.url)
    assert bool(desk.store.notices.due(limit=1)) is is_released


def test_with_release_only_what_was_being_sent_is_held(desk: Desk, tmp_path: Path) -> None:
    copy = tmp_path / "queue.copy"
    sent = desk.add("a@cust.test")
    desk.claim()
    waiting = desk.add("b@cust.test")
    desk.run("db", "backup", str(copy))
    close(desk)
    done = desk.run("db", "restore", str(copy), "--yes", "--release")
    assert done.stdout.splitlines()[1].startswith("held: 1 delivery,")
    assert standing(desk) == {sent: ("held", "restored"), waiting: ("incoming", None)}


def test_a_queue_in_use_and_a_queue_with_mail_are_not_replaced(desk: Desk, tmp_path: Path) -> None:
    copy = tmp_path / "queue.copy"
    desk.run("db", "backup", str(copy))
    queue_id = desk.add("a@cust.test")
    done = desk.run("db", "restore", str(copy), "--yes")
    assert (done.exit_code, done.stdout) == (69, "")
    assert "has the queue open; stop relaygw first" in done.stderr
    queue = close(desk)
    before = queue.read_bytes()
    for answer in ("n\n", None):
        done = desk.run("db", "restore", str(copy), stdin=answer)
        assert "The present queue has 1 message, 1 not finished. Move it aside?" in done.stderr
        if answer is None:
            assert done.exit_code == 64
            assert "give --yes" in done.stderr
        else:
            assert (done.exit_code, done.stdout) == (0, "nothing was changed\n")
    assert queue.read_bytes() == before
    done = desk.run("db", "restore", str(copy), stdin="y\n")
    assert done.exit_code == 0, done.stderr
    assert queue_id not in standing(desk)


def test_an_empty_or_a_missing_queue_is_replaced_without_a_question(
    desk: Desk, tmp_path: Path
) -> None:
    copy = tmp_path / "queue.copy"
    queue_id = desk.add("a@cust.test")
    desk.run("db", "backup", str(copy))
    queue = close(desk)
    shutil.rmtree(queue.parent)
    done = desk.run("db", "restore", str(copy))
    assert done.exit_code == 0, done.stderr
    assert "the old queue" not in done.stdout
    assert standing(desk) == {queue_id: ("held", "restored")}
    assert stat.S_IMODE(queue.stat().st_mode) == 0o600


def test_a_damaged_queue_may_be_replaced(desk: Desk, tmp_path: Path) -> None:
    copy = tmp_path / "queue.copy"
    queue_id = desk.add("a@cust.test")
    desk.run("db", "backup", str(copy))
    queue = close(desk)
    queue.write_bytes(b"no database at all" * 1000)
    assert desk.run("db", "check").exit_code == 65
    done = desk.run("db", "restore", str(copy), stdin="y\n")
    assert "The present queue cannot be read. Move it aside?" in done.stderr
    assert done.exit_code == 0, done.stderr
    assert desk.run("db", "check").exit_code == 0
    assert standing(desk) == {queue_id: ("held", "restored")}


@pytest.mark.parametrize(
    ("spoil", "exit_code", "words"),
    [
        (lambda copy: copy.unlink(), 66, "No such file or directory"),
        (lambda copy: copy.write_bytes(b""), 65, "is not a copy of a relaygw queue"),
        (lambda copy: copy.write_bytes(b"x" * 9000), 65, "is not a copy of a relaygw queue"),
        (lambda copy: os.truncate(copy, copy.stat().st_size // 2), 65, "queue.copy: "),
        (
            lambda copy: sql(copy, "DROP TABLE alembic_version"),
            65,
            "is not a copy of a relaygw queue",
        ),
        (
            lambda copy: sql(copy, "DELETE FROM alembic_version"),
            65,
            "is not a copy of a relaygw queue",
        ),
        (
            lambda copy: sql(copy, "INSERT INTO alembic_version VALUES ('0006')"),
            65,
            "is not a copy",
        ),
        (lambda copy: sql(copy, "UPDATE alembic_version SET version_num = 'a1b2'"), 65, "is no"),
        (lambda copy: sql(copy, "UPDATE alembic_version SET version_num = '0000'"), 65, "is no"),
        (lambda copy: (copy.unlink(), os.mkfifo(copy)), 65, "is not a regular file"),
        (lambda copy: (copy.unlink(), copy.mkdir()), 65, "is not a regular file"),
        (lambda copy: sql(copy, "UPDATE alembic_version SET version_num = '9999'"), 78, "9999"),
    ],
)
def test_what_is_no_whole_copy_is_refused_and_nothing_is_touched(
    desk: Desk, tmp_path: Path, spoil: object, exit_code: int, words: str
) -> None:
    copy = tmp_path / "queue.copy"
    for number in range(20):
        desk.add(f"a{number}@cust.test", content=b"Subject: x\r\n\r\n" + b"y" * 3000 + b"\r\n")
    desk.run("db", "backup", str(copy))
    queue = close(desk)
    before = queue.read_bytes()
    assert callable(spoil)
    spoil(copy)
    done = desk.run("db", "restore", str(copy), "--yes")
    assert (done.exit_code, words in done.stderr) == (exit_code, True), done.stderr
    assert queue.read_bytes() == before
    assert sorted(one.name for one in queue.parent.glob("queue.db*")) == [
        "queue.db",
        "queue.db.locks",
    ]


def test_the_files_of_a_queue_in_use_are_no_copy(desk: Desk, tmp_path: Path) -> None:
    desk.add("a@cust.test")
    queue = Path(desk.url.removeprefix("sqlite:///"))
    bare = tmp_path / "bare.db"
    desk.store.janitor.checkpoint()
    bare.write_bytes(queue.read_bytes())
    close(desk)
    done = desk.run("db", "restore", str(bare), "--yes")
    assert done.exit_code == 65
    assert "was copied while relaygw used it" in done.stderr
    done = desk.run("db", "restore", str(queue), "--yes")
    assert "is the queue itself" in done.stderr


def test_no_file_is_overwritten_and_a_place_that_is_none_is_named(
    desk: Desk, tmp_path: Path
) -> None:
    copy = tmp_path / "queue.copy"
    copy.write_text("mine")
    done = desk.run("db", "backup", str(copy))
    assert (done.exit_code, done.stderr) == (73, f"relaygw: {copy} exists; name another file\n")
    assert copy.read_text() == "mine"
    done = desk.run("db", "backup", str(tmp_path / "none" / "queue.copy"))
    assert done.exit_code == 73
    assert "No such file or directory; name a file in a directory where you may" in done.stderr
    assert sorted(one.name for one in tmp_path.iterdir()) == ["queue.copy", "relaygw.yaml", "state"]


def test_for_postgresql_its_own_programs_are_named(desk: Desk) -> None:
    url = "postgresql://relaygw@db.test/relaygw"
    desk.config.write_text(POSTGRES)
    done = desk.run("db", "backup", "a b.dump")
    assert done.exit_code == 64
    assert f"run: pg_dump --format=custom --dbname {url} --file 'a b.dump'" in done.stderr
    done = desk.run("db", "restore", "a.dump")
    assert done.exit_code == 64
    assert f"pg_restore --exit-on-error --dbname {url} a.dump" in done.stderr
    assert "relaygw queue hold --all --yes --note restored" in done.stderr


def test_a_restore_that_was_cut_short_is_begun_anew(desk: Desk, tmp_path: Path) -> None:
    copy = tmp_path / "queue.copy"
    queue_id = desk.add("a@cust.test")
    desk.run("db", "backup", str(copy))
    later = desk.add("b@cust.test")
    queue = close(desk)
    # as it is before the last move
    os.link(queue, queue.with_name("queue.db.replaced-20261127-000000"))
    queue.with_name("queue.db.restoring").write_bytes(b"half")
    assert desk.run("db", "check").exit_code == 0
    done = desk.run("db", "restore", str(copy), "--yes")
    assert done.exit_code == 0, done.stderr
    assert standing(desk) == {queue_id: ("held", "restored")}
    asides = queue.parent.glob("queue.db.replaced-*")
    (aside,) = (one for one in asides if not one.name.endswith("-wal"))
    with closing(sqlite3.connect(aside)) as old:
        assert old.execute("SELECT 1 FROM message WHERE queue_id = ?", (later,)).fetchone()
    assert not queue.with_name("queue.db.restoring").exists()


def test_the_question_is_asked_before_the_queue_is_taken_and_again_when_mail_has_come(
    desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "queue.copy"
    desk.run("db", "backup", str(copy))
    desk.add("a@cust.test")
    close(desk)
    monkeypatch.setattr(queue_lock, "PATIENCE_S", 0.0)
    asked: list[str] = []

    def confirm(question: str, **_: object) -> bool:
        asked.append(question.partition(".")[0])
        if len(asked) == 1:
            desk.store = open_store(desk.url)
            desk.add("b@cust.test")
            close(desk)
        return True

    monkeypatch.setattr(click, "confirm", confirm)
    done = desk.run("db", "restore", str(copy))
    assert done.exit_code == 0, done.stderr
    there = "The present queue has {0}, {1} not finished"
    assert asked == [there.format("1 message", 1), there.format("2 messages", 2)]


@pytest.mark.parametrize(
    ("fail", "exit_code"),
    [
        (lambda: os.truncate("/none/such", 0), 69),
        (lambda: signal.raise_signal(signal.SIGINT), 130),
        (lambda: signal.raise_signal(signal.SIGTERM), 143),
    ],
)
def test_nothing_stays_of_a_restore_that_fails(
    desk: Desk,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    fail: Callable[[], None],
    exit_code: int,
) -> None:
    copy = tmp_path / "queue.copy"
    desk.add("a@cust.test")
    desk.run("db", "backup", str(copy))
    queue = close(desk)
    before, published = queue.read_bytes(), exchange.sync

    def sync(path: Path) -> None:
        if not path.is_dir():
            return published(path)
        monkeypatch.undo()
        return fail()

    monkeypatch.setattr(exchange, "sync", sync)  # the old queue has a second name by then
    done = desk.run("db", "restore", str(copy), "--yes")
    assert done.exit_code == exit_code, done.stderr
    left = {one.name for one in queue.parent.glob("queue.db*")}
    assert left <= {"queue.db", "queue.db.locks", "queue.db-wal", "queue.db-shm"}
    assert queue.read_bytes() == before
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_a_copy_without_a_table_is_none(desk: Desk, tmp_path: Path) -> None:
    copy = tmp_path / "queue.copy"
    desk.run("db", "backup", str(copy))
    sql(copy, "DROP TABLE permit")
    before = close(desk).read_bytes()
    done = desk.run("db", "restore", str(copy), "--yes")
    assert (done.exit_code, "lacks table permit" in done.stderr) == (os.EX_CONFIG, True)
    queue = Path(desk.url.removeprefix("sqlite:///"))
    assert queue.read_bytes() == before
    assert not queue.with_name("queue.db.restoring").exists()


def test_a_queue_behind_a_symbolic_link_is_refused(desk: Desk, tmp_path: Path) -> None:
    copy = tmp_path / "queue.copy"
    desk.run("db", "backup", str(copy))
    queue = close(desk)
    real = queue.rename(tmp_path / "real.db")
    queue.symlink_to(real)
    for words in (("db", "restore", str(copy), "--yes"), ("db", "check"), ("queue", "list")):
        done = desk.run(*words)
        assert done.exit_code in (65, 69), done.stderr
        assert "queue.db: is a symbolic link, and SQLite keeps" in done.stderr
        assert f"write that into queue.url: sqlite:///{real}" in done.stderr
    assert queue.is_symlink()


# --- a queue of a killed gateway, with its log ------------------------------------------------


def killed(desk: Desk) -> Path:
    """Leave the files of the queue as a kill does, with mail in the log alone; return its file."""
    queue = Path(desk.url.removeprefix("sqlite:///"))
    assert log_check.mark_of(queue) is not None
    left = queue.parent.with_name("left")
    shutil.copytree(queue.parent, left, ignore=shutil.ignore_patterns("wake"))
    close(desk)
    shutil.rmtree(queue.parent)
    left.rename(queue.parent)
    assert log_check.log_of(queue).stat().st_size
    return queue


def aside_of(queue: Path, how: str) -> Path:
    names = (one for one in queue.parent.glob(f"queue.db.{how}-*") if one.suffix != ".locks")
    (aside,) = (one for one in names if not one.name.endswith(("-wal", "-shm")))
    return aside


def test_the_queue_of_a_killed_gateway_is_whole_where_it_was_moved_to(
    desk: Desk, tmp_path: Path
) -> None:
    copy = tmp_path / "queue.copy"
    desk.run("db", "backup", str(copy))
    acknowledged = {desk.add(f"a{number}@cust.test") for number in range(5)}
    queue = killed(desk)
    assert desk.run("db", "restore", str(copy), "--yes").exit_code == 0
    aside = aside_of(queue, "replaced")
    assert not log_check.log_of(aside).exists()
    assert standing(desk) == {}
    close(desk)
    done = desk.run("db", "restore", str(aside), "--yes")
    assert done.exit_code == 0, done.stderr
    assert standing(desk).keys() == acknowledged
    close(desk)
    # by hand: nothing is held then
    queue.unlink()
    aside.rename(queue)
    assert set(standing(desk).values()) == {("incoming", None)}


def test_a_queue_that_nobody_uses_is_restored_with_the_log_beside_it(
    desk: Desk, tmp_path: Path
) -> None:
    acknowledged = desk.add("a@cust.test")
    desk.store.janitor.checkpoint()
    later = desk.add("b@cust.test")
    queue = killed(desk)
    pair = tmp_path / "pair.db"
    shutil.copy(queue, pair)
    done = desk.run("db", "restore", str(pair), "--yes")
    assert (done.exit_code, "which is not complete beside it" in done.stderr) == (65, True)
    shutil.copy(log_check.log_of(queue), log_check.log_of(pair))
    done = desk.run("db", "restore", str(pair), "--yes")
    assert done.exit_code == 0, done.stderr
    assert standing(desk).keys() == {acknowledged, later}
    assert {one.name for one in tmp_path.glob("pair.db*")} == {"pair.db", "pair.db-wal"}


def test_a_queue_that_somebody_uses_is_no_copy(desk: Desk, tmp_path: Path) -> None:
    used = f"sqlite:///{tmp_path}/used/queue.db"
    make_queue(used)
    other = open_store(used)
    close(desk)
    try:
        done = desk.run("db", "restore", f"{tmp_path}/used/queue.db", "--yes")
    finally:
        other.close()
    assert (done.exit_code, "has the queue open; stop relaygw first" in done.stderr) == (69, True)


def test_a_pair_that_is_moved_back_by_hand_is_the_queue_again(desk: Desk) -> None:
    acknowledged = desk.add("a@cust.test")
    queue = killed(desk)
    mark = log_check.mark_of(queue) or 0
    # what was in its place meanwhile, and was killed as well
    other = (mark + log_check.WORD // 2) % log_check.WORD
    locks = queue_lock.lock_directory_of(queue)
    (locks / "progress").write_bytes(log_check.PROGRESS.pack(other, 7, 900, 3, 4, 5, other))
    (locks / "moved").write_bytes(b"without log\n%d\n" % other)
    assert desk.run("db", "check").exit_code == 0
    assert standing(desk) == {acknowledged: ("incoming", None)}


def test_a_log_that_recover_cannot_use_is_named(desk: Desk, tmp_path: Path) -> None:
    acknowledged = desk.add("a@cust.test")
    queue = killed(desk)
    kept = log_check.log_of(queue).read_bytes()
    with closing(sqlite3.connect(tmp_path / "other.db")) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("CREATE TABLE other (text)")
        connection.commit()
        shutil.copy(tmp_path / "other.db-wal", log_check.log_of(queue))
    done = desk.run("db", "recover")
    aside = aside_of(queue, "damaged")
    assert done.exit_code == 65
    assert f"{log_check.log_of(aside)}: this log was beside the queue" in done.stderr
    assert f"the old queue: {aside}" in done.stdout
    # the way back
    log_check.log_of(aside).write_bytes(kept)
    done = desk.run("db", "restore", str(aside), "--yes")
    assert done.exit_code == 0, done.stderr
    assert standing(desk).keys() == {acknowledged}


def test_what_a_killed_backup_left_goes_with_the_next(desk: Desk, tmp_path: Path) -> None:
    left, other = tmp_path / ".queue.copy-abcd_123", tmp_path / ".queue.copy-in_use_1"
    for one in (left, other):
        one.write_bytes(b"mail")
        one.chmod(0o600)
    with other.open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert desk.run("db", "backup", str(tmp_path / "queue.copy")).exit_code == 0
    assert (left.exists(), other.exists()) == (False, True)


def test_a_full_disk_ends_a_backup_with_its_own_code(
    desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise StoreFull("queue.copy: database or disk is full; is there enough free space?")

    monkeypatch.setattr(roles, "back_up_queue", full)
    done = desk.run("db", "backup", str(tmp_path / "queue.copy"))
    assert (done.exit_code, "is there enough free space?" in done.stderr) == (74, True)
