"""The audit trail: what operators did, and what the settings became."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass

from sqlalchemy import delete, or_, select
from sqlalchemy.sql.elements import ColumnElement

from relaygw.mail.clock import DAY_MS
from relaygw.policy.settings_change import SETTINGS_CHANGE
from relaygw.store.batches import in_batches
from relaygw.store.database import Repository, Row, Statement, Transaction, insert_into
from relaygw.store.schema import has_text
from relaygw.store.side_tables import audit

_ADD = insert_into(
    "audit", "audit_id at_ms actor action target affected detail", on_conflict="DO NOTHING"
)
_LATEST = Statement(
    """
    SELECT * FROM audit WHERE at_ms >= {?} AND action = {?}
    ORDER BY at_ms DESC, audit_id LIMIT {?}
    """
)

AUDIT_DAYS = 400
"""How long a line is kept: a year can be compared with the one before."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEntry:
    """What an operator did."""

    at_ms: int
    actor: str
    action: str
    target: str
    affected: int
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Trail:
    """Which lines of the audit trail: every condition set must hold."""

    since_ms: int | None = None
    until_ms: int | None = None
    actor: str | None = None  # contains it, without regard to case
    action: str | None = None  # is it, or one below it: `queue` matches `queue.delete`
    target: str | None = None  # is it exactly


EVERYTHING_DONE = Trail()


class Audit(Repository):
    """The trail, for those who write into it without any other change, and for readers."""

    def add(self, entry: AuditEntry, *, only_after: AuditEntry | None = None) -> bool:
        """Write a line; with `only_after` one at most follows that: False, another was faster."""
        with self._write() as tx:
            if only_after is None:
                add_audit(tx, entry, entry.affected)
                return True
            words = "\n".join((entry.action, entry.target, only_after.detail))
            audit_id = hashlib.sha256(words.encode()).hexdigest()[:16]
            return _ADD.run(tx, [_row(tx, audit_id, entry, entry.affected)]) > 0

    def entries(
        self, *, limit: int, start: int = 0, trail: Trail = EVERYTHING_DONE
    ) -> list[AuditEntry]:
        """Return the actions of operators, newest first; `start` of them are left out before."""
        order = (audit.c.at_ms.desc(), audit.c.audit_id)
        with self._read() as tx:
            query = select(audit).where(*_conditions(tx, trail)).order_by(*order)
            rows = tx.execute(query.limit(limit).offset(start))
            return [tx.entry(AuditEntry, row, "at_ms") for row in rows]

    def latest(self, action: str, *, since_ms: int, limit: int) -> list[AuditEntry]:
        """Return the actions since a time of exactly this kind, newest first."""
        with self._read() as tx:
            rows = _LATEST.fetch_named(tx, tx.to_stored(since_ms), action, limit)
            return [tx.entry(AuditEntry, row, "at_ms") for row in rows]


def add_audit(tx: Transaction, entry: AuditEntry, affected: int) -> None:
    """Write what an operator did into the trail."""
    _ADD.run(tx, [_row(tx, secrets.token_hex(8), entry, affected)])


def add_audits(tx: Transaction, entries: Sequence[AuditEntry]) -> None:
    """Write several lines."""
    _ADD.run(tx, [_row(tx, secrets.token_hex(8), entry, entry.affected) for entry in entries])


def old_audit(tx: Transaction, *, limit: int) -> list[str]:
    """Return the ids of lines that are older than AUDIT_DAYS, the oldest first."""
    before_ms = tx.now_ms() - AUDIT_DAYS * DAY_MS
    # what the settings are now is known by the latest of theirs
    is_old = (audit.c.at_ms < before_ms) & (audit.c.action != SETTINGS_CHANGE)
    query = select(audit.c.audit_id).where(is_old).order_by(audit.c.at_ms)
    return [audit_id for (audit_id,) in tx.execute(query.limit(limit))]


def forget_audit(tx: Transaction, audit_ids: Sequence[str]) -> None:
    """Delete lines of the trail."""
    for batch in in_batches(audit_ids):
        tx.execute(delete(audit).where(audit.c.audit_id.in_(batch)))


def _row(tx: Transaction, audit_id: str, entry: AuditEntry, affected: int) -> Row:
    at_ms, actor, action, target, _, detail = astuple(entry)
    return (audit_id, tx.to_stored(at_ms), actor, action, target, affected, detail)


def actions_on(tx: Transaction, queue_id: str) -> list[AuditEntry]:
    """Return the actions on a message, oldest first; a line may be about many."""
    named = select(audit).where(audit.c.target.contains(queue_id, autoescape=True))
    rows = tx.execute(named.order_by(audit.c.at_ms, audit.c.audit_id))
    return [tx.entry(AuditEntry, row, "at_ms") for row in rows if queue_id in row.target.split()]


def _conditions(tx: Transaction, trail: Trail) -> Iterator[ColumnElement[bool]]:
    if trail.since_ms is not None:
        yield audit.c.at_ms >= tx.to_stored(trail.since_ms)
    if trail.until_ms is not None:
        yield audit.c.at_ms <= tx.to_stored(trail.until_ms)
    if trail.actor is not None:
        yield has_text(audit.c.actor, trail.actor)
    if trail.action is not None:
        yield or_(
            audit.c.action == trail.action,
            audit.c.action.startswith(trail.action + ".", autoescape=True),
        )
    if trail.target is not None:
        yield audit.c.target == trail.target
