"""The audit trail: what operators did, and what the settings became."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterator
from typing import Any

from sqlalchemy import Connection, Row, insert, or_, select
from sqlalchemy.sql.elements import ColumnElement

from relaygw.store.batch import Statement
from relaygw.store.commands import Trail
from relaygw.store.letter_case import has_text
from relaygw.store.protocol import AuditEntry
from relaygw.store.tables import audit

_ADD_AFTER = Statement(
    """
    INSERT INTO audit (audit_id, at_ms, actor, action, target, affected, detail)
    VALUES ({?}, {?}, {?}, {?}, {?}, {?}, {?}) ON CONFLICT (audit_id) DO NOTHING
    RETURNING audit_id
    """
)


def add_audit(connection: Connection, entry: AuditEntry, affected: int) -> None:
    """Write what an operator did into the trail."""
    connection.execute(
        insert(audit).values(
            audit_id=secrets.token_hex(8),
            at_ms=entry.at_ms,
            actor=entry.actor,
            action=entry.action,
            target=entry.target,
            affected=affected,
            detail=entry.detail,
        )
    )


def add_after(connection: Connection, entry: AuditEntry, before: AuditEntry) -> bool:
    """Write a line that follows another one; False when that has a follower already."""
    words = "\n".join((entry.action, entry.target, before.detail))
    audit_id = hashlib.sha256(words.encode()).hexdigest()[:16]
    row = (entry.at_ms, entry.actor, entry.action, entry.target, entry.affected, entry.detail)
    return bool(_ADD_AFTER.fetch(connection, audit_id, *row))


def audit_entries(connection: Connection, trail: Trail, *, limit: int) -> list[AuditEntry]:
    """Return the trail, newest first."""
    rows = connection.execute(
        select(audit).where(*_conditions(trail)).order_by(audit.c.at_ms.desc()).limit(limit)
    )
    return [entry_of(row) for row in rows]


def entry_of(row: Row[Any]) -> AuditEntry:
    """Return a row of the table `audit` as others see it."""
    return AuditEntry(
        at_ms=row.at_ms,
        actor=row.actor,
        action=row.action,
        target=row.target,
        affected=row.affected,
        detail=row.detail,
    )


def _conditions(trail: Trail) -> Iterator[ColumnElement[bool]]:
    if trail.since_ms is not None:
        yield audit.c.at_ms >= trail.since_ms
    if trail.actor is not None:
        yield has_text(audit.c.actor, trail.actor)
    if trail.action is not None:
        yield or_(
            audit.c.action == trail.action,
            audit.c.action.startswith(trail.action + ".", autoescape=True),
        )
    if trail.target is not None:
        yield audit.c.target == trail.target
