"""Outcomes of attempts: what they change of recipients, deliveries and messages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import select

from relaygw.mail.envelope import DeliveryUpdate
from relaygw.mail.state import DeliveryState, check_transition
from relaygw.store import attempts
from relaygw.store.database import BatchStatement, Row, Statement, Transaction
from relaygw.store.queue_entry import Key, lock_messages, part_delivery
from relaygw.store.tables import delivery, hold_columns


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """What became of a batch of outcomes."""

    is_alive: bool  # False: the incarnation is dead, and nothing was written
    lost: tuple[Key, ...] = ()  # not written, now or before: their leases were over


_D = DeliveryState

_RECORD_DELIVERIES = BatchStatement(
    """
    UPDATE delivery
    SET state = v.column3, due_at_ms = v.column4, changed_at_ms = v.column5,
        attempts = attempts + v.column6, doubts = doubts + v.column7,
        held_at_ms = CAST(v.column8 AS BIGINT),
        provider = v.column9, reason = v.column10,
        hold_code = v.column11, hold_key = v.column12,
        lease = CASE WHEN v.column3 = 'active' THEN lease END,  -- more of this attempt follows
        reclaims = 0  -- its worker lived to tell
    FROM (VALUES {rows}) AS v
    WHERE delivery.queue_id = v.column1 AND delivery.delivery_no = v.column2
    AND delivery.lease = {?}
    """,
    columns=12,
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
    tx: Transaction,
    updates: Sequence[DeliveryUpdate],
    incarnation: str,
    now_ms: int,
    *,
    keep_content: bool,
) -> Recorded:
    """Write outcomes of an incarnation that lives: see Leases.record_batch.

    What was recorded before, in a commit that seemed lost, is left as it is: its lease is over, or
    its due time says so.
    """
    if any(entry.is_partial for entry in updates):
        updates = _not_recorded(tx, updates)
    for entry in updates:
        if not entry.is_partial:
            check_transition(_D.ACTIVE, entry.state)
    attempts.write(tx, updates, incarnation=incarnation, now_ms=now_ms)
    _RECORD_RECIPIENTS.run(tx, _recipient_rows(updates, now_ms), incarnation)
    for entry in updates:
        if entry.held_apart and _is_leased(tx, entry, incarnation):
            _hold_apart(tx, entry, now_ms)
    written = _RECORD_DELIVERIES.run(tx, _delivery_rows(tx, updates, now_ms), incarnation)
    finish_messages(
        tx,
        list({entry.queue_id for entry in updates if entry.state is _D.FINISHED}),
        now_ms=now_ms,
        keep_content=keep_content,
    )
    if written == len(updates):
        return Recorded(is_alive=True)
    return told_too_late(tx, updates, is_alive=True, now_ms=now_ms)


def told_too_late(
    tx: Transaction, updates: Sequence[DeliveryUpdate], *, is_alive: bool, now_ms: int
) -> Recorded:
    """Note as attempts what is not in the database, whenever it was written; it changes nothing."""
    recorded = _recorded(tx, updates)
    late = [entry for entry in updates if (entry.queue_id, entry.delivery_no) not in recorded]
    attempts.write_late(tx, late, now_ms=now_ms)
    return Recorded(
        is_alive=is_alive, lost=tuple((entry.queue_id, entry.delivery_no) for entry in late)
    )


def _recorded(tx: Transaction, updates: Sequence[DeliveryUpdate]) -> set[Key]:
    rows = [(entry.queue_id, entry.delivery_no, entry.due_at_ms + tx.ahead_ms) for entry in updates]
    return {(queue_id, number) for queue_id, number in _RECORDED.fetch(tx, rows)}


def _not_recorded(tx: Transaction, updates: Sequence[DeliveryUpdate]) -> Sequence[DeliveryUpdate]:
    """Leave out the parts that were recorded: their leases go on, and would let them in again."""
    recorded = _recorded(tx, [entry for entry in updates if entry.is_partial])
    return [
        entry
        for entry in updates
        if not (entry.is_partial and (entry.queue_id, entry.delivery_no) in recorded)
    ]


def _is_leased(tx: Transaction, entry: DeliveryUpdate, incarnation: str) -> bool:
    return bool(_LEASED.fetch(tx, entry.queue_id, entry.delivery_no, incarnation))


def _recipient_rows(updates: Sequence[DeliveryUpdate], now_ms: int) -> list[Row]:
    return [
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
    ]


def _delivery_rows(tx: Transaction, updates: Sequence[DeliveryUpdate], now_ms: int) -> list[Row]:
    return [
        (
            entry.queue_id,
            entry.delivery_no,
            entry.state.value,
            entry.due_at_ms + tx.ahead_ms,
            now_ms,
            int(entry.charged),
            int(entry.doubted),
            now_ms if entry.state is _D.HELD else None,
            entry.provider,
            entry.reason,
            entry.hold.code.value if entry.hold is not None else None,
            entry.hold.key if entry.hold is not None else None,
        )
        for entry in updates
    ]


def _hold_apart(tx: Transaction, entry: DeliveryUpdate, now_ms: int) -> None:
    """Move recipients to a new delivery of the same route that is held."""
    lock_messages(tx, [entry.queue_id])
    is_it = (delivery.c.queue_id == entry.queue_id) & (delivery.c.delivery_no == entry.delivery_no)
    row = tx.execute(select(delivery).where(is_it)).one()
    hold = hold_columns(entry.held_apart_for)
    held = {"state": _D.HELD.value, "held_at_ms": now_ms, "lease": None, **hold}
    part_delivery(tx, row, entry.held_apart, **held)


# small content goes with the outcome, large content piece by piece later (Janitor.shed_content);
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
    tx: Transaction, queue_ids: Sequence[str], *, now_ms: int, keep_content: bool
) -> None:
    """Finish messages without a delivery that waits or may come back; drop small content."""
    if tx.is_postgres:  # SQLite has one writer at a time
        _LOCK_PARTED.fetch(tx, [(queue_id,) for queue_id in sorted(queue_ids)])
    _FINISH_MESSAGES.run(tx, [(queue_id, now_ms, int(keep_content)) for queue_id in queue_ids])
    if not keep_content:
        _DROP_FORGOTTEN_CONTENT.run(tx, [(queue_id,) for queue_id in queue_ids])


def empty_trash(tx: Transaction, queue_ids: Sequence[str], *, now_ms: int) -> None:
    """Finish messages of which what is in the trash has been there for long enough.

    Locked before: see queue_entry.lock_messages.
    """
    _EMPTY_TRASH.run(tx, [(queue_id, now_ms, 0) for queue_id in queue_ids])
    _DROP_FORGOTTEN_CONTENT.run(tx, [(queue_id,) for queue_id in queue_ids])
