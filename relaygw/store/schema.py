"""What tables are made of, and all of them as one: to compare with what migrations/ builds."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from sqlalchemy import BigInteger, Column, Index, Integer, MetaData, Table, Text, TextClause, text
from sqlalchemy.sql.elements import ColumnElement
from sqlalchemy.sql.schema import SchemaItem

SCHEMA_REVISION = "0013"  # the alembic revision that this code reads and writes

metadata = MetaData()


def table(name: str, *items: SchemaItem, **options: Any) -> Table:
    """Return a table that all know."""
    return Table(name, metadata, *items, **options)


def key(name: str, kind: Any = Text) -> Column[Any]:
    """Return a column of the primary key."""
    return Column(name, kind, primary_key=True)


def columns(kind: Any, names: str, *, null: bool = False) -> list[Column[Any]]:
    """Return columns of one kind; `null`: they may be."""
    return [Column(name, kind, nullable=null) for name in names.split()]


_partial_indexes: list[Callable[[], Index]] = []


def partial_index(
    name: str, *over: Column[Any], where: ColumnElement[bool] | TextClause, unique: bool = False
) -> None:
    """Note an index over the rows for which a condition holds, on both databases."""
    if isinstance(where, TextClause):  # without the table's name, as SQLite wants it
        where = text(where.text.replace(f"{over[0].table.name}.", ""))
    make = partial(Index, name, *over, unique=unique)
    _partial_indexes.append(partial(make, sqlite_where=where, postgresql_where=where))


def whole_metadata() -> MetaData:
    """Return `metadata` with its partial indexes, whose dialects cost 3 MiB: to compare schemas."""
    import relaygw.store.feedback_tables
    import relaygw.store.guard_tables
    import relaygw.store.tables  # noqa: F401 - they add their tables

    while _partial_indexes:
        _partial_indexes.pop()()
    return metadata


Number = BigInteger().with_variant(Integer, "sqlite")  # SQLite numbers INTEGER keys only
