"""Statements of the hot path: many rows at once, straight to the driver.

Each step of a statement in the driver gives the interpreter lock away and must win it back from
the event loop. Row by row, a batch of ten messages held the queue's write lock for
milliseconds; here a batch is one step for each table (docs/decisions/0006).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from itertools import chain
from typing import Any

from relaygw.store.database import Transaction

MAX_ROWS = 50
"""Rows of one statement: keeps the texts few and under every driver's limit of parameters."""

_WORDS = {
    "qmark": {"?": "?", "for_update": "", "key_share": "", "skip_locked": ""},
    "pyformat": {
        "?": "$",  # numbered: the raw cursor of the driver takes what the server takes
        "for_update": "FOR UPDATE",
        "key_share": "FOR KEY SHARE",
        "skip_locked": "FOR UPDATE SKIP LOCKED",
    },
}
"""What stands for `{?}` and the like, by the driver's style of parameters: SQLite has one writer
and needs no row locks."""

Row = tuple[Any, ...]


def _spelled(sql: str, style: str) -> str:
    words = _WORDS[style]
    for word in ("for_update", "key_share", "skip_locked"):
        sql = sql.replace(f"{{{word}}}", words[word])
    if words["?"] != "$":
        return sql.replace("{?}", words["?"])
    first, *rest = sql.split("{?}")
    return first + "".join(f"${number}{part}" for number, part in enumerate(rest, 1))


class Statement:
    """SQL in which `{?}` stands for a parameter, in the way of every driver.

    `{for_update}`, `{key_share}` and `{skip_locked}` lock the rows of a query where several may
    write at once.
    """

    def __init__(self, sql: str) -> None:
        self._sql = sql
        self._text = cache(self._build_text)

    def fetch(self, tx: Transaction, *parameters: Any) -> list[Row]:
        """Execute in a transaction and return the rows as plain tuples."""
        cursor = tx.cursor()
        cursor.execute(self._text(tx.connection.dialect.paramstyle), parameters)
        rows: list[Row] = cursor.fetchall()
        return rows

    def run(self, tx: Transaction, *parameters: Any) -> int:
        """Execute in a transaction; return how many rows changed."""
        cursor = tx.cursor()
        cursor.execute(self._text(tx.connection.dialect.paramstyle), parameters)
        changed: int = cursor.rowcount
        return changed

    def text(self) -> str:
        """Return the statement as SQLite takes it."""
        return self._text("qmark")

    def _build_text(self, style: str) -> str:
        return _spelled(self._sql, style)


class BatchStatement:
    """SQL with `{rows}` where the rows of a VALUES list go; `columns` of them in each row.

    Within the statement the columns of the list are column1, column2, ... on every database.
    `{?}` stands for a parameter of the whole statement; they follow the rows in `last`.
    """

    def __init__(self, sql: str, *, columns: int, constants: Sequence[str] = ()) -> None:
        self._sql = sql
        self._columns = columns
        self._constants = constants
        self._text = cache(self._build_text)

    def run(self, tx: Transaction, rows: Sequence[Row], *last: Any) -> int:
        """Execute for all `rows`, in as few steps as MAX_ROWS allows; return how many changed."""
        return sum(
            self._execute(tx, rows[start : start + MAX_ROWS], last).rowcount
            for start in range(0, len(rows), MAX_ROWS)
        )

    def fetch(self, tx: Transaction, rows: Sequence[Row], *last: Any) -> list[Row]:
        """Execute a query for all `rows` and return what it found, in no order."""
        found: list[Row] = []
        for start in range(0, len(rows), MAX_ROWS):
            found += self._execute(tx, rows[start : start + MAX_ROWS], last).fetchall()
        return found

    def _execute(self, tx: Transaction, rows: Sequence[Row], last: Row) -> Any:
        text = self._text(len(rows), tx.connection.dialect.paramstyle)
        cursor = tx.cursor()
        cursor.execute(text, (*chain.from_iterable(rows), *last))
        return cursor

    def text(self, count: int) -> str:
        """Return the statement for `count` rows as SQLite takes it."""
        return self._text(count, "qmark")

    def _build_text(self, count: int, style: str) -> str:
        row = f"({', '.join([*['{?}'] * self._columns, *self._constants])})"
        return _spelled(self._sql.replace("{rows}", ", ".join([row] * count)), style)


def insert_into(table: str, *columns: str, **constants: int) -> BatchStatement:
    """Return a statement that inserts rows of these columns; the others are left null.

    `constants` are the same in each row.
    """
    names = ", ".join((*columns, *constants))
    return BatchStatement(
        f"INSERT INTO {table} ({names}) VALUES {{rows}}",
        columns=len(columns),
        constants=tuple(map(str, constants.values())),
    )
