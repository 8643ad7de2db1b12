"""The benchmarks' PostgreSQL server outlives its restarts, and its queue can be looked at."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from bench.rig.postgres import PostgresServer, rows_of
from bench.rig.queue_fates import ask, read_fates, wait_until_drained

PATIENCE_S = 90.0


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with PostgresServer() as running:
        yield running


@pytest.mark.parametrize("immediately", [False, True], ids=["fast", "immediate"])
def test_data_and_port_outlive_a_restart(server: PostgresServer, immediately: bool) -> None:
    table = f"kept_{int(immediately)}"
    rows_of(server.url, f"CREATE TABLE {table} AS SELECT 7 AS x", patience_s=PATIENCE_S)
    stopped_s, back_s = server.restart(immediately=immediately)
    assert 0 < back_s - stopped_s < PATIENCE_S
    assert ask(server.url, f"SELECT x FROM {table}") == [["7"]]


def test_the_queue_of_a_new_server_is_empty(server: PostgresServer) -> None:
    assert read_fates(server.url) == {}
    assert wait_until_drained(server.url, patience_s=PATIENCE_S)


def test_a_field_with_lines_and_quotes_and_a_null_are_read_whole(server: PostgresServer) -> None:
    assert ask(server.url, """SELECT E'a "b",\nc', NULL, 1""") == [['a "b",\nc', "", "1"]]
