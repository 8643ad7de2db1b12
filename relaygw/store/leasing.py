"""Outcomes and the end of leases: what the delivery worker writes.

A lease ends with an outcome, by being given back, or when its incarnation is buried; nothing
else takes it away, so a living incarnation may trust what it holds.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any

from sqlalchemy import Connection, bindparam, case, delete, exists, func, select, update

from relaygw.mail.envelope import DeliveryUpdate
from relaygw.mail.state import DeliveryState, check_transition
from relaygw.store.registry import is_alive
from relaygw.store.tables import chunk, delivery, instance, message, permit, recipient

MAX_RECLAIMS = 3
"""A delivery that was in the hands of this many dying workers is held as poison."""

Key = tuple[str, int]

_D = DeliveryState

_RECORD_DELIVERY = (
    update(delivery)
    .where(
        delivery.c.queue_id == bindparam("b_queue_id"),
        delivery.c.delivery_no == bindparam("b_delivery_no"),
        delivery.c.lease == bindparam("b_lease"),
    )
    .values(
        state=bindparam("b_state"),
        due_at_ms=bindparam("b_due_at_ms"),
        changed_at_ms=bindparam("b_now_ms"),
        attempts=delivery.c.attempts + bindparam("b_charged"),
        doubts=delivery.c.doubts + bindparam("b_doubted"),
        held_at_ms=bindparam("b_held_at_ms"),
        lease=None,
        reclaims=0,  # its worker lived to tell
        provider=bindparam("b_provider"),
        reason=bindparam("b_reason"),
    )
)
_RECORD_RECIPIENT = (
    update(recipient)
    .where(
        recipient.c.queue_id == bindparam("b_queue_id"),
        recipient.c.rcpt_no == bindparam("b_rcpt_no"),
    )
    .values(
        state=bindparam("b_state"),
        attempts=recipient.c.attempts + bindparam("b_charged"),
        changed_at_ms=bindparam("b_now_ms"),
        provider=bindparam("b_provider"),
        reply=bindparam("b_reply"),
        dsn=bindparam("b_dsn"),
    )
)


def record(
    connection: Connection,
    updates: Sequence[DeliveryUpdate],
    *,
    incarnation: str,
    now_ms: int,
    keep_content: bool,
) -> bool:
    """Write outcomes if the incarnation lives: see Store.record_batch."""
    if not is_alive(connection, incarnation):
        return False
    for entry in updates:
        check_transition(_D.ACTIVE, entry.state)
    connection.execute(
        _RECORD_DELIVERY, [_delivery_row(entry, incarnation, now_ms) for entry in updates]
    )
    rows = [
        {
            "b_queue_id": entry.queue_id,
            "b_rcpt_no": change.rcpt_no,
            "b_state": change.state.value,
            "b_charged": int(change.charged),
            "b_now_ms": now_ms,
            "b_provider": change.provider,
            "b_reply": change.reply,
            "b_dsn": change.dsn,
        }
        for entry in updates
        for change in entry.recipients
    ]
    if rows:
        connection.execute(_RECORD_RECIPIENT, rows)
    for entry in updates:
        if entry.held_apart:
            _hold_apart(connection, entry, now_ms)
    finish_messages(
        connection,
        [entry.queue_id for entry in updates if entry.state is _D.FINISHED],
        now_ms=now_ms,
        keep_content=keep_content,
    )
    return True


def _delivery_row(entry: DeliveryUpdate, incarnation: str, now_ms: int) -> dict[str, Any]:
    return {
        "b_queue_id": entry.queue_id,
        "b_delivery_no": entry.delivery_no,
        "b_lease": incarnation,
        "b_state": entry.state.value,
        "b_due_at_ms": entry.due_at_ms,
        "b_now_ms": now_ms,
        "b_charged": int(entry.charged),
        "b_doubted": int(entry.doubted),
        "b_held_at_ms": now_ms if entry.state is _D.HELD else None,
        "b_provider": entry.provider,
        "b_reason": entry.reason,
    }


def _hold_apart(connection: Connection, entry: DeliveryUpdate, now_ms: int) -> None:
    """Move recipients to a new delivery of the same route that is held."""
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


_NO_OPEN_DELIVERY = ~exists().where(
    delivery.c.queue_id == message.c.queue_id,
    delivery.c.state.not_in([_D.FINISHED.value, _D.DELETED.value]),
)
_NOW_FINISHED = select(message.c.queue_id, message.c.captured_at_ms).where(
    message.c.queue_id.in_(bindparam("queue_ids", expanding=True)), _NO_OPEN_DELIVERY
)
_FINISH_MESSAGE = (
    update(message)
    .where(message.c.queue_id == bindparam("b_queue_id"))
    .values(finished_at_ms=bindparam("b_now_ms"))
)
_DROP_CONTENT = delete(chunk).where(chunk.c.queue_id == bindparam("b_queue_id"))
_FORGET_CONTENT = (
    update(message).where(message.c.queue_id == bindparam("b_queue_id")).values(chunk_count=0)
)


def finish_messages(
    connection: Connection, queue_ids: Sequence[str], *, now_ms: int, keep_content: bool
) -> None:
    """Finish the messages that have no open delivery left, and drop their content.

    Captured mail keeps its content for the sandbox's own retention.
    """
    if not queue_ids:
        return
    rows = connection.execute(_NOW_FINISHED, {"queue_ids": list(queue_ids)}).all()
    if not rows:
        return
    connection.execute(
        _FINISH_MESSAGE, [{"b_queue_id": row.queue_id, "b_now_ms": now_ms} for row in rows]
    )
    spent = [row.queue_id for row in rows if row.captured_at_ms is None]
    if spent and not keep_content:
        drop_content(connection, spent)


def drop_content(connection: Connection, queue_ids: Iterable[str]) -> None:
    """Delete the content of messages; their record stays."""
    rows = [{"b_queue_id": queue_id} for queue_id in queue_ids]
    connection.execute(_DROP_CONTENT, rows)
    connection.execute(_FORGET_CONTENT, rows)


# --- the end of a lease without an outcome ------------------------------------------------

_UNTRIED = case((delivery.c.attempts > 0, _D.DEFERRED.value), else_=_D.INCOMING.value)
_GIVE_BACK = (
    update(delivery)
    .where(
        delivery.c.queue_id == bindparam("b_queue_id"),
        delivery.c.delivery_no == bindparam("b_delivery_no"),
        delivery.c.lease == bindparam("b_lease"),
    )
    .values(state=_UNTRIED, lease=None)
)


def give_back(connection: Connection, keys: Sequence[Key], *, incarnation: str) -> None:
    """End leases; a delivery that was never tried is incoming again, else deferred."""
    connection.execute(
        _GIVE_BACK,
        [
            {
                "b_queue_id": queue_id,
                "b_delivery_no": delivery_no,
                "b_lease": incarnation,
            }
            for queue_id, delivery_no in keys
        ],
    )


_COUNT_RECLAIM = (
    update(delivery)
    .where(
        delivery.c.queue_id == bindparam("b_queue_id"),
        delivery.c.delivery_no == bindparam("b_delivery_no"),
        delivery.c.lease == bindparam("b_lease"),
    )
    .values(reclaims=delivery.c.reclaims + 1)
)


def bury(connection: Connection, incarnation: str, *, begun: Collection[Key], now_ms: int) -> int:
    """Free everything that a dead incarnation held; see Store.bury."""
    connection.execute(delete(instance).where(instance.c.incarnation == incarnation))
    connection.execute(delete(permit).where(permit.c.incarnation == incarnation))
    if begun:
        connection.execute(
            _COUNT_RECLAIM,
            [
                {"b_queue_id": queue_id, "b_delivery_no": delivery_no, "b_lease": incarnation}
                for queue_id, delivery_no in begun
            ],
        )
    is_poison = delivery.c.reclaims >= MAX_RECLAIMS
    return connection.execute(
        update(delivery)
        .where(delivery.c.lease == incarnation)
        .values(
            state=case((is_poison, _D.HELD.value), else_=_UNTRIED),
            held_at_ms=case((is_poison, now_ms), else_=None),
            reason=case((is_poison, "poison"), else_=delivery.c.reason),
            lease=None,
        )
    ).rowcount
