"""Leases of deliveries: taken with a claim, ended with an outcome or by being given back.

Only the burial of its incarnation takes a lease away, so a living one may trust what it holds.
Clients take turns by hopping through the index: a claim costs the same however much is queued.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from operator import attrgetter
from typing import cast

from relaygw.mail.envelope import ClaimedDelivery, DeliveryUpdate, Recipient, Source
from relaygw.mail.hold import probed_provider
from relaygw.mail.rerouting import Rerouting
from relaygw.mail.state import DeliveryState
from relaygw.store import doubts, outcomes
from relaygw.store.audit import AuditEntry, add_audit
from relaygw.store.database import (
    BatchStatement,
    Database,
    Repository,
    Row,
    Statement,
    Transaction,
    Write,
)
from relaygw.store.queue_entry import lock_messages, part_delivery
from relaygw.store.queue_tables import IS_CLAIMABLE, Key
from relaygw.store.rules import StoreRules
from relaygw.store.suppression import with_suppressions

PREFETCH_BYTES = 64 * 1024  # content up to this size comes with the claim
_MAX_CLIENTS = 200  # clients that take turns in one claim
_ALWAYS_MS = 2**62  # new mail is due at any time: it would wait for a clock that was set back

_D = DeliveryState
_LANE = f"delivery.route = {{?}} AND delivery.state = {{?}} AND {IS_CLAIMABLE}"


def _clients(where: str = "") -> str:
    """Return the recursion that hops from client to client through the index."""
    return f"""
        WITH RECURSIVE client(client_key) AS (
            SELECT (SELECT min(delivery.client_key) FROM delivery WHERE {_LANE} {where})
            UNION ALL
            SELECT (
                SELECT min(delivery.client_key) FROM delivery
                WHERE {_LANE} AND delivery.client_key > client.client_key
            )
            FROM client WHERE client.client_key IS NOT NULL
        )
    """


_HAVING_DUE = f"""
    SELECT client_key FROM client WHERE client_key IS NOT NULL
    AND EXISTS (
        SELECT 1 FROM delivery
        WHERE {_LANE} AND delivery.client_key = client.client_key AND delivery.due_at_ms <= {{?}}
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
        WHERE {_LANE} AND delivery.client_key = client.client_key
    )) FROM client WHERE client.client_key IS NOT NULL
    """
)
_DUE_OF_CLIENT = Statement(
    f"""
    SELECT delivery.queue_id, delivery.delivery_no FROM delivery
    WHERE {_LANE} AND delivery.client_key = {{?}} AND delivery.due_at_ms <= {{?}}
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
    "queue_id delivery_no route stream held_ms attempts doubts reclaims provider client_key"
    " released hold_code hold_key due_at_ms"
)
_OF_MESSAGE = (
    "sender chunk_count size_bytes subject mode dsn_ret dsn_envid accepted_at_ms is_8bit"
    " has_long_line smtputf8"
)
_SAME = f"{_OF_DELIVERY} {_OF_MESSAGE}".split()
_OF_SOURCE = ("listener", "client", "user", "uid", "script", "host")
_COLUMNS = (
    *(f"delivery.{name}" for name in _OF_DELIVERY.split()),
    *(f"message.{name}" for name in _OF_MESSAGE.split()),
    *(f"message.source_{name}" for name in _OF_SOURCE),
)
# read behind the choice of the mail: a hold that was set before the mail came is in force here
_IN_FORCE = "hold.released_at_ms IS NULL AND hold.actor IS NOT NULL"
_STANDING = Statement(
    f"""
    SELECT hold_id FROM hold WHERE {_IN_FORCE} AND (hold.until_ms IS NULL OR hold.until_ms > {{?}})
    """
)
_CLAIMED = BatchStatement(
    f"""
    SELECT {", ".join(_COLUMNS)}, EXISTS (SELECT 1 FROM hold WHERE {_IN_FORCE}), chunk.body
    FROM (VALUES {{rows}}) AS v
    JOIN delivery ON delivery.queue_id = v.column1 AND delivery.delivery_no = v.column2
    JOIN message ON message.queue_id = v.column1
    LEFT JOIN chunk ON chunk.queue_id = v.column1 AND chunk.chunk_no = 0
        AND message.chunk_count = 1 AND message.size_bytes <= {PREFETCH_BYTES}
    """,
    columns=2,
)
_OF_RECIPIENT = ("rcpt_no", "address", "original", "attempts", "dsn_notify", "dsn_orcpt")
_PENDING = BatchStatement(
    f"""
    SELECT recipient.queue_id, recipient.delivery_no, {", ".join(_OF_RECIPIENT)}
    FROM (VALUES {{rows}}) AS v
    JOIN recipient ON recipient.queue_id = v.column1 AND recipient.delivery_no = v.column2
    WHERE recipient.state = 'pending'
    """,
    columns=2,
)
# locked against its burial until this transaction ends
_ALIVE = Statement("SELECT 1 FROM instance WHERE incarnation = {?} {key_share}")
# the same, and whether any address is suppressed: most queues need no look at these
_ALIVE_AND_LISTING = Statement(
    """
    SELECT EXISTS (SELECT 1 FROM suppression) FROM instance WHERE incarnation = {?} {key_share}
    """
)
_SETTLED = Statement("SELECT 1 FROM instance WHERE incarnation = {?} {for_update}")
_GIVE_BACK = BatchStatement(
    """
    UPDATE delivery
    SET state = CASE WHEN attempts > 0 THEN 'deferred' ELSE 'incoming' END, lease = NULL
    WHERE (queue_id, delivery_no) IN (VALUES {rows}) AND lease = {?}
    """,
    columns=2,
)
_LEASES_ON = Statement(
    "SELECT queue_id, delivery_no FROM delivery WHERE lease = {?} AND route = {?}"
)
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


class Leases(Repository):
    """What the delivery worker asks for and tells."""

    def __init__(self, database: Database, rules: StoreRules) -> None:
        super().__init__(database)
        self._rules = rules
        # Which client had the last turn, by route and state: a claim begins behind it. Without it
        # the clients at the end of the order would get nothing while those at its beginning have
        # more than a claim takes. Known to one worker; nothing is lost with it.
        self._turns: dict[tuple[str, DeliveryState], str | None] = {}

    def claim(
        self, route: str, *, limit: int, incarnation: str, now_ms: int
    ) -> list[ClaimedDelivery]:
        """Lease up to `limit` due deliveries of a route to a living incarnation.

        New mail and due retries share the limit, half of it for each, and what one leaves is the
        other's; clients take turns, the oldest first. Nothing for one that is not registered (any
        more). The leases need not survive the machine: its workers do not either. What is claimed
        names all standing holds that were set before it was accepted.
        """
        self._database.refuse_if_broken()
        with self._write(Write.LEASE) as tx:
            now_ms = tx.to_stored(now_ms)
            alive = _ALIVE_AND_LISTING.fetch(tx, incarnation)
            if not alive:
                return []
            half, turn = -(-limit // 2), self._turns.get((route, _D.DEFERRED))
            keys = self._due_keys(tx, route, _D.DEFERRED, limit=half, now_ms=now_ms)
            left = limit - len(keys)
            new = self._due_keys(tx, route, _D.INCOMING, limit=left, now_ms=_ALWAYS_MS)
            if len(keys) == half and len(new) < left:  # there may be more, from the same turn on
                self._turns[route, _D.DEFERRED] = turn
                keys = self._due_keys(tx, route, _D.DEFERRED, limit=limit - len(new), now_ms=now_ms)
            keys += new
            _LEASE.run(tx, [(*key, incarnation, now_ms) for key in keys])
            claimed = _load_claimed(tx, keys, now_ms)
            if not (alive[0][0] and self._rules.suppression.is_on):
                return claimed
            return with_suppressions(tx, claimed, self._rules.suppression, now_ms=now_ms)

    def _due_keys(
        self, tx: Transaction, route: str, state: DeliveryState, *, limit: int, now_ms: int
    ) -> list[Key]:
        """Return due deliveries in a state; what a client leaves of its share others get."""
        last = self._turns.get((route, state))
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
                most = len(found[client]) + share
                rows = _DUE_OF_CLIENT.fetch(tx, route, state.value, client, now_ms, most)
                if len(rows) == most:
                    again.append(client)
                left -= len(rows) - len(found[client])
                found[client] = cast("list[Key]", rows)
            having_more = again
        served = [client for client, keys in found.items() if keys]
        if served:
            self._turns[route, state] = served[-1]
        return [key for keys in found.values() for key in keys]

    def next_due_at_ms(self, route: str) -> int | None:
        """Return when the next delivery of a route is due, or None; new mail always is."""
        now_ms = self._database.clock_ms()
        due_ms = []
        with self._read() as tx:
            for state, latest_ms in ((_D.INCOMING, now_ms), (_D.DEFERRED, _ALWAYS_MS)):
                ((earliest_ms,),) = _NEXT_DUE.fetch(tx, *(route, state.value) * 3)
                if earliest_ms is not None:
                    due_ms.append(min(earliest_ms, latest_ms))
            return tx.to_local(min(due_ms, default=None))

    def record_batch(
        self, updates: Sequence[DeliveryUpdate], *, incarnation: str, now_ms: int
    ) -> outcomes.Recorded:
        """Write outcomes and end the leases; no change if the incarnation is dead.

        The outcome of a part (state ACTIVE) leaves the lease; a delivery stands once in `updates`,
        with another due time than before. What an earlier call wrote whose answer was lost stays as
        it is. What is told too late and may have been sent is noted as an attempt in doubt.
        """
        with self._write() as tx:
            now_ms = tx.to_stored(now_ms)
            if is_alive(tx, incarnation):
                recorded = outcomes.record(tx, updates, incarnation, now_ms, self._rules)
            else:
                recorded = outcomes.told_too_late(tx, updates, is_alive=False, now_ms=now_ms)
            return _mind_doubts(tx, updates, recorded, self._rules)

    def give_back(self, deliveries: Sequence[Key], *, incarnation: str) -> None:
        """End leases without an attempt; the deliveries are due as they were before."""
        with self._write(Write.LEASE) as tx:
            _GIVE_BACK.run(tx, deliveries, incarnation)

    def free_unknown(self, route: str, *, known: Collection[Key], incarnation: str) -> int:
        """End what leases an incarnation has on a route, but for those it knows; return how many.

        For a worker that does not know what a call came to: what that still does is waited for.
        """
        with self._write(Write.LEASE) as tx:
            if has_ended(tx, incarnation):
                return 0
            unknown = set(_LEASES_ON.fetch(tx, incarnation, route)).difference(known)
            return _GIVE_BACK.run(tx, list(unknown), incarnation)

    def routes_waiting(self) -> list[str]:
        """Return the routes that something may be claimed of, now or when it is due."""
        with self._read() as tx:
            return [route for (route,) in _ROUTES.fetch(tx)]

    def reroute(self, steps: Sequence[Rerouting], *, entry: AuditEntry) -> int:
        """Let deliveries that wait take other routes, due as before; audited; return how many.

        One that was taken, or has come in doubt, meanwhile stays as it is.
        """
        with self._write() as tx:
            number = _REROUTE.run(tx, [_first_way(step) for step in steps if len(step.ways) == 1])
            number += sum(_reroute_parts(tx, step) for step in steps if len(step.ways) > 1)
            if number:
                add_audit(tx, entry, number)
            return number


def _mind_doubts(
    tx: Transaction,
    updates: Sequence[DeliveryUpdate],
    recorded: outcomes.Recorded,
    rules: StoreRules,
) -> outcomes.Recorded:
    """Settle what is in doubt with a provider that told of it before; bind what is told late."""
    concerned = [update for update in updates if update.provider in rules.doubt_waits]
    if not concerned:
        return recorded
    lost = set(recorded.lost)
    late = [
        (delivery_update.queue_id, delivery_update.delivery_no, delivery_update.provider)
        for delivery_update in concerned
        if (delivery_update.queue_id, delivery_update.delivery_no) in lost
        and any(map(outcomes.may_be_taken, delivery_update.recipients))
        and delivery_update.provider is not None
    ]
    if late:
        doubts.come_in_doubt(tx, late)
    doubtful = {
        (delivery_update.queue_id, delivery_update.delivery_no)
        for delivery_update in concerned
        if delivery_update.doubted or delivery_update.state is DeliveryState.HELD
    }
    doubtful.update((queue_id, delivery_no) for queue_id, delivery_no, _ in late)
    if not doubtful:
        return recorded
    settled = doubts.settle_told(tx, doubtful, rules)
    return replace(recorded, settled=settled) if settled else recorded


def is_alive(tx: Transaction, incarnation: str) -> bool:
    """True while the incarnation is registered."""
    return bool(_ALIVE.fetch(tx, incarnation))


def has_ended(tx: Transaction, incarnation: str) -> bool:
    """True when an incarnation is not registered any more, and its calls under way are over."""
    return not _SETTLED.fetch(tx, incarnation)


def _first_way(step: Rerouting) -> Row:
    way = step.ways[0]
    return step.queue_id, step.delivery_no, step.route, way.route, way.stream


def _reroute_parts(tx: Transaction, step: Rerouting) -> int:
    """Leave the first way to the delivery and make one for each of the others."""
    lock_messages(tx, [step.queue_id])
    if not _REROUTE.run(tx, [_first_way(step)]):
        return 0
    key = (step.queue_id, step.delivery_no)
    for way in step.ways[1:]:
        part_delivery(tx, key, way.rcpt_nos, route=way.route, stream=way.stream)
    return len(step.ways)


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


def _load_claimed(tx: Transaction, keys: Sequence[Key], now_ms: int) -> list[ClaimedDelivery]:
    pending: dict[Key, list[Recipient]] = {key: [] for key in keys}
    for queue_id, delivery_no, *who in _PENDING.fetch(tx, keys):
        person = Recipient(**dict(zip(_OF_RECIPIENT, who, strict=True)))
        pending[queue_id, delivery_no].append(person)
    claimed: dict[Key, ClaimedDelivery] = {}
    claimed_at_ms = tx.to_local(now_ms)
    rows, standing = _CLAIMED.fetch(tx, keys), frozenset[str]()
    if rows and rows[0][-2]:
        standing = frozenset(hold_id for (hold_id,) in _STANDING.fetch(tx, now_ms))
    for row in rows:
        key = (row[0], row[1])
        recipients = sorted(pending[key], key=attrgetter("rcpt_no"))
        values = dict(zip(_SAME, row, strict=False))
        values |= {name: bool(values[name]) for name in ("is_8bit", "has_long_line", "smtputf8")}
        if values["released"] is not None:  # to others than those it was accepted for
            values["smtputf8"] |= not all(recipient.address.isascii() for recipient in recipients)
        values |= {name: values[name] - tx.ahead_ms for name in ("accepted_at_ms", "due_at_ms")}
        code, key_of_hold = values.pop("hold_code"), values.pop("hold_key")
        claimed[key] = ClaimedDelivery(
            **values,
            source=Source(**dict(zip(_OF_SOURCE, row[len(_SAME) :], strict=False))),
            recipients=tuple(recipients),
            probes=code and probed_provider(code, key_of_hold),
            content=row[-1],
            claimed_at_ms=claimed_at_ms,
            standing=standing,
        )
    return [claimed[key] for key in keys]
