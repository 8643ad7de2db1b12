"""Holds: stops on providers, credentials, sender domains and routes; and mail that is held."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import select, update

from relaygw.mail.envelope import HeldMail
from relaygw.mail.hold import SAID, HoldCause, HoldCode, cause_in
from relaygw.store.audit import AuditEntry, add_audit
from relaygw.store.database import BatchStatement, Repository, Statement, insert_into
from relaygw.store.queue_entry import Key
from relaygw.store.tables import IS_OPEN, hold, hold_columns

UNREACHABLE = "unreachable"
"""The scope of a hold that says: this provider cannot be reached, and is tried by itself."""

# another instance may set the same hold at this moment
_PUT_HOLD = insert_into(
    "hold", "hold_id scope key since_ms probe_at_ms remedy reason hold_code hold_key", if_new=True
)
# the index on what is open finds held mail; it is little beside what is finished
_HELD_FOR = Statement(
    f"""
    SELECT delivery.queue_id, delivery.delivery_no FROM delivery
    WHERE delivery.state = 'held' AND {IS_OPEN}
    AND delivery.hold_code = {{?}} AND delivery.hold_key = {{?}}
    ORDER BY delivery.queue_id LIMIT {{?}}
    """
)
# a version before schema 0007 writes the sentence alone
_PUT_OFF_FOR = Statement(
    f"""
    SELECT delivery.queue_id, delivery.delivery_no FROM delivery
    WHERE delivery.state = 'deferred' AND {IS_OPEN} AND delivery.due_at_ms > {{?}}
    AND (
        (delivery.hold_code = {{?}} AND delivery.hold_key = {{?}})
        OR (delivery.hold_code IS NULL AND delivery.reason = {{?}})
    )
    ORDER BY delivery.queue_id LIMIT {{?}}
    """
)
_WAITING_FOR = BatchStatement(
    """
    SELECT delivery.queue_id, delivery.delivery_no FROM (VALUES {rows}) AS v
    JOIN delivery ON delivery.queue_id = v.column1 AND delivery.delivery_no = v.column2
    WHERE delivery.state = 'held'
    AND delivery.hold_code = v.column3 AND delivery.hold_key = v.column4
    """,
    columns=4,
)
_HELD_CAUSES = Statement(
    f"""
    SELECT DISTINCT delivery.hold_code, delivery.hold_key, delivery.reason FROM delivery
    WHERE delivery.state = 'held' AND {IS_OPEN}
    """
)
_CODE = BatchStatement(
    f"""
    UPDATE delivery SET hold_code = v.column2, hold_key = v.column3
    FROM (VALUES {{rows}}) AS v
    WHERE delivery.state = 'held' AND {IS_OPEN} AND delivery.reason = v.column1
    """,
    columns=3,
)
_HELD_MAIL = Statement(
    f"""
    SELECT delivery.route, delivery.hold_code, delivery.hold_key, delivery.reason, count(*),
        min(coalesce(delivery.held_at_ms, delivery.changed_at_ms)),
        min(delivery.queue_id), max(delivery.queue_id)
    FROM delivery WHERE delivery.state = 'held' AND {IS_OPEN}
    GROUP BY 1, 2, 3, 4 ORDER BY 6
    """
)
_MAKE_DUE = BatchStatement(
    """
    UPDATE delivery
    SET state = 'deferred', due_at_ms = v.column3, changed_at_ms = v.column3,
        held_ms = held_ms + CASE WHEN v.column3 > held_at_ms THEN v.column3 - held_at_ms ELSE 0 END,
        held_at_ms = NULL, hold_code = NULL, hold_key = NULL
    FROM (VALUES {rows}) AS v
    WHERE delivery.queue_id = v.column1 AND delivery.delivery_no = v.column2
    AND delivery.state IN ('held', 'deferred')
    """,
    columns=3,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Hold:
    """A stop on a provider, credential, sender domain or route; or an outage."""

    scope: str
    key: str
    reason: str
    remedy: str
    since_ms: int
    probe_at_ms: int | None
    cause: HoldCause = SAID  # what `reason` is the sentence of


class Holds(Repository):
    """Stops, and the deliveries that wait for their end."""

    def in_force(self) -> list[Hold]:
        """Return the holds in force, oldest first."""
        query = select(hold).where(hold.c.released_at_ms.is_(None)).order_by(hold.c.since_ms)
        with self._read() as tx:
            return [
                tx.entry(
                    Hold,
                    row,
                    *("since_ms", "probe_at_ms"),
                    cause=cause_in(row.hold_code, row.hold_key, row.reason),
                )
                for row in tx.execute(query)
            ]

    def put_hold(self, new: Hold, *, entry: AuditEntry | None = None) -> bool:
        """Set a hold, or renew its reason and probe time; True if it is new; audited by `entry`.

        One in force without a probe time is an operator's: only another such one renews it.
        """
        is_it = (hold.c.scope == new.scope) & (hold.c.key == new.key)
        in_force = is_it & hold.c.released_at_ms.is_(None)
        with self._write() as tx:
            probe_at_ms = tx.to_stored(new.probe_at_ms)
            query = select(hold.c.probe_at_ms).where(in_force).with_for_update()
            row = tx.execute(query).one_or_none()
            is_new = False
            if row is None:
                times = (tx.to_stored(new.since_ms), probe_at_ms)
                what = (new.remedy, new.reason, new.cause.code.value, new.cause.key)
                values = (secrets.token_hex(8), new.scope, new.key, *times, *what)
                is_new = _PUT_HOLD.run(tx, [values]) > 0
            elif row.probe_at_ms is not None or probe_at_ms is None:
                renewed = {**hold_columns(new.cause), "reason": new.reason, "remedy": new.remedy}
                tx.execute(update(hold).where(in_force).values(probe_at_ms=probe_at_ms, **renewed))
            if entry is not None:
                add_audit(tx, entry, 1)
            return is_new

    def drop_hold(
        self, scope: str, key: str, *, now_ms: int, entry: AuditEntry | None = None
    ) -> bool:
        """Release a hold; False if there was none; audited by `entry`, if there was one.

        Without `entry` it is a probe that went through, which does not end an operator's hold.
        The time held stays on record.
        """
        with self._write() as tx:
            ended = (
                update(hold)
                .where(hold.c.scope == scope, hold.c.key == key, hold.c.released_at_ms.is_(None))
                .values(released_at_ms=tx.to_stored(now_ms))
            )
            if entry is None:
                ended = ended.where(hold.c.probe_at_ms.is_not(None))
            was_there = bool(tx.execute(ended).rowcount)
            if entry is not None and was_there:
                add_audit(tx, entry, 1)
            return was_there

    def held_ms(self, key: str, *, since_ms: int, now_ms: int) -> int:
        """Return how long between the two times a hold on `key` was in force, ended ones too.

        Each moment counts once, however many were in force.
        """
        times = select(hold.c.since_ms, hold.c.released_at_ms).where(hold.c.key == key)
        total_ms = 0
        with self._read() as tx:
            until_ms, counted_until_ms = tx.to_stored(now_ms), tx.to_stored(since_ms)
            for begin_ms, released_at_ms in tx.execute(times.order_by(hold.c.since_ms)):
                end_ms = until_ms if released_at_ms is None else released_at_ms
                total_ms += max(0, end_ms - max(begin_ms, counted_until_ms))
                counted_until_ms = max(counted_until_ms, end_ms)
        return total_ms

    # --- held mail -----------------------------------------------------------------------

    def held_mail(self) -> list[HeldMail]:
        """Return what is held, by route and cause, the longest held first."""
        with self._read() as tx:
            return [
                HeldMail(
                    route=route,
                    cause=cause_in(code, key, reason),
                    deliveries=number,
                    since_ms=tx.to_local(since_ms),
                    examples=tuple(dict.fromkeys((first, last))),
                )
                for route, code, key, reason, number, since_ms, first, last in _HELD_MAIL.fetch(tx)
            ]

    def held_causes(self) -> list[HoldCause]:
        """Return what deliveries are held for, each cause once.

        What an instance of a version before schema 0007 holds has a sentence alone: it gets its
        code and its key here, so that it is released with the rest.
        """
        with self._read() as tx:
            rows = _HELD_CAUSES.fetch(tx)
        causes = {(code, key, reason): cause_in(code, key, reason) for code, key, reason in rows}
        uncoded = {
            (reason, cause.code.value, cause.key)
            for (code, key, reason), cause in causes.items()
            if reason is not None and (code, key) != (cause.code.value, cause.key)
        }
        if uncoded:
            with self._write() as tx:
                _CODE.run(tx, sorted(uncoded))
        return sorted(set(causes.values()))

    def release_held(self, cause: HoldCause, *, limit: int, now_ms: int) -> int:
        """Make up to `limit` deliveries due that are held, or put off, for exactly this.

        The oldest first; returns how many. What is held is found by what `held_causes` returned.
        """
        names = (cause.code.value, cause.key)
        with self._write() as tx:
            at_ms = tx.to_stored(now_ms)
            if cause.code is HoldCode.PROVIDER_DOWN:
                keys = _PUT_OFF_FOR.fetch(tx, at_ms, *names, cause.sentence, limit)
            else:
                keys = _HELD_FOR.fetch(tx, *names, limit)
            return _MAKE_DUE.run(tx, [(*key, at_ms) for key in keys])

    def let_go(self, keys: Sequence[Key], cause: HoldCause, *, now_ms: int) -> int:
        """Make those of `keys` due that are held for exactly this; return how many."""
        names = (cause.code.value, cause.key)
        with self._write() as tx:
            waiting = _WAITING_FOR.fetch(tx, [(*key, *names) for key in keys])
            at_ms = tx.to_stored(now_ms)
            return _MAKE_DUE.run(tx, [(*key, at_ms) for key in waiting])
