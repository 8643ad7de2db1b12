"""Reading what can be read of a damaged SQLite queue, row by row around the broken pages.

A b-tree is read from both ends up to the first page that cannot be read; between them each key that
another table knows is looked up by itself.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Table

from relaygw.store.log_check import DriverError
from relaygw.store.queue_tables import chunk, delivery, message, recipient

Row = dict[str, Any]
_ROWIDS_A_GAP = 1_000_000  # looked up one by one; more are not between two rows that can be read


@dataclass(slots=True)
class Salvaged:
    """What is left of one message; `missing` says what is not."""

    queue_id: str
    message: Row | None = None
    deliveries: list[Row] = field(default_factory=list)
    recipients: list[Row] = field(default_factory=list)
    content: list[bytes] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)


class DamagedQueue:
    """The messages of a database of which parts cannot be read."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._columns = {
            table.name: self._columns_of(table) for table in (message, delivery, recipient, chunk)
        }
        self._rowids: dict[tuple[str, int], int] | None = None
        self._has_damage = False
        self.has_all_envelopes = False
        """True once `queue_ids` has read the envelopes of all messages."""

    def queue_ids(self) -> list[str]:
        """Return the ids of all messages that anything is known of, oldest first."""
        self._has_damage = False
        found = set(self._ids_from_one_end("message", ""))
        self.has_all_envelopes = not self._has_damage
        for table in (message, delivery, recipient, chunk):
            for order in ("", " DESC"):
                found.update(self._ids_from_one_end(table.name, order))
        found.update(queue_id for queue_id, _ in self._chunk_rowids())
        return sorted(queue_id for queue_id in found if isinstance(queue_id, str))

    def read(self, queue_id: str) -> Salvaged:
        """Read a message as far as that goes."""
        left = Salvaged(queue_id)
        left.deliveries = self._parts(delivery, queue_id, left)
        left.recipients = self._parts(recipient, queue_id, left)
        rows = self._parts(message, queue_id, left)
        left.message = rows[0] if rows else None
        if left.message is None:
            numbers = sorted(number for owner, number in self._chunk_rowids() if owner == queue_id)
            left.content = list(self._chunks(queue_id, numbers))
            left.missing.append("its envelope")
            return left
        self._read_content(left, left.message)
        self._compare(left)
        return left

    def rows(self, table: Table) -> Iterator[Row]:
        """Yield the rows of a table that can be read, from both ends of the damage."""
        columns = self._columns_of(table)
        seen: set[Any] = set()
        for order in ("", " DESC"):
            for row in self._rows_from_one_end(table, columns, order):
                key = tuple(row.get(column.name) for column in table.primary_key)
                if key in seen:
                    if order:
                        return
                    continue
                seen.add(key)
                yield row

    # --- one message ---------------------------------------------------------------------

    def _read_content(self, left: Salvaged, row: Row) -> None:
        count, size_bytes = row["chunk_count"], row["size_bytes"]
        if not isinstance(count, int) or not isinstance(size_bytes, int):
            left.missing.append("its envelope")
            return
        left.content = list(self._chunks(left.queue_id, range(count)))
        size = sum(map(len, left.content))
        if count and (len(left.content) < count or size != size_bytes):
            left.missing.append(f"{max(0, size_bytes - size)} of {size_bytes} bytes of its content")

    def _compare(self, left: Salvaged) -> None:
        known = {row["delivery_no"] for row in left.deliveries}
        needed = {row["delivery_no"] for row in left.recipients}
        numbers = [row["rcpt_no"] for row in left.recipients]
        if not left.recipients or numbers != list(range(len(numbers))) or known - needed:
            left.missing.append("recipients")
        if needed - known or not known:
            left.missing.append("what became of it")

    def _parts(self, table: Table, queue_id: str, left: Salvaged) -> list[Row]:
        columns = self._columns[table.name]
        sql = f"SELECT {', '.join(columns)} FROM {table.name} WHERE queue_id = ?"
        rows: list[Row] = []
        try:
            found = self._connection.execute(f"{sql} ORDER BY 1, 2", (queue_id,))
            rows.extend(dict(zip(columns, values, strict=True)) for values in found)
        except DriverError as error:
            left.missing.append(f"rows of {table.name} ({error})")
        return rows

    def _chunks(self, queue_id: str, numbers: Collection[int]) -> Iterator[bytes]:
        for number in numbers:
            body = self._chunk(queue_id, number)
            if body is not None:
                yield body

    def _chunk(self, queue_id: str, number: int) -> bytes | None:
        sql = "SELECT body FROM chunk WHERE queue_id = ? AND chunk_no = ?"
        body = self._one(sql, queue_id, number)
        if body is None:
            rowid = self._chunk_rowids().get((queue_id, number))
            body = self._one("SELECT body FROM chunk NOT INDEXED WHERE rowid = ?", rowid)
        return body if isinstance(body, bytes) else None

    def _one(self, sql: str, *parameters: Any) -> Any:
        try:
            rows = self._connection.execute(sql, parameters).fetchall()
        except DriverError:
            return None
        return rows[0][0] if rows else None

    def _chunk_rowids(self) -> dict[tuple[str, int], int]:
        """Return where pieces of content lie, as far as they are readable by their row."""
        if self._rowids is None:
            self._rowids = {
                (queue_id, number): rowid
                for rowid, queue_id, number in self._by_rowid("chunk", "queue_id, chunk_no")
            }
        return self._rowids

    # --- tables --------------------------------------------------------------------------

    def _columns_of(self, table: Table) -> list[str]:
        rows = self._connection.execute(f"PRAGMA table_info({table.name})").fetchall()
        known = {row[1] for row in rows}
        return [column.name for column in table.columns if column.name in known]

    def _ids_from_one_end(self, table: str, order: str) -> Iterator[str]:
        sql = f"SELECT queue_id FROM {table} ORDER BY queue_id{order}"
        yield from (row[0] for row in self._until_damage(sql))

    def _rows_from_one_end(self, table: Table, columns: list[str], order: str) -> Iterator[Row]:
        keys = ", ".join(f"{column.name}{order}" for column in table.primary_key)
        sql = f"SELECT {', '.join(columns)} FROM {table.name} ORDER BY {keys}"
        for values in self._until_damage(sql):
            yield dict(zip(columns, values, strict=True))

    def _until_damage(self, sql: str, *parameters: Any) -> Iterator[Any]:
        try:
            cursor = self._connection.execute(sql, parameters)
            while rows := cursor.fetchmany(1):
                yield rows[0]
        except DriverError:
            self._has_damage = True

    def _by_rowid(self, table: str, columns: str) -> Iterator[Any]:
        sql = f"SELECT rowid, {columns} FROM {table} NOT INDEXED"
        low, high = 0, None
        for row in self._until_damage(f"{sql} ORDER BY rowid"):
            low = row[0]
            yield row
        for row in self._until_damage(f"{sql} WHERE rowid > ? ORDER BY rowid DESC", low):
            high = row[0]
            yield row
        if high is not None and high - low <= _ROWIDS_A_GAP:
            for rowid in range(low + 1, high):
                yield from self._until_damage(f"{sql} WHERE rowid = ?", rowid)
