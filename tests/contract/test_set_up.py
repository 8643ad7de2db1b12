"""The schema of a queue on PostgreSQL: made once in an empty database, never in another's."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from relaygw.errors import SchemaMismatch
from relaygw.store.database import Place
from relaygw.store.migrate import check_schema, set_up_if_empty
from tests.postgres import PostgresServer


def test_of_several_who_find_it_empty_one_makes_the_schema(postgres_url: str) -> None:
    place = Place.of(postgres_url)
    with ThreadPoolExecutor(max_workers=3) as pool:
        assert sorted(pool.map(set_up_if_empty, [place] * 3)) == [False, False, True]
    check_schema(place)
    assert set_up_if_empty(place) is False


def relations(postgres: PostgresServer, url: str) -> list[tuple[object, ...]]:
    return postgres.execute("SELECT oid, relname FROM pg_class ORDER BY 1", url)


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("CREATE TABLE orders (id int)", "public.orders"),
        ("CREATE TABLE alembic_version AS SELECT '0001' AS version_num", "has schema 0001"),
    ],
    ids=["another's", "older"],
)
def test_where_something_is_nothing_is_made(
    postgres: PostgresServer, postgres_url: str, statement: str, said: str
) -> None:
    postgres.execute(statement, postgres_url)
    before = relations(postgres, postgres_url)
    with pytest.raises(SchemaMismatch, match=said):
        set_up_if_empty(Place.of(postgres_url))
    assert relations(postgres, postgres_url) == before
