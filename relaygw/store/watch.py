"""What is watched over, as alerts and dashboard see it: history, duties, incidents, digests.

Counts and duties are not synced by themselves: a power cut may forget the last ones.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import delete, func, select, update
from sqlalchemy.sql.elements import ColumnElement

from relaygw.mail.clock import DAY_MS
from relaygw.mail.envelope import AcceptedMessage
from relaygw.mail.standing_mail import MailInHand
from relaygw.policy.lost_gateways import LostInstance
from relaygw.store.database import (
    BatchStatement,
    Repository,
    Statement,
    Transaction,
    Write,
    insert_into,
)
from relaygw.store.intake import insert_messages
from relaygw.store.leases import is_alive
from relaygw.store.queue_tables import IS_OPEN, delivery, instance, lost_instance
from relaygw.store.selection import PENDING_RECIPIENTS
from relaygw.store.side_tables import digest, history, incident

HISTORY_SLICE_MS = 300_000  # how long a slice of history is; slices begin at multiples of it
DUTY_MS = 20_000  # an instance that did not renew a duty for so long has lost it
_RENEW_MS = 5_000  # a duty is not written again before

_COUNTED = "history", "slice_at_ms series label amount"
_COUNT = "(slice_at_ms, series, label) DO UPDATE SET amount ="
_ADD = insert_into(*_COUNTED, on_conflict=f"{_COUNT} history.amount + excluded.amount")
_RAISE = insert_into(
    *_COUNTED, on_conflict=f"{_COUNT} excluded.amount WHERE excluded.amount > history.amount"
)
_POINTS = "SELECT slice_at_ms, series, label, amount FROM history WHERE slice_at_ms >= {?}"
_ALL_POINTS = Statement(_POINTS)
_POINTS_OF = BatchStatement(
    _POINTS.replace("WHERE", "WHERE series IN (VALUES {rows}) AND"), columns=1
)
_DOUBTFUL = Statement(
    f"SELECT provider, count(*) FROM delivery WHERE {IS_OPEN} AND doubts > 0 GROUP BY provider"
)
# another instance may open the same one at this moment
_OPEN = insert_into(
    "incident",
    "incident_id rule key summary remedy since_ms told recovery_told",
    on_conflict="DO NOTHING",
)
# who has a duty, since when, and whether that incarnation is registered
_SELECT_DUTY = """
    SELECT incarnation, renewed_at_ms,
        EXISTS (SELECT 1 FROM instance WHERE instance.incarnation = duty.incarnation)
    FROM duty WHERE name = {?}
"""
_DUTY_NOW, _DUTY = Statement(_SELECT_DUTY), Statement(_SELECT_DUTY + "{for_update}")
_RENEW_DUTY = Statement("UPDATE duty SET incarnation = {?}, renewed_at_ms = {?} WHERE name = {?}")
_NEW_DUTY = insert_into("duty", "name incarnation renewed_at_ms", on_conflict="DO NOTHING")

_INCIDENTS = Statement(
    """
    SELECT * FROM incident WHERE recovered_at_ms IS NULL OR recovered_at_ms >= {?}
    ORDER BY since_ms, incident_id
    """
)
_LOST = Statement(
    """
    SELECT * FROM lost_instance AS lost
    WHERE heartbeat_at_ms >= {?} AND NOT EXISTS (
        SELECT 1 FROM instance WHERE instance.name = lost.name AND instance.role = lost.role
    )
    ORDER BY heartbeat_at_ms DESC, role
    """
)

Count = tuple[str, str]  # what is counted: series and label, "" where a series has none


@dataclass(frozen=True, slots=True)
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

    def add_history(
        self, at_ms: int, amounts: Mapping[Count, int], *, are_gauges: bool = False
    ) -> None:
        """Add counts to the slice that `at_ms` lies in; of a gauge its greatest number is kept."""
        if amounts:
            with self._write(Write.UNSYNCED) as tx:
                slice_at_ms = slice_of(tx.to_stored(at_ms))
                # in one order everywhere: instances that add to the same rows never wait for others
                rows = [(slice_at_ms, *count, amount) for count, amount in sorted(amounts.items())]
                (_RAISE if are_gauges else _ADD).run(tx, rows)

    def history(self, since_ms: int, *, series: Collection[str] = ()) -> list[HistoryPoint]:
        """Return counts (of `series`, if named) from the slice of `since_ms` on, oldest first."""
        with self._read() as tx:
            start_ms = slice_of(tx.to_stored(since_ms))
            names = [(str(name),) for name in series]
            rows = (
                _POINTS_OF.fetch(tx, names, start_ms) if names else _ALL_POINTS.fetch(tx, start_ms)
            )
            return [HistoryPoint(tx.to_local(row[0]), *row[1:]) for row in sorted(rows)]

    def sums(
        self, since_ms: int, *, step_ms: int, series: Collection[str]
    ) -> list[tuple[int, str, str, int]]:
        """Return counts by step of time from the slice of `since_ms` on, series and label."""
        with self._read() as tx:
            start_ms = slice_of(tx.to_stored(since_ms))
            step = ((history.c.slice_at_ms - start_ms) // step_ms).label("step")
            named = (history.c.series, history.c.label)
            amount = func.sum(history.c.amount)
            query = select(step, *named, amount).where(_counted_since(tx, since_ms, series))
            found = tx.execute(query.group_by("step", *named))
            return [(at, name, label, int(number)) for at, name, label, number in found]

    def forget_watched(self, older_than_ms: int) -> bool:
        """Delete a day of history so old, all incidents and lost instances; True: more is left."""
        with self._write(Write.UNSYNCED) as tx:
            end_ms = tx.now_ms() - older_than_ms
            tx.execute(delete(incident).where(incident.c.recovered_at_ms < end_ms))
            tx.execute(delete(lost_instance).where(lost_instance.c.heartbeat_at_ms < end_ms))
            first_ms: int | None = tx.execute(select(func.min(history.c.slice_at_ms))).scalar()
            if first_ms is None or first_ms >= end_ms:
                return False
            step_ms = min(end_ms, first_ms + DAY_MS)
            tx.execute(delete(history).where(history.c.slice_at_ms < step_ms))
            return step_ms < end_ms

    # --- duties --------------------------------------------------------------------------

    def duty(self, name: str, incarnation: str) -> bool:
        """Take or renew a duty, each few seconds; True for the registered one that has it."""
        return name in self.duties([name], incarnation)

    def duties(self, names: Sequence[str], incarnation: str) -> set[str]:
        """Take or renew several duties; return those that a registered one has."""
        self._database.refuse_if_broken()  # whoever looks for trouble is to find it
        with self._read() as tx:
            known = {name: _has_duty(tx, name, incarnation) for name in names}
        unsure = sorted(name for name, has_it in known.items() if has_it is None)
        if unsure:
            with self._write(Write.UNSYNCED) as tx:
                # in one order everywhere, as the rows are locked
                known.update({name: _take_duty(tx, name, incarnation) for name in unsure})
        return {name for name, has_it in known.items() if has_it}

    # --- incidents -----------------------------------------------------------------------

    def open_incident(self, new: Incident) -> bool:
        """Write an incident that begins; False if its rule and key have one that is not over."""
        with self._write() as tx:
            what = (new.incident_id, new.rule, new.key, new.summary, new.remedy)
            told = (json.dumps(new.told), json.dumps(new.recovery_told))
            return _OPEN.run(tx, [(*what, tx.to_stored(new.since_ms), *told)]) > 0

    def reword_incidents(self, changed: Sequence[Incident]) -> None:
        """Write summary and remedy of incidents as they are now; a power cut may forget them."""
        with self._write(Write.UNSYNCED) as tx:
            for changed_incident in sorted(changed, key=lambda alert: alert.incident_id):
                lasts = (incident.c.incident_id == changed_incident.incident_id) & (
                    incident.c.recovered_at_ms.is_(None)
                )
                words = {"summary": changed_incident.summary, "remedy": changed_incident.remedy}
                tx.execute(update(incident).where(lasts).values(words))

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
            rows = _INCIDENTS.fetch_named(tx, tx.to_stored(since_ms))
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
        with self._read() as tx:
            return {provider or "": number for provider, number in _DOUBTFUL.fetch(tx)}

    def in_hand_since(self, before_ms: int) -> list[MailInHand]:
        """Return the deliveries that a registered worker has had in hand since before a time."""
        with self._read() as tx:
            before = delivery.c.changed_at_ms < tx.to_stored(before_ms)
            rows = tx.execute(
                select(
                    *delivery.c["queue_id", "delivery_no", "route"],
                    PENDING_RECIPIENTS.label("recipients"),
                    delivery.c.changed_at_ms.label("since_ms"),
                    instance.c.name.label("worker"),
                    instance.c.pid,
                )
                .join(instance, instance.c.incarnation == delivery.c.lease)
                .where(delivery.c.lease.is_not(None), before)
                .order_by(delivery.c.changed_at_ms)
            )
            return [tx.entry(MailInHand, row, "since_ms") for row in rows]

    def lost_instances(self, since_ms: int) -> list[LostInstance]:
        """Return instances last heard since a time that are lost and not back, the latest first."""
        with self._read() as tx:
            rows = _LOST.fetch_named(tx, tx.to_stored(since_ms))
            return [tx.entry(LostInstance, row, "heartbeat_at_ms") for row in rows]


def _counted_since(tx: Transaction, since_ms: int, series: Collection[str]) -> ColumnElement[bool]:
    since = history.c.slice_at_ms >= slice_of(tx.to_stored(since_ms))
    return since & history.c.series.in_(series) if series else since


def slice_of(at_ms: int) -> int:
    """Return when the slice begins that a time lies in."""
    return at_ms - at_ms % HISTORY_SLICE_MS


def _has_duty(tx: Transaction, name: str, incarnation: str) -> bool | None:
    """Tell whether an incarnation has a duty; None: only `_take_duty` knows. For a read."""
    for holder, renewed_at_ms, is_living in _DUTY_NOW.fetch(tx, name):
        is_own = holder == incarnation
        kept_ms = _RENEW_MS if is_own else DUTY_MS
        is_kept = is_living and _age_ms(tx, renewed_at_ms) < kept_ms
        return is_own if is_kept else None
    return None


def _take_duty(tx: Transaction, name: str, incarnation: str) -> bool:
    """Take a duty that nobody living has, or renew one's own."""
    if not is_alive(tx, incarnation):
        return False
    found = _DUTY.fetch(tx, name)
    if not found:
        return _NEW_DUTY.run(tx, [(name, incarnation, tx.now_ms())]) > 0
    ((holder, renewed_at_ms, is_living),) = found
    if holder != incarnation and is_living and _age_ms(tx, renewed_at_ms) < DUTY_MS:
        return False
    return _RENEW_DUTY.run(tx, incarnation, tx.now_ms(), name) > 0


def _age_ms(tx: Transaction, renewed_at_ms: int) -> int:
    return abs(tx.now_ms() - renewed_at_ms)  # the clock may have been set back since


# --- digests ----------------------------------------------------------------------------


# another instance may write the first one at this moment
_BEGIN = insert_into("digest", "way until_ms tries again_at_ms", on_conflict="DO NOTHING")


@dataclass(frozen=True, slots=True, kw_only=True)
class DigestState:
    """How far digests have come by one way."""

    until_ms: int  # the end of the last period that was told, or left out
    tries: int  # in vain, for the next one
    again_at_ms: int  # when it is tried again


class Digests(Repository):
    """What was sent by mail and to the webhook; periods are in the queue's own time."""

    def digest_state(self, way: str, *, until_ms: int) -> DigestState:
        """Return how far it has come; what never was begins at `until_ms`, which is not told."""
        with self._read() as tx:
            row = tx.execute(select(digest).where(digest.c.way == way)).one_or_none()
        if row is None:
            with self._write() as tx:
                _BEGIN.run(tx, [(way, until_ms, 0, 0)])
            return DigestState(until_ms=until_ms, tries=0, again_at_ms=0)
        return DigestState(until_ms=row.until_ms, tries=row.tries, again_at_ms=row.again_at_ms)

    def pass_digest(
        self, way: str, *, state: DigestState, until_ms: int, mail: Sequence[AcceptedMessage] = ()
    ) -> bool:
        """Note that a period is told from now on, and store its mail; False if it is not `state`.

        Whoever is told True may tell it, and nobody else, also if that one is killed now.
        """
        with self._write() as tx:
            is_it = (digest.c.way == way) & (digest.c.until_ms == state.until_ms)
            changed = update(digest).where(is_it)
            values = {"until_ms": until_ms, "tries": 0, "again_at_ms": 0}
            if tx.execute(changed.values(values)).rowcount == 0:
                return False
            insert_messages(tx, mail)
            return True

    def put_off_digest(self, way: str, *, state: DigestState, until_ms: int, wait_ms: int) -> None:
        """Let what surely was not told be tried again after a while, as it was before."""
        with self._write() as tx:
            is_it = (digest.c.way == way) & (digest.c.until_ms == until_ms)
            again_at_ms = tx.now_ms() + wait_ms
            values = {"until_ms": state.until_ms, "tries": state.tries + 1}
            tx.execute(update(digest).where(is_it).values(again_at_ms=again_at_ms, **values))
