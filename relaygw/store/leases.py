"""Leases of deliveries: taken with a claim, ended with an outcome or by being given back.

A lease is the name of an incarnation in `delivery.lease`. Nothing else takes it away, but the
burial of its incarnation, so a living one may trust what it holds.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from sqlalchemy import select, update

from relaygw.mail.envelope import ClaimedDelivery, DeliveryUpdate, Rerouting
from relaygw.mail.state import CLAIMABLE
from relaygw.store import claims, outcomes
from relaygw.store.audit import AuditEntry, add_audit
from relaygw.store.claims import Key
from relaygw.store.database import (
    BatchStatement,
    Database,
    Repository,
    Statement,
    Transaction,
    Write,
)
from relaygw.store.instances import has_ended
from relaygw.store.outcomes import Recorded
from relaygw.store.queue_entry import IS_IN_DOUBT, lock_messages, part_delivery
from relaygw.store.tables import IS_CLAIMABLE, delivery

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

    def __init__(self, database: Database, *, keep_content: bool) -> None:
        super().__init__(database)
        self._keep_content = keep_content
        self._turns = claims.Turns()

    def claim(
        self, route: str, *, limit: int, incarnation: str, now_ms: int
    ) -> list[ClaimedDelivery]:
        """Lease up to `limit` due deliveries of a route to a living incarnation.

        New mail and due retries share the limit, clients take turns, the oldest first.
        Returns nothing when the incarnation is not registered (any more). The leases need not
        survive the machine: its workers do not either.
        """
        self._database.refuse_if_broken()
        with self._write(Write.LEASE) as tx:
            return claims.claim(
                tx, route, self._turns, limit=limit, incarnation=incarnation, now_ms=now_ms
            )

    def next_due_at_ms(self, route: str) -> int | None:
        """Return when the next delivery of a route is due, or None; new mail always is."""
        now_ms = self._database.clock_ms()
        with self._read() as tx:
            return tx.to_local(claims.next_due_at_ms(tx, route, now_ms=now_ms))

    def restart_waits(self, *, limit: int) -> int:
        """Let up to `limit` deferred deliveries wait anew from now; return how many.

        Those only that were put off at a time still to come: the clock was set back since, and
        they would wait until it has caught up.
        """
        with self._read() as tx:
            keys = claims.written_later(tx, limit=limit)
        if not keys:
            return 0
        with self._write() as tx:
            return claims.restart_waits(tx, keys)

    def record_batch(
        self, updates: Sequence[DeliveryUpdate], *, incarnation: str, now_ms: int
    ) -> Recorded:
        """Write outcomes and end the leases; no change if the incarnation is dead.

        The outcome of a part (state ACTIVE) leaves the lease; a delivery stands once in `updates`.
        Its due time differs from that of the outcome before. What a call before this one wrote,
        whose answer was lost, stays as it is. What is told too late and may have been sent is
        noted as an attempt in doubt.
        """
        with self._write() as tx:
            return outcomes.record(
                tx,
                updates,
                incarnation=incarnation,
                now_ms=tx.to_stored(now_ms),
                keep_content=self._keep_content,
            )

    def give_back(self, deliveries: Sequence[Key], *, incarnation: str) -> None:
        """End leases without an attempt; the deliveries are due as they were before."""
        with self._write(Write.LEASE) as tx:
            _GIVE_BACK.run(tx, deliveries, incarnation)

    def free_unknown(self, route: str, *, known: Collection[Key], incarnation: str) -> int:
        """End what leases an incarnation has on a route, but for those it knows; return how many.

        For a worker that does not know what a claim or a return of leases came to. What such a
        call still does in the database is waited for.
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
        """Let deliveries that wait take other routes; audited; return how many.

        Due times stay. One that was taken, or has come in doubt, meanwhile stays as it is.
        """
        with self._write() as tx:
            whole = [
                (step.queue_id, step.delivery_no, step.route, way.route, way.stream)
                for step in steps
                if len(step.ways) == 1
                for way in step.ways
            ]
            number = _REROUTE.run(tx, whole)
            number += sum(_reroute_parts(tx, step) for step in steps if len(step.ways) > 1)
            if number:
                add_audit(tx, entry, number)
            return number


def _reroute_parts(tx: Transaction, step: Rerouting) -> int:
    """Leave the first way to the delivery and make one for each of the others."""
    lock_messages(tx, [step.queue_id])
    is_it = (delivery.c.queue_id == step.queue_id) & (delivery.c.delivery_no == step.delivery_no)
    row = tx.execute(
        select(delivery)
        .where(is_it, delivery.c.route == step.route, delivery.c.state.in_(CLAIMABLE), ~IS_IN_DOUBT)
        .with_for_update()
    ).one_or_none()
    if row is None:
        return 0
    first, *others = step.ways
    tx.execute(update(delivery).where(is_it).values(route=first.route, stream=first.stream))
    for way in others:
        part_delivery(tx, row, way.rcpt_nos, route=way.route, stream=way.stream)
    return len(step.ways)
