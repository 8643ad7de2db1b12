"""How much of the queue is of what kind and age."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from sqlalchemy import case, func, literal, select
from sqlalchemy.sql.elements import ColumnElement

from relaygw.mail.state import RecipientState
from relaygw.store.database import Transaction
from relaygw.store.selection import (
    IS_ITS_RECIPIENT,
    Selection,
    delivery_conditions,
    domain_of,
    message_conditions,
)
from relaygw.store.tables import delivery, message, recipient


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


_KEYS: dict[ShapeKey, ColumnElement[Any]] = {
    ShapeKey.RECIPIENT: domain_of(recipient.c.address),
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
    conditions = [*delivery_conditions(selection), *message_conditions(tx, selection)]
    if by is ShapeKey.RECIPIENT:
        rows = rows.join(recipient, IS_ITS_RECIPIENT)
        conditions.append(recipient.c.state == RecipientState.PENDING.value)
    key = _KEYS[by].label("key")
    counted = select(key, step.label("step"), func.count().label("number")).select_from(rows)
    found = tx.execute(counted.where(*conditions).group_by("key", "step"))
    return [ShapeCount(key=row.key, step=row.step, number=row.number) for row in found]
