"""The hot queries use the partial indexes: SQLite needs their condition word for word."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, event, text

from relaygw.errors import StoreUnavailable
from relaygw.mail.hold import HoldCause, HoldCode, provider_down
from relaygw.store import intake, janitor, leases, migrate, outcomes, selection
from relaygw.store.all_tables import whole_metadata
from relaygw.store.database import BatchStatement, Statement, Transaction, Write
from relaygw.store.schema import SCHEMA_REVISION
from relaygw.store.selection import Selection
from relaygw.store.sqlite import create_sqlite_engine
from relaygw.store.store import Store, open_store
from tests.builders import accepted, instance
from tests.queues import make_queue


@pytest.fixture
def url(tmp_path: Path) -> str:
    url = f"sqlite:///{tmp_path}/queue.db"
    make_queue(url)
    return url


@pytest.mark.parametrize(
    "statement",
    [leases._CLIENTS, leases._CLIENTS_BEHIND, leases._DUE_OF_CLIENT, leases._NEXT_DUE],
    ids=["clients", "clients_behind", "due_of_client", "next_due"],
)
def test_claims_use_the_index(url: str, statement: Statement) -> None:
    engine = create_sqlite_engine(url, begin="BEGIN")
    sql = statement.text()
    with engine.begin() as connection:
        plan = connection.exec_driver_sql("EXPLAIN QUERY PLAN " + sql, tuple("x" * sql.count("?")))
        steps = [row[3] for row in plan]
    engine.dispose()
    looks = [step for step in steps if " delivery " in step]
    assert looks and all("delivery_due" in look for look in looks), steps
    assert not any("TEMP B-TREE" in step for step in steps), steps


MODE = HoldCause(HoldCode.MODE)
BY_KEY = "PRIMARY KEY (queue_id=? AND delivery_no=?)"


@pytest.mark.parametrize(
    ("verb", "expected"),
    [
        (lambda store: store.holds.held_mail(), {"delivery_open"}),
        (lambda store: store.holds.held_causes(), {"delivery_open", BY_KEY}),
        (lambda store: store.holds.release_held(MODE, limit=9), {"delivery_open", BY_KEY}),
        (
            lambda store: store.holds.release_held(provider_down("p"), limit=9),
            {"delivery_open"},
        ),
        (lambda store: store.holds.let_go([("1A", 0), ("1B", 0)], MODE), {BY_KEY}),
        (lambda store: store.watch.in_hand_since(1), {"delivery_lease"}),
        (lambda store: store.instances.ownerless(), {"delivery_lease"}),
        (lambda store: store.janitor.restart_waits(limit=9), {"INDEX delivery_due"}),
        (
            lambda store: store.instances.bury("w", begun=[("1A", 0, "p")], is_lost=True),
            {BY_KEY, "delivery_lease"},
        ),
        (lambda store: store.leases.routes_waiting(), {"delivery_due"}),
        (
            lambda store: store.leases.free_unknown("default", known=(), incarnation="w"),
            {"delivery_lease"},
        ),
    ],
    ids=[
        "held",
        "causes",
        "release",
        "put_off",
        "let_go",
        "in_hand",
        "ownerless",
        "waits",
        "bury",
        "routes",
        "leases",
    ],
)
def test_what_is_looked_for_all_the_time_uses_an_index(
    url: str,
    verb: Callable[[Store], object],
    expected: set[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    steps: list[str] = []
    fetch = Statement.fetch

    def explain(
        connection: Connection, _cursor: object, sql: str, parameters: object, *_more: object
    ) -> None:
        raw: Any = connection.connection.dbapi_connection
        if "delivery" in sql:
            steps.extend(row[3] for row in raw.execute("EXPLAIN QUERY PLAN " + sql, parameters))

    def explain_and_fetch(statement: Statement, tx: Transaction, *parameters: Any) -> Any:
        explain(tx.connection, None, statement.text(), parameters)
        return fetch(statement, tx, *parameters)

    monkeypatch.setattr(Statement, "fetch", explain_and_fetch)
    store = open_store(url)
    store.instances.register(instance("w"))
    event.listen(Engine, "before_cursor_execute", explain)
    try:
        verb(store)
    finally:
        event.remove(Engine, "before_cursor_execute", explain)
        store.close()
    looks = [step for step in steps if " delivery " in step]
    assert looks and all(any(one in look for one in expected) for look in looks), looks
    assert all(any(one in look for look in looks) for one in expected), looks


@pytest.mark.parametrize(
    "statement",
    [
        pytest.param(statement, id=name.strip("_").lower())
        for room in (outcomes, leases, intake)
        for name, statement in vars(room).items()
        if isinstance(statement, BatchStatement)
    ],
)
def test_a_batch_looks_its_rows_up(url: str, statement: BatchStatement) -> None:
    engine = create_sqlite_engine(url, begin="BEGIN")
    sql = statement.text(3)
    with engine.begin() as connection:
        plan = connection.exec_driver_sql("EXPLAIN QUERY PLAN " + sql, ("x",) * sql.count("?"))
        scans = [row[3] for row in plan if row[3].startswith("SCAN")]
    engine.dispose()
    assert [step for step in scans if step != "SCAN hold USING INDEX hold_active"] == [
        "SCAN 3-ROW VALUES CLAUSE"
    ], "and the few holds in force"


def test_kept_content_is_found_by_its_index(url: str) -> None:
    engine = create_sqlite_engine(url, begin="BEGIN")
    with engine.begin() as connection:
        plan = connection.exec_driver_sql("EXPLAIN QUERY PLAN " + janitor._KEPT.text(), (1,))
        details = " ".join(row[3] for row in plan)
    engine.dispose()
    assert "message_kept_content" in details, details


_MAIL_OF_0001 = (
    "INSERT INTO message (queue_id, accepted_at_ms, sender, subject, message_id, size_bytes,"
    " chunk_count, is_8bit, has_long_line, smtputf8, mode, client_key) VALUES ('3OLD', 1,"
    " 'a@shop.test', 'x', '<1@shop.test>', 3, 1, false, false, false, 'production', '')",
    "INSERT INTO delivery (queue_id, delivery_no, route, stream, state, due_at_ms, changed_at_ms,"
    " client_key, attempts, doubts, reclaims, held_ms) VALUES ('3OLD', 0, 'default',"
    " 'transactional', 'incoming', 1, 1, '', 0, 0, 0, 0)",
    "INSERT INTO recipient (queue_id, rcpt_no, delivery_no, address, state, attempts,"
    " changed_at_ms) VALUES ('3OLD', 0, 0, 'b@cust.test', 'pending', 0, 1)",
    "INSERT INTO chunk (queue_id, chunk_no, body) VALUES ('3OLD', 0, 'hi')",
)


def test_a_queue_of_an_earlier_schema_is_upgraded_with_its_mail(tmp_path: Path) -> None:
    from alembic import command
    from alembic.config import Config

    url = f"sqlite:///{tmp_path}/queue.db"
    (tmp_path / "queue.db").touch()
    engine = create_sqlite_engine(url, begin="BEGIN IMMEDIATE")
    with engine.begin() as connection:
        config = Config()
        config.set_main_option("script_location", str(migrate.scripts()))
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
        for statement in _MAIL_OF_0001:
            connection.execute(text(statement))
    engine.dispose()
    assert migrate.upgrade(url) == ("0001", SCHEMA_REVISION)
    store = open_store(url)
    (entry,) = store.queue.search(Selection(), limit=2)
    store.close()
    assert (entry.queue_id, entry.sender) == ("3OLD", "a@shop.test")
    assert [one.address for one in entry.recipients] == ["b@cust.test"]


def is_full_text(name: str | None) -> bool:
    """True for a table that SQLite makes and keeps by itself."""
    return name is not None and name.startswith(("captured_fts", "mail_fts"))


def test_migrations_build_the_schema_of_the_code(url: str) -> None:
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    engine = create_sqlite_engine(url, begin="BEGIN")
    with engine.begin() as connection:
        context = MigrationContext.configure(
            connection, opts={"include_name": lambda name, *_: not is_full_text(name)}
        )
        assert compare_metadata(context, whole_metadata()) == []
    engine.dispose()


def test_every_connection_syncs_fully(url: str) -> None:
    engine = create_sqlite_engine(url, begin="BEGIN")
    with engine.begin() as connection:
        assert connection.execute(text("PRAGMA synchronous")).scalar() == 2
        assert connection.execute(text("PRAGMA journal_mode")).scalar() == "wal"
        assert connection.execute(text("PRAGMA auto_vacuum")).scalar() == 2
    engine.dispose()


def test_only_claims_and_large_content_are_committed_unsynced(url: str) -> None:
    store = open_store(url)
    levels = {}
    for kind in Write:
        with store.database.write(kind) as tx:
            raw: Any = tx.connection.connection.dbapi_connection
            levels[kind] = raw.execute("PRAGMA synchronous").fetchone()[0]
    store.close()
    # the log of large content is synced by hand: test_large_content
    assert levels == {Write.SYNCED: 2, Write.UNSYNCED: 1, Write.LEASE: 1, Write.BULK: 1}


def test_an_open_queue_is_listed_by_its_index(url: str) -> None:
    with closing(open_store(url)) as store, store.database.read() as tx:
        conditions = selection.delivery_conditions(tx, Selection())
    assert any("incoming" in str(condition) for condition in conditions)


def test_a_store_refuses_to_guess_a_schema(tmp_path: Path) -> None:
    from relaygw.errors import SchemaMismatch

    url = f"sqlite:///{tmp_path}/other.db"
    for _ in range(2):
        with pytest.raises(SchemaMismatch, match="relaygw db upgrade"):
            migrate.check_schema(url)
        (tmp_path / "other.db").touch()


def test_a_connection_makes_no_database_in_place_of_one_that_is_gone(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/queue.db"
    migrate.upgrade(url)
    store = open_store(url)
    (tmp_path / "queue.db").rename(tmp_path / "aside.db")
    with pytest.raises(StoreUnavailable, match="unable to open"):
        store.queue.search(Selection(), limit=2)
    assert not (tmp_path / "queue.db").exists()
    store.close()


def test_an_upgrade_is_done_once(url: str) -> None:
    assert migrate.upgrade(url) == (SCHEMA_REVISION, SCHEMA_REVISION)


def test_the_queue_is_for_its_owner_only(tmp_path: Path) -> None:
    migrate.upgrade(f"sqlite:///{tmp_path}/queue.db")
    modes = {path.name: path.stat().st_mode & 0o077 for path in tmp_path.glob("queue.db*")}
    assert set(modes.values()) == {0}, modes


def test_a_file_that_is_no_database_is_named(tmp_path: Path) -> None:
    from relaygw.errors import StoreUnavailable

    (tmp_path / "queue.db").write_bytes(b"no database at all" * 100)
    with pytest.raises(StoreUnavailable, match=r"queue\.db: file is not a database; relaygw"):
        migrate.upgrade(f"sqlite:///{tmp_path}/queue.db")


def test_content_of_mail_that_is_queued_is_never_shed(url: str) -> None:
    message = accepted("b@cust.test")
    store = open_store(url)
    store.intake.accept_batch([message])
    with store.database.write(Write.BULK) as tx:
        janitor._shed(tx, message.queue_id)
    body = store.intake.read_chunk(message.queue_id, 0)
    store.close()
    assert body == message.content[0]
