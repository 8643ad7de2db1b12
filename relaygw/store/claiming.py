"""Claims: which due deliveries an incarnation gets, and all that an attempt needs of them.

A lease is the name of an incarnation in `delivery.lease`; a claim puts it there. New mail and
due retries share a claim, and clients take turns by hopping through the index, so that a claim
costs the same however much is queued.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, bindparam, func, select, tuple_, update

from relaygw.mail.envelope import ClaimedDelivery, Recipient
from relaygw.mail.state import DeliveryState, RecipientState
from relaygw.store.registry import is_alive
from relaygw.store.tables import IS_CLAIMABLE, chunk, delivery, message, recipient

PREFETCH_BYTES = 64 * 1024
"""Content up to this size comes with the claim."""
_MAX_CLIENTS = 200  # clients that take turns in one claim

_D = DeliveryState

_FIRST_CLIENT = select(func.min(delivery.c.client_key)).where(
    delivery.c.route == bindparam("route"), delivery.c.state == bindparam("state"), IS_CLAIMABLE
)
_NEXT_CLIENT = _FIRST_CLIENT.where(delivery.c.client_key > bindparam("after"))
_DUE_OF_CLIENT = (
    select(delivery.c.queue_id, delivery.c.delivery_no)
    .where(
        delivery.c.route == bindparam("route"),
        delivery.c.state == bindparam("state"),
        delivery.c.client_key == bindparam("client_key"),
        delivery.c.due_at_ms <= bindparam("now_ms"),
        IS_CLAIMABLE,
    )
    .order_by(delivery.c.due_at_ms)
    .limit(bindparam("share"))
    .with_for_update(skip_locked=True)
)
_LEASE = (
    update(delivery)
    .where(
        delivery.c.queue_id == bindparam("b_queue_id"),
        delivery.c.delivery_no == bindparam("b_delivery_no"),
    )
    .values(state=_D.ACTIVE.value, lease=bindparam("b_lease"), changed_at_ms=bindparam("b_now_ms"))
)
_CLAIMED = (
    select(
        delivery.c.queue_id,
        delivery.c.delivery_no,
        delivery.c.route,
        delivery.c.stream,
        delivery.c.held_ms,
        delivery.c.attempts,
        delivery.c.doubts,
        delivery.c.client_key,
        message.c.sender,
        message.c.chunk_count,
        message.c.size_bytes,
        message.c.subject,
        message.c.is_8bit,
        message.c.has_long_line,
        message.c.smtputf8,
        message.c.mode,
        message.c.accepted_at_ms,
        chunk.c.body,
    )
    .select_from(
        delivery.join(message, message.c.queue_id == delivery.c.queue_id).outerjoin(
            chunk,
            (chunk.c.queue_id == delivery.c.queue_id)
            & (chunk.c.chunk_no == 0)
            & (message.c.chunk_count == 1)
            & (message.c.size_bytes <= PREFETCH_BYTES),
        )
    )
    .where(
        tuple_(delivery.c.queue_id, delivery.c.delivery_no).in_(bindparam("keys", expanding=True))
    )
)
_PENDING = (
    select(
        recipient.c.queue_id,
        recipient.c.delivery_no,
        recipient.c.rcpt_no,
        recipient.c.address,
        recipient.c.original,
        recipient.c.attempts,
    )
    .where(
        recipient.c.queue_id.in_(bindparam("queue_ids", expanding=True)),
        recipient.c.state == RecipientState.PENDING.value,
    )
    .order_by(recipient.c.queue_id, recipient.c.rcpt_no)
)

Key = tuple[str, int]


def _clients(connection: Connection, route: str, state: DeliveryState) -> list[str]:
    """Return the clients that have deliveries in a state, by hopping through the index."""
    found: list[str] = []
    bound = {"route": route, "state": state.value}
    client = connection.execute(_FIRST_CLIENT, bound).scalar()
    while client is not None and len(found) < _MAX_CLIENTS:
        found.append(client)
        client = connection.execute(_NEXT_CLIENT, {**bound, "after": client}).scalar()
    return found


def _due(
    connection: Connection, route: str, state: DeliveryState, *, limit: int, now_ms: int
) -> list[Key]:
    """Return due deliveries in a state, the clients in equal shares.

    What a client does not use of its share goes to the others, in another round.
    """
    found: dict[str, list[Key]] = {client: [] for client in _clients(connection, route, state)}
    hungry = list(found)
    left = limit
    while hungry and left > 0:
        still_hungry = []
        for position, client in enumerate(hungry):
            share = -(-left // (len(hungry) - position))
            if share <= 0:
                break
            have = found[client]
            rows = _due_of_client(
                connection, route, state, client, limit=len(have) + share, now_ms=now_ms
            )
            if len(rows) == len(have) + share:
                still_hungry.append(client)
            left -= len(rows) - len(have)
            found[client] = rows
        hungry = still_hungry
    return [key for keys in found.values() for key in keys]


def _due_of_client(
    connection: Connection,
    route: str,
    state: DeliveryState,
    client: str,
    *,
    limit: int,
    now_ms: int,
) -> list[Key]:
    rows = connection.execute(
        _DUE_OF_CLIENT,
        {
            "route": route,
            "state": state.value,
            "client_key": client,
            "now_ms": now_ms,
            "share": limit,
        },
    )
    return [(row.queue_id, row.delivery_no) for row in rows]


def claim(
    connection: Connection, route: str, *, limit: int, incarnation: str, now_ms: int
) -> list[ClaimedDelivery]:
    """Lease due deliveries: half of the limit to due retries, the rest to new mail."""
    if not is_alive(connection, incarnation):
        return []
    keys = _due(connection, route, _D.DEFERRED, limit=-(-limit // 2), now_ms=now_ms)
    keys += _due(connection, route, _D.INCOMING, limit=limit - len(keys), now_ms=now_ms)
    if not keys:
        return []
    connection.execute(
        _LEASE,
        [
            {
                "b_queue_id": queue_id,
                "b_delivery_no": delivery_no,
                "b_lease": incarnation,
                "b_now_ms": now_ms,
            }
            for queue_id, delivery_no in keys
        ],
    )
    return _load_claimed(connection, keys, now_ms)


def _load_claimed(
    connection: Connection, keys: Sequence[Key], now_ms: int
) -> list[ClaimedDelivery]:
    pending: dict[Key, list[Recipient]] = {key: [] for key in keys}
    queue_ids = list({queue_id for queue_id, _ in keys})
    for row in connection.execute(_PENDING, {"queue_ids": queue_ids}):
        entry = Recipient(
            rcpt_no=row.rcpt_no,
            address=row.address,
            original=row.original,
            attempts=row.attempts,
        )
        pending.setdefault((row.queue_id, row.delivery_no), []).append(entry)
    claimed = {
        (row.queue_id, row.delivery_no): ClaimedDelivery(
            queue_id=row.queue_id,
            delivery_no=row.delivery_no,
            route=row.route,
            stream=row.stream,
            sender=row.sender,
            recipients=tuple(pending[row.queue_id, row.delivery_no]),
            content=row.body,
            chunk_count=row.chunk_count,
            size_bytes=row.size_bytes,
            subject=row.subject,
            is_8bit=row.is_8bit,
            has_long_line=row.has_long_line,
            smtputf8=row.smtputf8,
            mode=row.mode,
            accepted_at_ms=row.accepted_at_ms,
            claimed_at_ms=now_ms,
            held_ms=row.held_ms,
            attempts=row.attempts,
            doubts=row.doubts,
            client_key=row.client_key,
        )
        for row in connection.execute(_CLAIMED, {"keys": list(keys)})
    }
    return [claimed[key] for key in keys]


_NEXT_DUE = select(func.min(delivery.c.due_at_ms)).where(
    delivery.c.route == bindparam("route"),
    delivery.c.state == bindparam("state"),
    delivery.c.client_key == bindparam("client_key"),
    IS_CLAIMABLE,
)


def next_due_at_ms(connection: Connection, route: str) -> int | None:
    """Return the earliest due time among the claimable deliveries of a route."""
    earliest: int | None = None
    for state in (_D.INCOMING, _D.DEFERRED):
        for client in _clients(connection, route, state):
            due_at_ms = connection.execute(
                _NEXT_DUE, {"route": route, "state": state.value, "client_key": client}
            ).scalar_one()
            earliest = due_at_ms if earliest is None else min(earliest, due_at_ms)
    return earliest
