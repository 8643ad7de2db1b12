"""Changes of queued mail that operators ask for: holding, deleting, ending, moving it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from sqlalchemy import and_, case, delete, exists, func, literal, select, true, update
from sqlalchemy.sql.elements import ColumnElement

from relaygw.mail.hold import HoldCause
from relaygw.mail.state import DeliveryState, RecipientState, sources_of
from relaygw.policy.router import provider_route
from relaygw.store.database import Transaction
from relaygw.store.outcomes import finish_messages
from relaygw.store.queue_entry import IS_IN_DOUBT, in_batches, is_listed, lock_messages
from relaygw.store.tables import attempt, chunk, delivery, hold_columns, message, recipient

_D = DeliveryState
_R = RecipientState
_MOVABLE = [state.value for state in (_D.INCOMING, _D.DEFERRED, _D.HELD)]


def change_state(
    tx: Transaction,
    queue_ids: Sequence[str],
    *,
    from_states: frozenset[DeliveryState],
    to: DeliveryState,
    hold: HoldCause | None,
    due_at_ms: int,
    now_ms: int,
) -> int:
    """Move deliveries that may go to `to`; a lease is never taken from a worker."""
    changed = 0
    may_leave = [state.value for state in from_states & sources_of(to) - {_D.ACTIVE}]
    values = _changed(to, hold, now_ms)
    for batch in in_batches(queue_ids):
        is_mine = is_listed(tx, delivery.c.queue_id, batch)
        changed += tx.execute(
            update(delivery)
            .where(is_mine, delivery.c.state.in_(may_leave))
            .values(state=to.value, due_at_ms=due_at_ms, changed_at_ms=now_ms, **values)
        ).rowcount
        _settle_recipients(tx, batch, to=to, now_ms=now_ms)
    return changed


def _held_until(now_ms: int) -> ColumnElement[int]:
    """Return how long a held delivery was held; never less than nothing, whatever the clock."""
    since_ms = delivery.c.held_at_ms
    return case((since_ms < now_ms, now_ms - since_ms), else_=0)


def _changed(to: DeliveryState, hold: HoldCause | None, now_ms: int) -> dict[str, Any]:
    """Return what else a change of state changes."""
    if to is _D.DELETED:
        return {}  # whether it was held, and why, is kept for who takes it out of the trash
    is_held = delivery.c.state == _D.HELD.value
    values: dict[str, Any] = {
        **hold_columns(hold),
        "held_ms": delivery.c.held_ms + case((is_held, _held_until(now_ms)), else_=0),
        "held_at_ms": now_ms if to is _D.HELD else None,
    }
    if to is _D.DEFERRED:
        values |= {"reclaims": 0, "doubts": 0}  # who lets go of it gives it a fresh start
    return values


def _settle_recipients(
    tx: Transaction, batch: Sequence[str], *, to: DeliveryState, now_ms: int
) -> None:
    """Cancel what is deleted, and let what comes back from the trash be pending again."""
    changes = {_D.DELETED: (_R.PENDING, _R.CANCELLED), _D.DEFERRED: (_R.CANCELLED, _R.PENDING)}
    if to not in changes:
        return
    before, after = changes[to]
    tx.execute(
        update(recipient)
        .where(
            is_listed(tx, recipient.c.queue_id, batch),
            recipient.c.state == before.value,
            _is_of_a_delivery_in(to.value),
        )
        .values(state=after.value, changed_at_ms=now_ms)
    )


def undelete(tx: Transaction, queue_ids: Sequence[str], *, now_ms: int) -> int:
    """Take deliveries out of the trash: see Queue.undelete."""
    was_held = delivery.c.held_at_ms.is_not(None)
    number = 0
    for batch in in_batches(queue_ids):
        lock_messages(tx, batch)  # against who drops their content at this moment
        back = list(
            tx.execute(
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
        tx.execute(
            update(recipient)
            .where(
                recipient.c.queue_id.in_(batch),
                recipient.c.state == _R.CANCELLED.value,
                _is_of_a_delivery_in(_D.DEFERRED.value, _D.HELD.value),
            )
            .values(state=_R.PENDING.value, changed_at_ms=now_ms)
        )
        tx.execute(
            update(message)
            .where(message.c.queue_id.in_({row.queue_id for row in back}))
            .values(finished_at_ms=None)
        )
    return number


def expire(
    tx: Transaction,
    queue_ids: Sequence[str],
    *,
    reason: str,
    now_ms: int,
    keep_content: bool,
) -> int:
    """End open deliveries as expired: see Queue.expire."""
    may_end = [state.value for state in sources_of(_D.FINISHED) - {_D.ACTIVE}]
    last_words = func.coalesce(literal("; before: ") + recipient.c.reply, "")
    number = 0
    for batch in in_batches(queue_ids):
        mine = and_(delivery.c.queue_id.in_(batch), delivery.c.state.in_(may_end))
        tx.execute(select(delivery.c.queue_id).where(mine).with_for_update()).all()
        tx.execute(
            update(recipient)
            .where(
                recipient.c.queue_id.in_(batch),
                recipient.c.state == _R.PENDING.value,
                _is_of_a_delivery_in(*may_end),
            )
            .values(
                state=_R.EXPIRED.value,
                changed_at_ms=now_ms,
                reply=literal(reason) + last_words,
                dsn="4.4.7",  # RFC 3463: delivery time expired
            )
        )
        ended = tx.execute(
            update(delivery)
            .where(mine)
            .values(
                state=_D.FINISHED.value,
                due_at_ms=now_ms,
                changed_at_ms=now_ms,
                held_at_ms=None,
                **hold_columns(None),
            )
            .returning(delivery.c.queue_id)
        ).scalars()
        finished = list(ended)
        number += len(finished)
        finish_messages(tx, list(set(finished)), now_ms=now_ms, keep_content=keep_content)
    return number


def move(
    tx: Transaction,
    queue_ids: Sequence[str],
    *,
    provider: str,
    ended: Collection[HoldCause],
    is_forced: bool,
    now_ms: int,
) -> int:
    """Let open deliveries go by one provider alone: see Queue.move."""
    is_held = delivery.c.state == _D.HELD.value
    is_let_go = and_(is_held, delivery.c.reason.in_([cause.sentence for cause in ended]))
    is_elsewhere = and_(IS_IN_DOUBT, delivery.c.provider != provider)
    routes = case(
        (delivery.c.stream == "promotional", provider_route(provider, "promotional")),
        else_=provider_route(provider),
    )
    number = 0
    for batch in in_batches(queue_ids):
        number += tx.execute(
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
                **{
                    name: case((is_let_go, value), else_=delivery.c[name])
                    for name, value in hold_columns(None).items()
                },
                held_ms=delivery.c.held_ms + case((is_let_go, _held_until(now_ms)), else_=0),
                held_at_ms=case((is_let_go, None), else_=delivery.c.held_at_ms),
                # nobody has to wait for the other provider any more
                doubts=case((is_elsewhere, 0), else_=delivery.c.doubts),
                reclaims=case((is_elsewhere, 0), else_=delivery.c.reclaims),
            )
        ).rowcount
    return number


def _is_of_a_delivery_in(*states: str) -> ColumnElement[bool]:
    return exists().where(
        delivery.c.queue_id == recipient.c.queue_id,
        delivery.c.delivery_no == recipient.c.delivery_no,
        delivery.c.state.in_(states),
    )


def delete_messages(tx: Transaction, queue_ids: Sequence[str]) -> int:
    """Delete messages with all that belongs to them."""
    for batch in in_batches(queue_ids):
        for table in (chunk, attempt, recipient, delivery, message):
            tx.execute(delete(table).where(table.c.queue_id.in_(batch)))
    return len(queue_ids)
