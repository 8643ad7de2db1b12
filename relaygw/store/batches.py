"""Long lists of values in statements of a bounded length."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from sqlalchemy import Select
from sqlalchemy.sql.elements import ColumnElement

from relaygw.store.database import Transaction

_IN_LIMIT = 500  # values in one IN list: far below any database's limit


def in_batches(items: Sequence[str], size: int = _IN_LIMIT) -> Iterator[Sequence[str]]:
    """Cut a long list into lists that fit into one statement."""
    for start in range(0, len(items), size):
        yield items[start : start + size]


def rows_in(
    tx: Transaction, query: Select[Any], column: ColumnElement[str], values: Sequence[str]
) -> Iterator[Any]:
    """Yield the rows of a query whose column has one of many values, in batches."""
    for batch in in_batches(values):
        yield from tx.execute(query.where(column.in_(batch)))
