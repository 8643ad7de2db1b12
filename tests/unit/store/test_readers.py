"""Connections that read a SQLite queue are used again, and closed when the queue is."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from relaygw.store.readers import Readers
from relaygw.store.sqlite import create_sqlite_engine


@pytest.fixture
def readers(tmp_path: Path) -> Iterator[Readers]:
    (tmp_path / "queue.db").touch()
    readers = Readers(create_sqlite_engine(f"sqlite:///{tmp_path}/queue.db", begin=None))
    yield readers
    readers.close()


@pytest.mark.parametrize("is_core", [True, False])
def test_a_connection_is_used_again_outside_of_any_transaction(
    readers: Readers, is_core: bool
) -> None:
    found = []
    for _ in range(2):
        with readers.transaction() as connection:
            raw = connection.connection.dbapi_connection
            assert raw is not None
            if is_core:
                connection.execute(text("SELECT 1")).all()
            found.append(raw)
    assert found[0] is found[1]
    assert not found[0].in_transaction


def test_one_that_failed_is_in_no_transaction_either(readers: Readers) -> None:
    with pytest.raises(ZeroDivisionError), readers.transaction() as connection:
        raw = connection.connection.dbapi_connection
        assert raw is not None and raw.in_transaction
        raise ZeroDivisionError
    assert not raw.in_transaction
    with readers.transaction() as connection:
        assert connection.execute(text("SELECT 2")).scalar() == 2


def test_one_in_use_is_closed_when_it_is_given_back(readers: Readers) -> None:
    with readers.transaction() as connection:
        raw = connection.connection.dbapi_connection
        readers.close()
        assert raw is not None
        assert raw.execute("SELECT 3").fetchone() == (3,)
    with pytest.raises(Exception, match="closed database"):
        raw.execute("SELECT 3")


def test_few_of_many_are_kept(readers: Readers) -> None:
    lent = [readers.transaction() for _ in range(9)]
    raws = [one.__enter__().connection.dbapi_connection for one in lent]
    for one in lent:
        one.__exit__(None, None, None)
    assert len(set(map(id, raws))) == 9
    assert [_is_open(raw) for raw in raws] == [False] * 4 + [True] * 5
    with readers.transaction() as again:
        assert again.connection.dbapi_connection is raws[-1]  # the last used comes first


def _is_open(raw: Any) -> bool:
    try:
        raw.execute("SELECT 1")
    except Exception:
        return False
    return True
