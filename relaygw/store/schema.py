"""What tables and their conditions are made of on both databases.

The tables are in `queue_tables` and `side_tables`. A test compares the whole with what migrations/
builds.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Iterator
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

REVISION = re.compile("(?!0000)[0-9]{4}")  # the form of all revisions
SCHEMA_REVISION = "0015"  # the alembic revision that this code reads and writes

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


partial_indexes: list[partial[Index]] = []


def partial_index(
    name: str, *over: Column[Any], where: ColumnElement[bool] | TextClause, unique: bool = False
) -> None:
    """Note an index over the rows for which a condition holds, on both databases."""
    if isinstance(where, TextClause):  # without the table's name, as SQLite wants it
        where = text(where.text.replace(f"{over[0].table.name}.", ""))
    make = partial(Index, name, *over, unique=unique)
    partial_indexes.append(partial(make, sqlite_where=where, postgresql_where=where))


def index_names() -> Iterator[str]:
    """Yield the names of all indexes; those over some rows alone need not be made for it."""
    yield from (str(index.name) for table in metadata.tables.values() for index in table.indexes)
    yield from (make.args[0] for make in partial_indexes)


PARTS = {  # names of tables with each of their columns, and names of indexes
    "sqlite": """
        SELECT m.name, p.name FROM sqlite_master AS m LEFT JOIN pragma_table_info(m.name) AS p
        WHERE m.type IN ('table', 'index') AND coalesce(m.sql, '') NOT LIKE 'CREATE VIRTUAL%'
    """,
    "postgresql": """
        SELECT c.relname, a.attname FROM pg_class AS c JOIN pg_class AS known
            ON known.oid = to_regclass('alembic_version') AND c.relnamespace = known.relnamespace
        LEFT JOIN pg_attribute AS a ON a.attrelid = c.oid AND NOT a.attisdropped
        WHERE c.relkind IN ('r', 'p', 'i')
    """,
}


def missing_parts(parts: Iterable[Any], *, beside: Container[str] = ()) -> list[str]:
    """Return which tables, columns and indexes lack where there are these `PARTS`.

    Of indexes not those named in `beside`.
    """
    there = {tuple(part) for part in parts}
    names = {name for name, _ in there}
    columns = (
        column for it in metadata.tables.values() if it.name in names for column in it.columns
    )
    return [
        *(f"table {name}" for name in metadata.tables if name not in names),
        *(
            f"column {column}"
            for column in columns
            if (column.table.name, column.name) not in there
        ),
        *(
            f"index {index_name}"
            for index_name in index_names()
            if index_name not in names and index_name not in beside
        ),
    ]


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
