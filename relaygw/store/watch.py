"""What is watched over, as the alerts and the dashboard see it.

History are counts in slices of five minutes, added up by all instances. A *duty* is what one
instance does for all. An *incident* is something that is or was wrong, and who was told of it.
Counts and duties are not synced by themselves: a power cut may forget the last ones.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import delete, exists, func, or_, select, update

from relaygw.mail.envelope import MailInHand
from relaygw.mail.state import DeliveryState
from relaygw.policy.untended import Lane, LostInstance, Standing, shortest_in_hand_s
from relaygw.store.database import (
    BatchStatement,
    Repository,
    Statement,
    Transaction,
    Write,
    insert_into,
)
from relaygw.store.instances import is_alive
from relaygw.store.tables import IS_OPEN, delivery, history, incident, instance, lost_instance

if TYPE_CHECKING:
    from relaygw.settings.model import Settings
    from relaygw.store.holds import Hold
    from relaygw.store.instances import Instance
    from relaygw.store.queue import LaneCount
    from relaygw.store.store import Store

HISTORY_SLICE_MS = 300_000
"""How long a slice of history is; slices begin at multiples of it."""
DUTY_S = 20.0
"""An instance that did not renew a duty for so long has lost it."""
_RENEW_MS = 5_000  # a duty is not written again before
_DAY_MS = 86_400_000

_COUNT = """
    INSERT INTO history (slice_at_ms, series, label, amount) VALUES {rows}
    ON CONFLICT (slice_at_ms, series, label) DO UPDATE SET amount =
"""
_ADD = BatchStatement(_COUNT + "history.amount + excluded.amount", columns=4)
_RAISE = BatchStatement(
    _COUNT + "excluded.amount WHERE excluded.amount > history.amount", columns=4
)
# another instance may open the same one at this moment
_OPEN = insert_into(
    "incident", "incident_id rule key summary remedy since_ms told recovery_told", if_new=True
)
_DUTY = "SELECT incarnation, renewed_at_ms FROM duty WHERE name = {?}"
_DUTY_READ, _DUTY_LOCKED = Statement(_DUTY), Statement(_DUTY + " {for_update}")
_NEW_DUTY = insert_into("duty", "name incarnation renewed_at_ms", if_new=True)
_TAKE_DUTY = Statement("UPDATE duty SET incarnation = {?}, renewed_at_ms = {?} WHERE name = {?}")
_IN_HAND = Statement(
    """
    SELECT delivery.queue_id, delivery.delivery_no, delivery.route, (
            SELECT count(*) FROM recipient
            WHERE recipient.queue_id = delivery.queue_id
            AND recipient.delivery_no = delivery.delivery_no AND recipient.state = 'pending'
        ), delivery.changed_at_ms, instance.name, instance.pid
    FROM delivery JOIN instance ON instance.incarnation = delivery.lease
    WHERE delivery.lease IS NOT NULL AND delivery.changed_at_ms < {?}
    ORDER BY delivery.changed_at_ms
    """
)

Count = tuple[str, str]
"""What is counted: series and label, "" where a series has none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryPoint:
    """What was counted in one slice."""

    slice_at_ms: int  # its beginning
    series: str
    label: str
    amount: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Incident:
    """What is or was wrong; `told` and `recovery_told` name the channels that took a notice."""

    incident_id: str
    rule: str
    key: str  # whom it concerns: a provider, a host, a route; "" is the whole gateway
    summary: str
    remedy: str
    since_ms: int
    told: tuple[str, ...] = ()
    recovered_at_ms: int | None = None
    recovery_told: tuple[str, ...] = ()


class Watch(Repository):
    """History, duties, incidents, and what stands still."""

    # --- history -------------------------------------------------------------------------

    def add_history(self, at_ms: int, amounts: Mapping[Count, int]) -> None:
        """Add counts to the slice that `at_ms` lies in."""
        self._count(_ADD, at_ms, amounts)

    def raise_history(self, at_ms: int, amounts: Mapping[Count, int]) -> None:
        """Keep gauges in the slice that `at_ms` lies in: the greatest number of each counts."""
        self._count(_RAISE, at_ms, amounts)

    def _count(self, statement: BatchStatement, at_ms: int, amounts: Mapping[Count, int]) -> None:
        if amounts:
            with self._write(Write.UNSYNCED) as tx:
                slice_at_ms = slice_of(tx.to_stored(at_ms))
                # in one order everywhere: instances that add to the same rows never wait for others
                rows = [(slice_at_ms, *count, amount) for count, amount in sorted(amounts.items())]
                statement.run(tx, rows)

    def history(self, since_ms: int, *, series: Collection[str] = ()) -> list[HistoryPoint]:
        """Return what was counted from the slice of `since_ms` on, oldest first.

        Of these series only, if any are named.
        """
        with self._read() as tx:
            query = select(history).where(history.c.slice_at_ms >= slice_of(tx.to_stored(since_ms)))
            if series:
                query = query.where(history.c.series.in_(series))
            ordered = query.order_by(*history.primary_key)
            return [tx.entry(HistoryPoint, row, "slice_at_ms") for row in tx.execute(ordered)]

    def forget_watched(self, before_ms: int) -> bool:
        """Delete a day of history before a time, and incidents over by then; True if more is left.

        The incidents go all at once, and so do instances lost before it.
        """
        with self._write(Write.UNSYNCED) as tx:
            end_ms = tx.to_stored(before_ms)
            tx.execute(delete(incident).where(incident.c.recovered_at_ms < end_ms))
            tx.execute(delete(lost_instance).where(lost_instance.c.heartbeat_at_ms < end_ms))
            first_ms: int | None = tx.execute(select(func.min(history.c.slice_at_ms))).scalar()
            if first_ms is None or first_ms >= end_ms:
                return False
            step_ms = min(end_ms, first_ms + _DAY_MS)
            tx.execute(delete(history).where(history.c.slice_at_ms < step_ms))
            return step_ms < end_ms

    # --- duties --------------------------------------------------------------------------

    def duty(self, name: str, incarnation: str) -> bool:
        """Take or renew a duty; True for the one living incarnation that has it.

        One that is not registered (any more) has none. Ask again each few seconds.
        """
        self._database.refuse_if_broken()  # whoever looks for trouble is to find it
        with self._read() as tx:
            known = _has_duty(tx, name, incarnation)
        if known is not None:
            return known
        with self._write(Write.UNSYNCED) as tx:
            return _take_duty(tx, name, incarnation)

    # --- incidents -----------------------------------------------------------------------

    def open_incident(self, new: Incident) -> bool:
        """Write an incident that begins; False if its rule and key have one that is not over."""
        with self._write() as tx:
            what = (new.incident_id, new.rule, new.key, new.summary, new.remedy)
            told = (json.dumps(new.told), json.dumps(new.recovery_told))
            return _OPEN.run(tx, [(*what, tx.to_stored(new.since_ms), *told)]) > 0

    def end_incident(self, incident_id: str, *, at_ms: int) -> None:
        """Note that an incident is over; one that was over already stays as it is."""
        lasts = (incident.c.incident_id == incident_id) & incident.c.recovered_at_ms.is_(None)
        with self._write() as tx:
            tx.execute(update(incident).where(lasts).values(recovered_at_ms=tx.to_stored(at_ms)))

    def note_told(self, incident_id: str, channel: str, *, is_recovery: bool) -> None:
        """Note that a channel took the notice of an incident, or of its end."""
        column = incident.c.recovery_told if is_recovery else incident.c.told
        mine = incident.c.incident_id == incident_id
        with self._write() as tx:
            text = tx.execute(select(column).where(mine).with_for_update()).scalar()
            if text is not None:
                told = list(dict.fromkeys([*json.loads(text), channel]))
                tx.execute(update(incident).where(mine).values({column: json.dumps(told)}))

    def incidents(self, since_ms: int) -> list[Incident]:
        """Return the incidents that last, and those that ended since; oldest first."""
        with self._read() as tx:
            ended = incident.c.recovered_at_ms
            rows = tx.execute(
                select(incident)
                .where(or_(ended.is_(None), ended >= tx.to_stored(since_ms)))
                .order_by(incident.c.since_ms, incident.c.incident_id)
            )
            return [
                tx.entry(
                    Incident,
                    row,
                    *("since_ms", "recovered_at_ms"),
                    told=tuple(json.loads(row.told)),
                    recovery_told=tuple(json.loads(row.recovery_told)),
                )
                for row in rows
            ]

    # --- what stands still ---------------------------------------------------------------

    def doubtful(self) -> dict[str, int]:
        """Return how many open deliveries a provider may have taken, by provider."""
        query = (
            select(delivery.c.provider, func.count())
            .where(IS_OPEN, delivery.c.doubts > 0)
            .group_by(delivery.c.provider)
        )
        with self._read() as tx:
            return {provider or "": number for provider, number in tx.execute(query)}

    def in_hand_since(self, before_ms: int) -> list[MailInHand]:
        """Return the deliveries that a registered worker has had in hand since before a time."""
        with self._read() as tx:
            rows = _IN_HAND.fetch(tx, tx.to_stored(before_ms))
            return [
                MailInHand(
                    queue_id=queue_id,
                    delivery_no=delivery_no,
                    route=route,
                    recipients=recipients,
                    since_ms=tx.to_local(since_ms),
                    worker=worker,
                    pid=pid,
                )
                for queue_id, delivery_no, route, recipients, since_ms, worker, pid in rows
            ]

    def lost_instances(self, since_ms: int) -> list[LostInstance]:
        """Return the instances lost whose last heartbeat came since a time, the latest first.

        Without those of a name and role that is registered again.
        """
        is_back = exists().where(
            instance.c.name == lost_instance.c.name, instance.c.role == lost_instance.c.role
        )
        with self._read() as tx:
            rows = tx.execute(
                select(lost_instance)
                .where(lost_instance.c.heartbeat_at_ms >= tx.to_stored(since_ms), ~is_back)
                .order_by(lost_instance.c.heartbeat_at_ms.desc(), lost_instance.c.role)
            )
            return [tx.entry(LostInstance, row, "heartbeat_at_ms") for row in rows]


def slice_of(at_ms: int) -> int:
    """Return when the slice begins that a time lies in."""
    return at_ms - at_ms % HISTORY_SLICE_MS


def _has_duty(tx: Transaction, name: str, incarnation: str) -> bool | None:
    """Tell whether an incarnation has a duty; None: only `_take_duty` knows. For a read."""
    found = _DUTY_READ.fetch(tx, name)
    if not found:
        return None
    ((owner, renewed_at_ms),) = found
    age_ms = abs(tx.now_ms() - renewed_at_ms)  # the clock may have been set back since
    if owner == incarnation:
        return True if age_ms < _RENEW_MS and _is_registered(tx, owner) else None
    return False if age_ms < DUTY_S * 1000 and _is_registered(tx, owner) else None


def _take_duty(tx: Transaction, name: str, incarnation: str) -> bool:
    """Take a duty that nobody living has, or renew one's own."""
    now_ms = tx.now_ms()
    if not is_alive(tx, incarnation):
        return False
    found = _DUTY_LOCKED.fetch(tx, name)
    if not found:
        return _NEW_DUTY.run(tx, [(name, incarnation, now_ms)]) > 0
    ((owner, renewed_at_ms),) = found
    is_kept = abs(now_ms - renewed_at_ms) < DUTY_S * 1000 and _is_registered(tx, owner)
    if owner != incarnation and is_kept:
        return False
    _TAKE_DUTY.run(tx, incarnation, now_ms, name)
    return True


def _is_registered(tx: Transaction, incarnation: str) -> bool:
    found = select(instance.c.incarnation).where(instance.c.incarnation == incarnation)
    return tx.execute(found).scalar() is not None


def standing_of(
    store: Store,
    settings: Settings,
    *,
    fingerprint: str,
    lanes: Sequence[LaneCount],
    holds: Sequence[Hold],
    instances: Sequence[Instance],
    now_ms: int,
) -> Standing:
    """Return what `policy.untended` judges; `fingerprint` is that of `settings`.

    Raises StoreUnavailable.
    """
    is_held = any(lane.state is DeliveryState.HELD for lane in lanes)
    is_in_hand = any(lane.state is DeliveryState.ACTIVE for lane in lanes)
    before_ms = now_ms - int(shortest_in_hand_s(settings) * 1000)
    return Standing(
        held=store.holds.held_mail() if is_held else (),
        in_hand=store.watch.in_hand_since(before_ms) if is_in_hand else (),
        lanes=tuple(
            Lane(
                route=lane.route,
                deliveries=lane.deliveries,
                accepted_at_ms=lane.oldest_accepted_at_ms,
            )
            for lane in lanes
            if lane.state in (DeliveryState.INCOMING, DeliveryState.DEFERRED)
        ),
        holds=frozenset((hold.scope, hold.key) for hold in holds),
        others=tuple(
            f"{one.role} {one.pid} on {one.name}"
            for one in instances
            if one.role == "delivery" and one.state != "draining" and one.fingerprint != fingerprint
        ),
    )
