"""A copy of a queue, and a queue from a copy: all that is needed comes along."""

from __future__ import annotations

import shutil
from contextlib import closing
from pathlib import Path

import pytest

from relaygw.errors import StoreUnavailable
from relaygw.mail.state import DeliveryState
from relaygw.store.backup import back_up, restore
from relaygw.store.exchange import REPLACED, aside_name
from relaygw.store.log_check import is_later, log_of, mark_of, read_only, salts_of
from relaygw.store.selection import Selection
from relaygw.store.store import open_store
from tests.begun_log import begin_log_in_vain, tell_salts_apart
from tests.builders import NOW_MS, accepted
from tests.queues import make_queue


def test_a_copy_of_the_files_with_a_log_that_was_begun_again_is_restored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its salts are by chance: only what lies beside it says whose log it is."""
    tell_salts_apart(monkeypatch)
    (live := tmp_path / "live").mkdir()
    url = f"sqlite:///{live}/queue.db"
    make_queue(url)
    store = open_store(url)
    messages = [accepted(), accepted()]
    store.intake.accept_batch(messages[:1])
    begin_log_in_vain(live / "queue.db")
    with closing(read_only(live / "queue.db")) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM message").fetchall()  # nothing is moved meanwhile
        # by a connection that has not begun a log before
        store.leases.claim("default", limit=1, incarnation="x", now_ms=NOW_MS)
        store.intake.accept_batch(messages[1:])
        copy = shutil.copytree(live, tmp_path / "copy")
    store.close()
    mark, salts = mark_of(copy / "queue.db"), salts_of(log_of(copy / "queue.db"))
    assert mark and salts and not is_later(salts[0], mark), "the case itself"
    place = f"sqlite:///{tmp_path}/new/queue.db"
    done = restore(
        place, copy / "queue.db", is_released=True, now_ms=NOW_MS, may_replace=lambda _: False
    )
    assert done is not None
    assert (done.contents.messages, done.aside) == (2, None)
    store = open_store(place)
    found = store.queue.search_ids(Selection(states=frozenset(DeliveryState)), limit=9)
    store.close()
    assert found == sorted(one.queue_id for one in messages)


def test_where_no_queue_is_nothing_is_copied_and_none_is_made(tmp_path: Path) -> None:
    queue, copy = tmp_path / "queue.db", tmp_path / "copy"
    with pytest.raises(StoreUnavailable, match="unable to open"):
        back_up(f"sqlite:///{queue}", copy)
    assert not queue.exists()
    assert not copy.exists()


def test_an_old_database_is_called_by_the_time_and_never_as_another(tmp_path: Path) -> None:
    path, at_ms = tmp_path / "queue.db", 1_767_323_045_999
    names = []
    for _ in range(3):
        aside = aside_name(path, REPLACED, at_ms)
        aside.touch()
        names.append(aside.name)
    first = "queue.db.replaced-20260102-030405"
    assert names == [first, f"{first}-2", f"{first}-3"]
