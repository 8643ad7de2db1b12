"""Messages that are done: no delivery of them waits, and their content goes."""

from __future__ import annotations

from collections.abc import Sequence

from relaygw.store.database import BatchStatement, Transaction
from relaygw.store.tables import HAS_NO_NOTICE_DUE


# small content goes with the outcome, large content piece by piece later (Janitor.shed_content);
# captured mail keeps its content for the sandbox's own retention, and what a sender is to be told
# of until that is made
def _finish_statement(ended_states: str) -> BatchStatement:
    return BatchStatement(
        f"""
        UPDATE message
        SET finished_at_ms = v.column2,
            chunk_count = CASE WHEN chunk_count = 1 AND captured_at_ms IS NULL
                AND {HAS_NO_NOTICE_DUE} THEN v.column3 ELSE chunk_count END
        FROM (VALUES {{rows}}) AS v
        WHERE message.queue_id = v.column1
        AND NOT EXISTS (
            SELECT 1 FROM delivery WHERE delivery.queue_id = message.queue_id
            AND delivery.state NOT IN ({ended_states})
        )
        """,
        columns=3,
    )


# what is in the trash may come back, with its content
_FINISH_MESSAGES = _finish_statement("'finished'")
_EMPTY_TRASH = _finish_statement("'finished', 'deleted'")
# Two workers that record the last two deliveries of a message at once would each see the other's
# as open. Who waits for this lock sees in the next statement what the one before wrote.
_LOCK_PARTED = BatchStatement(
    """
    SELECT queue_id FROM message WHERE queue_id IN (VALUES {rows})
    AND EXISTS (
        SELECT 1 FROM delivery WHERE delivery.queue_id = message.queue_id AND delivery_no > 0
    )
    ORDER BY queue_id {for_update}
    """,
    columns=1,
)
_DROP_FORGOTTEN_CONTENT = BatchStatement(
    """
    DELETE FROM chunk WHERE queue_id IN (
        SELECT queue_id FROM message WHERE queue_id IN (VALUES {rows}) AND chunk_count = 0
    )
    """,
    columns=1,
)


def finish_messages(
    tx: Transaction, queue_ids: Sequence[str], *, now_ms: int, keep_content: bool
) -> None:
    """Finish messages without a delivery that waits or may come back; drop small content."""
    if tx.is_postgres:  # SQLite has one writer at a time
        _LOCK_PARTED.fetch(tx, [(queue_id,) for queue_id in sorted(queue_ids)])
    _FINISH_MESSAGES.run(tx, [(queue_id, now_ms, int(keep_content)) for queue_id in queue_ids])
    if not keep_content:
        _DROP_FORGOTTEN_CONTENT.run(tx, [(queue_id,) for queue_id in queue_ids])


def empty_trash(tx: Transaction, queue_ids: Sequence[str], *, now_ms: int) -> None:
    """Finish messages whose trash has been there for long enough; locked before (lock_messages)."""
    _EMPTY_TRASH.run(tx, [(queue_id, now_ms, 0) for queue_id in queue_ids])
    _DROP_FORGOTTEN_CONTENT.run(tx, [(queue_id,) for queue_id in queue_ids])
