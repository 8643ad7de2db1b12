"""Claims, leases and outcomes: what the delivery worker reads and writes.

A lease is the name of an incarnation in `delivery.lease`. It ends with an outcome, by
being given back, or when the incarnation is buried; nothing else takes it away, so a
living incarnation may trust what it holds.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any

from sqlalchemy import Connection, bindparam, case, delete, exists, func, select, tuple_, update

from relaygw.mail.envelope import ClaimedDelivery, DeliveryUpdate, Recipient
from relaygw.mail.state import DeliveryState, RecipientState, check_transition
from relaygw.store.tables import IS_CLAIMABLE, chunk, delivery, instance, message, permit, recipient

PREFETCH_BYTES = 64 * 1024
"""Content up to this size comes with the claim."""
MAX_RECLAIMS = 3
"""A delivery that was in the hands of this many dying workers is held as poison."""
_MAX_CLIENTS = 200  # clients that take turns in one claim

_D = DeliveryState


def is_alive(connection: Connection, incarnation: str) -> bool:
    """True while the incarnation is registered."""
    found = connection.execute(_ALIVE, {"incarnation": incarnation}).scalar()
    return found is not None


_ALIVE = select(1).where(instance.c.incarnation == bindparam("incarnation"))

# --- claims -------------------------------------------------------------------------------

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


# --- outcomes -----------------------------------------------------------------------------

_RECORD_DELIVERY = (
    update(delivery)
    .where(
        delivery.c.queue_id == bindparam("b_queue_id"),
        delivery.c.delivery_no == bindparam("b_delivery_no"),
        delivery.c.lease == bindparam("b_lease"),
    )
    .values(
        state=bindparam("b_state"),
        due_at_ms=bindparam("b_due_at_ms"),
        changed_at_ms=bindparam("b_now_ms"),
        attempts=delivery.c.attempts + bindparam("b_charged"),
        doubts=delivery.c.doubts + bindparam("b_doubted"),
        held_at_ms=bindparam("b_held_at_ms"),
        lease=None,
        reclaims=0,  # its worker lived to tell
        provider=bindparam("b_provider"),
        reason=bindparam("b_reason"),
    )
)
_RECORD_RECIPIENT = (
    update(recipient)
    .where(
        recipient.c.queue_id == bindparam("b_queue_id"),
        recipient.c.rcpt_no == bindparam("b_rcpt_no"),
    )
    .values(
        state=bindparam("b_state"),
        attempts=recipient.c.attempts + bindparam("b_charged"),
        changed_at_ms=bindparam("b_now_ms"),
        provider=bindparam("b_provider"),
        reply=bindparam("b_reply"),
        dsn=bindparam("b_dsn"),
    )
)


def record(
    connection: Connection,
    updates: Sequence[DeliveryUpdate],
    *,
    incarnation: str,
    now_ms: int,
    keep_content: bool,
) -> bool:
    """Write outcomes if the incarnation lives: see Store.record_batch."""
    if not is_alive(connection, incarnation):
        return False
    for entry in updates:
        check_transition(_D.ACTIVE, entry.state)
    connection.execute(
        _RECORD_DELIVERY, [_delivery_row(entry, incarnation, now_ms) for entry in updates]
    )
    rows = [
        {
            "b_queue_id": entry.queue_id,
            "b_rcpt_no": change.rcpt_no,
            "b_state": change.state.value,
            "b_charged": int(change.charged),
            "b_now_ms": now_ms,
            "b_provider": change.provider,
            "b_reply": change.reply,
            "b_dsn": change.dsn,
        }
        for entry in updates
        for change in entry.recipients
    ]
    if rows:
        connection.execute(_RECORD_RECIPIENT, rows)
    for entry in updates:
        if entry.held_apart:
            _hold_apart(connection, entry, now_ms)
    finish_messages(
        connection,
        [entry.queue_id for entry in updates if entry.state is _D.FINISHED],
        now_ms=now_ms,
        keep_content=keep_content,
    )
    return True


def _delivery_row(entry: DeliveryUpdate, incarnation: str, now_ms: int) -> dict[str, Any]:
    return {
        "b_queue_id": entry.queue_id,
        "b_delivery_no": entry.delivery_no,
        "b_lease": incarnation,
        "b_state": entry.state.value,
        "b_due_at_ms": entry.due_at_ms,
        "b_now_ms": now_ms,
        "b_charged": int(entry.charged),
        "b_doubted": int(entry.doubted),
        "b_held_at_ms": now_ms if entry.state is _D.HELD else None,
        "b_provider": entry.provider,
        "b_reason": entry.reason,
    }


def _hold_apart(connection: Connection, entry: DeliveryUpdate, now_ms: int) -> None:
    """Move recipients to a new delivery of the same route that is held."""
    old = connection.execute(
        select(delivery).where(
            delivery.c.queue_id == entry.queue_id, delivery.c.delivery_no == entry.delivery_no
        )
    ).one()
    last_no = connection.execute(
        select(func.max(delivery.c.delivery_no)).where(delivery.c.queue_id == entry.queue_id)
    ).scalar_one()
    values = dict(old._mapping) | {
        "delivery_no": last_no + 1,
        "state": _D.HELD.value,
        "held_at_ms": now_ms,
        "lease": None,
        "reason": entry.held_apart_reason,
    }
    connection.execute(delivery.insert().values(values))
    connection.execute(
        update(recipient)
        .where(recipient.c.queue_id == entry.queue_id, recipient.c.rcpt_no.in_(entry.held_apart))
        .values(delivery_no=last_no + 1)
    )


_NO_OPEN_DELIVERY = ~exists().where(
    delivery.c.queue_id == message.c.queue_id,
    delivery.c.state.not_in([_D.FINISHED.value, _D.DELETED.value]),
)
_NOW_FINISHED = select(message.c.queue_id, message.c.captured_at_ms).where(
    message.c.queue_id.in_(bindparam("queue_ids", expanding=True)), _NO_OPEN_DELIVERY
)
_FINISH_MESSAGE = (
    update(message)
    .where(message.c.queue_id == bindparam("b_queue_id"))
    .values(finished_at_ms=bindparam("b_now_ms"))
)
_DROP_CONTENT = delete(chunk).where(chunk.c.queue_id == bindparam("b_queue_id"))
_FORGET_CONTENT = (
    update(message).where(message.c.queue_id == bindparam("b_queue_id")).values(chunk_count=0)
)


def finish_messages(
    connection: Connection, queue_ids: Sequence[str], *, now_ms: int, keep_content: bool
) -> None:
    """Finish the messages that have no open delivery left, and drop their content.

    Captured mail keeps its content for the sandbox's own retention.
    """
    if not queue_ids:
        return
    rows = connection.execute(_NOW_FINISHED, {"queue_ids": list(queue_ids)}).all()
    if not rows:
        return
    connection.execute(
        _FINISH_MESSAGE, [{"b_queue_id": row.queue_id, "b_now_ms": now_ms} for row in rows]
    )
    spent = [row.queue_id for row in rows if row.captured_at_ms is None]
    if spent and not keep_content:
        drop_content(connection, spent)


def drop_content(connection: Connection, queue_ids: Iterable[str]) -> None:
    """Delete the content of messages; their record stays."""
    rows = [{"b_queue_id": queue_id} for queue_id in queue_ids]
    connection.execute(_DROP_CONTENT, rows)
    connection.execute(_FORGET_CONTENT, rows)


# --- the end of a lease without an outcome ------------------------------------------------

_UNTRIED = case((delivery.c.attempts > 0, _D.DEFERRED.value), else_=_D.INCOMING.value)
_GIVE_BACK = (
    update(delivery)
    .where(
        delivery.c.queue_id == bindparam("b_queue_id"),
        delivery.c.delivery_no == bindparam("b_delivery_no"),
        delivery.c.lease == bindparam("b_lease"),
    )
    .values(state=_UNTRIED, lease=None)
)


def give_back(connection: Connection, keys: Sequence[Key], *, incarnation: str) -> None:
    """End leases; a delivery that was never tried is incoming again, else deferred."""
    connection.execute(
        _GIVE_BACK,
        [
            {
                "b_queue_id": queue_id,
                "b_delivery_no": delivery_no,
                "b_lease": incarnation,
            }
            for queue_id, delivery_no in keys
        ],
    )


_COUNT_RECLAIM = (
    update(delivery)
    .where(
        delivery.c.queue_id == bindparam("b_queue_id"),
        delivery.c.delivery_no == bindparam("b_delivery_no"),
        delivery.c.lease == bindparam("b_lease"),
    )
    .values(reclaims=delivery.c.reclaims + 1)
)


def bury(connection: Connection, incarnation: str, *, begun: Collection[Key], now_ms: int) -> int:
    """Free everything that a dead incarnation held; see Store.bury."""
    connection.execute(delete(instance).where(instance.c.incarnation == incarnation))
    connection.execute(delete(permit).where(permit.c.incarnation == incarnation))
    if begun:
        connection.execute(
            _COUNT_RECLAIM,
            [
                {"b_queue_id": queue_id, "b_delivery_no": delivery_no, "b_lease": incarnation}
                for queue_id, delivery_no in begun
            ],
        )
    is_poison = delivery.c.reclaims >= MAX_RECLAIMS
    return connection.execute(
        update(delivery)
        .where(delivery.c.lease == incarnation)
        .values(
            state=case((is_poison, _D.HELD.value), else_=_UNTRIED),
            held_at_ms=case((is_poison, now_ms), else_=None),
            reason=case((is_poison, "poison"), else_=delivery.c.reason),
            lease=None,
        )
    ).rowcount
