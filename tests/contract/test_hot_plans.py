"""What is asked all the time looks rows up, however long the queue is, and locks rows alone."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, event

from relaygw.mail.clock import clock_ms
from relaygw.mail.queue_id import first_id_at
from relaygw.mail.search import parse_find
from relaygw.store.all_tables import whole_metadata
from relaygw.store.database import BatchStatement, Statement, Transaction
from relaygw.store.selection import Selection
from relaygw.store.store import Store, open_store
from tests.builders import NOW_MS, accepted, instance, taken, update_of
from tests.queues import EmptyQueues, make_queue

ROWS, DUE = 100_000, 100
HOT = ("message", "delivery", "recipient")
# a day; what has lost its message is looked for each hour, in all content
AGES_MS = dict.fromkeys(("finished", "deleted", "captured"), 86_400_000)
OLD = 50  # rows that are to be purged
YOUNG = first_id_at(clock_ms() - 3_600_000)[:8]  # begins the ids of the others
GIVEN = {
    "sender": "'a@shop.test'",
    "accepted_at_ms": f"{NOW_MS} - {ROWS} + n",
    "due_at_ms": f"{NOW_MS} - {ROWS} + n",
    "changed_at_ms": f"{NOW_MS} - {ROWS} + n",
    "finished_at_ms": f"CASE WHEN n > {DUE} THEN {NOW_MS} - {ROWS} + n END",
    "route": "'default'",
    "client_key": "'c' || n % 7",
    "address": "'b' || n || '@cust.test'",
    "delivery_no": "0",
    "rcpt_no": "0",
}
STATES = {
    "delivery": f"CASE WHEN n > {DUE} THEN 'finished' WHEN n % 2 = 0 THEN 'incoming' "
    "ELSE 'deferred' END",
    "recipient": f"CASE WHEN n > {DUE} THEN 'delivered' ELSE 'pending' END",
}


def filling(name: str, numbers: str, zeros: str) -> str:
    """Return the statement that fills a table: a row for each number, of which few are due."""
    prefix = f"CASE WHEN n > {ROWS - OLD} THEN '1AAAAAAA' ELSE '{YOUNG}' END"
    values = {"queue_id": f"{prefix} || {zeros}"}
    for column in whole_metadata().tables[name].columns:
        if column.name in values or (column.nullable and column.name not in GIVEN):
            continue
        kind = column.type.python_type
        values[column.name] = GIVEN.get(column.name, {str: "''", bool: "false"}.get(kind, "0"))
    if name in STATES:
        values["state"] = STATES[name]
    return f"INSERT INTO {name} ({', '.join(values)}) SELECT {', '.join(values.values())} {numbers}"


SERIES = {
    "sqlite": (
        f"FROM (WITH RECURSIVE s(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM s WHERE n < {ROWS})"
        " SELECT n FROM s)",
        "printf('%06d', n)",
    ),
    "postgresql": (f"FROM generate_series(1, {ROWS}) AS n", "to_char(n, 'FM000000')"),
}


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def long_queue(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """Return the URL of a queue with 100,000 messages, of which 100 are due."""
    with ExitStack() as lent:
        if request.param == "postgresql":
            queues: EmptyQueues = request.getfixturevalue("empty_queues")
            url = lent.enter_context(queues.lend())
        else:
            url = f"sqlite:///{tmp_path_factory.mktemp('plans')}/queue.db"
            make_queue(url)
        store = open_store(url)
        with store.database.write() as tx:
            for name in HOT:
                filled = filling(name, *SERIES[request.param])
                # the driver of PostgreSQL takes a single one for a parameter
                filled = filled.replace("%", "%%") if tx.is_postgres else filled
                tx.connection.exec_driver_sql(filled)
                if tx.is_postgres:
                    tx.connection.exec_driver_sql(f"ANALYZE {name}")
        store.instances.register(instance("one"))
        store.close()
        yield url


@contextmanager
def explained() -> Iterator[list[str]]:
    """Note how the database goes about each statement that is executed meanwhile."""
    steps: list[str] = []

    def explain(connection: Connection, cursor: Any, sql: str, parameters: Any) -> None:
        if not re.search(rf"\b({'|'.join(HOT)})\b", sql) or "search_todo" in sql:
            return
        words = "EXPLAIN " if connection.dialect.name == "postgresql" else "EXPLAIN QUERY PLAN "
        cursor.execute(words + sql, parameters)
        steps.append(" ".join(sql.split()))
        steps.extend(f"    {row[-1]}" for row in cursor.fetchall())

    def of_sqlalchemy(
        connection: Connection, _: object, sql: str, parameters: Any, __: object, many: bool
    ) -> None:
        if sql.lstrip().startswith(("SELECT", "WITH", "INSERT", "UPDATE", "DELETE")):
            cursor = connection.connection.cursor()
            explain(connection, cursor, sql, parameters[0] if many else parameters)

    def noting(method: Callable[..., Any], text: Callable[..., tuple[str, Any]]) -> Any:
        def noted(statement: Any, tx: Transaction, *given: Any) -> Any:
            explain(tx.connection, tx.cursor(), *text(statement, tx, *given))
            return method(statement, tx, *given)

        return noted

    def of_one(statement: Statement, tx: Transaction, *given: Any) -> tuple[str, Any]:
        return statement.text(tx.connection.dialect.paramstyle), given

    def of_batch(statement: BatchStatement, tx: Transaction, rows: Any, last: Any) -> Any:
        text = statement.text(len(rows), tx.connection.dialect.paramstyle)
        return text, (*(value for row in rows for value in row), *last)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Statement, "fetch", noting(Statement.fetch, of_one))
        patch.setattr(Statement, "fetch_named", noting(Statement.fetch_named, of_one))
        patch.setattr(Statement, "run", noting(Statement.run, of_one))
        patch.setattr(BatchStatement, "execute", noting(BatchStatement.execute, of_batch))
        event.listen(Engine, "before_cursor_execute", of_sqlalchemy)
        try:
            yield steps
        finally:
            event.remove(Engine, "before_cursor_execute", of_sqlalchemy)


def claim(store: Store, limit: int = 9) -> list[Any]:
    return store.leases.claim("default", limit=limit, incarnation="one", now_ms=NOW_MS)


def record(store: Store, leased: list[Any]) -> None:
    updates = [
        update_of(one.queue_id, delivery_no=one.delivery_no, recipients=(taken(0),))
        for one in leased
    ]
    assert updates
    recorded = store.leases.record_batch(updates, incarnation="one", now_ms=NOW_MS)
    assert not recorded.lost


def give_back(store: Store) -> None:
    keys = [(one.queue_id, one.delivery_no) for one in claim(store)]
    store.leases.give_back(keys, incarnation="one")


def take_permits(store: Store) -> None:
    assert store.limits.acquire_permits("main", wanted=2, limit=5, incarnation="one") == 2
    store.limits.take_tokens("main", wanted=5, per_s=10.0)
    store.limits.use_quota("main", wanted=5, quota=100)


VERBS: dict[str, Callable[[Store], object]] = {
    "accept": lambda store: store.intake.accept_batch([accepted(), accepted()]),
    "claim": claim,
    "record": lambda store: record(store, claim(store)),
    "give back": give_back,
    "heartbeat": lambda store: store.instances.heartbeat("one"),
    "next due": lambda store: store.leases.next_due_at_ms("default"),
    "routes": lambda store: store.leases.routes_waiting(),
    "permits": take_permits,
    "purge": lambda store: store.janitor.purge(AGES_MS, limit=50),
    "shed": lambda store: store.janitor.shed_content(86_400_000),
    "restart": lambda store: store.janitor.restart_waits(limit=50),
    "held": lambda store: store.holds.held_mail(),
    "page": lambda store: store.queue.search(Selection(), limit=50),
    "waiting": lambda store: store.queue.waiting(limit=50),
    "counts": lambda store: store.queue.counts(),
    "find": lambda store: store.find.find(parse_find("b7@cust.test"), limit=50),
    "find waiting": lambda store: store.find.find(parse_find("is:waiting"), limit=50),
}
LOCKS = "SELECT locktype, mode FROM pg_locks WHERE pid = pg_backend_pid()"
SCAN = re.compile(rf"\bSCAN ({'|'.join(HOT)})$|Seq Scan on ({'|'.join(HOT)})\b")


def test_no_table_is_read_as_a_whole(long_queue: str) -> None:
    found: list[str] = []
    with closing(open_store(long_queue)) as store:
        for name, verb in VERBS.items():
            with explained() as steps:
                verb(store)
            assert steps or name in ("heartbeat", "permits"), name
            if any(SCAN.search(one) for one in steps):
                found += [f"--- {name}", *steps]
    assert not found, "\n".join(found)


def test_a_claim_and_a_record_lock_rows_and_keep_nobody_waiting(queue_url: str) -> None:
    store, other = open_store(queue_url), open_store(queue_url)
    store.instances.register(instance("one"))
    store.intake.accept_batch([accepted() for _ in range(4)])
    locks: set[tuple[str, str]] = set()
    meanwhile: list[Any] = []

    is_others_turn = False

    def look(connection: Connection) -> None:
        nonlocal is_others_turn
        if is_others_turn:
            return
        locks.update(map(tuple, connection.exec_driver_sql(LOCKS).all()))
        if not meanwhile:
            is_others_turn = True
            meanwhile.extend(claim(other))
            is_others_turn = False

    event.listen(Engine, "commit", look)
    try:
        taken_first = claim(store, limit=2)
        record(store, taken_first)
    finally:
        event.remove(Engine, "commit", look)
        store.close()
        other.close()
    first, second = ({one.queue_id for one in some} for some in (taken_first, meanwhile))
    assert (len(first), len(second), first & second) == (2, 2, set())
    assert {mode for kind, mode in locks if kind == "relation"} == {
        "AccessShareLock",
        "RowShareLock",
        "RowExclusiveLock",
    }
    assert {kind for kind, _ in locks} <= {"relation", "virtualxid", "transactionid"}


def test_a_table_that_is_read_as_a_whole_is_seen(long_queue: str) -> None:
    everything = Statement("SELECT count(*) FROM message WHERE sender = {?}")
    with (
        closing(open_store(long_queue)) as store,
        store.database.read() as tx,
        explained() as steps,
    ):
        everything.fetch(tx, "x")
    assert any(SCAN.search(one) for one in steps), steps
