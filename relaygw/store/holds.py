"""Holds: stops on providers, their keys and senders, standing holds; and mail that is held."""

from __future__ import annotations

import secrets
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from operator import attrgetter
from typing import Any, NamedTuple

from sqlalchemy import case, func, null, select, tuple_, update
from sqlalchemy.sql.elements import ColumnElement

from relaygw.mail.hold import SAID, HoldCause, HoldCode, cause_in
from relaygw.mail.keys import unpacked
from relaygw.mail.outcome import Scope
from relaygw.mail.standing_hold import HoldScope, StandingHold
from relaygw.mail.standing_mail import HeldMail
from relaygw.mail.state import CLAIMABLE, DeliveryState
from relaygw.mail.words import counted
from relaygw.store.audit import AuditEntry, add_audit
from relaygw.store.database import Repository, Statement, Transaction, insert_into
from relaygw.store.held_causes import (
    HAS_SEVERAL,
    IN_FORCE,
    add_cause,
    end_causes,
    hold_columns,
    oldest_held_for,
)
from relaygw.store.queue_tables import IS_OPEN, Key, delivery, held_cause, hold

UNREACHABLE = "unreachable"  # scope of an outage: the provider is tried by itself
PAUSED = "paused"  # of a pause: it takes nothing for its pace or its connections
PAUSES = frozenset({PAUSED, UNREACHABLE})  # whoever wants mail to go now ends them
PROBE_LONGEST_S = 60.0  # of a probe by a connection
_RELEASED_AT_ONCE = 500  # of one cause, in a transaction
STOPS = frozenset({Scope.PROVIDER.value, Scope.CREDENTIAL.value, *PAUSES})  # all of its mail

# another instance may set the same hold at this moment
_PUT_HOLD = insert_into(
    "hold",
    "hold_id scope key since_ms probe_at_ms remedy reason hold_code hold_key until_ms actor",
    on_conflict="DO NOTHING",
)
_OF_HOLDS = """
    SELECT hold_id, scope, key, reason, remedy, since_ms, probe_at_ms, hold_code, hold_key,
        until_ms, actor
    FROM hold WHERE released_at_ms IS NULL
    """
_IN_FORCE = Statement(f"{_OF_HOLDS} ORDER BY since_ms")  # each worker asks each second
_STANDING = Statement(f"{_OF_HOLDS} AND actor IS NOT NULL ORDER BY since_ms")
_SAID = Statement(
    f"""
    SELECT hold_code, hold_key, reason FROM delivery WHERE state = 'held' AND {IS_OPEN}
    UNION
    SELECT held_cause.hold_code, held_cause.hold_key, NULL
    FROM delivery JOIN held_cause ON {IN_FORCE} WHERE state = 'held' AND {IS_OPEN}
    """
)
_C = delivery.c
# the index on what is open finds held mail; it is little beside what is finished
_IS_HELD = (_C.state == DeliveryState.HELD.value) & IS_OPEN
_IS_PUT_OFF = (_C.state == DeliveryState.DEFERRED.value) & IS_OPEN

RETRIED = "it is retried automatically"
"""The remedy of an outage that nobody here has to end."""


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

    @property
    def provider(self) -> str:
        """Whose it is."""
        return unpacked(self.key)[0]

    @property
    def sender_domain(self) -> str:
        """The sender domain that it is of; "" of the null sender, and of other holds."""
        return unpacked(self.key)[1]


class HoldsInForce(NamedTuple):
    """What is held at one moment, the oldest first."""

    stops: list[Hold]
    standing: list[StandingHold]


@dataclass(frozen=True, slots=True)
class Released:
    """For how many deliveries a cause ended; those are due that nothing else holds."""

    ended: int
    due: int
    others: frozenset[HoldCause] = frozenset()  # that hold the rest

    def __add__(self, other: Released) -> Released:
        others = self.others | other.others
        return Released(self.ended + other.ended, self.due + other.due, others)

    @property
    def left_words(self) -> str:
        """What still holds some of them, as the end of a sentence; "" where nothing does."""
        if self.ended == self.due:
            return ""
        number = counted(self.ended - self.due, "message")
        what = "; ".join(sorted(cause.sentence for cause in self.others))
        return f"; {number} still held: {what}"


NOTHING_RELEASED = Released(0, 0)


class Holds(Repository):
    """Stops and standing holds, and the deliveries that wait for their end."""

    def in_force(self) -> list[Hold]:
        """Return the stops in force, oldest first."""
        return self.all_in_force().stops

    def standing(self) -> list[StandingHold]:
        """Return the standing holds in force, oldest first; some may be over by the clock."""
        with self._read() as tx:
            return [_standing(tx, row) for row in _STANDING.fetch_named(tx)]

    def all_in_force(self) -> HoldsInForce:
        """Return all holds in force."""
        with self._read() as tx:
            rows = _IN_FORCE.fetch_named(tx)
            return HoldsInForce(
                stops=[_stop(tx, row) for row in rows if row.actor is None],
                standing=[_standing(tx, row) for row in rows if row.actor is not None],
            )

    def put_hold(self, new: Hold, *, entry: AuditEntry | None = None) -> bool:
        """Set a hold, or renew its reason and probe time; True if it is new; audited by `entry`.

        One without a probe time is an operator's: only another such one renews it.
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
                what = (new.remedy, new.reason, new.cause.code.value, new.cause.key, None, None)
                values = (secrets.token_hex(8), new.scope, new.key, *times, *what)
                is_new = _PUT_HOLD.run(tx, [values]) > 0
            elif row.probe_at_ms is not None or probe_at_ms is None:
                now_ms = tx.now_ms()  # a clock that was set back since makes it one to come
                since_ms = case((hold.c.since_ms > now_ms, now_ms), else_=hold.c.since_ms)
                renewed = {**hold_columns(new.cause), "reason": new.reason, "remedy": new.remedy}
                tx.execute(
                    update(hold)
                    .where(in_force)
                    .values(probe_at_ms=probe_at_ms, since_ms=since_ms, **renewed)
                )
            if entry is not None:
                add_audit(tx, entry, 1)
            return is_new

    def renew_probe(self, scope: str, key: str, probe_at_ms: int, *, if_due: bool = False) -> bool:
        """Note when a hold is probed next, while it is in force and no operator's; True if it is.

        `if_due`: only once its probe is due, so that of several workers the first one makes it.
        """
        is_it = (hold.c.scope == scope) & (hold.c.key == key) & hold.c.released_at_ms.is_(None)
        may_change = is_it & hold.c.probe_at_ms.is_not(None)
        with self._write() as tx:
            if if_due:
                may_change &= hold.c.probe_at_ms <= tx.now_ms()
            at_ms = tx.to_stored(probe_at_ms)
            changed = update(hold).where(may_change).values(probe_at_ms=at_ms)
            return tx.execute(changed).rowcount > 0

    def drop_hold(
        self, scope: str, key: str, *, entry: AuditEntry | None = None, if_over: bool = False
    ) -> bool:
        """Release a hold, which stays on record; False if there was none; audited by `entry`.

        Without `entry` it is a probe that went through, which does not end an operator's hold.
        `if_over`: only once its time is over, which somebody may have prolonged meanwhile.
        """
        is_it = (hold.c.scope == scope) & (hold.c.key == key) & hold.c.released_at_ms.is_(None)
        may_end = is_it if entry is not None else is_it & hold.c.probe_at_ms.is_not(None)
        with self._write() as tx:
            if if_over:
                may_end &= hold.c.until_ms <= tx.now_ms()
            ended = update(hold).where(may_end).values(released_at_ms=tx.now_ms())
            was_there = bool(tx.execute(ended).rowcount)
            if entry is not None and was_there:
                add_audit(tx, entry, 1)
            return was_there

    def put_standing(self, new: StandingHold, *, entry: AuditEntry) -> bool:
        """Set a standing hold, or renew reason, operator and end of the one with its id; audited.

        False, and nothing is written: that one has ended, or another of the same mail is in force.
        """
        with self._write() as tx:
            until_ms = tx.to_stored(new.until_ms)
            times = (tx.to_stored(new.since_ms), None)
            what = ("", new.reason, new.cause.code.value, new.cause.key, until_ms, new.by)
            if not _PUT_HOLD.run(tx, [(new.hold_id, new.scope.value, new.value, *times, *what)]):
                renewed = {"reason": new.reason, "until_ms": until_ms, "actor": new.by}
                in_force = (hold.c.hold_id == new.hold_id) & hold.c.released_at_ms.is_(None)
                if not tx.execute(update(hold).where(in_force).values(renewed)).rowcount:
                    return False
            add_audit(tx, entry, 1)
            return True

    def stopped_ms(self, provider: str, *, since_ms: int) -> int:
        """Return how long since a time a provider was stopped; each moment counts once."""
        is_its = (hold.c.key == provider) & hold.c.scope.in_(STOPS)
        times = select(hold.c.since_ms, hold.c.released_at_ms).where(is_its)
        total_ms = 0
        with self._read() as tx:
            until_ms, counted_until_ms = tx.now_ms(), tx.to_stored(since_ms)
            for begin_ms, released_at_ms in tx.execute(times.order_by(hold.c.since_ms)):
                end_ms = until_ms if released_at_ms is None else released_at_ms
                total_ms += max(0, end_ms - max(begin_ms, counted_until_ms))
                counted_until_ms = max(counted_until_ms, end_ms)
        return total_ms

    # --- held mail -----------------------------------------------------------------------

    def held_mail(self) -> list[HeldMail]:
        """Return the held mail, by route and cause, the longest held first.

        What is held for several causes is counted with each of them.
        """
        since_ms = func.min(func.coalesce(_C.held_at_ms, _C.changed_at_ms))
        ids = (func.min(_C.queue_id), func.max(_C.queue_id))
        lane = (_C.route, _C.hold_code, _C.hold_key, _C.reason)
        alone = select(*lane, func.count(), since_ms, *ids).group_by(*lane)
        each = (_C.route, held_cause.c.hold_code, held_cause.c.hold_key)
        since_ms = func.min(held_cause.c.since_ms)
        of_several = select(*each, null(), func.count(), since_ms, *ids).group_by(*each)
        with self._read() as tx:
            rows = [
                *tx.execute(alone.where(_IS_HELD, ~HAS_SEVERAL)),
                *tx.execute(of_several.join(held_cause, IN_FORCE).where(_IS_HELD)),
            ]
            return _summed(
                HeldMail(
                    route=route,
                    cause=_cause(code, key, reason),
                    deliveries=number,
                    since_ms=tx.to_local(at_ms),
                    examples=(first, last),
                )
                for route, code, key, reason, number, at_ms, first, last in rows
            )

    def held_causes(self) -> list[HoldCause]:
        """Return the causes of held deliveries, each once.

        A sentence alone, from a version before schema 0007, gets its code and key, so that it is
        released with the rest.
        """
        with self._read() as tx:
            rows = [(row, _cause(*row)) for row in _SAID.fetch(tx)]
        uncoded = {
            (reason, cause)
            for (code, key, reason), cause in rows
            if reason is not None and (code, key) != (cause.code.value, cause.key)
        }
        if uncoded:
            with self._write() as tx:
                for reason, cause in sorted(uncoded):
                    values = {"hold_code": cause.code.value, "hold_key": cause.key}
                    is_such = _C.reason == reason
                    tx.execute(update(delivery).where(_IS_HELD, is_such).values(values))
        return sorted({cause for _, cause in rows if not cause.is_of_several})

    def release_held(
        self,
        cause: HoldCause,
        *,
        limit: int,
        probing: HoldCause | None = None,
        lifting: AuditEntry | None = None,
    ) -> Released:
        """End a cause for up to `limit` deliveries that are held or put off for it, oldest first.

        Those that nothing else holds are due. `probing`: whoever claims them finds out by them
        whether that still stands in their way. `lifting`: a person ends it for this very mail;
        audited, and the same finding does not hold it again.
        """
        with self._write() as tx:
            now_ms = tx.now_ms()
            waits = _IS_HELD & _is_for(cause)
            if cause.code is HoldCode.PROVIDER_DOWN:
                # a version before schema 0007 writes the sentence alone
                is_uncoded = _C.hold_code.is_(None) & (_C.reason == cause.sentence)
                waits = _IS_PUT_OFF & (_C.due_at_ms > now_ms) & (_is_for(cause) | is_uncoded)
            oldest = select(_C.queue_id, _C.delivery_no).where(waits).order_by(_C.queue_id)
            keys = tx.execute(oldest.limit(limit)).all()
            if lifting is None and keys:
                due = _make_due(tx, keys, waits, now_ms, probing)
                return Released(due, due)
            if probing is not None or cause.code is HoldCode.PROVIDER_DOWN:
                return NOTHING_RELEASED
            keys = [*keys, *tx.execute(oldest_held_for(cause, limit - len(keys)))]
            return _end_cause(tx, keys, cause, now_ms, lifting)

    def park(self, keys: Sequence[Key], cause: HoldCause) -> int:
        """Hold those of `keys` that wait, whatever else holds them already; return how many.

        They stay due when they were.
        """
        waits = _C.state.in_([state.value for state in CLAIMABLE]) & IS_OPEN
        is_listed = tuple_(_C.queue_id, _C.delivery_no).in_(keys)
        with self._write() as tx:
            now_ms = tx.now_ms()
            values = {"state": DeliveryState.HELD.value, "changed_at_ms": now_ms}
            values |= {"held_at_ms": now_ms, **hold_columns(cause)}
            beside = add_cause(tx, is_listed, cause, now_ms)
            held = update(delivery).where(is_listed, waits).values(values)
            return len(beside) + tx.execute(held).rowcount

    def release_standing(self, ended: Collection[str]) -> Released:
        """End these standing holds for all that they hold, the oldest first."""
        causes = [cause for cause in self.held_causes() if cause.hold_id in ended]
        return sum((release_all(self, cause) for cause in causes), NOTHING_RELEASED)

    def let_go(
        self, keys: Sequence[Key], cause: HoldCause, *, lifting: AuditEntry | None = None
    ) -> Released:
        """End a cause for those of `keys` that are held for exactly this: see `release_held`."""
        with self._write() as tx:
            return _end_cause(tx, keys, cause, tx.now_ms(), lifting)


def release_all(holds: Holds, cause: HoldCause, *, lifting: AuditEntry | None = None) -> Released:
    """End a cause for all that is held for it, some at a time: see `Holds.release_held`."""
    total = NOTHING_RELEASED
    while True:
        released = holds.release_held(cause, limit=_RELEASED_AT_ONCE, lifting=lifting)
        total += released
        if not released.ended:
            return total


def ended_entry(hold: StandingHold, actor: str, now_ms: int, detail: str) -> AuditEntry:
    """Return the audit entry of the end of a standing hold."""
    target = f"{hold.hold_id} {hold.words}"
    return AuditEntry(
        at_ms=now_ms, actor=actor, action="hold.end", target=target, affected=1, detail=detail
    )


def _stop(tx: Transaction, row: Any) -> Hold:
    cause = cause_in(row.hold_code, row.hold_key, row.reason)
    return tx.entry(Hold, row, "since_ms", "probe_at_ms", cause=cause)


def _standing(tx: Transaction, row: Any) -> StandingHold:
    scope = HoldScope(row.scope)
    return tx.entry(
        StandingHold, row, "since_ms", "until_ms", scope=scope, value=row.key, by=row.actor
    )


def _is_for(cause: HoldCause) -> ColumnElement[bool]:
    return (_C.hold_code == cause.code.value) & (_C.hold_key == cause.key)


def _cause(code: str | None, key: str | None, reason: str | None) -> HoldCause:
    """Return the cause of a delivery, or of a row beside others, which has no sentence."""
    if reason is None and code is not None:
        return HoldCause(HoldCode(code), key or "")
    return cause_in(code, key, reason)


def _summed(groups: Iterable[HeldMail]) -> list[HeldMail]:
    """Return groups of held mail with those of one route and cause as one."""
    summed: dict[tuple[str, HoldCause], HeldMail] = {}
    for group in groups:
        other = summed.setdefault((group.route, group.cause), group)
        ids = {*group.examples, *other.examples}
        summed[group.route, group.cause] = replace(
            group,
            deliveries=group.deliveries + (0 if other is group else other.deliveries),
            since_ms=min(group.since_ms, other.since_ms),
            examples=tuple(dict.fromkeys((min(ids), max(ids)))),
        )
    return sorted(summed.values(), key=attrgetter("since_ms"))


def _end_cause(
    tx: Transaction,
    keys: Sequence[Any],
    cause: HoldCause,
    now_ms: int,
    lifting: AuditEntry | None,
) -> Released:
    is_listed = tuple_(_C.queue_id, _C.delivery_no).in_(keys)
    actor = None if lifting is None else lifting.actor
    left = end_causes(tx, is_listed, cause.__eq__, now_ms, lifted_by=actor)
    if lifting is not None and left:
        ids = sorted({queue_id for queue_id, _ in left})
        add_audit(tx, replace(lifting, target=" ".join(ids), affected=len(ids)), len(left))
    free = [key for key, held in left.items() if not held]
    others = frozenset(it.cause for held in left.values() for it in held)
    return Released(len(left), _make_due(tx, free, _IS_HELD, now_ms) if free else 0, others)


def _make_due(
    tx: Transaction,
    keys: Sequence[Any],
    may_go: ColumnElement[bool],
    now_ms: int,
    probing: HoldCause | None = None,
) -> int:
    values = {
        "state": DeliveryState.DEFERRED.value,
        # what has waited longest goes first
        "due_at_ms": case((_C.due_at_ms > now_ms, now_ms), else_=_C.due_at_ms),
        "changed_at_ms": now_ms,
        "held_ms": _C.held_ms + held_until(now_ms),
        "held_at_ms": None,
        **(dict.fromkeys(("hold_code", "hold_key")) if probing is None else hold_columns(probing)),
    }
    is_listed = tuple_(_C.queue_id, _C.delivery_no).in_(keys)
    return tx.execute(update(delivery).where(is_listed, may_go).values(values)).rowcount


def held_until(now_ms: int) -> ColumnElement[int]:
    """Return how long a held delivery was held: 1 at least, whatever the clock; others 0."""
    was_held = case((_C.held_at_ms < now_ms, now_ms - _C.held_at_ms), else_=1)
    return case((_C.held_at_ms.is_not(None), was_held), else_=0)
