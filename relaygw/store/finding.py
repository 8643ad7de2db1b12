"""Searches of the queue by what operators ask for.

What is open is found by its index, in the order of acceptance, so that a page of a long queue
costs a look at a page; finished messages, which are nearly all of them, are never looked at.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from sqlalchemy import Connection, TextClause, exists, select
from sqlalchemy.sql.elements import ColumnElement

from relaygw.mail.state import OPEN, DeliveryState
from relaygw.store.letter_case import has_text
from relaygw.store.operating import in_batches, is_listed, load_entries
from relaygw.store.protocol import QueueEntry, Selection
from relaygw.store.tables import IS_OPEN, delivery, message, recipient

Condition = ColumnElement[bool] | TextClause


def delivery_conditions(selection: Selection) -> Iterator[Condition]:
    """Yield what a selection asks of a delivery."""
    if selection.queue_ids:
        yield delivery.c.queue_id.in_(selection.queue_ids)
    if selection.states != frozenset(DeliveryState):
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
        yield has_text(delivery.c.reason, selection.reason)


def message_conditions(selection: Selection) -> Iterator[ColumnElement[bool]]:
    """Yield what a selection asks of a message."""
    if selection.sender is not None:
        yield has_text(message.c.sender, selection.sender)
    if selection.subject is not None:
        yield has_text(message.c.subject, selection.subject)
    if selection.client is not None:
        yield (message.c.source_client == selection.client) | (
            message.c.source_user == selection.client
        )
    if selection.accepted_before_ms is not None:
        yield message.c.accepted_at_ms < selection.accepted_before_ms
    if selection.recipient is not None:
        yield exists().where(
            recipient.c.queue_id == message.c.queue_id,
            has_text(recipient.c.address, selection.recipient),
        )
    if selection.reply is not None:
        yield exists().where(
            recipient.c.queue_id == message.c.queue_id,
            has_text(recipient.c.reply, selection.reply),
        )


def search(
    connection: Connection, selection: Selection, *, limit: int, after: str
) -> list[QueueEntry]:
    """Return matching messages in the order of acceptance."""
    return entries(connection, search_ids(connection, selection, limit=limit, after=after))


def search_ids(
    connection: Connection, selection: Selection, *, limit: int, after: str
) -> list[str]:
    """Return the ids of matching messages in the order of acceptance."""
    ids = sorted(set(selection.queue_ids))
    selection = replace(selection, queue_ids=())
    of_messages = list(message_conditions(selection))
    query = (
        select(delivery.c.queue_id)
        .distinct()
        .where(*delivery_conditions(selection), delivery.c.queue_id > after, *of_messages)
        .order_by(delivery.c.queue_id)
        .limit(limit)
    )
    if of_messages:
        query = query.join(message, message.c.queue_id == delivery.c.queue_id)
    if not ids:
        return list(connection.execute(query).scalars())
    found: list[str] = []
    for batch in in_batches(ids):
        found += connection.execute(query.where(delivery.c.queue_id.in_(batch))).scalars()
    return found[:limit]


def entries(connection: Connection, queue_ids: Sequence[str]) -> list[QueueEntry]:
    """Return those of the messages that there are, in the order of acceptance."""
    found: list[QueueEntry] = []
    for batch in in_batches(sorted(set(queue_ids))):
        chosen = select(message).where(is_listed(connection, message.c.queue_id, batch))
        found += load_entries(connection, chosen.order_by(message.c.queue_id))
    return found


def taken_drops(connection: Connection, drop_ids: Sequence[str]) -> set[str]:
    """Return which of these drop ids a message was stored with."""
    found: set[str] = set()
    for batch in in_batches(drop_ids):
        chosen = select(message.c.drop_id).where(message.c.drop_id.in_(batch))
        found.update(connection.execute(chosen).scalars())
    return found
