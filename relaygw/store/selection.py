"""Which messages an operator means, and how much of the queue is of what kind and age.

Open ones are found by their index, so that a page of a long queue costs a look at a page; finished
ones, nearly all, are never looked at.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from sqlalchemy import TextClause, case, exists, func, literal, select
from sqlalchemy.sql.elements import ColumnElement

from relaygw.mail.state import OPEN, DeliveryState, RecipientState
from relaygw.store.database import Transaction
from relaygw.store.queue_entry import rows_in
from relaygw.store.tables import IS_OPEN, delivery, has_text, message, recipient

MAX_TEXT_CHARACTERS = 1000  # of a text that is looked for: far below what SQLite takes as a pattern
Condition = ColumnElement[bool] | TextClause


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Which messages: every condition set must hold; texts match anywhere, without case."""

    queue_ids: tuple[str, ...] = ()
    sender: str | None = None
    recipient: str | None = None
    subject: str | None = None
    states: frozenset[DeliveryState] = OPEN
    provider: str | None = None
    route: str | None = None
    stream: str | None = None
    client: str | None = None
    accepted_before_ms: int | None = None
    reason: str | None = None
    reply: str | None = None


class ShapeKey(StrEnum):
    """What the queue is counted by: recipients' domains by recipient, the rest by delivery."""

    RECIPIENT = "recipient"
    SENDER = "sender"
    PROVIDER = "provider"
    REASON = "reason"
    ROUTE = "route"


@dataclass(frozen=True, slots=True, kw_only=True)
class ShapeCount:
    """How much of a key is of one age: step n is younger than bound n, the last has none."""

    key: str
    step: int
    number: int


def _delivery_conditions(selection: Selection) -> Iterator[Condition]:
    if selection.queue_ids:
        yield delivery.c.queue_id.in_(selection.queue_ids)
    if selection.states != frozenset(DeliveryState):
        yield delivery.c.state.in_([state.value for state in selection.states])
    if selection.states <= OPEN:
        yield IS_OPEN
    for name in ("provider", "route", "stream"):
        if (wanted := getattr(selection, name)) is not None:
            yield delivery.c[name] == wanted
    if selection.reason is not None:
        yield has_text(delivery.c.reason, selection.reason)


def _message_conditions(tx: Transaction, selection: Selection) -> Iterator[ColumnElement[bool]]:
    for name in ("sender", "subject"):
        if (part := getattr(selection, name)) is not None:
            yield has_text(message.c[name], part)
    if (client := selection.client) is not None:
        yield (message.c.source_client == client) | (message.c.source_user == client)
    if selection.accepted_before_ms is not None:
        yield message.c.accepted_at_ms < tx.to_stored(selection.accepted_before_ms)
    is_its = recipient.c.queue_id == message.c.queue_id
    for name, column in (("recipient", recipient.c.address), ("reply", recipient.c.reply)):
        if (part := getattr(selection, name)) is not None:
            yield exists().where(is_its, has_text(column, part))


def matching_ids(tx: Transaction, selection: Selection, *, limit: int, after: str) -> list[str]:
    """Return the ids of matching messages in the order of acceptance."""
    ids = sorted(set(selection.queue_ids))
    selection = replace(selection, queue_ids=())
    of_messages = list(_message_conditions(tx, selection))
    query = (
        select(delivery.c.queue_id)
        .distinct()
        .where(*_delivery_conditions(selection), delivery.c.queue_id > after, *of_messages)
        .order_by(delivery.c.queue_id)
        .limit(limit)
    )
    if of_messages:
        query = query.join(message, message.c.queue_id == delivery.c.queue_id)
    if not ids:
        return list(tx.execute(query).scalars())
    found = [row[0] for row in rows_in(tx, query, delivery.c.queue_id, ids)]
    return found[:limit]


IS_ITS_RECIPIENT = (recipient.c.queue_id == delivery.c.queue_id) & (
    recipient.c.delivery_no == delivery.c.delivery_no
)
PENDING_RECIPIENTS = (
    select(func.count())
    .where(IS_ITS_RECIPIENT, recipient.c.state == RecipientState.PENDING.value)
    .scalar_subquery()
)
"""How many recipients of a delivery still wait."""


def _domain(address: ColumnElement[str]) -> ColumnElement[str]:
    """Return what follows the last @: what is left of it is cut off from the right."""
    local_part = func.rtrim(address, func.replace(address, "@", ""))
    return func.lower(func.substr(address, func.length(local_part) + 1))


_KEYS: dict[ShapeKey, ColumnElement[Any]] = {
    ShapeKey.RECIPIENT: _domain(recipient.c.address),
    ShapeKey.SENDER: message.c.sender,
    ShapeKey.PROVIDER: func.coalesce(delivery.c.provider, ""),
    ShapeKey.REASON: func.coalesce(delivery.c.reason, ""),
    ShapeKey.ROUTE: delivery.c.route,
}


def count_shape(
    tx: Transaction, selection: Selection, by: ShapeKey, bounds_ms: Sequence[int]
) -> list[ShapeCount]:
    """Count what waits: see Queue.shape."""
    age_ms = literal(tx.now_ms()) - message.c.accepted_at_ms
    step = case(
        *((age_ms < bound_ms, number) for number, bound_ms in enumerate(bounds_ms)),
        else_=len(bounds_ms),
    )
    rows = delivery.join(message, message.c.queue_id == delivery.c.queue_id)
    conditions = [*_delivery_conditions(selection), *_message_conditions(tx, selection)]
    if by is ShapeKey.RECIPIENT:
        rows = rows.join(recipient, IS_ITS_RECIPIENT)
        conditions.append(recipient.c.state == RecipientState.PENDING.value)
    key = _KEYS[by].label("key")
    counted = select(key, step.label("step"), func.count().label("number")).select_from(rows)
    found = tx.execute(counted.where(*conditions).group_by("key", "step"))
    return [ShapeCount(key=row.key, step=row.step, number=row.number) for row in found]
