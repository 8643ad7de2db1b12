"""Times between a machine and the database that it shares with others."""

from __future__ import annotations

import inspect
import types

import pytest
from sqlalchemy import create_engine

from relaygw.store.database import Database, Repository, Transaction
from relaygw.store.postgres import PostgresDatabase
from tests.altered_store import REPOSITORIES

HOUR_MS = 3_600_000
TIME_MS = 1_795_600_000_000
NOWHERE = "postgresql://nobody@127.0.0.1:1/none"


@pytest.mark.parametrize("ahead_ms", [HOUR_MS, -HOUR_MS], ids=["ahead", "behind"])
def test_times_are_moved_and_what_is_not_set_stays_so(ahead_ms: int) -> None:
    with create_engine("sqlite://").connect() as connection:
        tx = Transaction(connection, lambda _: 0, ahead_ms)
    assert tx.to_stored(TIME_MS) == TIME_MS + ahead_ms
    assert tx.to_local(TIME_MS + ahead_ms) == TIME_MS
    assert (tx.to_stored(None), tx.to_local(None)) == (None, None)
    assert (tx.to_stored(0), tx.to_local(0)) == (0, 0)


@pytest.mark.parametrize("repository", REPOSITORIES.values(), ids=REPOSITORIES)
def test_a_repository_is_small_and_each_verb_says_what_it_does(
    repository: type[Repository],
) -> None:
    assert issubclass(repository, Repository)
    verbs = {
        name: member
        for name, member in vars(repository).items()
        if inspect.isfunction(member) and not name.startswith("_")
    }
    assert 0 < len(verbs) <= 14
    assert [name for name, verb in verbs.items() if not verb.__doc__] == []


def test_there_are_two_dialects() -> None:
    assert {one.__name__ for one in Database.__subclasses__() if "relaygw" in one.__module__} == {
        "SqliteDatabase",
        "PostgresDatabase",
    }


def test_a_clock_that_is_set_between_two_heartbeats_moves_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The own clock is set; the database's time is what it was."""
    clock = types.SimpleNamespace(here_ms=TIME_MS, awake_ms=5_000)
    database = PostgresDatabase(NOWHERE, here_ms=lambda: clock.here_ms)
    monkeypatch.setattr("relaygw.store.postgres._awake_ms", lambda: clock.awake_ms)
    database._measured = (60_000, TIME_MS - 5_000)
    assert database.clock_ms() - clock.here_ms == 60_000
    clock.here_ms += 3_000
    clock.awake_ms += 3_000
    assert database.clock_ms() - clock.here_ms == 60_000
    clock.here_ms += HOUR_MS
    assert database.clock_ms() - clock.here_ms == 60_000 - HOUR_MS
    clock.here_ms -= 2 * HOUR_MS
    assert database.clock_ms() - clock.here_ms == 60_000 + HOUR_MS
