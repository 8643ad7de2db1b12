"""Claims: which due deliveries an incarnation gets, and all that an attempt needs of them.

A lease is the name of an incarnation in `delivery.lease`; a claim puts it there. New mail and
due retries share a claim, and clients take turns by hopping through the index, so that a claim
costs the same however much is queued. Where one claim ends the next goes on: `Turns`.
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import attrgetter
from typing import cast

from relaygw.mail.envelope import ClaimedDelivery, Recipient, Source
from relaygw.mail.state import DeliveryState
from relaygw.store.database import BatchStatement, Statement, Transaction
from relaygw.store.instances import is_alive
from relaygw.store.tables import IS_CLAIMABLE

Key = tuple[str, int]
"""A delivery: queue id and delivery number."""
PREFETCH_BYTES = 64 * 1024
"""Content up to this size comes with the claim."""
_MAX_CLIENTS = 200  # clients that take turns in one claim
_ALWAYS_MS = 2**62
"""New mail is due at any time: it would wait for a clock that was set back."""
_STILL_TO_COME_MS = 5_000
"""What was written so much later than now was written by a clock that was set back since."""

_D = DeliveryState


def _clients(where: str = "") -> str:
    """Return the recursion that hops from client to client through the index."""
    return f"""
        WITH RECURSIVE client(client_key) AS (
            SELECT (
                SELECT min(delivery.client_key) FROM delivery
                WHERE delivery.route = {{?}} AND delivery.state = {{?}} AND {IS_CLAIMABLE}
                {where}
            )
            UNION ALL
            SELECT (
                SELECT min(delivery.client_key) FROM delivery
                WHERE delivery.route = {{?}} AND delivery.state = {{?}} AND {IS_CLAIMABLE}
                AND delivery.client_key > client.client_key
            )
            FROM client WHERE client.client_key IS NOT NULL
        )
    """


_HAVING_DUE = f"""
    SELECT client_key FROM client WHERE client_key IS NOT NULL
    AND EXISTS (
        SELECT 1 FROM delivery
        WHERE delivery.route = {{?}} AND delivery.state = {{?}}
        AND delivery.client_key = client.client_key
        AND delivery.due_at_ms <= {{?}} AND {IS_CLAIMABLE}
    )
    LIMIT {_MAX_CLIENTS}
"""
_CLIENTS = Statement(_clients() + _HAVING_DUE)
_CLIENTS_BEHIND = Statement(_clients("AND delivery.client_key > {?}") + _HAVING_DUE)
_NEXT_DUE = Statement(
    _clients()
    + f"""
    SELECT min((
        SELECT min(delivery.due_at_ms) FROM delivery
        WHERE delivery.route = {{?}} AND delivery.state = {{?}}
        AND delivery.client_key = client.client_key AND {IS_CLAIMABLE}
    )) FROM client WHERE client.client_key IS NOT NULL
    """
)
_DUE_OF_CLIENT = Statement(
    f"""
    SELECT delivery.queue_id, delivery.delivery_no FROM delivery
    WHERE delivery.route = {{?}} AND delivery.state = {{?}} AND delivery.client_key = {{?}}
    AND delivery.due_at_ms <= {{?}} AND {IS_CLAIMABLE}
    ORDER BY delivery.due_at_ms LIMIT {{?}} {{skip_locked}}
    """
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
_OF_DELIVERY = (  # columns that are fields of a claimed delivery
    "queue_id",
    "delivery_no",
    "route",
    "stream",
    "held_ms",
    "attempts",
    "doubts",
    "reclaims",
    "provider",
    "client_key",
    "released",
)
_OF_MESSAGE = (
    "sender",
    "chunk_count",
    "size_bytes",
    "subject",
    "mode",
    "dsn_ret",
    "dsn_envid",
    "accepted_at_ms",
    "is_8bit",
    "has_long_line",
    "smtputf8",
)
_SAME = (*_OF_DELIVERY, *_OF_MESSAGE)
_SOURCE_AT = len(_SAME)
_OF_SOURCE = ("listener", "client", "user", "uid", "script", "host")
_COLUMNS = (
    *(f"delivery.{name}" for name in _OF_DELIVERY),
    *(f"message.{name}" for name in _OF_MESSAGE),
    *(f"message.source_{name}" for name in _OF_SOURCE),
)
_CLAIMED = BatchStatement(
    f"""
    SELECT {", ".join(_COLUMNS)}, chunk.body
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
        recipient.original, recipient.attempts, recipient.dsn_notify
    FROM (VALUES {rows}) AS v
    JOIN recipient ON recipient.queue_id = v.column1 AND recipient.delivery_no = v.column2
    WHERE recipient.state = 'pending'
    """,
    columns=2,
)


class Turns:
    """Which client had the last turn, by route and state: a claim begins behind it.

    Without it the clients at the end of the order would get nothing while those at its beginning
    have more than a claim takes. Known to one worker; nothing is lost with it.
    """

    def __init__(self) -> None:
        self._last: dict[tuple[str, DeliveryState], str] = {}

    def last(self, route: str, state: DeliveryState) -> str | None:
        """Return the client that had the last turn, None if nobody had one."""
        return self._last.get((route, state))

    def note(self, route: str, state: DeliveryState, client: str) -> None:
        """Remember who had the last turn."""
        self._last[route, state] = client


def _having_due(
    tx: Transaction, route: str, state: DeliveryState, *, after: str | None, now_ms: int
) -> list[str]:
    """Return clients with something due in a state, in their order from behind `after` on."""
    bound = (route, state.value)
    found: dict[str, None] = {}
    if after is not None:
        rows = _CLIENTS_BEHIND.fetch(tx, *bound, after, *bound, *bound, now_ms)
        found = dict.fromkeys(client for (client,) in rows)
    if len(found) < _MAX_CLIENTS:
        rows = _CLIENTS.fetch(tx, *bound, *bound, *bound, now_ms)
        found |= dict.fromkeys(client for (client,) in rows)
    return list(found)[:_MAX_CLIENTS]


def _due(
    tx: Transaction, route: str, state: DeliveryState, turns: Turns, *, limit: int, now_ms: int
) -> list[Key]:
    """Return due deliveries in a state, the clients in equal shares.

    What a client does not use of its share goes to the others, in another round.
    """
    last = turns.last(route, state)
    clients = _having_due(tx, route, state, after=last, now_ms=now_ms)
    found: dict[str, list[Key]] = {client: [] for client in clients}
    having_more = list(found)
    left = limit
    while having_more and left > 0:
        again = []
        for position, client in enumerate(having_more):
            share = -(-left // (len(having_more) - position))
            if share <= 0:
                break
            have = found[client]
            rows = _DUE_OF_CLIENT.fetch(tx, route, state.value, client, now_ms, len(have) + share)
            if len(rows) == len(have) + share:
                again.append(client)
            left -= len(rows) - len(have)
            found[client] = cast("list[Key]", rows)
        having_more = again
    served = [client for client, keys in found.items() if keys]
    if served:
        turns.note(route, state, served[-1])
    return [key for keys in found.values() for key in keys]


def claim(
    tx: Transaction, route: str, turns: Turns, *, limit: int, incarnation: str, now_ms: int
) -> list[ClaimedDelivery]:
    """Lease due deliveries: half of the limit to due retries, the rest to new mail.

    `now_ms` is the caller's.
    """
    now_ms = tx.to_stored(now_ms)
    if not is_alive(tx, incarnation):
        return []
    keys = _due(tx, route, _D.DEFERRED, turns, limit=-(-limit // 2), now_ms=now_ms)
    left = limit - len(keys)
    keys += _due(tx, route, _D.INCOMING, turns, limit=left, now_ms=_ALWAYS_MS)
    rows = [(*key, incarnation, now_ms) for key in keys]
    _LEASE.run(tx, rows)
    return _load_claimed(tx, keys, now_ms)


def _load_claimed(tx: Transaction, keys: Sequence[Key], now_ms: int) -> list[ClaimedDelivery]:
    pending: dict[Key, list[Recipient]] = {key: [] for key in keys}
    for queue_id, delivery_no, rcpt_no, address, original, attempts, notify in _PENDING.fetch(
        tx, keys
    ):
        pending[queue_id, delivery_no].append(
            Recipient(
                rcpt_no=rcpt_no,
                address=address,
                original=original,
                attempts=attempts,
                dsn_notify=notify,
            )
        )
    claimed: dict[Key, ClaimedDelivery] = {}
    claimed_at_ms = tx.to_local(now_ms)
    for row in _CLAIMED.fetch(tx, keys):
        key = (row[0], row[1])
        recipients = sorted(pending[key], key=attrgetter("rcpt_no"))
        values = dict(zip(_SAME, row, strict=False))
        needs_utf8 = values["released"] is not None and not _is_ascii(recipients)
        for name in ("is_8bit", "has_long_line", "smtputf8"):
            values[name] = bool(values[name])
        values["smtputf8"] |= needs_utf8
        values["accepted_at_ms"] -= tx.ahead_ms
        claimed[key] = ClaimedDelivery(
            **values,
            source=Source(**dict(zip(_OF_SOURCE, row[_SOURCE_AT:], strict=False))),
            recipients=tuple(recipients),
            content=row[-1],
            claimed_at_ms=claimed_at_ms,
        )
    return [claimed[key] for key in keys]


def _is_ascii(recipients: Sequence[Recipient]) -> bool:
    """True if the message may be sent without SMTPUTF8, as far as its recipients go."""
    return all(recipient.address.isascii() for recipient in recipients)


def next_due_at_ms(tx: Transaction, route: str, *, now_ms: int) -> int | None:
    """Return the earliest due time among the claimable deliveries of a route: now of new mail."""
    due_ms = []
    for state, latest_ms in ((_D.INCOMING, now_ms), (_D.DEFERRED, _ALWAYS_MS)):
        ((earliest_ms,),) = _NEXT_DUE.fetch(tx, *(route, state.value) * 3)
        if earliest_ms is not None:
            due_ms.append(min(earliest_ms, latest_ms))
    return min(due_ms, default=None)


# what is to come is in the index, and is little beside what waited for its turn
_WRITTEN_LATER = Statement(
    f"""
    SELECT delivery.queue_id, delivery.delivery_no FROM delivery
    WHERE delivery.state = 'deferred' AND {IS_CLAIMABLE}
    AND delivery.due_at_ms > {{?}} AND delivery.changed_at_ms > {{?}}
    LIMIT {{?}}
    """
)
_WAIT_ANEW = BatchStatement(
    """
    UPDATE delivery
    SET due_at_ms = CASE WHEN due_at_ms > changed_at_ms THEN v.column3 + due_at_ms - changed_at_ms
            ELSE v.column3 END,
        changed_at_ms = v.column3
    FROM (VALUES {rows}) AS v
    WHERE delivery.queue_id = v.column1 AND delivery.delivery_no = v.column2
    AND delivery.state = 'deferred' AND delivery.changed_at_ms > v.column3
    """,
    columns=3,
)


def written_later(tx: Transaction, *, limit: int) -> list[Key]:
    """Return deferred mail that a clock put off which was set back since; for a read."""
    now_ms = tx.now_ms()
    found = _WRITTEN_LATER.fetch(tx, now_ms, now_ms + _STILL_TO_COME_MS, limit)
    return sorted(cast("list[Key]", found))


def restart_waits(tx: Transaction, keys: Sequence[Key]) -> int:
    """Have such mail wait anew from now; return how much still had to."""
    now_ms = tx.now_ms()
    return _WAIT_ANEW.run(tx, [(*key, now_ms) for key in keys])
