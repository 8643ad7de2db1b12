"""A log is judged by what lies there: what is said, and what is no loss."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from relaygw.errors import QueueDamaged
from relaygw.store import log_check
from relaygw.store.log_check import LogState, check_log, log_of
from relaygw.store.store import open_store
from tests.builders import accepted
from tests.queues import make_queue

PAGE = 4096


@pytest.fixture
def killed(tmp_path: Path) -> Path:
    """Return the database of a gateway that was killed; its last commit changed one page."""
    live = tmp_path / "live"
    live.mkdir()
    make_queue(f"sqlite:///{live}/queue.db")
    store = open_store(f"sqlite:///{live}/queue.db")
    store.intake.accept_batch([accepted()])
    store.janitor.checkpoint()  # the log starts anew
    with store.database.write() as tx:
        tx.connection.exec_driver_sql("UPDATE message SET sender = 'late@shop.test'")
    shutil.copytree(live, tmp_path / "killed")
    store.close()
    return tmp_path / "killed/queue.db"


def test_a_log_of_one_page_that_another_program_moved_is_not_missed(killed: Path) -> None:
    noted = log_check._progress_of(killed)
    assert noted is not None
    assert noted.frames == 1, "the case itself"
    with closing(sqlite3.connect(killed)) as connection:  # its end moves the log
        connection.execute("SELECT count(*) FROM sqlite_schema").fetchall()
    assert not log_of(killed).exists()
    store = open_store(f"sqlite:///{killed}")
    with store.database.read() as tx:
        found = tx.connection.exec_driver_sql("SELECT sender FROM message").scalar()
    store.close()
    assert found == "late@shop.test"


def spoil_schema(database: Path) -> None:
    """Break the first page behind its header, in the database: the log does not have it."""
    with database.open("r+b") as file:
        file.seek(100)
        file.write(b"\xff" * (PAGE - 100))


@pytest.mark.parametrize(
    ("harm", "state", "said"),
    [
        (lambda path: log_of(path).unlink(), LogState.LOST, "is missing"),
        (lambda path: log_of(path).write_bytes(b""), LogState.LOST, "is empty or not a log"),
        (lambda path: log_of(path).write_bytes(b"x" * 99), LogState.LOST, "is empty or not a log"),
        (spoil_schema, LogState.SHORT, "cannot be read"),
    ],
    ids=["gone", "empty", "no log", "unreadable"],
)
def test_it_is_said_what_is_wrong(
    killed: Path, harm: Callable[[Path], object], state: LogState, said: str
) -> None:
    assert check_log(killed, is_alone=True).state is LogState.WHOLE
    harm(killed)
    finding = check_log(killed, is_alone=True)
    assert (finding.state, finding.is_marked) == (state, True)
    assert f"the log of the queue {said}" in finding.problem
    with pytest.raises(QueueDamaged, match=said):
        open_store(f"sqlite:///{killed}")


def test_a_database_that_others_write_just_now_is_looked_after_by_them(killed: Path) -> None:
    with killed.open("r+b") as file:
        file.write(bytes(PAGE))  # as somebody sees it who reads in the middle of it
    finding = check_log(killed, is_alone=False)
    assert (finding.state, finding.is_marked) == (LogState.WHOLE, True)
    with pytest.raises(QueueDamaged):
        check_log(killed, is_alone=True)
