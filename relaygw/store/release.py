"""Captured mail that somebody lets go: a new delivery of its message (decision 12)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import func, select, update
from sqlalchemy.sql.schema import Column

from relaygw.mail.address import canonical
from relaygw.mail.envelope import NewDelivery
from relaygw.mail.state import DeliveryState, RecipientState
from relaygw.store.audit import AuditEntry, add_audits
from relaygw.store.batches import in_batches, rows_in
from relaygw.store.database import Row, Transaction
from relaygw.store.find_index import note_changed
from relaygw.store.intake import INSERT_DELIVERIES, INSERT_RECIPIENTS
from relaygw.store.queue_tables import delivery, message, recipient


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """What is let out of one captured message, and the line for the audit trail."""

    queue_id: str
    deliveries: tuple[NewDelivery, ...]
    entry: AuditEntry


def release(tx: Transaction, releases: Sequence[Release]) -> frozenset[str]:
    """Add the deliveries of `releases`; return the messages they were added to."""
    captured = _lock(tx, sorted(plan.queue_id for plan in releases))
    waiting = _waiting(tx, list(captured))
    chosen = [
        plan
        for plan in releases
        if plan.queue_id in captured and not _addresses(plan) & waiting[plan.queue_id]
    ]
    queue_ids = [plan.queue_id for plan in chosen]
    last_delivery = _last(tx, delivery.c.delivery_no, queue_ids)
    last_recipient = _last(tx, recipient.c.rcpt_no, queue_ids)
    deliveries: list[Row] = []
    recipients: list[Row] = []
    for plan in chosen:
        key, now_ms = plan.queue_id, tx.to_stored(plan.entry.at_ms)
        old = captured[key]
        held_ms = max(0, now_ms - old.accepted_at_ms)  # as if held so far: its lifetime begins now
        rcpt_no = last_recipient[key]
        for number, part in enumerate(plan.deliveries, last_delivery[key] + 1):
            where = (key, number, part.route, part.stream, DeliveryState.INCOMING.value)
            due = (now_ms, now_ms)  # at once
            kind = part.released and part.released.value
            deliveries.append((*where, *due, old.client_key, held_ms, kind))
            for target in part.recipients:
                rcpt_no += 1
                who = (target.address, target.original, target.state.value)
                recipients.append(
                    (key, rcpt_no, number, *who, now_ms, None, target.dsn_notify, None)
                )
    INSERT_DELIVERIES.run(tx, deliveries)
    INSERT_RECIPIENTS.run(tx, recipients)
    note_changed(tx, queue_ids)
    for batch in in_batches(queue_ids):
        tx.execute(update(message).where(message.c.queue_id.in_(batch)).values(finished_at_ms=None))
    add_audits(tx, [plan.entry for plan in chosen])
    return frozenset(queue_ids)


def _lock(tx: Transaction, queue_ids: Sequence[str]) -> dict[str, Any]:
    """Lock the captured messages that have content, also against new deliveries; return rows."""
    columns = message.c["queue_id", "client_key", "accepted_at_ms"]
    has_content = message.c.captured_at_ms.is_not(None) & (message.c.chunk_count > 0)
    query = select(*columns).where(has_content).order_by(message.c.queue_id).with_for_update()
    found = rows_in(tx, query, message.c.queue_id, queue_ids)
    return {row.queue_id: row for row in found}


def _waiting(tx: Transaction, queue_ids: Sequence[str]) -> defaultdict[str, set[str]]:
    """Return the addresses that messages are still to be sent to, in canonical form."""
    waits = recipient.c.state == RecipientState.PENDING.value
    query = select(recipient.c.queue_id, recipient.c.address).where(waits)
    found: defaultdict[str, set[str]] = defaultdict(set)
    for queue_id, address in rows_in(tx, query, recipient.c.queue_id, queue_ids):
        found[queue_id].add(canonical(address))
    return found


def _addresses(plan: Release) -> set[str]:
    return {canonical(target.address) for part in plan.deliveries for target in part.recipients}


def _last(tx: Transaction, number: Column[int], queue_ids: Sequence[str]) -> dict[str, int]:
    mine = number.table.c.queue_id
    query = select(mine, func.max(number)).group_by(mine)
    return dict(map(tuple, rows_in(tx, query, mine, queue_ids)))
