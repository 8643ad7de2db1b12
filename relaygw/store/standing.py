"""What stands still: held mail, mail that is long in hand, instances that are gone."""

from __future__ import annotations

from sqlalchemy import Connection, delete

from relaygw.mail.standing import HeldMail, MailInHand
from relaygw.policy.untended import LostInstance
from relaygw.store.batch import Statement
from relaygw.store.tables import IS_OPEN, lost_instance

_HELD = Statement(
    f"""
    SELECT delivery.route, delivery.reason, count(*),
        min(coalesce(delivery.held_at_ms, delivery.changed_at_ms)),
        min(delivery.queue_id), max(delivery.queue_id)
    FROM delivery WHERE delivery.state = 'held' AND {IS_OPEN}
    GROUP BY delivery.route, delivery.reason ORDER BY 4
    """
)
_IN_HAND = Statement(
    """
    SELECT delivery.queue_id, delivery.delivery_no, delivery.route, (
            SELECT count(*) FROM recipient
            WHERE recipient.queue_id = delivery.queue_id
            AND recipient.delivery_no = delivery.delivery_no AND recipient.state = 'pending'
        ), delivery.changed_at_ms, instance.name, instance.pid
    FROM delivery JOIN instance ON instance.incarnation = delivery.lease
    WHERE delivery.lease IS NOT NULL AND delivery.changed_at_ms < {?}
    ORDER BY delivery.changed_at_ms
    """
)
_NOTE_LOST = Statement(
    """
    INSERT INTO lost_instance (incarnation, name, role, pid, heartbeat_at_ms, leases)
    SELECT incarnation, name, role, pid, heartbeat_at_ms,
        (SELECT count(*) FROM delivery WHERE delivery.lease = instance.incarnation)
    FROM instance WHERE incarnation = {?} AND state <> 'draining'
    ON CONFLICT (incarnation) DO NOTHING
    """
)
_LOST = Statement(
    """
    SELECT incarnation, name, role, pid, heartbeat_at_ms, leases FROM lost_instance
    WHERE heartbeat_at_ms >= {?} AND NOT EXISTS (
        SELECT 1 FROM instance
        WHERE instance.name = lost_instance.name AND instance.role = lost_instance.role
    )
    ORDER BY heartbeat_at_ms DESC, role
    """
)
_OWNERLESS = Statement(
    """
    SELECT lease FROM delivery WHERE delivery.lease IS NOT NULL
    AND NOT EXISTS (SELECT 1 FROM instance WHERE instance.incarnation = delivery.lease)
    UNION
    SELECT incarnation FROM permit
    WHERE NOT EXISTS (SELECT 1 FROM instance WHERE instance.incarnation = permit.incarnation)
    """
)


def held_mail(connection: Connection) -> list[HeldMail]:
    """Return what is held, by route and reason: see Watching.held_mail."""
    return [
        HeldMail(
            route=route,
            reason=reason or "",
            deliveries=deliveries,
            since_ms=since_ms,
            examples=tuple(dict.fromkeys((first, last))),
        )
        for route, reason, deliveries, since_ms, first, last in _HELD.fetch(connection)
    ]


def in_hand_since(connection: Connection, before_ms: int) -> list[MailInHand]:
    """Return what is in hand for long: see Watching.in_hand_since."""
    return [
        MailInHand(
            queue_id=queue_id,
            delivery_no=delivery_no,
            route=route,
            recipients=recipients,
            since_ms=since_ms,
            worker=worker,
            pid=pid,
        )
        for queue_id, delivery_no, route, recipients, since_ms, worker, pid in _IN_HAND.fetch(
            connection, before_ms
        )
    ]


def note_lost(connection: Connection, incarnation: str) -> None:
    """Remember an incarnation that is about to be buried, unless it was draining."""
    _NOTE_LOST.run(connection, incarnation)


def lost_instances(connection: Connection, since_ms: int) -> list[LostInstance]:
    """Return the instances that are gone: see Watching.lost_instances."""
    return [
        LostInstance(
            incarnation=incarnation,
            name=name,
            role=role,
            pid=pid,
            heartbeat_at_ms=heartbeat_at_ms,
            leases=leases,
        )
        for incarnation, name, role, pid, heartbeat_at_ms, leases in _LOST.fetch(
            connection, since_ms
        )
    ]


def forget_lost(connection: Connection, before_ms: int) -> None:
    """Delete instances lost before a time."""
    connection.execute(delete(lost_instance).where(lost_instance.c.heartbeat_at_ms < before_ms))


def ownerless(connection: Connection) -> list[str]:
    """Return who holds something and is not registered: see Store.ownerless."""
    return [incarnation for (incarnation,) in _OWNERLESS.fetch(connection)]
