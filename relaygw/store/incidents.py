"""Statements for incidents, and for who has the duty to look after them."""

from __future__ import annotations

import json

from sqlalchemy import Connection, Row, delete, func, or_, select, update

from relaygw.store.batch import BatchStatement, Statement
from relaygw.store.registry import is_alive
from relaygw.store.tables import IS_OPEN, delivery, incident, instance
from relaygw.store.watching import DUTY_S, Incident

_RENEW_MS = 5_000  # a duty is not written again before

# another instance may open the same one at this moment
_OPEN = BatchStatement(
    """
    INSERT INTO incident
        (incident_id, rule, key, summary, remedy, since_ms, told, recovery_told)
    VALUES {rows} ON CONFLICT DO NOTHING
    """,
    columns=8,
)


def open_one(connection: Connection, entry: Incident) -> bool:
    """Insert an incident; False if there is one that is not over."""
    values = (
        entry.incident_id,
        entry.rule,
        entry.key,
        entry.summary,
        entry.remedy,
        entry.since_ms,
        json.dumps(entry.told),
        json.dumps(entry.recovery_told),
    )
    return _OPEN.run(connection, [values]) > 0


def end(connection: Connection, incident_id: str, *, at_ms: int) -> None:
    """Note that an incident is over."""
    connection.execute(
        update(incident)
        .where(incident.c.incident_id == incident_id, incident.c.recovered_at_ms.is_(None))
        .values(recovered_at_ms=at_ms)
    )


def note_told(connection: Connection, incident_id: str, channel: str, *, is_recovery: bool) -> None:
    """Add a channel to those that took a notice."""
    column = incident.c.recovery_told if is_recovery else incident.c.told
    mine = incident.c.incident_id == incident_id
    text = connection.execute(select(column).where(mine).with_for_update()).scalar()
    if text is None:
        return
    told = list(dict.fromkeys([*json.loads(text), channel]))
    connection.execute(update(incident).where(mine).values({column: json.dumps(told)}))


def listed(connection: Connection, since_ms: int) -> list[Incident]:
    """Return incidents that last or ended since, oldest first."""
    rows = connection.execute(
        select(incident)
        .where(or_(incident.c.recovered_at_ms.is_(None), incident.c.recovered_at_ms >= since_ms))
        .order_by(incident.c.since_ms, incident.c.incident_id)
    )
    return [_entry(row) for row in rows]


def _entry(row: Row[tuple[str, ...]]) -> Incident:
    values = dict(row._mapping)
    for name in ("told", "recovery_told"):
        values[name] = tuple(json.loads(values[name]))
    return Incident(**values)


def forget(connection: Connection, before_ms: int) -> None:
    """Delete incidents that were over before a time."""
    connection.execute(delete(incident).where(incident.c.recovered_at_ms < before_ms))


def doubtful(connection: Connection) -> dict[str, int]:
    """Count the open deliveries in doubt by provider."""
    rows = connection.execute(
        select(delivery.c.provider, func.count())
        .where(IS_OPEN, delivery.c.doubts > 0)
        .group_by(delivery.c.provider)
    )
    return {provider or "": number for provider, number in rows}


# --- duties -------------------------------------------------------------------------------

_DUTY = Statement("SELECT incarnation, renewed_at_ms FROM duty WHERE name = {?} {for_update}")
_NEW_DUTY = BatchStatement(
    """
    INSERT INTO duty (name, incarnation, renewed_at_ms) VALUES {rows} ON CONFLICT DO NOTHING
    """,
    columns=3,
)
_TAKE_DUTY = Statement("UPDATE duty SET incarnation = {?}, renewed_at_ms = {?} WHERE name = {?}")


def has_duty(connection: Connection, name: str, incarnation: str, *, now_ms: int) -> bool | None:
    """Tell whether an incarnation has a duty; None: only `take_duty` knows. For a read."""
    found = _look(connection, name)
    if found is None:
        return None
    owner, renewed_at_ms = found
    age_ms = abs(now_ms - renewed_at_ms)  # the clock may have been set back since
    if owner == incarnation:
        return True if age_ms < _RENEW_MS and _is_registered(connection, owner) else None
    return False if age_ms < DUTY_S * 1000 and _is_registered(connection, owner) else None


def take_duty(connection: Connection, name: str, incarnation: str, *, now_ms: int) -> bool:
    """Take a duty that nobody living has, or renew one's own."""
    if not is_alive(connection, incarnation):
        return False
    found = _DUTY.fetch(connection, name)
    if not found:
        return _NEW_DUTY.run(connection, [(name, incarnation, now_ms)]) > 0
    ((owner, renewed_at_ms),) = found
    is_kept = abs(now_ms - renewed_at_ms) < DUTY_S * 1000 and _is_registered(connection, owner)
    if owner != incarnation and is_kept:
        return False
    _TAKE_DUTY.run(connection, incarnation, now_ms, name)
    return True


_LOOK = Statement("SELECT incarnation, renewed_at_ms FROM duty WHERE name = {?}")


def _look(connection: Connection, name: str) -> tuple[str, int] | None:
    found = _LOOK.fetch(connection, name)
    return (found[0][0], found[0][1]) if found else None


def _is_registered(connection: Connection, incarnation: str) -> bool:
    found = select(instance.c.incarnation).where(instance.c.incarnation == incarnation)
    return connection.execute(found).scalar() is not None
