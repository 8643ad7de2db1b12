"""Saving what is left of a damaged queue: what is let go, what is held, and what a cut leaves."""

from __future__ import annotations

import os
import shutil
from contextlib import closing
from pathlib import Path

import pytest

from relaygw.errors import StoreUnavailable
from relaygw.mail.state import DeliveryState
from relaygw.mail.verdict import Kind
from relaygw.store.instances import Lifeline, lifeline_directory
from relaygw.store.log_check import driver, log_of
from relaygw.store.migrate import upgrade
from relaygw.store.recovery import Recovered, examine, recover
from relaygw.store.selection import Selection
from relaygw.store.store import Store, open_store
from tests.begun_log import begin_log_in_vain
from tests.builders import NOW_MS, accepted, instance
from tests.reported import report

PAGE = 4096
ANY = frozenset(DeliveryState)


def url_in(directory: Path) -> str:
    return f"sqlite:///{directory}/queue.db"


def open_in(directory: Path) -> Store:
    upgrade(url_in(directory))
    return open_store(url_in(directory))


def recovered(directory: Path, *, is_released: bool = False) -> Recovered:
    return recover(url_in(directory), is_released=is_released, now_ms=NOW_MS, tell=lambda _: None)


def states(directory: Path) -> dict[str, tuple[str, str | None]]:
    store = open_in(directory)
    entries = store.queue.search(Selection(states=ANY), limit=100)
    store.close()
    return {
        entry.queue_id: (part.state.value, part.reason)
        for entry in entries
        for part in entry.deliveries
    }


def break_page_with(database: Path, words: bytes) -> None:
    """Spoil the last page with some words: where they were before, only their trace is left."""
    at = database.read_bytes().rindex(words) // PAGE * PAGE
    with database.open("r+b") as file:
        file.seek(at)
        file.write(os.urandom(PAGE))


def test_what_was_being_sent_is_held_and_what_only_was_to_be_sent_goes_on(tmp_path: Path) -> None:
    store = open_in(tmp_path)
    broken = accepted(content=b"Subject: x\r\n\r\n" + b"broken" * 667)  # a page of its own
    sent, claimed, waiting = accepted(), accepted(), accepted()
    store.intake.accept_batch([broken])
    store.intake.accept_batch([sent, claimed])
    instances = lifeline_directory(tmp_path)
    lifeline = Lifeline(instances, "worker")
    store.instances.register(instance("worker", fingerprint=""))
    store.leases.claim("default", limit=10, incarnation="worker", now_ms=NOW_MS)
    lifeline.begin(sent.queue_id, 0, "p")
    store.intake.accept_batch([waiting])
    store.close()
    break_page_with(tmp_path / "queue.db", b"broken" * 50)

    assert examine(url_in(tmp_path))
    done = recovered(tmp_path)
    assert set(done.damaged) == {broken.queue_id}, done
    assert (done.recovered, done.held, done.lost) == (3, 1, [])
    assert done.exported is not None
    assert (done.exported / f"{broken.queue_id}.json").exists()
    assert states(tmp_path) == {
        sent.queue_id: ("held", "recovered"),
        claimed.queue_id: ("incoming", None),
        waiting.queue_id: ("incoming", None),
    }
    assert examine(url_in(tmp_path)) == []
    assert recovered(tmp_path).aside is None, "nothing more to do"


def test_what_was_reported_of_mail_comes_back_with_it(tmp_path: Path) -> None:
    store = open_in(tmp_path)
    broken = accepted(content=b"Subject: x\r\n\r\n" + b"broken" * 667)  # a page of its own
    kept = accepted()
    store.intake.accept_batch([broken])
    store.intake.accept_batch([kept])
    for one in (broken, kept):
        report(store, one.queue_id, Kind.HARD, at_ms=NOW_MS, detail="no such user")
    report(store, None, Kind.HARD, rcpt_no=None, at_ms=NOW_MS)
    store.close()
    break_page_with(tmp_path / "queue.db", b"broken" * 50)
    assert recovered(tmp_path).recovered == 1
    store = open_in(tmp_path)
    (entry,) = store.queue.search(Selection(states=ANY, verdicts=frozenset({Kind.HARD})), limit=9)
    assert (entry.queue_id, entry.recipients[0].verdict) == (kept.queue_id, Kind.HARD)
    assert [one.detail for one in store.reports.of_message(kept.queue_id)] == ["no such user"]
    assert store.reports.forget_strays() == 1  # what is left of the broken one
    assert store.reports.of_message(broken.queue_id) == []
    store.close()


@pytest.mark.parametrize("has_foreign_log", [False, True])
def test_a_log_in_doubt_is_read_where_it_makes_a_whole_queue(
    tmp_path: Path, has_foreign_log: bool
) -> None:
    store = open_in(tmp_path)
    message = accepted()
    store.intake.accept_batch([message])
    begin_log_in_vain(tmp_path / "queue.db")
    copy = tmp_path / "copy"
    copy.mkdir()
    with closing(driver.connect(tmp_path / "queue.db", isolation_level=None)) as other:
        other.execute("UPDATE message SET subject = 'of the log'")
        for name in ("queue.db", "queue.db-wal"):
            shutil.copy(tmp_path / name, copy)
    store.close()
    if has_foreign_log:
        with closing(driver.connect(tmp_path / "foreign.db")) as foreign:
            foreign.execute("PRAGMA journal_mode=WAL")
            foreign.execute("CREATE TABLE message (text)")
            shutil.copy(tmp_path / "foreign.db-wal", copy / "queue.db-wal")
    assert "may be of another database" in examine(url_in(copy))[0]
    done = recovered(copy)
    assert (done.recovered, done.held, done.is_log_read) == (1, 1, not has_foreign_log)
    store = open_in(copy)
    (entry,) = store.queue.search(Selection(states=ANY), limit=9)
    store.close()
    assert (entry.queue_id, entry.subject == "of the log") == (message.queue_id, done.is_log_read)
    assert done.log_aside is not None and done.log_aside.exists()


def test_an_operator_may_let_everything_go_at_once(tmp_path: Path) -> None:
    store = open_in(tmp_path)
    message = accepted()
    store.intake.accept_batch([message])
    store.janitor.checkpoint()
    copy = tmp_path / "copy"
    copy.mkdir()
    # the database alone, as a copy of files that forgets the log leaves it
    (copy / "queue.db").write_bytes((tmp_path / "queue.db").read_bytes())
    store.close()
    done = recovered(copy, is_released=True)
    assert (done.is_log_lost, done.recovered, done.held) == (True, 1, 0)
    assert states(copy) == {message.queue_id: ("incoming", None)}
    assert done.aside is not None
    assert done.aside.exists()


def test_a_queue_in_use_is_left_alone(tmp_path: Path) -> None:
    store = open_in(tmp_path)
    with pytest.raises(StoreUnavailable, match="stop relaygw first"):
        recovered(tmp_path)
    store.close()
    assert recovered(tmp_path).aside is None


def test_a_recovery_that_was_cut_short_is_begun_anew_with_the_log(tmp_path: Path) -> None:
    live, killed = tmp_path / "live", tmp_path / "killed"
    live.mkdir()
    killed.mkdir()
    store = open_in(live)
    message = accepted()
    store.intake.accept_batch([message])
    for name in ("queue.db", "queue.db-wal"):
        (killed / name).write_bytes((live / name).read_bytes())
    store.close()
    # as it is between the two moves
    aside = killed / "queue.db.damaged-20261127-000000"
    os.link(killed / "queue.db", aside)
    log_of(killed / "queue.db").rename(log_of(aside))
    (killed / "queue.db.recovering").write_bytes(b"half")

    assert recovered(killed).aside is None, "with its log it is whole"
    assert set(states(killed)) == {message.queue_id}
    assert not aside.exists()
