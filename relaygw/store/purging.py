"""Deleting what is over its time.

What has to go is looked for without the write lock, which a look at a large queue would hold for
too long, and removed by its queue ids if it still has to go then.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from sqlalchemy import Connection, Select, and_, delete, exists, func, or_, select, update

from relaygw.mail.queue_id import first_id_at
from relaygw.mail.state import DeliveryState
from relaygw.store import indexing
from relaygw.store.leasing import empty_trash
from relaygw.store.operating import in_batches, lock_messages
from relaygw.store.tables import (
    HAS_KEPT_CONTENT,
    IS_OPEN,
    attempt,
    chunk,
    delivery,
    message,
    recipient,
)

Found = Select[str]
_CHUNKS_A_STEP = 4

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


def delete_messages(connection: Connection, queue_ids: Sequence[str]) -> int:
    """Delete messages with all that belongs to them."""
    for batch in in_batches(queue_ids):
        for table in (chunk, attempt, recipient, delivery, message):
            connection.execute(delete(table).where(table.c.queue_id.in_(batch)))
    return len(queue_ids)


_other = delivery.alias("other")


def _trash(cutoff_ms: int) -> Found:
    """Mail of which nothing waits any more, and nothing is in the trash for less than that."""
    return (
        select(delivery.c.queue_id)
        .distinct()
        .where(
            delivery.c.queue_id < first_id_at(cutoff_ms),
            delivery.c.state == DeliveryState.DELETED.value,
            delivery.c.changed_at_ms < cutoff_ms,
            exists().where(
                message.c.queue_id == delivery.c.queue_id, message.c.finished_at_ms.is_(None)
            ),
            ~exists().where(
                _other.c.queue_id == delivery.c.queue_id,
                _other.c.state != DeliveryState.FINISHED.value,
                or_(
                    _other.c.state != DeliveryState.DELETED.value,
                    _other.c.changed_at_ms >= cutoff_ms,
                ),
            ),
        )
    )


def _finished(cutoff_ms: int) -> Found:
    return (
        select(message.c.queue_id)
        .where(
            message.c.queue_id < first_id_at(cutoff_ms),
            message.c.finished_at_ms < cutoff_ms,
            message.c.captured_at_ms.is_(None),
        )
        .order_by(message.c.queue_id)
    )


def _captured(cutoff_ms: int) -> Found:
    return (
        select(message.c.queue_id)
        .where(message.c.captured_at_ms < cutoff_ms)
        .order_by(message.c.captured_at_ms)
    )


_HAS_NO_MESSAGE = ~exists().where(message.c.queue_id == chunk.c.queue_id)


class Orphans:
    """Content whose message never came, since its client left before the end.

    What is on its way looks the same, and its id says when it began by another machine's clock.
    So it is an orphan when nothing more of it came for a time, by the clock of this process.
    """

    def __init__(self) -> None:
        self._seen: dict[str, tuple[int, float]] = {}

    def find(self, connection: Connection, *, age_s: float, now_s: float, limit: int) -> list[str]:
        """Return those that have been as they are for so long since they were seen first."""
        rows = connection.execute(
            select(chunk.c.queue_id, func.count())
            .where(_HAS_NO_MESSAGE)
            .group_by(chunk.c.queue_id)
            .order_by(chunk.c.queue_id)
        )
        seen = {}
        for queue_id, count in rows:
            before, since_s = self._seen.get(queue_id, (count, now_s))
            seen[queue_id] = (count, since_s if count == before else now_s)
        self._seen = seen
        over = [queue_id for queue_id, (_, since_s) in seen.items() if now_s - since_s >= age_s]
        return over[:limit]


# the trash is emptied into finished messages first
_FINDERS: dict[str, Callable[[int], Found]] = {
    "deleted": _trash,
    "finished": _finished,
    "captured": _captured,
}


def find(connection: Connection, cutoffs: Mapping[str, int], *, limit: int) -> dict[str, list[str]]:
    """Return the queue ids of what is over its time, by kind; a search for a read transaction."""
    return {
        kind: list(connection.execute(finder(cutoffs[kind]).limit(limit)).scalars())
        for kind, finder in _FINDERS.items()
        if kind in cutoffs
    }


def purge(
    connection: Connection,
    found: Mapping[str, Sequence[str]],
    cutoffs: Mapping[str, int],
    *,
    now_ms: int,
) -> int:
    """Remove what `find` returned and is still over its time; return how many messages."""
    done = 0
    for kind, queue_ids in found.items():
        for batch in in_batches(queue_ids):
            if kind == "orphans":
                done += _remove_orphans(connection, batch)
                continue
            if kind == "deleted":
                lock_messages(connection, batch)
            finder = _FINDERS[kind](cutoffs[kind]).order_by(None)
            id_column = finder.selected_columns[0]
            still = list(connection.execute(finder.where(id_column.in_(batch))).scalars())
            _remove(connection, kind, still, now_ms)
            done += len(still)
    return done


def _remove(connection: Connection, kind: str, queue_ids: Sequence[str], now_ms: int) -> None:
    match kind:
        case "deleted":
            empty_trash(connection, queue_ids, now_ms=now_ms)
        case "finished":
            delete_messages(connection, queue_ids)
        case "captured":
            uncapture(connection, queue_ids)


def _remove_orphans(connection: Connection, queue_ids: Sequence[str]) -> int:
    is_mine = chunk.c.queue_id.in_(queue_ids)
    # first, and by a statement of its own: who takes the message meanwhile is waited for
    connection.execute(
        select(chunk.c.queue_id)
        .where(is_mine)
        .order_by(chunk.c.queue_id, chunk.c.chunk_no)
        .with_for_update()
    ).all()
    still = set(
        connection.execute(select(chunk.c.queue_id).where(is_mine, _HAS_NO_MESSAGE)).scalars()
    )
    connection.execute(delete(chunk).where(chunk.c.queue_id.in_(still)))
    return len(still)


def find_kept(connection: Connection, before_ms: int) -> str | None:
    """Return a message, finished before a time, that still has content and is not captured."""
    found: str | None = connection.execute(_kept(before_ms)).scalar()
    return found


def _kept(before_ms: int) -> Found:
    return (
        select(message.c.queue_id)
        .where(
            HAS_KEPT_CONTENT,
            message.c.finished_at_ms < before_ms,
            message.c.captured_at_ms.is_(None),
        )
        .limit(1)
    )


def shed(connection: Connection, queue_id: str) -> None:
    """Delete the last chunks of a message, if it is finished and not captured (any more).

    Large content goes piece by piece.
    """
    count = connection.execute(
        select(message.c.chunk_count).where(
            message.c.queue_id == queue_id,
            message.c.finished_at_ms.is_not(None),
            message.c.captured_at_ms.is_(None),
        )
    ).scalar()
    if count is None:  # found without the lock, and other by now
        return
    left = max(0, count - _CHUNKS_A_STEP)
    connection.execute(delete(chunk).where(chunk.c.queue_id == queue_id, chunk.c.chunk_no >= left))
    connection.execute(
        update(message).where(message.c.queue_id == queue_id).values(chunk_count=left)
    )


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
    """Delete captured messages, but for those that wait to be sent to somebody or are in the trash.

    Those only leave the sandbox; their content stays until they are finished. Returns how many
    messages were captured.
    """
    deleted: list[str] = []
    left: list[str] = []
    for batch in in_batches(queue_ids):
        # first, and by a statement of its own: who lets one go meanwhile is waited for
        captured = list(
            connection.execute(
                select(message.c.queue_id)
                .where(message.c.queue_id.in_(batch), message.c.captured_at_ms.is_not(None))
                .order_by(message.c.queue_id)
                .with_for_update()
            ).scalars()
        )
        queued = set(
            connection.execute(
                select(message.c.queue_id).where(
                    message.c.queue_id.in_(captured), or_(_OPEN_DELIVERY, _IN_THE_TRASH)
                )
            ).scalars()
        )
        connection.execute(
            update(message)
            .where(message.c.queue_id.in_(queued))
            .values(
                captured_at_ms=None, indexed_at_ms=None, finished_at_ms=None
            )  # queued, so not finished
        )
        deleted += [queue_id for queue_id in captured if queue_id not in queued]
        left += queued
    delete_messages(connection, deleted)
    indexing.forget(connection, [*deleted, *left])
    return len(deleted) + len(left)
