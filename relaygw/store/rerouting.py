"""Rows of mail that gets another route by itself, since its own is not configured any more."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, func, select, update

from relaygw.mail.standing import Rerouting
from relaygw.mail.state import CLAIMABLE, RecipientState
from relaygw.store.batch import BatchStatement, Statement
from relaygw.store.operating import IS_IN_DOUBT
from relaygw.store.tables import IS_CLAIMABLE, delivery, message, recipient

# hops through the index from route to route, however much is queued on each
_ROUTES = Statement(
    f"""
    WITH RECURSIVE waiting(route) AS (
        SELECT (SELECT min(delivery.route) FROM delivery WHERE {IS_CLAIMABLE})
        UNION ALL
        SELECT (
            SELECT min(delivery.route) FROM delivery
            WHERE {IS_CLAIMABLE} AND delivery.route > waiting.route
        )
        FROM waiting WHERE waiting.route IS NOT NULL
    )
    SELECT route FROM waiting WHERE route IS NOT NULL
    """
)
_REROUTE = BatchStatement(
    f"""
    UPDATE delivery SET route = v.column4, stream = v.column5
    FROM (VALUES {{rows}}) AS v
    WHERE delivery.queue_id = v.column1 AND delivery.delivery_no = v.column2
    AND delivery.route = v.column3 AND {IS_CLAIMABLE}
    AND NOT ((delivery.doubts > 0 OR delivery.reclaims > 0) AND delivery.provider IS NOT NULL)
    """,
    columns=5,
)


def routes_waiting(connection: Connection) -> list[str]:
    """Return the routes of what may be claimed: see Store.routes_waiting."""
    return [route for (route,) in _ROUTES.fetch(connection)]


def reroute(connection: Connection, steps: Sequence[Rerouting]) -> int:
    """Give deliveries their routes of now: see Store.reroute."""
    whole = [
        (step.queue_id, step.delivery_no, step.route, way.route, way.stream)
        for step in steps
        if len(step.ways) == 1
        for way in step.ways
    ]
    number = _REROUTE.run(connection, whole)
    return number + sum(_part(connection, step) for step in steps if len(step.ways) > 1)


def _part(connection: Connection, step: Rerouting) -> int:
    """Leave the first way to the delivery and make one for each of the others."""
    # whoever adds a delivery to a message locks it: see releasing
    connection.execute(
        select(message.c.queue_id).where(message.c.queue_id == step.queue_id).with_for_update()
    ).all()
    is_it = (delivery.c.queue_id == step.queue_id) & (delivery.c.delivery_no == step.delivery_no)
    row = connection.execute(
        select(delivery)
        .where(is_it, delivery.c.route == step.route, delivery.c.state.in_(CLAIMABLE), ~IS_IN_DOUBT)
        .with_for_update()
    ).one_or_none()
    if row is None:
        return 0
    last_no = connection.execute(
        select(func.max(delivery.c.delivery_no)).where(delivery.c.queue_id == step.queue_id)
    ).scalar_one()
    first, *others = step.ways
    connection.execute(update(delivery).where(is_it).values(route=first.route, stream=first.stream))
    for number, way in enumerate(others, start=last_no + 1):
        changed = {"delivery_no": number, "route": way.route, "stream": way.stream}
        connection.execute(delivery.insert().values(dict(row._mapping) | changed))
        connection.execute(
            update(recipient)
            .where(
                recipient.c.queue_id == step.queue_id,
                recipient.c.rcpt_no.in_(way.rcpt_nos),
                recipient.c.state == RecipientState.PENDING.value,
            )
            .values(delivery_no=number)
        )
    return len(step.ways)
