"""Captured mail that somebody lets go: a new delivery of the message it was captured from.

What was captured stays as it is. The message counts as queued again, so its content stays until
the new delivery has ended, whatever becomes of the sandbox meanwhile (see purging.uncapture).
"""

from __future__ import annotations

import secrets
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, func, select, update
from sqlalchemy.sql.schema import Column

from relaygw.mail.address import canonical
from relaygw.mail.envelope import NewRecipient, ReleasedDelivery
from relaygw.mail.state import DeliveryState, RecipientState
from relaygw.store.batch import Row, insert_into
from relaygw.store.operating import in_batches
from relaygw.store.protocol import AuditEntry, Release
from relaygw.store.tables import delivery, message, recipient

_INSERT_DELIVERIES = insert_into(
    "delivery",
    "queue_id",
    "delivery_no",
    "route",
    "stream",
    "state",
    "due_at_ms",
    "changed_at_ms",
    "client_key",
    "attempts",
    "doubts",
    "reclaims",
    "held_ms",
    "released",
)
_INSERT_RECIPIENTS = insert_into(
    "recipient",
    "queue_id",
    "rcpt_no",
    "delivery_no",
    "address",
    "original",
    "state",
    "attempts",
    "changed_at_ms",
    "dsn_notify",
)

_INSERT_AUDIT = insert_into(
    "audit", "audit_id", "at_ms", "actor", "action", "target", "affected", "detail"
)


def release(connection: Connection, releases: Sequence[Release]) -> frozenset[str]:
    """Add the deliveries of `releases`; return the messages they were added to."""
    captured = _lock(connection, sorted(one.queue_id for one in releases))
    waiting = _waiting(connection, list(captured))
    chosen = [
        one
        for one in releases
        if one.queue_id in captured and not _addresses(one) & waiting[one.queue_id]
    ]
    queue_ids = [one.queue_id for one in chosen]
    deliveries = _last(connection, delivery.c.queue_id, delivery.c.delivery_no, queue_ids)
    recipients = _last(connection, recipient.c.queue_id, recipient.c.rcpt_no, queue_ids)
    _insert(connection, chosen, captured, deliveries, recipients)
    for batch in in_batches(queue_ids):
        connection.execute(
            update(message).where(message.c.queue_id.in_(batch)).values(finished_at_ms=None)
        )
    _INSERT_AUDIT.run(connection, [_audit_row(one.entry) for one in chosen])
    return frozenset(queue_ids)


def _insert(
    connection: Connection,
    chosen: Sequence[Release],
    captured: Mapping[str, Any],
    last_delivery: Mapping[str, int],
    last_recipient: Mapping[str, int],
) -> None:
    """Insert the new rows, numbered on from the last ones of each message."""
    deliveries: list[Row] = []
    recipients: list[Row] = []
    for one in chosen:
        key, now_ms = one.queue_id, one.entry.at_ms
        rcpt_no = last_recipient[key]
        for delivery_no, part in enumerate(one.deliveries, last_delivery[key] + 1):
            deliveries.append(_delivery_row(key, delivery_no, part, captured[key], now_ms))
            for target in part.recipients:
                rcpt_no += 1
                recipients.append(_recipient_row(key, rcpt_no, delivery_no, target, now_ms))
    _INSERT_DELIVERIES.run(connection, deliveries)
    _INSERT_RECIPIENTS.run(connection, recipients)


def _delivery_row(
    queue_id: str, delivery_no: int, part: ReleasedDelivery, captured: Any, now_ms: int
) -> Row:
    return (
        queue_id,
        delivery_no,
        part.route,
        part.stream,
        DeliveryState.INCOMING.value,
        now_ms,  # due at once
        now_ms,
        captured.client_key,
        0,  # attempts, doubts, reclaims
        0,
        0,
        max(0, now_ms - captured.accepted_at_ms),  # as if held so far: its lifetime begins now
        part.released.value,
    )


def _recipient_row(
    queue_id: str, rcpt_no: int, delivery_no: int, target: NewRecipient, now_ms: int
) -> Row:
    return (
        queue_id,
        rcpt_no,
        delivery_no,
        target.address,
        target.original,
        target.state.value,
        0,  # attempts
        now_ms,
        target.dsn_notify,
    )


def _audit_row(entry: AuditEntry) -> Row:
    return (
        secrets.token_hex(8),
        entry.at_ms,
        entry.actor,
        entry.action,
        entry.target,
        entry.affected,
        entry.detail,
    )


def _lock(connection: Connection, queue_ids: Sequence[str]) -> dict[str, Any]:
    """Lock the messages that are captured and have their content; return their rows.

    Whoever deletes them, or gives numbers to deliveries, locks them as well.
    """
    found = {}
    for batch in in_batches(queue_ids):
        for row in connection.execute(
            select(message.c.queue_id, message.c.client_key, message.c.accepted_at_ms)
            .where(
                message.c.queue_id.in_(batch),
                message.c.captured_at_ms.is_not(None),
                message.c.chunk_count > 0,
            )
            .order_by(message.c.queue_id)
            .with_for_update()
        ):
            found[row.queue_id] = row
    return found


def _waiting(connection: Connection, queue_ids: Sequence[str]) -> defaultdict[str, set[str]]:
    """Return the addresses that messages are still to be sent to, in canonical form."""
    found: defaultdict[str, set[str]] = defaultdict(set)
    for batch in in_batches(queue_ids):
        for queue_id, address in connection.execute(
            select(recipient.c.queue_id, recipient.c.address).where(
                recipient.c.queue_id.in_(batch),
                recipient.c.state == RecipientState.PENDING.value,
            )
        ):
            found[queue_id].add(canonical(address))
    return found


def _addresses(one: Release) -> set[str]:
    return {canonical(target.address) for part in one.deliveries for target in part.recipients}


def _last(
    connection: Connection, id_column: Column[str], number: Column[int], queue_ids: Sequence[str]
) -> dict[str, int]:
    """Return the greatest number in use of each message."""
    found: dict[str, int] = {}
    for batch in in_batches(queue_ids):
        query = select(id_column, func.max(number)).where(id_column.in_(batch)).group_by(id_column)
        found.update((queue_id, last) for queue_id, last in connection.execute(query))
    return found
