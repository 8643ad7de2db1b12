"""What operators see and change: searches, counts, changes of state."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from sqlalchemy import (
    ARRAY,
    Connection,
    Select,
    Text,
    and_,
    any_,
    bindparam,
    case,
    exists,
    func,
    or_,
    select,
    update,
)
from sqlalchemy.sql.elements import ColumnElement

from relaygw.mail.envelope import Source
from relaygw.mail.state import DeliveryState, RecipientState, sources_of
from relaygw.store.protocol import (
    DeliveryEntry,
    LaneCount,
    QueueEntry,
    RecipientEntry,
)
from relaygw.store.tables import IS_OPEN, delivery, message, recipient

_IN_LIMIT = 500  # values in one IN list: far below any database's limit

_D = DeliveryState
_R = RecipientState

IS_IN_DOUBT = and_(
    or_(delivery.c.doubts > 0, delivery.c.reclaims > 0), delivery.c.provider.is_not(None)
)
"""Its provider may have taken it already; no other may get it (see delivery.lanes)."""


def in_batches(items: Sequence[str]) -> Iterator[Sequence[str]]:
    """Cut a long list into lists that fit into one statement."""
    for start in range(0, len(items), _IN_LIMIT):
        yield items[start : start + _IN_LIMIT]


def lock_messages(connection: Connection, queue_ids: Sequence[str]) -> None:
    """Wait for whoever changes these messages, or ends or adds parts of them, and keep others out.

    The next statement sees what they did.
    """
    connection.execute(
        select(message.c.queue_id)
        .where(message.c.queue_id.in_(queue_ids))
        .order_by(message.c.queue_id)
        .with_for_update()
    ).all()


def is_listed(
    connection: Connection, column: ColumnElement[str], values: Sequence[str]
) -> ColumnElement[bool]:
    """Return that a column has one of many values: one parameter where that is less work."""
    if connection.dialect.name != "postgresql":
        return column.in_(values)
    return column == any_(bindparam(None, list(values), type_=ARRAY(Text)))


_DELIVERY = select(
    delivery.c.queue_id,
    delivery.c.delivery_no,
    delivery.c.route,
    delivery.c.stream,
    delivery.c.state,
    delivery.c.due_at_ms,
    delivery.c.attempts,
    delivery.c.provider,
    delivery.c.reason,
    delivery.c.released,
    delivery.c.doubts + delivery.c.reclaims,
).order_by(delivery.c.queue_id, delivery.c.delivery_no)
_RECIPIENT = select(
    recipient.c.queue_id,
    recipient.c.rcpt_no,
    recipient.c.delivery_no,
    recipient.c.address,
    recipient.c.original,
    recipient.c.state,
    recipient.c.provider,
    recipient.c.reply,
    recipient.c.dsn,
    recipient.c.attempts,
    recipient.c.changed_at_ms,
).order_by(recipient.c.queue_id, recipient.c.rcpt_no)
_DELIVERY_STATES = {state.value: state for state in _D}
_RECIPIENT_STATES = {state.value: state for state in _R}


def load_entries(connection: Connection, query: Select[Any]) -> list[QueueEntry]:
    """Run a query over `message` and join what belongs to each row."""
    rows = connection.execute(query).all()
    deliveries: dict[str, list[DeliveryEntry]] = defaultdict(list)
    recipients: dict[str, list[RecipientEntry]] = defaultdict(list)
    for batch in in_batches([row.queue_id for row in rows]):
        _load_deliveries(connection, batch, deliveries)
        _load_recipients(connection, batch, recipients)
    return [_entry(row, deliveries[row.queue_id], recipients[row.queue_id]) for row in rows]


def _load_deliveries(
    connection: Connection, batch: Sequence[str], into: dict[str, list[DeliveryEntry]]
) -> None:
    rows = connection.execute(_DELIVERY.where(is_listed(connection, delivery.c.queue_id, batch)))
    # by place, not by name: a list of 100,000 messages is long
    for queue_id, number, route, stream, state, due, tries, provider, why, released, fears in rows:
        into[queue_id].append(
            DeliveryEntry(
                delivery_no=number,
                route=route,
                stream=stream,
                state=_DELIVERY_STATES[state],
                due_at_ms=due,
                attempts=tries,
                provider=provider,
                reason=why,
                released=released,
                is_in_doubt=fears > 0 and provider is not None,
            )
        )


def _load_recipients(
    connection: Connection, batch: Sequence[str], into: dict[str, list[RecipientEntry]]
) -> None:
    rows = connection.execute(_RECIPIENT.where(is_listed(connection, recipient.c.queue_id, batch)))
    for queue_id, number, part, address, original, state, provider, reply, dsn, tries, at in rows:
        into[queue_id].append(
            RecipientEntry(
                rcpt_no=number,
                delivery_no=part,
                address=address,
                original=original,
                state=_RECIPIENT_STATES[state],
                provider=provider,
                reply=reply,
                dsn=dsn,
                attempts=tries,
                changed_at_ms=at,
            )
        )


def _entry(
    row: Any, deliveries: Iterable[DeliveryEntry], recipients: Iterable[RecipientEntry]
) -> QueueEntry:
    return QueueEntry(
        queue_id=row.queue_id,
        accepted_at_ms=row.accepted_at_ms,
        sender=row.sender,
        subject=row.subject,
        message_id=row.message_id,
        size_bytes=row.size_bytes,
        chunk_count=row.chunk_count,
        mode=row.mode,
        source=Source(
            client=row.source_client,
            helo=row.source_helo,
            user=row.source_user,
            listener=row.source_listener,
            uid=row.source_uid,
            script=row.source_script,
            cwd=row.source_cwd,
            host=row.source_host,
        ),
        captured_at_ms=row.captured_at_ms,
        read_at_ms=row.read_at_ms,
        deliveries=tuple(deliveries),
        recipients=tuple(recipients),
    )


def counts(connection: Connection) -> list[LaneCount]:
    """Count the open deliveries and what waits in them, by route, stream and state."""
    waiting = (
        select(func.count())
        .where(
            recipient.c.queue_id == delivery.c.queue_id,
            recipient.c.delivery_no == delivery.c.delivery_no,
            recipient.c.state == _R.PENDING.value,
        )
        .scalar_subquery()
    )
    rows = connection.execute(
        select(
            delivery.c.route,
            delivery.c.stream,
            delivery.c.state,
            func.count(),
            func.sum(waiting),
            func.min(message.c.accepted_at_ms),
        )
        .join(message, message.c.queue_id == delivery.c.queue_id)
        .where(IS_OPEN)
        .group_by(delivery.c.route, delivery.c.stream, delivery.c.state)
        .order_by(delivery.c.route, delivery.c.stream, delivery.c.state)
    )
    return [
        LaneCount(
            route=route,
            stream=stream,
            state=_D(state),
            deliveries=number,
            recipients=int(waiting_count),
            oldest_accepted_at_ms=oldest,
        )
        for route, stream, state, number, waiting_count, oldest in rows
    ]


# --- changes ------------------------------------------------------------------------------


def change_state(
    connection: Connection,
    queue_ids: Sequence[str],
    *,
    from_states: frozenset[DeliveryState],
    to: DeliveryState,
    reason: str | None,
    due_at_ms: int,
    now_ms: int,
) -> int:
    """Move deliveries that may go to `to`; a lease is never taken from a worker."""
    changed = 0
    may_leave = [state.value for state in from_states & sources_of(to) - {_D.ACTIVE}]
    values = _changed(to, reason=reason, now_ms=now_ms)
    for batch in in_batches(queue_ids):
        is_mine = is_listed(connection, delivery.c.queue_id, batch)
        changed += connection.execute(
            update(delivery)
            .where(is_mine, delivery.c.state.in_(may_leave))
            .values(state=to.value, due_at_ms=due_at_ms, changed_at_ms=now_ms, **values)
        ).rowcount
        _settle_recipients(connection, batch, to=to, now_ms=now_ms)
    return changed


def held_until(now_ms: int) -> ColumnElement[int]:
    """Return how long a held delivery was held; never less than nothing, whatever the clock."""
    since_ms = delivery.c.held_at_ms
    return case((since_ms < now_ms, now_ms - since_ms), else_=0)


def _changed(to: DeliveryState, *, reason: str | None, now_ms: int) -> dict[str, Any]:
    """Return what else a change of state changes."""
    if to is _D.DELETED:
        return {}  # whether it was held, and why, is kept for who takes it out of the trash
    is_held = delivery.c.state == _D.HELD.value
    values: dict[str, Any] = {
        "reason": reason,
        "held_ms": delivery.c.held_ms + case((is_held, held_until(now_ms)), else_=0),
        "held_at_ms": now_ms if to is _D.HELD else None,
    }
    if to is _D.DEFERRED:
        values |= {"reclaims": 0, "doubts": 0}  # who lets go of it gives it a fresh start
    return values


def _settle_recipients(
    connection: Connection, batch: Sequence[str], *, to: DeliveryState, now_ms: int
) -> None:
    """Cancel what is deleted, and let what comes back from the trash be pending again."""
    changes = {_D.DELETED: (_R.PENDING, _R.CANCELLED), _D.DEFERRED: (_R.CANCELLED, _R.PENDING)}
    if to not in changes:
        return
    before, after = changes[to]
    connection.execute(
        update(recipient)
        .where(
            is_listed(connection, recipient.c.queue_id, batch),
            recipient.c.state == before.value,
            exists().where(
                delivery.c.queue_id == recipient.c.queue_id,
                delivery.c.delivery_no == recipient.c.delivery_no,
                delivery.c.state == to.value,
            ),
        )
        .values(state=after.value, changed_at_ms=now_ms)
    )
