"""`commands.QueueCommands` in SQLAlchemy Core; see there for what each method promises."""

# ruff: noqa: D102 (store.commands documents every method)

from __future__ import annotations

from collections.abc import Collection, Sequence

from relaygw.store import auditing, finding, moving, shaping
from relaygw.store.commands import ShapeCount, ShapeKey, Waiting
from relaygw.store.protocol import AuditEntry, QueueEntry, Selection
from relaygw.store.transactions import Transactions
from relaygw.store.waiting import waiting


class SqlQueueCommands(Transactions):
    """Transactions around the statements of this room."""

    _keep_content: bool

    def waiting(self, *, limit: int, after: str = "") -> list[Waiting]:
        with self._read() as connection:
            return waiting(connection, limit=limit, after=after)

    def search_ids(self, selection: Selection, *, limit: int, after: str = "") -> list[str]:
        with self._read() as connection:
            return finding.search_ids(connection, selection, limit=limit, after=after)

    def entries(self, queue_ids: Sequence[str]) -> list[QueueEntry]:
        with self._read() as connection:
            return finding.entries(connection, queue_ids)

    def taken_drops(self, drop_ids: Sequence[str]) -> set[str]:
        with self._read() as connection:
            return finding.taken_drops(connection, drop_ids)

    def undelete(self, queue_ids: Sequence[str], *, entry: AuditEntry) -> int:
        with self._write() as connection:
            number = moving.undelete(connection, queue_ids, now_ms=entry.at_ms)
            auditing.add_audit(connection, entry, number)
            return number

    def expire(self, queue_ids: Sequence[str], *, reason: str, entry: AuditEntry) -> int:
        with self._write() as connection:
            number = moving.expire(
                connection,
                queue_ids,
                reason=reason,
                now_ms=entry.at_ms,
                keep_content=self._keep_content,
            )
            auditing.add_audit(connection, entry, number)
            return number

    def move(
        self,
        queue_ids: Sequence[str],
        *,
        provider: str,
        ended_reasons: Collection[str],
        is_forced: bool,
        entry: AuditEntry,
    ) -> int:
        with self._write() as connection:
            number = moving.move(
                connection,
                queue_ids,
                provider=provider,
                ended_reasons=ended_reasons,
                is_forced=is_forced,
                now_ms=entry.at_ms,
            )
            auditing.add_audit(connection, entry, number)
            return number

    def shape(
        self, selection: Selection, *, by: ShapeKey, bounds_ms: Sequence[int], now_ms: int
    ) -> list[ShapeCount]:
        with self._read() as connection:
            return shaping.shape(connection, selection, by=by, bounds_ms=bounds_ms, now_ms=now_ms)

    def add_audit(self, entry: AuditEntry, *, only_after: AuditEntry | None = None) -> bool:
        with self._write() as connection:
            if only_after is None:
                auditing.add_audit(connection, entry, entry.affected)
                return True
            return auditing.add_after(connection, entry, only_after)
