"""Statements for the history: counts in slices of five minutes."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from sqlalchemy import Connection, delete, func, select

from relaygw.store.batch import BatchStatement
from relaygw.store.tables import history
from relaygw.store.watching import HISTORY_SLICE_MS, Count, HistoryPoint

_DAY_MS = 86_400_000

_ADD = BatchStatement(
    """
    INSERT INTO history (slice_at_ms, series, label, amount) VALUES {rows}
    ON CONFLICT (slice_at_ms, series, label)
    DO UPDATE SET amount = history.amount + excluded.amount
    """,
    columns=4,
)
_RAISE = BatchStatement(
    """
    INSERT INTO history (slice_at_ms, series, label, amount) VALUES {rows}
    ON CONFLICT (slice_at_ms, series, label)
    DO UPDATE SET amount = excluded.amount WHERE excluded.amount > history.amount
    """,
    columns=4,
)


def slice_of(at_ms: int) -> int:
    """Return when the slice begins that a time lies in."""
    return at_ms - at_ms % HISTORY_SLICE_MS


def add(connection: Connection, at_ms: int, amounts: Mapping[Count, int]) -> None:
    """Add counts."""
    _ADD.run(connection, _rows(at_ms, amounts))


def keep_greatest(connection: Connection, at_ms: int, amounts: Mapping[Count, int]) -> None:
    """Keep the greatest of gauges."""
    _RAISE.run(connection, _rows(at_ms, amounts))


def _rows(at_ms: int, amounts: Mapping[Count, int]) -> list[tuple[int, str, str, int]]:
    slice_at_ms = slice_of(at_ms)
    # in one order everywhere: instances that add to the same rows never wait for each other
    return [(slice_at_ms, *count, amount) for count, amount in sorted(amounts.items())]


def points(connection: Connection, since_ms: int, series: Collection[str]) -> list[HistoryPoint]:
    """Return counts by slice, series and label."""
    query = select(history).where(history.c.slice_at_ms >= slice_of(since_ms))
    if series:
        query = query.where(history.c.series.in_(series))
    rows = connection.execute(
        query.order_by(history.c.slice_at_ms, history.c.series, history.c.label)
    )
    return [HistoryPoint(**row._mapping) for row in rows]


def oldest(connection: Connection) -> int | None:
    """Return when the oldest slice begins."""
    found: int | None = connection.execute(select(func.min(history.c.slice_at_ms))).scalar()
    return found


def forget(connection: Connection, before_ms: int) -> bool:
    """Delete the oldest day of what is before a time; True if more of it is left."""
    first_ms = oldest(connection)
    if first_ms is None or first_ms >= before_ms:
        return False
    step_ms = min(before_ms, first_ms + _DAY_MS)
    connection.execute(delete(history).where(history.c.slice_at_ms < step_ms))
    return step_ms < before_ms
