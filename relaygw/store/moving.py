"""Rows of mail that leaves the trash, ends before its time, or goes by another provider."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from sqlalchemy import Connection, and_, case, exists, func, literal, select, true, update
from sqlalchemy.sql.elements import ColumnElement

from relaygw.mail.state import DeliveryState, RecipientState, sources_of
from relaygw.policy.routing import provider_route
from relaygw.store.leasing import finish_messages
from relaygw.store.operating import IS_IN_DOUBT, held_until, in_batches, lock_messages
from relaygw.store.tables import delivery, message, recipient

_D = DeliveryState
_R = RecipientState
_MOVABLE = [state.value for state in (_D.INCOMING, _D.DEFERRED, _D.HELD)]


def undelete(connection: Connection, queue_ids: Sequence[str], *, now_ms: int) -> int:
    """Take deliveries out of the trash: see QueueCommands.undelete."""
    was_held = delivery.c.held_at_ms.is_not(None)
    number = 0
    for batch in in_batches(queue_ids):
        lock_messages(connection, batch)  # against who drops their content at this moment
        back = list(
            connection.execute(
                update(delivery)
                .where(
                    delivery.c.queue_id.in_(batch),
                    delivery.c.state == _D.DELETED.value,
                    exists().where(
                        message.c.queue_id == delivery.c.queue_id, message.c.chunk_count > 0
                    ),
                )
                .values(
                    state=case((was_held, _D.HELD.value), else_=_D.DEFERRED.value),
                    due_at_ms=now_ms,
                    changed_at_ms=now_ms,
                    # of a held one the time in the trash counts as held
                    held_ms=delivery.c.held_ms
                    + case((was_held, 0), else_=now_ms - delivery.c.changed_at_ms),
                )
                .returning(delivery.c.queue_id, delivery.c.delivery_no)
            )
        )
        number += len(back)
        connection.execute(
            update(recipient)
            .where(
                recipient.c.queue_id.in_(batch),
                recipient.c.state == _R.CANCELLED.value,
                _is_of_a_delivery_in(_D.DEFERRED, _D.HELD),
            )
            .values(state=_R.PENDING.value, changed_at_ms=now_ms)
        )
        connection.execute(
            update(message)
            .where(message.c.queue_id.in_({row.queue_id for row in back}))
            .values(finished_at_ms=None)
        )
    return number


def expire(
    connection: Connection,
    queue_ids: Sequence[str],
    *,
    reason: str,
    now_ms: int,
    keep_content: bool,
) -> int:
    """End open deliveries as expired: see QueueCommands.expire."""
    may_end = [state.value for state in sources_of(_D.FINISHED) - {_D.ACTIVE}]
    last_words = func.coalesce(literal("; before: ") + recipient.c.reply, "")
    number = 0
    for batch in in_batches(queue_ids):
        mine = and_(delivery.c.queue_id.in_(batch), delivery.c.state.in_(may_end))
        connection.execute(select(delivery.c.queue_id).where(mine).with_for_update()).all()
        connection.execute(
            update(recipient)
            .where(
                recipient.c.queue_id.in_(batch),
                recipient.c.state == _R.PENDING.value,
                exists().where(
                    delivery.c.queue_id == recipient.c.queue_id,
                    delivery.c.delivery_no == recipient.c.delivery_no,
                    delivery.c.state.in_(may_end),
                ),
            )
            .values(
                state=_R.EXPIRED.value,
                changed_at_ms=now_ms,
                reply=literal(reason) + last_words,
                dsn="4.4.7",  # RFC 3463: delivery time expired
            )
        )
        ended = connection.execute(
            update(delivery)
            .where(mine)
            .values(
                state=_D.FINISHED.value,
                due_at_ms=now_ms,
                changed_at_ms=now_ms,
                held_at_ms=None,
                reason=None,
            )
            .returning(delivery.c.queue_id)
        ).scalars()
        finished = list(ended)
        number += len(finished)
        finish_messages(connection, list(set(finished)), now_ms=now_ms, keep_content=keep_content)
    return number


def move(
    connection: Connection,
    queue_ids: Sequence[str],
    *,
    provider: str,
    ended_reasons: Collection[str],
    is_forced: bool,
    now_ms: int,
) -> int:
    """Let open deliveries go by one provider alone: see QueueCommands.move."""
    is_held = delivery.c.state == _D.HELD.value
    is_let_go = and_(is_held, delivery.c.reason.in_(list(ended_reasons)))
    is_elsewhere = and_(IS_IN_DOUBT, delivery.c.provider != provider)
    routes = case(
        (delivery.c.stream == "promotional", provider_route(provider, "promotional")),
        else_=provider_route(provider),
    )
    number = 0
    for batch in in_batches(queue_ids):
        number += connection.execute(
            update(delivery)
            .where(
                delivery.c.queue_id.in_(batch),
                delivery.c.state.in_(_MOVABLE),
                true() if is_forced else ~is_elsewhere,
            )
            .values(
                route=routes,
                state=case((is_let_go, _D.DEFERRED.value), else_=delivery.c.state),
                due_at_ms=now_ms,
                changed_at_ms=now_ms,
                reason=case((is_let_go, None), else_=delivery.c.reason),
                held_ms=delivery.c.held_ms + case((is_let_go, held_until(now_ms)), else_=0),
                held_at_ms=case((is_let_go, None), else_=delivery.c.held_at_ms),
                # nobody has to wait for the other provider any more
                doubts=case((is_elsewhere, 0), else_=delivery.c.doubts),
                reclaims=case((is_elsewhere, 0), else_=delivery.c.reclaims),
            )
        ).rowcount
    return number


def _is_of_a_delivery_in(*states: DeliveryState) -> ColumnElement[bool]:
    return exists().where(
        delivery.c.queue_id == recipient.c.queue_id,
        delivery.c.delivery_no == recipient.c.delivery_no,
        delivery.c.state.in_([state.value for state in states]),
    )
