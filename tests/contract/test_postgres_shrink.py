"""The index of words on PostgreSQL is built anew once most of it is of mail that is gone."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from threading import Thread

import psycopg
import pytest

from relaygw.errors import StoreUnavailable
from relaygw.store import word_index
from relaygw.store.database import Place
from relaygw.store.postgres import PostgresDatabase, create_postgres_engine
from relaygw.store.store import Store, store_on
from relaygw.store.word_index import WordIndex
from tests.queues import make_queue

WORDS = """
    INSERT INTO mail_search (queue_id, words)
    SELECT 'x' || n, string_agg(md5(n::text || part::text), ' ')
    FROM generate_series(1, 500) AS n, generate_series(1, 20) AS part GROUP BY n
"""
SIZE = "SELECT pg_relation_size('mail_search_words')"
LEFT = ("mail_search_words_ccnew", "mail_search_words_ccold1")
NODE = "SELECT pg_relation_filenode('mail_search_words')"
OPEN_S = 30.0
LEAST_BYTES = 64 << 10


@pytest.fixture
def queue_url(postgres_url: str) -> str:
    """Return the URL of a queue of the test's own: its indexes change."""
    make_queue(postgres_url)
    return postgres_url


@pytest.fixture
def store(queue_url: str) -> Iterator[Store]:
    with looking_store(queue_url) as store:
        yield store


@contextmanager
def looking_store(
    queue_url: str, *, is_always_bloated: bool = False, **more: float
) -> Iterator[Store]:
    """Lend a store that looks at the index with each call."""
    database = PostgresDatabase(queue_url, **more)
    limits = {"least_bytes": 0, "bloat": 0.0} if is_always_bloated else {"least_bytes": LEAST_BYTES}
    open_engine = partial(create_postgres_engine, Place.of(queue_url), **more)
    database.word_index = WordIndex(open_engine, look_each_s=0.0, **limits)
    yield store_on(database)
    if (thread := database.word_index.thread) is not None:
        thread.join()
    database.close()


def index_of(store: Store) -> WordIndex:
    assert isinstance(store.database, PostgresDatabase)
    return store.database.word_index


def wait_for(is_so: Callable[[], bool]) -> None:
    until_s = time.monotonic() + OPEN_S
    while not is_so() and time.monotonic() < until_s:
        time.sleep(0.01)
    assert is_so()


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
    assert ask(queue_url, SIZE) >= before_bytes > LEAST_BYTES
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
    nodes = []
    for _ in range(3):
        index_of(store).look()
        nodes.append(ask(queue_url, NODE))
    assert nodes[0] == nodes[1] == nodes[2]
    store.janitor.shrink()


def test_trouble_with_it_is_told_by_the_next_call(
    queue_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(word_index, "_BUILD", "REINDEX INDEX CONCURRENTLY gone")
    with looking_store(queue_url, is_always_bloated=True) as store:
        index_of(store).look()
        with pytest.raises(StoreUnavailable, match='relation "gone" does not exist'):
            store.janitor.shrink()
        store.janitor.shrink()


def test_what_was_left_by_one_that_was_cut_short_is_dropped(queue_url: str, store: Store) -> None:
    for name in LEFT:
        ask(queue_url, f"CREATE INDEX {name} ON mail_search (queue_id)")
        invalid = f"UPDATE pg_index SET indisvalid = false WHERE indexrelid = '{name}'::regclass"
        ask(queue_url, invalid)
    ask(queue_url, "CREATE INDEX mine_ccnew ON mail_search (queue_id)")
    index_of(store).look()
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
    thread = index_of(store).thread
    assert thread is not None
    thread.join()
    assert not ask(queue_url, "SELECT count(*) FROM pg_index WHERE NOT indisvalid")


BUILDING = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'REINDEX %' AND state = 'active'"


def test_of_two_that_look_at_the_same_time_one_builds(queue_url: str) -> None:
    """Both found it bloated, and nobody at it: neither had begun."""
    # whatever the server's default, the lock's transaction is none that the building waits for
    name = ask(queue_url, "SELECT current_database()::text")
    strict = "SET default_transaction_isolation = 'repeatable read'"
    ask(queue_url, f"ALTER DATABASE {name} {strict}")
    with (
        looking_store(queue_url, is_always_bloated=True) as store,
        looking_store(queue_url, is_always_bloated=True) as other,
    ):
        threads = [Thread(target=index_of(one).look) for one in (store, other)]
        with psycopg.connect(queue_url) as reader:
            reader.execute("SELECT 1 FROM mail_search")  # whoever builds waits for its end
            threads[0].start()
            wait_for(lambda: ask(queue_url, BUILDING) == 1)
            threads[1].start()
            wait_for(lambda: not threads[1].is_alive() or ask(queue_url, BUILDING) > 1)
            is_one = ask(queue_url, BUILDING) == 1
        for thread in threads:
            thread.join()
        assert is_one
        before = ask(queue_url, NODE)
        for one in (store, other):  # the lock went with the one who had it
            index_of(one).look_if_due()
            thread_of = index_of(one).thread
            assert thread_of is not None
            thread_of.join()
            assert ask(queue_url, NODE) != before
            before = ask(queue_url, NODE)


def test_who_is_long_at_it_keeps_the_lock(queue_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(word_index, "_BUILD", "SELECT pg_sleep(0.5)")
    with looking_store(queue_url, is_always_bloated=True, idle_s=0.05) as store:
        index_of(store).look()
        index_of(store).look_if_due()
