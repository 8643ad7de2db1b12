"""Where a text stands in a column, whatever the case of its letters.

SQLite's own functions know the case of ASCII alone. For other letters each row goes through
Python, which is some tenths of a second for 100,000 subjects; a text that is ASCII, as nearly all
are, does not wait for that.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Text, func
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.elements import ColumnElement
from sqlalchemy.sql.functions import FunctionElement

_NAME = "relaygw_lower"


class _Lower(FunctionElement[str]):
    """A text in small letters of every alphabet."""

    type = Text()
    inherit_cache = True
    name = "lower"


@compiles(_Lower)
def _lower(element: _Lower, compiler: SQLCompiler, **more: Any) -> str:
    return f"lower({compiler.process(element.clauses, **more)})"


@compiles(_Lower, "sqlite")
def _lower_by_python(element: _Lower, compiler: SQLCompiler, **more: Any) -> str:
    return f"{_NAME}({compiler.process(element.clauses, **more)})"


def add_to_sqlite(connection: Any) -> None:
    """Let a connection of SQLite's driver know the case of all letters."""

    def lower(text: str | None) -> str | None:
        return None if text is None else text.lower()

    connection.create_function(_NAME, 1, lower, deterministic=True)


def has_text(column: ColumnElement[Any], part: str) -> ColumnElement[bool]:
    """Return that `part` stands somewhere in a column of text."""
    lowered = func.lower(column) if part.isascii() else _Lower(column)
    return lowered.contains(part.lower(), autoescape=True)
