"""How much of the queue is of what kind and age."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from sqlalchemy import Text, case, cast, func, literal, select
from sqlalchemy.sql.elements import ColumnElement

from relaygw.mail.state import RecipientState
from relaygw.policy.template import subject_template
from relaygw.store.database import Transaction
from relaygw.store.selection import (
    HOST,
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
    SUBJECT = "subject"  # its template
    SCRIPT = "script"
    HOST = "host"
    UID = "uid"


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
    ShapeKey.SUBJECT: message.c.subject,
    ShapeKey.SCRIPT: func.coalesce(message.c.source_script, ""),
    ShapeKey.HOST: HOST,
    ShapeKey.UID: func.coalesce(cast(message.c.source_uid, Text), ""),
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
    numbers: Counter[tuple[str, int]] = Counter()
    for row in found:
        name = subject_template(row.key) if by is ShapeKey.SUBJECT else row.key
        numbers[name, row.step] += row.number
    return [ShapeCount(key=name, step=at, number=number) for (name, at), number in numbers.items()]
