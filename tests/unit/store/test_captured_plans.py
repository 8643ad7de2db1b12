"""Lists and searches of captured mail use their indexes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Connection, event, select

from relaygw.mail.content_facts import ContentFacts
from relaygw.mail.search import EVERYTHING, Field, Term, parse_search
from relaygw.store import full_text, indexing, migrate, searching
from relaygw.store.place import Place
from relaygw.store.postgres import PostgresStore, create_postgres_engine
from relaygw.store.sqlite import SqliteStore, create_sqlite_engine
from relaygw.store.tables import captured_text, metadata
from tests.builders import NOW_MS
from tests.contract.captured import capture, indexed


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    url = f"sqlite:///{tmp_path}/queue.db"
    migrate.upgrade(url)
    store = SqliteStore(url, keep_content=False)
    yield store
    store.close()


def plans(connection: Connection, function: object, *arguments: object, **named: object) -> str:
    """Return how SQLite goes about the queries that a function makes."""
    steps: list[str] = []

    def explain(_c: object, cursor: object, sql: str, parameters: object, *_more: object) -> None:
        raw = connection.connection.dbapi_connection
        assert raw is not None
        if sql.startswith("SELECT") and "sqlite_master" not in sql:
            steps.extend(row[3] for row in raw.execute("EXPLAIN QUERY PLAN " + sql, parameters))

    event.listen(connection, "before_cursor_execute", explain)
    try:
        assert callable(function)
        function(connection, *arguments, **named)
    finally:
        event.remove(connection, "before_cursor_execute", explain)
    return "\n".join(steps)


def test_lists_are_read_from_the_index(store: SqliteStore) -> None:
    with store._read() as connection:
        plan = plans(connection, searching.find, EVERYTHING, start=0, limit=50)
        assert "COVERING INDEX message_captured" in plan
        assert "TEMP B-TREE" not in plan


def test_counts_look_at_no_message(store: SqliteStore) -> None:
    with store._read() as connection:
        plan = plans(connection, searching.count, EVERYTHING)
        assert "COVERING INDEX message_captured" in plan
        assert "COVERING INDEX message_unread" in plan


def test_unindexed_mail_is_found_by_its_index(store: SqliteStore) -> None:
    with store._read() as connection:
        plan = plans(connection, indexing.unindexed, limit=25)
        assert "INDEX message_unindexed" in plan
        assert "TEMP B-TREE" not in plan


@pytest.mark.parametrize("query", ["order", "order -paid", '"on its way" from:shop'])
def test_words_are_found_by_full_text_newest_first(store: SqliteStore, query: str) -> None:
    search = parse_search(query)
    with store._read() as connection:
        plan = plans(connection, searching.find, search, start=0, limit=50)
        assert "SCAN captured_fts VIRTUAL TABLE" in plan
        assert "captured_text" not in plan
        assert "TEMP B-TREE" not in plan
        assert "captured_text" not in plans(connection, searching.count, search)


def test_a_search_without_words_reads_no_text(store: SqliteStore) -> None:
    with store._read() as connection:
        plan = plans(connection, searching.count, parse_search("from:shop tag:x larger:1k is:read"))
        assert "captured_text" not in plan
        assert "captured_tag_key" in plan


def test_without_full_text_all_texts_are_read(store: SqliteStore) -> None:
    ids = [
        indexed(store, facts=ContentFacts(words=words), at_ms=NOW_MS + number)
        for number, words in enumerate(("order paid", "order", "paid"))
    ]
    for engine in (store._readers, *(writer._engine for writer in set(store._writers.values()))):
        event.listen(engine, "checkout", _without_full_text)
    for writer in store._writers.values():
        writer.close()
    other = indexed(store, facts=ContentFacts(words="order"), at_ms=NOW_MS + 9)
    search = parse_search("order -paid")
    assert store.captured_ids(search, limit=9) == [ids[1], other]
    assert store.count_captured(search) == (2, 2)


def _without_full_text(_raw: object, record: object, _proxy: object) -> None:
    record.info[full_text._IS_THERE] = False  # type: ignore[attr-defined]


def test_an_index_is_merged_in_steps(store: SqliteStore) -> None:
    for number in range(40):
        indexed(store, facts=ContentFacts(words=f"w{number} " * 2000), at_ms=NOW_MS + number)
    with store._read() as connection:
        segments = connection.exec_driver_sql(
            "SELECT count(DISTINCT segid) FROM captured_fts_idx"
        ).scalar_one()
    assert segments < 20
    assert store.count_captured(parse_search("w39 w39")) == (1, 1)


def test_large_texts_are_indexed_a_few_at_a_time(store: SqliteStore) -> None:
    ids = [capture(store, at_ms=NOW_MS + number) for number in range(30)]
    sizes: list[int] = []

    def note(_c: object, _cursor: object, sql: str, parameters: object, *_more: object) -> None:
        if sql.startswith("INSERT INTO captured_fts (rowid"):
            assert isinstance(parameters, list)
            sizes.append(sum(len(text) for _, text in parameters))

    for writer in set(store._writers.values()):
        event.listen(writer._engine, "before_cursor_execute", note)
    store.index({one: ContentFacts(words="word " * 3000) for one in ids})
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
        store = PostgresStore(url, keep_content=False)
        queue_id = indexed(store, facts=ContentFacts(words="order"))
        with store._read() as opened:
            indexes = opened.exec_driver_sql(
                "SELECT count(*) FROM pg_indexes WHERE indexname = 'captured_text_trigrams'"
            ).scalar_one()
        assert store.captured_ids(parse_search("rde"), limit=9) == [queue_id]
        store.close()
        assert indexes == 0
    finally:
        with psycopg.connect(postgres_url, autocommit=True) as connection:
            connection.execute("DROP OWNED BY visitor CASCADE")
            connection.execute("DROP ROLE visitor")


def test_rare_words_are_found_by_the_trigrams_of_postgres(postgres_url: str) -> None:
    migrate.upgrade(postgres_url)
    store = PostgresStore(postgres_url, keep_content=False)
    indexed(store, facts=ContentFacts(words="100% order_"))
    with store._read() as connection:
        term = Term(field=Field.TEXT, text="100% order_")
        query = select(captured_text.c.index_no).where(full_text.stands_in_text(connection, term))
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
        (trigrams,) = compare_metadata(MigrationContext.configure(connection), metadata)
    engine.dispose()
    assert trigrams[0] == "remove_index" and trigrams[1].name == "captured_text_trigrams"


def test_an_engine_is_enough_to_see_the_table(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/queue.db"
    migrate.upgrade(url)
    engine = create_sqlite_engine(url, begin="BEGIN")
    with engine.begin() as connection:
        assert full_text.has_table(connection)
    engine.dispose()
