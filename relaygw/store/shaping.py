"""How much waits, by what and how old it is: Postfix's qshape as one statement."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Select, case, func, literal, select
from sqlalchemy.sql.elements import ColumnElement

from relaygw.mail.state import RecipientState
from relaygw.store.commands import ShapeCount, ShapeKey
from relaygw.store.finding import delivery_conditions, message_conditions
from relaygw.store.protocol import Selection
from relaygw.store.tables import delivery, message, recipient

_JOINED = delivery.join(message, message.c.queue_id == delivery.c.queue_id)


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


def shape(
    connection: Connection,
    selection: Selection,
    *,
    by: ShapeKey,
    bounds_ms: Sequence[int],
    now_ms: int,
) -> list[ShapeCount]:
    """Count what waits by a key and by age: see QueueCommands.shape."""
    age_ms = literal(now_ms) - message.c.accepted_at_ms
    step = case(
        *((age_ms < bound_ms, number) for number, bound_ms in enumerate(bounds_ms)),
        else_=len(bounds_ms),
    )
    key = _KEYS[by].label("key")
    counted = select(key, step.label("step"), func.count().label("number"))
    rows = connection.execute(
        _rows(counted, by)
        .where(*delivery_conditions(selection), *message_conditions(selection))
        .group_by("key", "step")
    )
    return [ShapeCount(key=row.key, step=row.step, number=row.number) for row in rows]


def _rows(counted: Select[Any], by: ShapeKey) -> Select[Any]:
    if by is not ShapeKey.RECIPIENT:
        return counted.select_from(_JOINED)
    is_its = (recipient.c.queue_id == delivery.c.queue_id) & (
        recipient.c.delivery_no == delivery.c.delivery_no
    )
    return counted.select_from(_JOINED.join(recipient, is_its)).where(
        recipient.c.state == RecipientState.PENDING.value
    )
