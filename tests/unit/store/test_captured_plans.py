"""Lists and searches of captured mail use their indexes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import Connection, Engine, Pool, event, select

from relaygw.mail.content_facts import ContentFacts
from relaygw.mail.search import EVERYTHING, Field, MailSearch, Term, parse_search
from relaygw.store import captured_search, migrate, sandbox
from relaygw.store.all_tables import whole_metadata
from relaygw.store.database import Place
from relaygw.store.postgres import create_postgres_engine
from relaygw.store.queue_tables import captured_text
from relaygw.store.store import Store, open_store
from tests.builders import NOW_MS
from tests.contract.captured import capture, indexed


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    url = f"sqlite:///{tmp_path}/queue.db"
    migrate.upgrade(url)
    store = open_store(url)
    yield store
    store.close()


def plans(store: Store, verb: Callable[[], object]) -> str:
    """Return how SQLite goes about the queries that a verb makes."""
    steps: list[str] = []

    def explain(
        connection: Connection, _cursor: object, sql: str, parameters: object, *_more: object
    ) -> None:
        raw = connection.connection.dbapi_connection
        assert raw is not None
        if sql.startswith("SELECT") and "sqlite_master" not in sql:
            steps.extend(row[3] for row in raw.execute("EXPLAIN QUERY PLAN " + sql, parameters))

    event.listen(Engine, "before_cursor_execute", explain)
    try:
        verb()
    finally:
        event.remove(Engine, "before_cursor_execute", explain)
    return "\n".join(steps)


def found(store: Store, search: MailSearch) -> str:
    return plans(store, lambda: store.sandbox.find_captured(search, start=0, limit=50))


def counted(store: Store, search: MailSearch) -> str:
    return plans(store, lambda: store.sandbox.count_captured(search))


def test_lists_are_read_from_the_index(store: Store) -> None:
    plan = found(store, EVERYTHING)
    assert "COVERING INDEX message_captured" in plan
    assert "TEMP B-TREE" not in plan


def test_counts_look_at_no_message(store: Store) -> None:
    plan = counted(store, EVERYTHING)
    assert "COVERING INDEX message_captured" in plan
    assert "COVERING INDEX message_unread" in plan


def test_unindexed_mail_is_found_by_its_index(store: Store) -> None:
    capture(store)
    plan = plans(store, lambda: store.sandbox.unindexed(limit=25))
    assert "INDEX message_unindexed" in plan
    assert "TEMP B-TREE" not in plan
    with store.database.read() as tx:
        look = tx.cursor().execute("EXPLAIN QUERY PLAN " + sandbox._HAS_UNINDEXED.text())
        assert "INDEX message_unindexed" in str(look.fetchall())


@pytest.mark.parametrize("query", ["order", "order -paid", '"on its way" from:shop'])
def test_words_are_found_by_full_text_newest_first(store: Store, query: str) -> None:
    search = parse_search(query)
    plan = found(store, search)
    assert "SCAN captured_fts VIRTUAL TABLE" in plan
    assert "captured_text" not in plan
    assert "TEMP B-TREE" not in plan
    assert "captured_text" not in counted(store, search)


def test_a_search_without_words_reads_no_text(store: Store) -> None:
    plan = counted(store, parse_search("from:shop tag:x larger:1k is:read"))
    assert "captured_text" not in plan
    assert "captured_tag_key" in plan


def test_without_full_text_all_texts_are_read(store: Store, tmp_path: Path) -> None:
    ids = [
        indexed(store, facts=ContentFacts(words=words), at_ms=NOW_MS + number)
        for number, words in enumerate(("order paid", "order", "paid"))
    ]
    event.listen(Pool, "checkout", _without_full_text)
    store = open_store(f"sqlite:///{tmp_path}/queue.db")
    try:
        other = indexed(store, facts=ContentFacts(words="order"), at_ms=NOW_MS + 9)
        search = parse_search("order -paid")
        assert store.sandbox.captured_ids(search, limit=9) == [ids[1], other]
        assert store.sandbox.count_captured(search) == (2, 2)
    finally:
        event.remove(Pool, "checkout", _without_full_text)
        store.close()


def _without_full_text(_raw: object, record: object, _proxy: object) -> None:
    record.info["captured_fts"] = False  # type: ignore[attr-defined]


def test_an_index_is_merged_in_steps(store: Store) -> None:
    for number in range(40):
        indexed(store, facts=ContentFacts(words=f"w{number} " * 2000), at_ms=NOW_MS + number)
    with store.database.read() as connection:
        segments = connection.connection.exec_driver_sql(
            "SELECT count(DISTINCT segid) FROM captured_fts_idx"
        ).scalar_one()
    assert segments < 20
    assert store.sandbox.count_captured(parse_search("w39 w39")) == (1, 1)


def test_large_texts_are_indexed_a_few_at_a_time(store: Store) -> None:
    ids = [capture(store, at_ms=NOW_MS + number) for number in range(30)]
    sizes: list[int] = []

    def note(_c: object, _cursor: object, sql: str, parameters: object, *_more: object) -> None:
        if sql.startswith("INSERT INTO captured_fts (rowid"):
            assert isinstance(parameters, list)
            sizes.append(sum(len(text) for _, text in parameters))

    event.listen(Engine, "before_cursor_execute", note)
    try:
        store.sandbox.index({one: ContentFacts(words="word " * 3000) for one in ids})
    finally:
        event.remove(Engine, "before_cursor_execute", note)
    assert sum(sizes) > 30 * 15_000
    assert max(sizes) < 80_000


def test_a_schema_without_the_extension_is_good_too(postgres_url: str) -> None:
    import psycopg

    name = postgres_url.rpartition("/")[2]
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute("CREATE ROLE visitor LOGIN")
        connection.execute("REVOKE CREATE ON DATABASE " + name + " FROM PUBLIC")
        connection.execute("GRANT CREATE, USAGE ON SCHEMA public TO visitor")
    try:
        url = postgres_url.replace("relaygw@", "visitor@")
        migrate.upgrade(url)
        store = open_store(url)
        queue_id = indexed(store, facts=ContentFacts(words="order"))
        with store.database.read() as opened:
            indexes = opened.connection.exec_driver_sql(
                "SELECT count(*) FROM pg_indexes WHERE indexname = 'captured_text_trigrams'"
            ).scalar_one()
        assert store.sandbox.captured_ids(parse_search("rde"), limit=9) == [queue_id]
        store.close()
        assert indexes == 0
    finally:
        with psycopg.connect(postgres_url, autocommit=True) as connection:
            connection.execute("DROP OWNED BY visitor CASCADE")
            connection.execute("DROP ROLE visitor")


def test_rare_words_are_found_by_the_trigrams_of_postgres(postgres_url: str) -> None:
    migrate.upgrade(postgres_url)
    store = open_store(postgres_url)
    indexed(store, facts=ContentFacts(words="100% order_"))
    with store.database.read() as tx:
        connection = tx.connection
        term = Term(field=Field.TEXT, text="100% order_")
        query = select(captured_text.c.index_no).where(captured_search.stands_in_text(tx, term))
        connection.exec_driver_sql("SET LOCAL enable_seqscan = off")
        compiled = query.compile(connection, compile_kwargs={"literal_binds": True})
        plan = connection.exec_driver_sql("EXPLAIN " + str(compiled)).scalars().all()
    store.close()
    assert "captured_text_trigrams" in "\n".join(plan)


def test_migrations_build_the_schema_of_the_code_on_postgres(postgres_url: str) -> None:
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    migrate.upgrade(postgres_url)
    engine = create_postgres_engine(Place.of(postgres_url))
    with engine.begin() as connection:
        changes = compare_metadata(MigrationContext.configure(connection), whole_metadata())
    engine.dispose()
    unknown = {("remove_index", "captured_text_trigrams"), ("remove_index", "mail_search_words")}
    assert {(change[0], change[1].name) for change in changes} == unknown
