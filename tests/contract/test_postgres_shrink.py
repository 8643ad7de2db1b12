"""The index of words on PostgreSQL is built anew once most of it is of mail that is gone."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress

import psycopg
import pytest

from relaygw.errors import StoreUnavailable
from relaygw.store import postgres
from relaygw.store.store import Store, open_store
from tests.queues import make_queue

WORDS = """
    INSERT INTO mail_search (queue_id, words)
    SELECT 'x' || n, string_agg(md5(n::text || part::text), ' ')
    FROM generate_series(1, 500) AS n, generate_series(1, 20) AS part GROUP BY n
"""
SIZE = "SELECT pg_relation_size('mail_search_words')"
LEFT = ("mail_search_words_ccnew", "mail_search_words_ccold1")
OPEN_S = 30.0


@pytest.fixture
def queue_url(postgres_url: str) -> str:
    """Return the URL of a queue of the test's own: its indexes change."""
    make_queue(postgres_url)
    return postgres_url


@pytest.fixture
def store(queue_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    monkeypatch.setattr(postgres, "SHRINK_EACH_S", 0.0)
    monkeypatch.setattr(postgres, "LEAST_INDEX_BYTES", 64 << 10)
    store = open_store(queue_url)
    yield store
    assert isinstance(store.database, postgres.PostgresDatabase)
    if store.database._shrinking is not None:
        store.database._shrinking.join()
    store.close()


def ask(queue_url: str, sql: str) -> int:
    with psycopg.connect(queue_url, autocommit=True) as connection:
        cursor = connection.execute(sql)
        row = cursor.fetchone() if cursor.description else None
        return row[0] if row else 0


def test_words_of_mail_that_is_gone_take_no_space_for_ever(queue_url: str, store: Store) -> None:
    ask(queue_url, WORDS)
    before_bytes = ask(queue_url, SIZE)
    ask(queue_url, "DELETE FROM mail_search")
    ask(queue_url, "VACUUM mail_search")
    assert ask(queue_url, SIZE) >= before_bytes > postgres.LEAST_INDEX_BYTES
    until_s = time.monotonic() + OPEN_S
    while ask(queue_url, SIZE) >= before_bytes and time.monotonic() < until_s:
        with suppress(StoreUnavailable):  # it is being built
            store.janitor.shrink()
    assert ask(queue_url, SIZE) < before_bytes / 4


def test_what_is_large_for_the_words_that_are_there_is_built_once(
    queue_url: str, store: Store
) -> None:
    """Words that no two mails share take more than their table from the beginning."""
    ask(queue_url, WORDS)
    database = store.database
    assert isinstance(database, postgres.PostgresDatabase)
    nodes = []
    for _ in range(3):
        database._renew_words()
        nodes.append(ask(queue_url, "SELECT pg_relation_filenode('mail_search_words')"))
    assert nodes[0] == nodes[1] == nodes[2]
    store.janitor.shrink()


def test_trouble_with_it_is_told_by_the_next_call(
    queue_url: str, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres, "_RENEW", "REINDEX INDEX CONCURRENTLY gone")
    monkeypatch.setattr(postgres, "_IS_BLOATED", "SELECT true")
    database = store.database
    assert isinstance(database, postgres.PostgresDatabase)
    database._renew_words()
    with pytest.raises(StoreUnavailable, match='relation "gone" does not exist'):
        store.janitor.shrink()
    monkeypatch.setattr(postgres, "_IS_BLOATED", "SELECT false")
    store.janitor.shrink()


def test_what_was_left_by_one_that_was_cut_short_is_dropped(queue_url: str, store: Store) -> None:
    for name in LEFT:
        ask(queue_url, f"CREATE INDEX {name} ON mail_search (queue_id)")
        invalid = f"UPDATE pg_index SET indisvalid = false WHERE indexrelid = '{name}'::regclass"
        ask(queue_url, invalid)
    ask(queue_url, "CREATE INDEX mine_ccnew ON mail_search (queue_id)")
    database = store.database
    assert isinstance(database, postgres.PostgresDatabase)
    database._renew_words()
    store.janitor.shrink()
    assert [ask(queue_url, f"SELECT to_regclass('{name}')::text") for name in LEFT] == [None] * 2
    assert ask(queue_url, "SELECT to_regclass('mine_ccnew')::text") == "mine_ccnew"


def test_one_that_waits_is_told_of_and_no_other_begins(queue_url: str, store: Store) -> None:
    ask(queue_url, WORDS)
    ask(queue_url, "DELETE FROM mail_search")
    ask(queue_url, "VACUUM mail_search")
    with psycopg.connect(queue_url) as reader:
        reader.execute("SELECT 1 FROM mail_search")  # in a transaction that stays open
        with pytest.raises(StoreUnavailable, match="still being built"):
            until_s = time.monotonic() + OPEN_S
            while time.monotonic() < until_s:
                store.janitor.shrink()
    database = store.database
    assert isinstance(database, postgres.PostgresDatabase) and database._shrinking is not None
    database._shrinking.join()
    assert not ask(queue_url, "SELECT count(*) FROM pg_index WHERE NOT indisvalid")
