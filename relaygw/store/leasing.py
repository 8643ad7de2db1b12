"""Outcomes and the end of leases: what the delivery worker writes.

A lease ends with an outcome, by being given back, or when its incarnation is buried; nothing
else takes it away, so a living incarnation may trust what it holds.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from sqlalchemy import Connection, case, delete, func, select, update

from relaygw.mail.envelope import DeliveryUpdate
from relaygw.mail.state import DeliveryState, check_transition
from relaygw.policy.hold_reasons import REASON_POISON
from relaygw.store import attempts_writing, standing
from relaygw.store.batch import BatchStatement, Row, Statement
from relaygw.store.protocol import Begun, Key, Recorded
from relaygw.store.registry import has_ended, is_alive
from relaygw.store.tables import IS_OPEN, delivery, instance, message, permit, recipient

MAX_RECLAIMS = 3
"""A delivery that was in the hands of this many dying workers is held as poison."""

_D = DeliveryState

_RECORD_DELIVERIES = BatchStatement(
    """
    UPDATE delivery
    SET state = v.column3, due_at_ms = v.column4, changed_at_ms = v.column5,
        attempts = attempts + v.column6, doubts = doubts + v.column7,
        held_at_ms = CAST(v.column8 AS BIGINT),
        provider = v.column9, reason = v.column10,
        lease = CASE WHEN v.column3 = 'active' THEN lease END,  -- more of this attempt follows
        reclaims = 0  -- its worker lived to tell
    FROM (VALUES {rows}) AS v
    WHERE delivery.queue_id = v.column1 AND delivery.delivery_no = v.column2
    AND delivery.lease = {?}
    """,
    columns=10,
)
_RECORD_RECIPIENTS = BatchStatement(
    """
    UPDATE recipient
    SET state = v.column3, attempts = attempts + v.column4, changed_at_ms = v.column5,
        provider = v.column6, reply = v.column7, dsn = v.column8
    FROM (VALUES {rows}) AS v
    WHERE recipient.queue_id = v.column1 AND recipient.rcpt_no = v.column2
    AND EXISTS (
        SELECT 1 FROM delivery WHERE delivery.queue_id = recipient.queue_id
        AND delivery.delivery_no = recipient.delivery_no AND delivery.lease = {?}
    )
    """,
    columns=8,
)


# an outcome that was recorded before gave the delivery its due time, which no other outcome has
_RECORDED = BatchStatement(
    """
    SELECT delivery.queue_id, delivery.delivery_no FROM (VALUES {rows}) AS v
    JOIN delivery ON delivery.queue_id = v.column1 AND delivery.delivery_no = v.column2
    WHERE delivery.due_at_ms = v.column3
    """,
    columns=3,
)
_LEASED = Statement(
    "SELECT 1 FROM delivery WHERE queue_id = {?} AND delivery_no = {?} AND lease = {?}"
)


def record(
    connection: Connection,
    updates: Sequence[DeliveryUpdate],
    *,
    incarnation: str,
    now_ms: int,
    keep_content: bool,
) -> Recorded:
    """Write outcomes if the incarnation lives: see Store.record_batch.

    What was recorded before, in a commit that seemed lost, is left as it is: its lease is over, or
    its due time says so.
    """
    if not is_alive(connection, incarnation):
        return _told_too_late(connection, updates, is_alive=False, now_ms=now_ms)
    if any(entry.is_partial for entry in updates):
        updates = _not_recorded(connection, updates)
    for entry in updates:
        if not entry.is_partial:
            check_transition(_D.ACTIVE, entry.state)
    attempts_writing.write(connection, updates, incarnation=incarnation, now_ms=now_ms)
    _RECORD_RECIPIENTS.run(
        connection,
        [
            (
                entry.queue_id,
                change.rcpt_no,
                change.state.value,
                int(change.charged),
                now_ms,
                change.provider,
                change.reply,
                change.dsn,
            )
            for entry in updates
            for change in entry.recipients
        ],
        incarnation,
    )
    for entry in updates:
        if entry.held_apart and _is_leased(connection, entry, incarnation):
            _hold_apart(connection, entry, now_ms)
    written = _RECORD_DELIVERIES.run(
        connection, [_delivery_row(entry, now_ms) for entry in updates], incarnation
    )
    finish_messages(
        connection,
        list({entry.queue_id for entry in updates if entry.state is _D.FINISHED}),
        now_ms=now_ms,
        keep_content=keep_content,
    )
    if written == len(updates):
        return Recorded(is_alive=True)
    return _told_too_late(connection, updates, is_alive=True, now_ms=now_ms)


def _told_too_late(
    connection: Connection, updates: Sequence[DeliveryUpdate], *, is_alive: bool, now_ms: int
) -> Recorded:
    """Note as attempts what is not in the database, whenever it was written; it changes nothing."""
    recorded = _recorded(connection, updates)
    late = [entry for entry in updates if (entry.queue_id, entry.delivery_no) not in recorded]
    attempts_writing.write_late(connection, late, now_ms=now_ms)
    return Recorded(
        is_alive=is_alive, lost=tuple((entry.queue_id, entry.delivery_no) for entry in late)
    )


def _recorded(connection: Connection, updates: Sequence[DeliveryUpdate]) -> set[Key]:
    rows = [(entry.queue_id, entry.delivery_no, entry.due_at_ms) for entry in updates]
    return {(queue_id, number) for queue_id, number in _RECORDED.fetch(connection, rows)}


def _not_recorded(
    connection: Connection, updates: Sequence[DeliveryUpdate]
) -> Sequence[DeliveryUpdate]:
    """Leave out the parts that were recorded: their leases go on, and would let them in again."""
    recorded = _recorded(connection, [entry for entry in updates if entry.is_partial])
    return [
        entry
        for entry in updates
        if not (entry.is_partial and (entry.queue_id, entry.delivery_no) in recorded)
    ]


def _is_leased(connection: Connection, entry: DeliveryUpdate, incarnation: str) -> bool:
    return bool(_LEASED.fetch(connection, entry.queue_id, entry.delivery_no, incarnation))


def _delivery_row(entry: DeliveryUpdate, now_ms: int) -> Row:
    return (
        entry.queue_id,
        entry.delivery_no,
        entry.state.value,
        entry.due_at_ms,
        now_ms,
        int(entry.charged),
        int(entry.doubted),
        now_ms if entry.state is _D.HELD else None,
        entry.provider,
        entry.reason,
    )


def _hold_apart(connection: Connection, entry: DeliveryUpdate, now_ms: int) -> None:
    """Move recipients to a new delivery of the same route that is held."""
    # whoever adds a delivery to a message locks it: see releasing
    connection.execute(
        select(message.c.queue_id).where(message.c.queue_id == entry.queue_id).with_for_update()
    ).all()
    old = connection.execute(
        select(delivery).where(
            delivery.c.queue_id == entry.queue_id, delivery.c.delivery_no == entry.delivery_no
        )
    ).one()
    last_no = connection.execute(
        select(func.max(delivery.c.delivery_no)).where(delivery.c.queue_id == entry.queue_id)
    ).scalar_one()
    values = dict(old._mapping) | {
        "delivery_no": last_no + 1,
        "state": _D.HELD.value,
        "held_at_ms": now_ms,
        "lease": None,
        "reason": entry.held_apart_reason,
    }
    connection.execute(delivery.insert().values(values))
    connection.execute(
        update(recipient)
        .where(recipient.c.queue_id == entry.queue_id, recipient.c.rcpt_no.in_(entry.held_apart))
        .values(delivery_no=last_no + 1)
    )


# small content goes with the outcome, large content piece by piece later (purging.shed);
# captured mail keeps its content for the sandbox's own retention
def _finish_statement(ended_states: str) -> BatchStatement:
    return BatchStatement(
        f"""
        UPDATE message
        SET finished_at_ms = v.column2,
            chunk_count = CASE WHEN chunk_count = 1 AND captured_at_ms IS NULL THEN v.column3
                ELSE chunk_count END
        FROM (VALUES {{rows}}) AS v
        WHERE message.queue_id = v.column1
        AND NOT EXISTS (
            SELECT 1 FROM delivery WHERE delivery.queue_id = message.queue_id
            AND delivery.state NOT IN ({ended_states})
        )
        """,
        columns=3,
    )


# what is in the trash may come back, with its content
_FINISH_MESSAGES = _finish_statement("'finished'")
_EMPTY_TRASH = _finish_statement("'finished', 'deleted'")
# Two workers that record the last two deliveries of a message at once would each see the other's
# as open. Who waits for this lock sees in the next statement what the one before wrote.
_LOCK_PARTED = BatchStatement(
    """
    SELECT queue_id FROM message WHERE queue_id IN (VALUES {rows})
    AND EXISTS (
        SELECT 1 FROM delivery WHERE delivery.queue_id = message.queue_id AND delivery_no > 0
    )
    ORDER BY queue_id {for_update}
    """,
    columns=1,
)
_DROP_FORGOTTEN_CONTENT = BatchStatement(
    """
    DELETE FROM chunk WHERE queue_id IN (
        SELECT queue_id FROM message WHERE queue_id IN (VALUES {rows}) AND chunk_count = 0
    )
    """,
    columns=1,
)


def finish_messages(
    connection: Connection, queue_ids: Sequence[str], *, now_ms: int, keep_content: bool
) -> None:
    """Finish messages without a delivery that waits or may come back; drop small content."""
    if connection.dialect.name == "postgresql":  # SQLite has one writer at a time
        _LOCK_PARTED.fetch(connection, [(queue_id,) for queue_id in sorted(queue_ids)])
    _FINISH_MESSAGES.run(
        connection, [(queue_id, now_ms, int(keep_content)) for queue_id in queue_ids]
    )
    if not keep_content:
        _DROP_FORGOTTEN_CONTENT.run(connection, [(queue_id,) for queue_id in queue_ids])


def empty_trash(connection: Connection, queue_ids: Sequence[str], *, now_ms: int) -> None:
    """Finish messages of which what is in the trash has been there for long enough.

    Locked before: see operating.lock_messages.
    """
    _EMPTY_TRASH.run(connection, [(queue_id, now_ms, 0) for queue_id in queue_ids])
    _DROP_FORGOTTEN_CONTENT.run(connection, [(queue_id,) for queue_id in queue_ids])


# --- the end of a lease without an outcome ------------------------------------------------

_UNTRIED = case((delivery.c.attempts > 0, _D.DEFERRED.value), else_=_D.INCOMING.value)
_GIVE_BACK = BatchStatement(
    """
    UPDATE delivery
    SET state = CASE WHEN attempts > 0 THEN 'deferred' ELSE 'incoming' END, lease = NULL
    WHERE (queue_id, delivery_no) IN (VALUES {rows}) AND lease = {?}
    """,
    columns=2,
)
_LEASES_ON = Statement(
    "SELECT queue_id, delivery_no FROM delivery WHERE lease = {?} AND route = {?}"
)
_COUNT_RECLAIMS = BatchStatement(
    """
    UPDATE delivery SET reclaims = reclaims + 1, provider = v.column3
    FROM (VALUES {rows}) AS v
    WHERE delivery.queue_id = v.column1 AND delivery.delivery_no = v.column2
    AND delivery.lease = {?}
    """,
    columns=3,
)
# the index on what is open finds them; held ones are few beside what is finished
_HELD_FOR = Statement(
    f"""
    SELECT delivery.queue_id, delivery.delivery_no FROM delivery
    WHERE delivery.state = 'held' AND delivery.reason = {{?}} AND {IS_OPEN}
    ORDER BY delivery.queue_id LIMIT {{?}}
    """
)
_WAITING_FOR = BatchStatement(
    """
    SELECT delivery.queue_id, delivery.delivery_no FROM (VALUES {rows}) AS v
    JOIN delivery ON delivery.queue_id = v.column1 AND delivery.delivery_no = v.column2
    WHERE delivery.state IN ('held', 'deferred') AND delivery.reason = v.column3
    """,
    columns=3,
)
_HELD_REASONS = Statement(
    f"""
    SELECT DISTINCT delivery.reason FROM delivery
    WHERE delivery.state = 'held' AND delivery.reason IS NOT NULL AND {IS_OPEN}
    ORDER BY delivery.reason
    """
)
_RELEASE = BatchStatement(
    """
    UPDATE delivery
    SET state = 'deferred', due_at_ms = v.column3, changed_at_ms = v.column3,
        held_ms = held_ms + CASE WHEN v.column3 > held_at_ms THEN v.column3 - held_at_ms ELSE 0 END,
        held_at_ms = NULL
    FROM (VALUES {rows}) AS v
    WHERE delivery.queue_id = v.column1 AND delivery.delivery_no = v.column2
    AND delivery.state IN ('held', 'deferred')
    """,
    columns=3,
)


def give_back(connection: Connection, keys: Sequence[Key], *, incarnation: str) -> None:
    """End leases; a delivery that was never tried is incoming again, else deferred."""
    _GIVE_BACK.run(connection, keys, incarnation)


def free_unknown(
    connection: Connection, route: str, *, known: Collection[Key], incarnation: str
) -> int:
    """End an incarnation's leases on a route but for `known`: see Store.free_unknown."""
    if has_ended(connection, incarnation):
        return 0
    unknown = set(_LEASES_ON.fetch(connection, incarnation, route)).difference(known)
    return _GIVE_BACK.run(connection, list(unknown), incarnation)


def held_reasons(connection: Connection) -> list[str]:
    """Return the reasons of held deliveries, each once."""
    return [reason for (reason,) in _HELD_REASONS.fetch(connection)]


def release_held(connection: Connection, reason: str, *, limit: int, now_ms: int) -> int:
    """Make deliveries due that are held for a reason, oldest first; see Store.release_held."""
    keys = _HELD_FOR.fetch(connection, reason, limit)
    return _RELEASE.run(connection, [(*key, now_ms) for key in keys])


def let_go(connection: Connection, keys: Sequence[Key], *, reason: str, now_ms: int) -> int:
    """Make deliveries due that wait for a reason; see Store.let_go."""
    waiting = _WAITING_FOR.fetch(connection, [(*key, reason) for key in keys])
    return _RELEASE.run(connection, [(*key, now_ms) for key in waiting])


def bury(
    connection: Connection,
    incarnation: str,
    *,
    begun: Collection[Begun] | None,
    now_ms: int,
    is_lost: bool = False,
    heartbeat_at_ms: int | None = None,
) -> int:
    """Free everything that a dead incarnation held, if that is its last heartbeat."""
    mine = instance.c.incarnation == incarnation
    if heartbeat_at_ms is not None:
        same = select(instance.c.incarnation).where(
            mine, instance.c.heartbeat_at_ms == heartbeat_at_ms
        )
        if connection.execute(same.with_for_update()).first() is None:
            return 0
    if is_lost:
        standing.note_lost(connection, incarnation)
    connection.execute(delete(instance).where(mine))
    connection.execute(delete(permit).where(permit.c.incarnation == incarnation))
    if begun is None:
        attempts_writing.write_vanished(connection, incarnation, now_ms=now_ms)
    else:
        _COUNT_RECLAIMS.run(connection, list(begun), incarnation)
        attempts_writing.write_interrupted(connection, incarnation, begun, now_ms=now_ms)
    is_poison = delivery.c.reclaims >= MAX_RECLAIMS
    return connection.execute(
        update(delivery)
        .where(delivery.c.lease == incarnation)
        .values(
            state=case((is_poison, _D.HELD.value), else_=_UNTRIED),
            held_at_ms=case((is_poison, now_ms), else_=None),
            reason=case((is_poison, REASON_POISON), else_=delivery.c.reason),
            lease=None,
        )
    ).rowcount
