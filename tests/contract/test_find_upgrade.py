"""Mail from before searches over all mail existed: upgraded with it, and found."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import Engine, text

from relaygw.mail.attempt_state import PUT_OFF
from relaygw.mail.search import parse_find
from relaygw.store import migrate
from relaygw.store.database import Place
from relaygw.store.postgres import create_postgres_engine
from relaygw.store.schema import SCHEMA_REVISION
from relaygw.store.sqlite import create_sqlite_engine
from relaygw.store.store import open_store
from tests.builders import selected

_MAIL = (
    "INSERT INTO message (queue_id, accepted_at_ms, sender, subject, message_id, size_bytes,"
    " chunk_count, is_8bit, has_long_line, smtputf8, mode, client_key) VALUES ('{id}',"
    " 1795600000000, 'a@shop.test', 'Order 4711', '<1@shop.test>', 3, 0, false, false, false,"
    " 'production', '')",
    "INSERT INTO delivery (queue_id, delivery_no, route, stream, state, due_at_ms, changed_at_ms,"
    " client_key, attempts, doubts, reclaims, held_ms) VALUES ('{id}', 0, 'default',"
    " 'transactional', 'active', 1, 1, '', 0, 0, 0, 0)",
    "INSERT INTO recipient (queue_id, rcpt_no, delivery_no, address, state, attempts,"
    " changed_at_ms) VALUES ('{id}', 0, 0, 'b@cust.test', 'pending', 0, 1795600000000)",
)
_TRIED = (
    "INSERT INTO attempt (queue_id, delivery_no, at_ms, since_ms, times, provider, stage, state,"
    " reply) VALUES ('1M80000000000AAA1', 0, 5, 5, 1, 'main', 'RCPT TO', 'deferred', '451 wait')"
)
_DELIVERED = (
    "UPDATE recipient SET state = '{state}', reply = '{reply}', changed_at_ms = {at_ms}"
    " WHERE queue_id = '{id}'"
)


@pytest.fixture(params=["sqlite", "postgres"])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Engine]:
    """Return a database with the schema before, and one message."""
    from alembic import command
    from alembic.config import Config

    if request.param == "postgres":
        url: str = request.getfixturevalue("postgres_url")
        engine = create_postgres_engine(Place.of(url))
    else:
        (tmp_path / "queue.db").touch(mode=0o600)
        engine = create_sqlite_engine(f"sqlite:///{tmp_path}/queue.db", begin="BEGIN IMMEDIATE")
    with engine.begin() as connection:
        config = Config()
        config.set_main_option("script_location", str(migrate.scripts()))
        config.attributes["connection"] = connection
        command.upgrade(config, "0007")
    accept(engine, "1M80000000000AAA1")
    yield engine
    engine.dispose()


def accept(engine: Engine, queue_id: str) -> None:
    """Take a message in as an earlier version does, which knows nothing of words."""
    with engine.begin() as connection:
        for statement in _MAIL:
            connection.execute(text(statement.format(id=queue_id)))


def ended(engine: Engine, queue_id: str, reply: str, *, state: str, after_ms: int) -> None:
    at_ms = 1_795_600_000_000 + after_ms
    statement = _DELIVERED.format(id=queue_id, reply=reply, state=state, at_ms=at_ms)
    with engine.begin() as connection:
        connection.execute(text(statement.replace(":", "\\:")))


def url_of(engine: Engine) -> str:
    url = engine.url.render_as_string(hide_password=False)
    return url.replace("+pysqlite", "").replace("+psycopg", "")


def test_mail_of_an_earlier_version_is_found_before_and_after_its_upgrade(engine: Engine) -> None:
    url = url_of(engine)
    assert migrate.upgrade(url) == ("0007", SCHEMA_REVISION)
    # an earlier version goes on beside this one
    accept(engine, "1M80000000000ZZZ1")
    ended(engine, "1M80000000000ZZZ1", "250 Ok: queued as AB12CD34", state="delivered", after_ms=9)
    store = open_store(url)
    try:

        def found(query: str) -> list[str]:
            return [one.queue_id for one in store.find.find(parse_find(query), limit=9).entries]

        assert found("4711") == found("b@cust") == ["1M80000000000ZZZ1"]
        assert store.find.progress().older_than_ms is not None
        while store.find.index_batch(limit=1):
            pass
        both = ["1M80000000000ZZZ1", "1M80000000000AAA1"]
        assert found("4711") == found("b@cust") == found("") == both
        assert found("ab12cd34") == ["1M80000000000ZZZ1"]
        # what it delivers late is found by the provider's id, too
        ended(engine, "1M80000000000AAA1", "250 Ok EF56AB78", state="delivered", after_ms=9999)
        while store.find.index_batch(limit=1):
            pass
        assert found("ef56ab78") == ["1M80000000000AAA1"]
        assert store.find.progress() == type(store.find.progress())(waiting=0, older_than_ms=None)
    finally:
        store.close()


def test_the_index_of_what_was_put_off_is_made_with_what_was_there(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(text(_TRIED))
    url = url_of(engine)
    assert migrate.upgrade(url) == ("0007", SCHEMA_REVISION)
    with engine.begin() as connection:  # a gateway of an earlier version goes on beside
        connection.execute(text(_TRIED))
    store = open_store(url)
    tried = selected(attempts=frozenset(PUT_OFF), provider="main", since_ms=5)
    found = store.queue.search_ids(tried, limit=9)
    failures = store.queue.failures(5, step_ms=9, limit=9)
    store.close()
    assert found == ["1M80000000000AAA1"]
    assert [one.reply for one in failures.put_off] == ["451 wait"]


def test_the_index_of_rare_outcomes_is_made_with_what_was_there(engine: Engine) -> None:
    ended(engine, "1M80000000000AAA1", "550 no", state="bounced", after_ms=5)
    url = url_of(engine)
    migrate.upgrade(url)
    store = open_store(url)
    page = store.find.find(parse_find("is:bounced"), limit=9)
    store.close()
    assert [one.queue_id for one in page.entries] == ["1M80000000000AAA1"]


@pytest.mark.parametrize("name", ["recipient_outcome", "attempt_put_off"])
def test_an_index_that_was_cut_short_is_made_by_the_next_upgrade(
    postgres_url: str, name: str
) -> None:
    migrate.upgrade(postgres_url)
    index = f"to_regclass('{name}')"
    states = []
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        for change in (
            f"UPDATE pg_index SET indisvalid = false WHERE indexrelid = {index}",
            f"DROP INDEX {name}",
        ):
            connection.execute(change.encode())
            assert migrate.upgrade(postgres_url) == (SCHEMA_REVISION, SCHEMA_REVISION)
            state = "SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass(%s)"
            states += connection.execute(state, (name,)).fetchall()
    assert states == [(True,), (True,)]
