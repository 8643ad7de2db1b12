"""What searches look at: rows beside captured messages, written once their content was read.

They can be made anew from the content, so nothing here is synced by itself. A message's row is
locked before its index row is touched, also by those who delete both: an index row never
outlives its message, and both say the same of whether it was opened.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, delete, exists, select, update

from relaygw.mail.content_facts import ContentFacts
from relaygw.store import full_text
from relaygw.store.batch import insert_into
from relaygw.store.index_record import INDEX_COLUMNS, IndexRecord, read_facts
from relaygw.store.operating import in_batches, load_entries
from relaygw.store.protocol import QueueEntry
from relaygw.store.tables import (
    IS_UNINDEXED,
    captured_facts,
    captured_index,
    captured_tag,
    captured_text,
    message,
    recipient,
)

_INSERT_INDEX = insert_into("captured_index", *INDEX_COLUMNS)
_INSERT_TEXT = insert_into("captured_text", "index_no", "search_text")
_INSERT_FACTS = insert_into("captured_facts", "index_no", "facts")


def unindexed(connection: Connection, *, limit: int) -> list[QueueEntry]:
    """Return captured messages without a row, oldest first."""
    return load_entries(
        connection,
        select(message)
        .where(IS_UNINDEXED)
        .order_by(message.c.captured_at_ms, message.c.queue_id)
        .limit(limit),
    )


def index(connection: Connection, facts: Mapping[str, ContentFacts], *, now_ms: int) -> None:
    """Write the rows of a batch of captured messages, but for those that have theirs."""
    rows = _lock_unindexed(connection, list(facts))
    queue_ids = [row.queue_id for row in rows]
    people = _recipients(connection, queue_ids)
    records = {
        row.queue_id: IndexRecord(row, people[row.queue_id], facts[row.queue_id]) for row in rows
    }
    _INSERT_INDEX.run(connection, [record.index_row() for record in records.values()])
    numbers = _numbers(connection, queue_ids)
    texts = [(number, records[queue_id].search_text) for number, queue_id in numbers]
    _INSERT_FACTS.run(
        connection, [(number, records[queue_id].facts_text()) for number, queue_id in numbers]
    )
    _INSERT_TEXT.run(connection, texts)
    full_text.add(connection, texts)
    connection.execute(
        update(message).where(message.c.queue_id.in_(queue_ids)).values(indexed_at_ms=now_ms)
    )


def _lock_unindexed(connection: Connection, queue_ids: Sequence[str]) -> list[Any]:
    found = connection.execute(
        select(message)
        .where(message.c.queue_id.in_(queue_ids), IS_UNINDEXED)
        .order_by(message.c.queue_id)
        .with_for_update()
    )
    # the number that a row gets says how new it is
    return sorted(found, key=lambda row: (row.captured_at_ms, row.queue_id))


def _numbers(connection: Connection, queue_ids: Sequence[str]) -> list[tuple[int, str]]:
    rows = connection.execute(
        select(captured_index.c.index_no, captured_index.c.queue_id)
        .where(captured_index.c.queue_id.in_(queue_ids))
        .order_by(captured_index.c.index_no)
    )
    return [(number, queue_id) for number, queue_id in rows]


def _recipients(connection: Connection, queue_ids: Sequence[str]) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = defaultdict(list)
    for row in connection.execute(
        select(recipient)
        .where(recipient.c.queue_id.in_(queue_ids))
        .order_by(recipient.c.queue_id, recipient.c.rcpt_no)
    ):
        found[row.queue_id].append(row)
    return found


def facts_of(connection: Connection, queue_ids: Sequence[str]) -> dict[str, ContentFacts]:
    """Return what is kept of messages, by queue id."""
    of_number = captured_facts.c.index_no == captured_index.c.index_no
    query = select(captured_index.c.queue_id, captured_facts.c.facts).join_from(
        captured_index, captured_facts, of_number
    )
    found: dict[str, ContentFacts] = {}
    for batch in in_batches(queue_ids):
        rows = connection.execute(query.where(captured_index.c.queue_id.in_(batch)))
        found |= {queue_id: read_facts(text) for queue_id, text in rows}
    return found


def forget(connection: Connection, queue_ids: Sequence[str]) -> None:
    """Delete what belongs to captured mail that was deleted, or that left the sandbox."""
    for batch in in_batches(queue_ids):
        numbers = list(
            connection.execute(
                select(captured_index.c.index_no).where(captured_index.c.queue_id.in_(batch))
            ).scalars()
        )
        for table in (captured_facts, captured_text, captured_index):
            connection.execute(delete(table).where(table.c.index_no.in_(numbers)))
        full_text.remove(connection, numbers)
        connection.execute(delete(captured_tag).where(captured_tag.c.queue_id.in_(batch)))


def strays(connection: Connection, *, limit: int) -> list[str]:
    """Return messages that left rows here when an older version of this program deleted them."""
    of_captured = exists().where(
        message.c.queue_id == captured_index.c.queue_id, message.c.captured_at_ms.is_not(None)
    )
    query = select(captured_index.c.queue_id).where(~of_captured).limit(limit)
    return list(connection.execute(query).scalars())


def mark_read(connection: Connection, queue_ids: Sequence[str], *, at_ms: int | None) -> int:
    """Mark captured messages as opened at a time, or as unread; return how many changed."""
    is_unread = message.c.read_at_ms.is_(None)
    changed = connection.execute(
        update(message)
        .where(
            message.c.queue_id.in_(queue_ids),
            message.c.captured_at_ms.is_not(None),
            ~is_unread if at_ms is None else is_unread,
        )
        .values(read_at_ms=at_ms)
    ).rowcount
    connection.execute(
        update(captured_index)
        .where(captured_index.c.queue_id.in_(queue_ids))
        .values(is_unread=at_ms is None)
    )
    return changed
