"""Deleting what is over its time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sqlalchemy import Connection, delete, exists, select, update

from relaygw.mail.queue_id import first_id_at
from relaygw.mail.state import DeliveryState
from relaygw.store.leasing import drop_content, finish_messages
from relaygw.store.operating import in_batches
from relaygw.store.tables import IS_OPEN, chunk, delivery, message, recipient

_OPEN_DELIVERY = exists().where(
    delivery.c.queue_id == message.c.queue_id,
    IS_OPEN,
)


def delete_messages(connection: Connection, queue_ids: Sequence[str]) -> int:
    """Delete messages with all that belongs to them."""
    for batch in in_batches(queue_ids):
        for table in (chunk, recipient, delivery, message):
            connection.execute(delete(table).where(table.c.queue_id.in_(batch)))
    return len(queue_ids)


def purge(connection: Connection, cutoffs: Mapping[str, int], *, limit: int, now_ms: int) -> int:
    """See Store.purge; the trash is emptied into finished messages first."""
    done = 0
    if "deleted" in cutoffs:
        done += _empty_trash(connection, cutoffs["deleted"], limit=limit, now_ms=now_ms)
    if "content" in cutoffs:
        done += _purge_content(connection, cutoffs["content"], limit=limit)
    if "finished" in cutoffs:
        done += _purge_finished(connection, cutoffs["finished"], limit=limit)
    if "captured" in cutoffs:
        done += _purge_captured(connection, cutoffs["captured"], limit=limit)
    if "orphans" in cutoffs:
        done += _purge_orphans(connection, cutoffs["orphans"], limit=limit)
    return done


def _empty_trash(connection: Connection, cutoff_ms: int, *, limit: int, now_ms: int) -> int:
    rows = connection.execute(
        select(delivery.c.queue_id, delivery.c.delivery_no)
        .where(
            delivery.c.queue_id < first_id_at(cutoff_ms),
            delivery.c.state == DeliveryState.DELETED.value,
            delivery.c.changed_at_ms < cutoff_ms,
            exists().where(
                message.c.queue_id == delivery.c.queue_id, message.c.finished_at_ms.is_(None)
            ),
        )
        .limit(limit)
    ).all()
    queue_ids = sorted({row.queue_id for row in rows})
    finish_messages(connection, queue_ids, now_ms=now_ms, keep_content=False)
    return len(queue_ids)


def _purge_content(connection: Connection, cutoff_ms: int, *, limit: int) -> int:
    queue_ids = list(
        connection.execute(
            select(message.c.queue_id)
            .where(
                message.c.queue_id < first_id_at(cutoff_ms),
                message.c.finished_at_ms < cutoff_ms,
                message.c.chunk_count > 0,
                message.c.captured_at_ms.is_(None),
            )
            .limit(limit)
        ).scalars()
    )
    if queue_ids:
        drop_content(connection, queue_ids)
    return len(queue_ids)


def _purge_finished(connection: Connection, cutoff_ms: int, *, limit: int) -> int:
    queue_ids = connection.execute(
        select(message.c.queue_id)
        .where(
            message.c.queue_id < first_id_at(cutoff_ms),
            message.c.finished_at_ms < cutoff_ms,
            message.c.captured_at_ms.is_(None),
        )
        .order_by(message.c.queue_id)
        .limit(limit)
    ).scalars()
    return delete_messages(connection, list(queue_ids))


def _purge_captured(connection: Connection, cutoff_ms: int, *, limit: int) -> int:
    queue_ids = connection.execute(
        select(message.c.queue_id)
        .where(message.c.captured_at_ms < cutoff_ms)
        .order_by(message.c.captured_at_ms)
        .limit(limit)
    ).scalars()
    return uncapture(connection, list(queue_ids))


def oldest_captured(connection: Connection, *, keep: int, limit: int) -> list[str]:
    """Return the oldest captured messages beyond the newest `keep`."""
    newest = (
        select(message.c.captured_at_ms)
        .where(message.c.captured_at_ms.is_not(None))
        .order_by(message.c.captured_at_ms.desc())
        .offset(keep)
        .limit(1)
        .scalar_subquery()
    )
    return list(
        connection.execute(
            select(message.c.queue_id)
            .where(message.c.captured_at_ms <= newest)
            .order_by(message.c.captured_at_ms)
            .limit(limit)
        ).scalars()
    )


def uncapture(connection: Connection, queue_ids: Sequence[str]) -> int:
    """Delete captured messages, but for those that still wait to be sent to somebody.

    Those only leave the sandbox; their content stays until they are finished.
    """
    deleted: list[str] = []
    for batch in in_batches(queue_ids):
        queued = set(
            connection.execute(
                select(message.c.queue_id).where(message.c.queue_id.in_(batch), _OPEN_DELIVERY)
            ).scalars()
        )
        connection.execute(
            update(message).where(message.c.queue_id.in_(queued)).values(captured_at_ms=None)
        )
        deleted += [queue_id for queue_id in batch if queue_id not in queued]
    delete_messages(connection, deleted)
    return len(queue_ids)


def _purge_orphans(connection: Connection, cutoff_ms: int, *, limit: int) -> int:
    """Delete content whose message never came: its client left before the end."""
    queue_ids = list(
        connection.execute(
            select(chunk.c.queue_id)
            .distinct()
            .where(
                chunk.c.queue_id < first_id_at(cutoff_ms),
                ~exists().where(message.c.queue_id == chunk.c.queue_id),
            )
            .limit(limit)
        ).scalars()
    )
    for batch in in_batches(queue_ids):
        connection.execute(delete(chunk).where(chunk.c.queue_id.in_(batch)))
    return len(queue_ids)
