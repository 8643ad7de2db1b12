"""What tables and their conditions are made of on both databases, and all tables as one.

The tables are in `queue_tables` and `side_tables`. A test compares the whole with what migrations/
builds.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    TextClause,
    func,
    text,
)
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.elements import ColumnElement
from sqlalchemy.sql.functions import FunctionElement
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
    import relaygw.store.queue_tables
    import relaygw.store.side_tables  # noqa: F401

    while _partial_indexes:
        _partial_indexes.pop()()
    return metadata


Number = BigInteger().with_variant(Integer, "sqlite")  # SQLite numbers INTEGER keys only

# --- texts in any case --------------------------------------------------------------------

SQLITE_LOWER = "relaygw_lower"  # by Python: SQLite's own knows the case of ASCII alone


class _Lower(FunctionElement[str]):
    """A text in small letters of every alphabet."""

    type = Text()
    inherit_cache = True
    name = "lower"


@compiles(_Lower)
def _lower(element: _Lower, compiler: SQLCompiler, **more: Any) -> str:
    name = SQLITE_LOWER if compiler.dialect.name == "sqlite" else "lower"
    return f"{name}({compiler.process(element.clauses, **more)})"


def has_text(column: ColumnElement[Any], part: str) -> ColumnElement[bool]:
    """Return that `part` stands somewhere in a column of text, whatever the case of its letters.

    ASCII text does not wait for Python, which takes some tenths of a second for 100,000 subjects.
    """
    lowered = func.lower(column) if part.isascii() else _Lower(column)
    return lowered.contains(part.lower(), autoescape=True)
