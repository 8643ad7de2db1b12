"""Searches over all mail use their indexes, and never sort or read whole tables."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from relaygw.mail.search import parse_find
from relaygw.store import find, find_index
from relaygw.store.store import Store, open_store
from tests.builders import accepted
from tests.queues import make_queue
from tests.unit.store.test_captured_plans import plans


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    monkeypatch.setattr(find, "_NEWEST", 1)
    url = f"sqlite:///{tmp_path}/queue.db"
    make_queue(url)
    store = open_store(url)
    store.intake.accept_batch([accepted(), accepted(), accepted()])
    while store.find.index_batch(limit=10):
        pass
    yield store
    store.close()


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", "SCAN message"),
        ("is:bounced after:2026-11-27", "recipient_outcome (state=? AND changed_at_ms>?"),
        ("is:bounced cust", "recipient_outcome (state=?"),
        ("is:waiting", "COVERING INDEX delivery_open"),
        ("is:held cust", "COVERING INDEX delivery_open"),
        ("is:captured user:x", "INDEX message_captured"),
        ("before:2026-11-27", "message USING PRIMARY KEY (queue_id<?)"),
        ("xyzzy", "SCAN mail_fts VIRTUAL TABLE"),
        ("cust user:x provider:y", "SCAN mail_fts VIRTUAL TABLE"),
    ],
)
def test_each_search_uses_its_index(store: Store, query: str, expected: str) -> None:
    plan = plans(store, lambda: store.find.find(parse_find(query), limit=50))
    assert expected in plan, plan
    assert "TEMP B-TREE" not in plan, plan
    assert "SCAN recipient" not in plan.replace("SCAN recipient USING INDEX recipient_outcome", "")


def test_words_are_merged_in_steps(store: Store) -> None:
    for _ in range(40):
        store.intake.accept_batch([accepted()])
        assert store.find.index_batch(limit=10) == 1
    with store.database.read() as tx:
        segments = tx.connection.exec_driver_sql("SELECT count(DISTINCT segid) FROM mail_fts_idx")
        assert segments.scalar_one() < 20
        assert find_index.FULL_TEXT.is_there(tx)


def test_without_full_text_all_words_are_read(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(find_index.FULL_TEXT, "is_there", lambda _: False)
    plan = plans(store, lambda: store.find.find(parse_find("cust"), limit=50))
    assert "mail_fts" not in plan
    assert len(store.find.find(parse_find("cust.test"), limit=50).entries) == 3
