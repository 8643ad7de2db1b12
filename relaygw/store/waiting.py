"""What waits, a page at a time, by one statement: a list of 100,000 messages takes a second."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from operator import itemgetter

from sqlalchemy import Connection

from relaygw.store.batch import Row, Statement
from relaygw.store.commands import Waiting
from relaygw.store.tables import IS_OPEN

# why a recipient waits: what stops a held delivery, else what was said to it last
_PAGE = Statement(
    f"""
    SELECT page.queue_id, delivery.state, message.accepted_at_ms, message.size_bytes,
        message.sender, recipient.address,
        COALESCE(
            NULLIF(
                CASE WHEN delivery.state = 'held' THEN delivery.reason ELSE recipient.reply END, ''
            ),
            delivery.reason, ''
        )
    FROM (
        SELECT DISTINCT delivery.queue_id FROM delivery
        WHERE {IS_OPEN} AND delivery.queue_id > {{?}} ORDER BY delivery.queue_id LIMIT {{?}}
    ) AS page
    JOIN delivery ON delivery.queue_id = page.queue_id
    JOIN message ON message.queue_id = page.queue_id
    LEFT JOIN recipient ON recipient.queue_id = delivery.queue_id
        AND recipient.delivery_no = delivery.delivery_no AND recipient.state = 'pending'
    WHERE {IS_OPEN} ORDER BY page.queue_id, recipient.rcpt_no
    """
)


def waiting(connection: Connection, *, limit: int, after: str) -> list[Waiting]:
    """Return queued messages: see QueueCommands.waiting."""
    rows = _PAGE.fetch(connection, after, limit)
    return [_message(list(mine)) for _, mine in groupby(rows, key=itemgetter(0))]


def _message(rows: list[Row]) -> Waiting:
    queue_id, state, accepted_at_ms, size_bytes, sender, address, why = rows[0]
    if len(rows) == 1:
        recipients = () if address is None else ((address, why),)
        states = _ALONE[state]
        return Waiting(queue_id, accepted_at_ms, size_bytes, sender, states, recipients)
    return Waiting(
        queue_id,
        accepted_at_ms,
        size_bytes,
        sender,
        frozenset(row[1] for row in rows),
        tuple(_recipients(rows)),
    )


def _recipients(rows: list[Row]) -> Iterator[tuple[str, str]]:
    for *_, address, why in rows:
        if address is not None:
            yield address, why


_ALONE = {state: frozenset({state}) for state in ("incoming", "active", "deferred", "held")}
