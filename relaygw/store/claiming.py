"""Claims: which due deliveries an incarnation gets, and all that an attempt needs of them.

A lease is the name of an incarnation in `delivery.lease`; a claim puts it there. New mail and
due retries share a claim, and clients take turns by hopping through the index, so that a claim
costs the same however much is queued.
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import attrgetter

from sqlalchemy import Connection, bindparam, func, select

from relaygw.mail.envelope import ClaimedDelivery, Recipient
from relaygw.mail.state import DeliveryState
from relaygw.store.batch import BatchStatement
from relaygw.store.registry import is_alive
from relaygw.store.tables import IS_CLAIMABLE, delivery

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
_LEASE = BatchStatement(
    """
    UPDATE delivery
    SET state = 'active', lease = v.column3, changed_at_ms = v.column4
    FROM (VALUES {rows}) AS v
    WHERE delivery.queue_id = v.column1 AND delivery.delivery_no = v.column2
    """,
    columns=4,
)
_CLAIMED = BatchStatement(
    f"""
    SELECT delivery.queue_id, delivery.delivery_no, delivery.route, delivery.stream,
        delivery.held_ms, delivery.attempts, delivery.doubts, delivery.client_key,
        message.sender, message.chunk_count, message.size_bytes, message.subject,
        message.is_8bit, message.has_long_line, message.smtputf8, message.mode,
        message.accepted_at_ms, chunk.body
    FROM (VALUES {{rows}}) AS v
    JOIN delivery ON delivery.queue_id = v.column1 AND delivery.delivery_no = v.column2
    JOIN message ON message.queue_id = v.column1
    LEFT JOIN chunk ON chunk.queue_id = v.column1 AND chunk.chunk_no = 0
        AND message.chunk_count = 1 AND message.size_bytes <= {PREFETCH_BYTES}
    """,
    columns=2,
)
_PENDING = BatchStatement(
    """
    SELECT recipient.queue_id, recipient.delivery_no, recipient.rcpt_no, recipient.address,
        recipient.original, recipient.attempts
    FROM (VALUES {rows}) AS v
    JOIN recipient ON recipient.queue_id = v.column1 AND recipient.delivery_no = v.column2
    WHERE recipient.state = 'pending'
    """,
    columns=2,
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
    _LEASE.run(connection, [(*key, incarnation, now_ms) for key in keys])
    return _load_claimed(connection, keys, now_ms)


def _load_claimed(
    connection: Connection, keys: Sequence[Key], now_ms: int
) -> list[ClaimedDelivery]:
    pending: dict[Key, list[Recipient]] = {key: [] for key in keys}
    for row in _PENDING.fetch(connection, keys):
        pending[row.queue_id, row.delivery_no].append(
            Recipient(
                rcpt_no=row.rcpt_no,
                address=row.address,
                original=row.original,
                attempts=row.attempts,
            )
        )
    claimed = {
        (row.queue_id, row.delivery_no): ClaimedDelivery(
            queue_id=row.queue_id,
            delivery_no=row.delivery_no,
            route=row.route,
            stream=row.stream,
            sender=row.sender,
            recipients=tuple(
                sorted(pending[row.queue_id, row.delivery_no], key=attrgetter("rcpt_no"))
            ),
            content=row.body,
            chunk_count=row.chunk_count,
            size_bytes=row.size_bytes,
            subject=row.subject,
            is_8bit=bool(row.is_8bit),
            has_long_line=bool(row.has_long_line),
            smtputf8=bool(row.smtputf8),
            mode=row.mode,
            accepted_at_ms=row.accepted_at_ms,
            claimed_at_ms=now_ms,
            held_ms=row.held_ms,
            attempts=row.attempts,
            doubts=row.doubts,
            client_key=row.client_key,
        )
        for row in _CLAIMED.fetch(connection, keys)
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
