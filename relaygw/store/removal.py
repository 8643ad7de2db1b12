"""Deleting messages, and taking captured ones out of the sandbox."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import and_, delete, exists, or_, select, update

from relaygw.mail.state import DeliveryState
from relaygw.store.captured_index import forget_captured
from relaygw.store.database import Transaction
from relaygw.store.queue_entry import in_batches
from relaygw.store.tables import IS_OPEN, attempt, chunk, delivery, message, recipient

_OPEN_DELIVERY = exists().where(
    delivery.c.queue_id == message.c.queue_id,
    IS_OPEN,
)
_IN_THE_TRASH = and_(
    message.c.finished_at_ms.is_(None),
    exists().where(
        delivery.c.queue_id == message.c.queue_id,
        delivery.c.state == DeliveryState.DELETED.value,
    ),
)


def delete_messages(tx: Transaction, queue_ids: Sequence[str]) -> int:
    """Delete messages with all that belongs to them."""
    for batch in in_batches(queue_ids):
        for table in (chunk, attempt, recipient, delivery, message):
            tx.execute(delete(table).where(table.c.queue_id.in_(batch)))
    return len(queue_ids)


def uncapture(tx: Transaction, queue_ids: Sequence[str]) -> int:
    """Delete captured messages, but for those that wait to be sent to somebody or are in the trash.

    Those only leave the sandbox; their content stays until they are finished. Returns how many
    messages were captured.
    """
    deleted: list[str] = []
    left: list[str] = []
    for batch in in_batches(queue_ids):
        # first, and by a statement of its own: who lets one go meanwhile is waited for
        captured = list(
            tx.execute(
                select(message.c.queue_id)
                .where(message.c.queue_id.in_(batch), message.c.captured_at_ms.is_not(None))
                .order_by(message.c.queue_id)
                .with_for_update()
            ).scalars()
        )
        queued = set(
            tx.execute(
                select(message.c.queue_id).where(
                    message.c.queue_id.in_(captured), or_(_OPEN_DELIVERY, _IN_THE_TRASH)
                )
            ).scalars()
        )
        tx.execute(
            update(message)
            .where(message.c.queue_id.in_(queued))
            .values(
                captured_at_ms=None, indexed_at_ms=None, finished_at_ms=None
            )  # queued, so not finished
        )
        deleted += [queue_id for queue_id in captured if queue_id not in queued]
        left += queued
    delete_messages(tx, deleted)
    forget_captured(tx, [*deleted, *left])
    return len(deleted) + len(left)
