"""Lists and searches of captured mail.

A list without conditions is one of messages, in the order in which they were captured. A search
looks at `captured_index`, whose numbers grow in that order but for messages that were captured
at the same time.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, func, select, text

from relaygw.mail.search import EVERYTHING, MailSearch
from relaygw.store import indexing, tagging
from relaygw.store.captured import CapturedEntry
from relaygw.store.matching import matching
from relaygw.store.operating import in_batches, load_entries
from relaygw.store.protocol import QueueEntry
from relaygw.store.tables import IS_UNREAD, captured_index, message

_NEWEST = 2_000  # rows that are looked at first where the database plans badly
_FREQUENT = 0.1  # of them: an index of words is of no use

_I = captured_index.c


def find(
    connection: Connection, search: MailSearch, *, start: int, limit: int
) -> list[CapturedEntry]:
    """Return matching messages, newest first, without the first `start`."""
    return entries(connection, _newest_ids(connection, search, start=start, limit=limit))


def _newest_ids(connection: Connection, search: MailSearch, *, start: int, limit: int) -> list[str]:
    if search == EVERYTHING:
        query = (
            select(message.c.queue_id)
            .where(message.c.captured_at_ms.is_not(None))
            .order_by(message.c.captured_at_ms.desc(), message.c.queue_id.desc())
        )
        return list(connection.execute(query.offset(start).limit(limit)).scalars())
    if connection.dialect.name == "postgresql":
        found = _among_newest(connection, search, limit=start + limit)
        if len(found) == start + limit:
            return found[start:]
    rows = matching(connection, search)
    query = rows.select(_I.queue_id).order_by(rows.number.desc())
    return list(connection.execute(query.offset(start).limit(limit)).scalars())


def _among_newest(connection: Connection, search: MailSearch, *, limit: int) -> list[str]:
    """Return matching messages among the newest ones.

    PostgreSQL takes every text for a rare one, and would collect all messages with a word that
    is in each of them before it looks at the newest.
    """
    connection.execute(text("SET LOCAL enable_bitmapscan = off"))
    last = connection.execute(
        select(_I.index_no).order_by(_I.index_no.desc()).offset(_NEWEST).limit(1)
    ).scalar()
    query = matching(connection, search).select(_I.queue_id).where(_I.index_no > (last or 0))
    found = list(connection.execute(query.order_by(_I.index_no.desc()).limit(limit)).scalars())
    connection.execute(text("SET LOCAL enable_bitmapscan = DEFAULT"))
    return found


def entries(connection: Connection, queue_ids: Sequence[str]) -> list[CapturedEntry]:
    """Return captured messages with what is kept of them, in the order of `queue_ids`."""
    found: dict[str, QueueEntry] = {}
    for batch in in_batches(queue_ids):
        captured = select(message).where(
            message.c.queue_id.in_(batch), message.c.captured_at_ms.is_not(None)
        )
        found |= {entry.queue_id: entry for entry in load_entries(connection, captured)}
    facts = indexing.facts_of(connection, queue_ids)
    tags = tagging.tags_of(connection, queue_ids)
    return [
        CapturedEntry(entry=found[one], facts=facts.get(one), tags=tags.get(one, ()))
        for one in queue_ids
        if one in found
    ]


def all_ids(connection: Connection) -> list[str]:
    """Return the ids of all captured messages."""
    captured = select(message.c.queue_id).where(message.c.captured_at_ms.is_not(None))
    return list(connection.execute(captured).scalars())


def count(connection: Connection, search: MailSearch) -> tuple[int, int]:
    """Return how many messages match, and how many of them are unread."""
    if search == EVERYTHING:
        captured = select(func.count()).select_from(message)
        total = connection.execute(captured.where(message.c.captured_at_ms.is_not(None)))
        return total.scalar_one(), connection.execute(captured.where(IS_UNREAD)).scalar_one()
    if connection.dialect.name == "postgresql":
        _plan_count(connection, search)
    unread = func.count().filter(_I.is_unread)
    row = connection.execute(matching(connection, search).select(func.count(), unread)).one()
    return row[0], row[1]


def _plan_count(connection: Connection, search: MailSearch) -> None:
    """Keep PostgreSQL from ways that are good for rare texts only, until the transaction ends."""
    if len(_among_newest(connection, search, limit=_NEWEST)) > _NEWEST * _FREQUENT:
        connection.execute(text("SET LOCAL enable_bitmapscan = off"))
    connection.execute(text("SET LOCAL enable_nestloop = off"))


def ids(connection: Connection, search: MailSearch, *, limit: int, after: str) -> list[str]:
    """Return ids of matching messages in their order, those after one."""
    if search == EVERYTHING:
        column = message.c.queue_id
        query = select(column).where(message.c.captured_at_ms.is_not(None))
    else:
        column = _I.queue_id
        query = matching(connection, search).select(column)
    ordered = query.where(column > after).order_by(column).limit(limit)
    return list(connection.execute(ordered).scalars())
