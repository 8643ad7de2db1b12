"""What operators see and change: searches, counts, state changes, the audit trail."""

from __future__ import annotations

import secrets
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from sqlalchemy import Connection, Select, TextClause, case, exists, func, insert, select, update
from sqlalchemy.sql.elements import ColumnElement

from relaygw.mail.envelope import Source
from relaygw.mail.state import OPEN, DeliveryState, RecipientState, sources_of
from relaygw.store.protocol import (
    AuditEntry,
    DeliveryEntry,
    LaneCount,
    QueueEntry,
    RecipientEntry,
    Selection,
)
from relaygw.store.tables import IS_OPEN, audit, delivery, message, recipient

_IN_LIMIT = 500  # values in one IN list: far below any database's limit

Condition = ColumnElement[bool] | TextClause

_D = DeliveryState
_R = RecipientState


def in_batches(items: Sequence[str]) -> Iterator[Sequence[str]]:
    """Cut a long list into lists that fit into one statement."""
    for start in range(0, len(items), _IN_LIMIT):
        yield items[start : start + _IN_LIMIT]


# --- searches -----------------------------------------------------------------------------


def _contains(column: ColumnElement[Any], part: str) -> ColumnElement[bool]:
    return func.lower(column).contains(part.lower(), autoescape=True)


def _delivery_conditions(selection: Selection) -> Iterator[Condition]:
    if selection.states != frozenset(_D):
        yield delivery.c.state.in_([state.value for state in selection.states])
    if selection.states <= OPEN:
        yield IS_OPEN
    if selection.provider is not None:
        yield delivery.c.provider == selection.provider
    if selection.route is not None:
        yield delivery.c.route == selection.route
    if selection.stream is not None:
        yield delivery.c.stream == selection.stream
    if selection.reason is not None:
        yield _contains(delivery.c.reason, selection.reason)


def _message_conditions(selection: Selection) -> Iterator[ColumnElement[bool]]:
    if selection.sender is not None:
        yield _contains(message.c.sender, selection.sender)
    if selection.subject is not None:
        yield _contains(message.c.subject, selection.subject)
    if selection.client is not None:
        yield (message.c.source_client == selection.client) | (
            message.c.source_user == selection.client
        )
    if selection.accepted_before_ms is not None:
        yield message.c.accepted_at_ms < selection.accepted_before_ms
    if selection.recipient is not None:
        yield exists().where(
            recipient.c.queue_id == message.c.queue_id,
            _contains(recipient.c.address, selection.recipient),
        )


def search(
    connection: Connection, selection: Selection, *, limit: int, after: str
) -> list[QueueEntry]:
    """Return matching messages in the order of acceptance."""
    wanted = select(delivery.c.queue_id).where(
        *_delivery_conditions(selection), delivery.c.queue_id > after
    )
    conditions = list(_message_conditions(selection))
    if not (selection.queue_ids or conditions):
        # nothing more decides: a page of a long queue looks at a page of it
        wanted = wanted.distinct().order_by(delivery.c.queue_id).limit(limit)
    query = (
        select(message)
        .where(
            message.c.queue_id.in_(wanted),
            message.c.queue_id > after,
            *conditions,
        )
        .order_by(message.c.queue_id)
        .limit(limit)
    )
    if not selection.queue_ids:
        return load_entries(connection, query)
    found: list[QueueEntry] = []
    for batch in in_batches(sorted(set(selection.queue_ids))):
        found += load_entries(connection, query.where(message.c.queue_id.in_(batch)))
    return found[:limit]


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
    for row in connection.execute(
        select(delivery)
        .where(delivery.c.queue_id.in_(batch))
        .order_by(delivery.c.queue_id, delivery.c.delivery_no)
    ):
        into[row.queue_id].append(
            DeliveryEntry(
                delivery_no=row.delivery_no,
                route=row.route,
                stream=row.stream,
                state=_D(row.state),
                due_at_ms=row.due_at_ms,
                attempts=row.attempts,
                provider=row.provider,
                reason=row.reason,
                released=row.released,
            )
        )


def _load_recipients(
    connection: Connection, batch: Sequence[str], into: dict[str, list[RecipientEntry]]
) -> None:
    for row in connection.execute(
        select(recipient)
        .where(recipient.c.queue_id.in_(batch))
        .order_by(recipient.c.queue_id, recipient.c.rcpt_no)
    ):
        into[row.queue_id].append(
            RecipientEntry(
                rcpt_no=row.rcpt_no,
                delivery_no=row.delivery_no,
                address=row.address,
                original=row.original,
                state=_R(row.state),
                provider=row.provider,
                reply=row.reply,
                dsn=row.dsn,
                attempts=row.attempts,
                changed_at_ms=row.changed_at_ms,
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
    is_held = delivery.c.state == _D.HELD.value
    for batch in in_batches(queue_ids):
        changed += connection.execute(
            update(delivery)
            .where(delivery.c.queue_id.in_(batch), delivery.c.state.in_(may_leave))
            .values(
                state=to.value,
                due_at_ms=due_at_ms,
                changed_at_ms=now_ms,
                reason=reason,
                held_ms=delivery.c.held_ms
                + case((is_held, now_ms - func.coalesce(delivery.c.held_at_ms, now_ms)), else_=0),
                held_at_ms=now_ms if to is _D.HELD else None,
                # an operator who lets go of a delivery gives it a fresh start
                reclaims=0,
                doubts=0,
            )
        ).rowcount
        _settle_recipients(connection, batch, to=to, now_ms=now_ms)
    return changed


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
            recipient.c.queue_id.in_(batch),
            recipient.c.state == before.value,
            exists().where(
                delivery.c.queue_id == recipient.c.queue_id,
                delivery.c.delivery_no == recipient.c.delivery_no,
                delivery.c.state == to.value,
            ),
        )
        .values(state=after.value, changed_at_ms=now_ms)
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


def audit_entries(connection: Connection, *, limit: int) -> list[AuditEntry]:
    """Return the trail, newest first."""
    rows = connection.execute(select(audit).order_by(audit.c.at_ms.desc()).limit(limit))
    return [
        AuditEntry(
            at_ms=row.at_ms,
            actor=row.actor,
            action=row.action,
            target=row.target,
            affected=row.affected,
            detail=row.detail,
        )
        for row in rows
    ]
