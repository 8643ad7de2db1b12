"""Instances, permits and holds: what processes know of each other."""

from __future__ import annotations

import secrets
from typing import Any

from sqlalchemy import Connection, delete, insert, select, update
from sqlalchemy.sql.elements import ColumnElement

from relaygw.store.batch import BatchStatement, Statement
from relaygw.store.protocol import Hold, Instance
from relaygw.store.tables import hold, instance, permit

Clock = ColumnElement[Any]


# locked against its burial until this transaction ends
_ALIVE = Statement("SELECT 1 FROM instance WHERE incarnation = {?} {key_share}")


def is_alive(connection: Connection, incarnation: str) -> bool:
    """True while the incarnation is registered."""
    return bool(_ALIVE.fetch(connection, incarnation))


_SETTLED = Statement("SELECT 1 FROM instance WHERE incarnation = {?} {for_update}")


def has_ended(connection: Connection, incarnation: str) -> bool:
    """True when the incarnation is not registered any more.

    Locked against all that asks `is_alive`: what a call whose answer was lost still does is over.
    """
    return not _SETTLED.fetch(connection, incarnation)


def register(connection: Connection, entry: Instance, clock: Clock) -> None:
    """Insert an instance with the database's time as its start and first heartbeat."""
    connection.execute(
        insert(instance).values(
            incarnation=entry.incarnation,
            name=entry.name,
            role=entry.role,
            pid=entry.pid,
            version=entry.version,
            fingerprint=entry.fingerprint,
            state=entry.state,
            started_at_ms=clock,
            heartbeat_at_ms=clock,
        )
    )


def heartbeat(connection: Connection, incarnation: str, state: str, clock: Clock) -> bool:
    """Renew; False when the incarnation is unknown."""
    return bool(
        connection.execute(
            update(instance)
            .where(instance.c.incarnation == incarnation)
            .values(heartbeat_at_ms=clock, state=state)
        ).rowcount
    )


def heartbeats(connection: Connection) -> dict[str, int]:
    """Return the last heartbeat of each incarnation."""
    rows = connection.execute(select(instance.c.incarnation, instance.c.heartbeat_at_ms))
    return {row.incarnation: row.heartbeat_at_ms for row in rows}


def instances(connection: Connection) -> list[Instance]:
    """Return all instances by role and age."""
    rows = connection.execute(select(instance).order_by(instance.c.role, instance.c.started_at_ms))
    return [Instance(**row._mapping) for row in rows]


_TAKEN = Statement("SELECT slot FROM permit WHERE limit_group = {?}")
_TAKE = BatchStatement(
    """
    INSERT INTO permit (limit_group, slot, incarnation, leased_at_ms) VALUES {rows}
    ON CONFLICT (limit_group, slot) DO NOTHING
    """,
    columns=4,
)


def acquire_permits(
    connection: Connection,
    limit_group: str,
    *,
    wanted: int,
    limit: int,
    incarnation: str,
    now_ms: int,
) -> int:
    """Take the lowest free slots below the limit, for a living incarnation."""
    if not is_alive(connection, incarnation):
        return 0
    taken = {slot for (slot,) in _TAKEN.fetch(connection, limit_group)}
    room = max(0, limit - len(taken))
    free = [slot for slot in range(limit) if slot not in taken][: min(wanted, room)]
    # another instance may take the same slot at this moment: it is then one less here
    return _TAKE.run(connection, [(limit_group, slot, incarnation, now_ms) for slot in free])


def release_permits(
    connection: Connection, limit_group: str, *, count: int, incarnation: str
) -> None:
    """Give back the highest slots first, so that a lowered limit is reached soonest."""
    if not is_alive(connection, incarnation):
        return
    mine = (permit.c.limit_group == limit_group) & (permit.c.incarnation == incarnation)
    slots = list(
        connection.execute(
            select(permit.c.slot).where(mine).order_by(permit.c.slot.desc()).limit(count)
        ).scalars()
    )
    connection.execute(delete(permit).where(mine, permit.c.slot.in_(slots)))


_OWN_PERMITS = Statement(
    "SELECT count(*) FROM permit WHERE limit_group = {?} AND incarnation = {?}"
)


def permits_held(connection: Connection, limit_group: str, *, incarnation: str) -> int:
    """Count an incarnation's permits: see Store.permits_held."""
    if has_ended(connection, incarnation):
        return 0
    ((count,),) = _OWN_PERMITS.fetch(connection, limit_group, incarnation)
    return int(count)


_HOLDS = Statement(
    """
    SELECT scope, key, reason, remedy, since_ms, probe_at_ms FROM hold
    WHERE released_at_ms IS NULL ORDER BY since_ms
    """
)


def holds(connection: Connection) -> list[Hold]:
    """Return the holds in force, oldest first."""
    return [
        Hold(
            scope=scope,
            key=key,
            reason=reason,
            remedy=remedy,
            since_ms=since_ms,
            probe_at_ms=probe_at_ms,
        )
        for scope, key, reason, remedy, since_ms, probe_at_ms in _HOLDS.fetch(connection)
    ]


# another instance may set the same hold at this moment
_PUT_HOLD = BatchStatement(
    """
    INSERT INTO hold (hold_id, scope, key, reason, remedy, since_ms, probe_at_ms) VALUES {rows}
    ON CONFLICT DO NOTHING
    """,
    columns=7,
)


def put_hold(connection: Connection, entry: Hold) -> bool:
    """Insert a hold, or renew the one in force, unless it is an operator's and this is not."""
    in_force = (
        (hold.c.scope == entry.scope) & (hold.c.key == entry.key) & hold.c.released_at_ms.is_(None)
    )
    row = connection.execute(
        select(hold.c.probe_at_ms).where(in_force).with_for_update()
    ).one_or_none()
    if row is not None:
        if row.probe_at_ms is not None or entry.probe_at_ms is None:
            connection.execute(
                update(hold)
                .where(in_force)
                .values(reason=entry.reason, remedy=entry.remedy, probe_at_ms=entry.probe_at_ms)
            )
        return False
    values = (
        secrets.token_hex(8),
        entry.scope,
        entry.key,
        entry.reason,
        entry.remedy,
        entry.since_ms,
        entry.probe_at_ms,
    )
    return _PUT_HOLD.run(connection, [values]) > 0


def drop_hold(
    connection: Connection, scope: str, key: str, now_ms: int, *, probed_only: bool = False
) -> bool:
    """End a hold, `probed_only` one that has a probe time; the row records the time held."""
    ended = (
        update(hold)
        .where(hold.c.scope == scope, hold.c.key == key, hold.c.released_at_ms.is_(None))
        .values(released_at_ms=now_ms)
    )
    if probed_only:
        ended = ended.where(hold.c.probe_at_ms.is_not(None))
    return bool(connection.execute(ended).rowcount)


def held_ms(connection: Connection, key: str, *, since_ms: int, now_ms: int) -> int:
    """Add up the holds on `key`, each moment once however many were in force."""
    rows = connection.execute(
        select(hold.c.since_ms, hold.c.released_at_ms)
        .where(hold.c.key == key)
        .order_by(hold.c.since_ms)
    )
    total_ms = 0
    counted_until_ms = since_ms
    for begin_ms, released_at_ms in rows:
        end_ms = now_ms if released_at_ms is None else released_at_ms
        total_ms += max(0, end_ms - max(begin_ms, counted_until_ms))
        counted_until_ms = max(counted_until_ms, end_ms)
    return total_ms
