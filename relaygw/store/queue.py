"""The queue as operators see it, and what they do to it; what is being sent stays as it is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Update, and_, case, exists, func, literal, select, true, tuple_, update
from sqlalchemy.sql.elements import ColumnElement

from relaygw.mail.attempt_state import AttemptState
from relaygw.mail.hold import HoldCause, HoldCode
from relaygw.mail.state import DeliveryState, RecipientState, sources_of
from relaygw.policy.router import provider_route
from relaygw.store.audit import AuditEntry, actions_on, add_audit
from relaygw.store.batches import in_batches
from relaygw.store.database import Repository, Row, Statement, Transaction
from relaygw.store.doubts import note_let_go, settle_what_is_back
from relaygw.store.held_causes import add_cause, end_causes, hold_columns, lift_causes
from relaygw.store.holds import held_until
from relaygw.store.intake import finish_messages
from relaygw.store.notices import note_failed, notices_of, told_by
from relaygw.store.queue_entry import (
    IS_IN_DOUBT,
    AttemptEntry,
    DeliveryCircumstances,
    MessageRecord,
    QueueEntry,
    Waiting,
    entries_by_id,
    is_listed,
    load_waiting,
    lock_messages,
)
from relaygw.store.queue_tables import IS_OPEN, attempt, delivery, message, recipient
from relaygw.store.repeats import repeated
from relaygw.store.reports import load_reports
from relaygw.store.rules import StoreRules
from relaygw.store.selection import IS_ITS_RECIPIENT, Selection, count_rare, matching_ids
from relaygw.store.shape import Failures, ShapeCount, ShapeKey, count_shape, find_failures
from relaygw.store.webhooks import add_changes

_D = DeliveryState
_R = RecipientState
# each look for trouble asks every few seconds
_LANES = Statement(
    f"""
    SELECT delivery.route, delivery.stream, delivery.state, count(*) AS deliveries,
        sum((SELECT count(*) FROM recipient
            WHERE recipient.queue_id = delivery.queue_id
                AND recipient.delivery_no = delivery.delivery_no
                AND recipient.state = 'pending')) AS recipients,
        min(message.accepted_at_ms) AS oldest_accepted_at_ms,
        min(delivery.changed_at_ms) AS oldest_changed_at_ms
    FROM delivery JOIN message ON message.queue_id = delivery.queue_id
    WHERE {IS_OPEN}
    GROUP BY delivery.route, delivery.stream, delivery.state
    ORDER BY delivery.route, delivery.stream, delivery.state
    """
)
_MOVABLE = [state.value for state in (_D.INCOMING, _D.DEFERRED, _D.HELD)]


@dataclass(frozen=True, slots=True, kw_only=True)
class LaneCount:
    """The deliveries of a route in a state, and how many of their recipients still wait.

    `oldest_changed_at_ms` is when the first of them came to be in that state: of active ones, when
    a worker took it in hand.
    """

    route: str
    stream: str
    state: DeliveryState
    deliveries: int
    recipients: int
    oldest_accepted_at_ms: int
    oldest_changed_at_ms: int


class Queue(Repository):
    """Searches, counts and changes."""

    # --- searches ------------------------------------------------------------------------

    def search(
        self, selection: Selection, *, limit: int, after: str = "", newest_first: bool = False
    ) -> list[QueueEntry]:
        """Return messages in the order of acceptance, or newest first, behind queue id `after`."""
        with self._read() as tx:
            ids = matching_ids(tx, selection, limit=limit, after=after, newest_first=newest_first)
            found = entries_by_id(tx, ids)
        return [found[queue_id] for queue_id in ids if queue_id in found]

    def search_ids(
        self, selection: Selection, *, limit: int, after: str = "", newest_first: bool = False
    ) -> list[str]:
        """Return the queue ids of what `search` would return."""
        with self._read() as tx:
            return matching_ids(tx, selection, limit=limit, after=after, newest_first=newest_first)

    def entries(self, queue_ids: Sequence[str]) -> list[QueueEntry]:
        """Return those of the messages that there are, in the order of acceptance."""
        with self._read() as tx:
            return list(entries_by_id(tx, queue_ids).values())

    def waiting(self, *, limit: int, after: str = "") -> list[Waiting]:
        """Return queued messages after id `after`, oldest first; one statement for a page."""
        with self._read() as tx:
            return load_waiting(tx, limit=limit, after=after)

    def attempts(self, queue_id: str) -> list[AttemptEntry]:
        """Return the attempts to send a message, oldest first: the newest MOST_ATTEMPTS."""
        with self._read() as tx:
            return _attempts(tx, queue_id)

    def record_of(self, queue_id: str) -> MessageRecord:
        """Return all that was done with a message; of an unknown one, what operators did."""
        parts = select(delivery).where(delivery.c.queue_id == queue_id)
        finished = select(message.c.finished_at_ms).where(message.c.queue_id == queue_id)
        times = ("changed_at_ms", "held_at_ms")
        with self._read() as tx:
            rows = tx.execute(parts.order_by(delivery.c.delivery_no)).all()
            finished_at_ms: int | None = tx.execute(finished).scalar()
            return MessageRecord(
                attempts=tuple(_attempts(tx, queue_id)),
                actions=tuple(actions_on(tx, queue_id)),
                reports=tuple(load_reports(tx, queue_id)),
                deliveries=tuple(tx.entry(DeliveryCircumstances, row, *times) for row in rows),
                finished_at_ms=tx.to_local(finished_at_ms),
                notices=notices_of(tx, queue_id),
                notice_of=told_by(tx, queue_id),
                repeated=repeated(tx, queue_id),
            )

    # --- counts --------------------------------------------------------------------------

    def counts(self) -> list[LaneCount]:
        """Return the open deliveries, and what waits in them, by route, stream and state."""
        with self._read() as tx:
            return [
                tx.entry(
                    LaneCount,
                    row,
                    "oldest_accepted_at_ms",
                    "oldest_changed_at_ms",
                    state=DeliveryState(row.state),
                    recipients=int(row.recipients),
                )
                for row in _LANES.fetch_named(tx)
            ]

    def count_results(self, since_ms: int) -> Counter[RecipientState]:
        """Count the recipients that came to a rare result since a time."""
        with self._read() as tx:
            return count_rare(tx, since_ms)

    def failures(self, since_ms: int, *, step_ms: int, limit: int) -> Failures:
        """Return the failures and delays since a time; of each kind the newest."""
        with self._read() as tx:
            return find_failures(tx, since_ms, step_ms=step_ms, limit=limit)

    def shape(
        self, selection: Selection, *, by: ShapeKey, bounds_ms: Sequence[int]
    ) -> list[ShapeCount]:
        """Count what waits by a key and by age, in steps that end at `bounds_ms`."""
        with self._read() as tx:
            return count_shape(tx, selection, by, bounds_ms)

    # --- changes -------------------------------------------------------------------------

    def change_state(
        self,
        queue_ids: Sequence[str],
        *,
        from_states: frozenset[DeliveryState],
        to: DeliveryState,
        hold: HoldCause | None = None,
        entry: AuditEntry,
        is_audited: bool = True,
    ) -> int:
        """Move the deliveries of `queue_ids` that are in `from_states`; audited; return how many.

        They are due at the time of `entry`, which is written unless its actor audits all at once.
        Active ones stay, whatever `from_states` says. To hold what is held gives it one cause more;
        to let it go lifts them all.
        """
        may_leave = [state.value for state in from_states & sources_of(to) - {_D.ACTIVE}]

        def change(tx: Transaction, batch: Sequence[str], now_ms: int) -> int:
            may_go = is_listed(tx, delivery.c.queue_id, batch) & delivery.c.state.in_(may_leave)
            values = _changed(to, hold, now_ms)
            number = 0
            if to is _D.DEFERRED and _D.HELD in from_states:
                note_let_go(tx, batch, now_ms)
                lift_causes(tx, batch, actor=entry.actor, now_ms=now_ms)
            elif to is _D.HELD and hold is not None and _D.HELD in from_states:
                number = len(add_cause(tx, delivery.c.queue_id.in_(batch), hold, now_ms))
            number += tx.execute(update(delivery).where(may_go).values(values)).rowcount
            _settle_recipients(tx, batch, to, now_ms, self._rules)
            return number

        return self._change(queue_ids, entry, change, is_audited=is_audited)

    def undelete(self, queue_ids: Sequence[str], *, entry: AuditEntry) -> int:
        """Take deliveries out of the trash; audited; return how many.

        What was held is held as before, the rest is due now; time in the trash is no age. The mode
        may be another one by now: mail that was held for it is due, and is checked before it goes.
        """

        def change(tx: Transaction, batch: Sequence[str], now_ms: int) -> int:
            number = _undelete(tx, batch, now_ms)
            settle_what_is_back(tx, batch, self._rules)
            return number

        return self._change(queue_ids, entry, change)

    def expire(self, queue_ids: Sequence[str], *, reason: str, entry: AuditEntry) -> int:
        """End open deliveries as expired; audited; return how many.

        Each recipient that still waited is told `reason` and what was said to it last.
        """

        def change(tx: Transaction, batch: Sequence[str], now_ms: int) -> int:
            ended = _expire(tx, batch, reason, now_ms, self._rules)
            keep = self._rules.keep_content
            finish_messages(tx, list(set(ended)), now_ms=now_ms, keep_content=keep)
            return len(ended)

        return self._change(queue_ids, entry, change)

    def move(
        self,
        queue_ids: Sequence[str],
        *,
        provider: str,
        ended: Collection[HoldCause],
        is_forced: bool,
        entry: AuditEntry,
    ) -> int:
        """Let open deliveries go by one provider alone; audited; return how many.

        Deferred ones are due now, and so are those held for `ended` alone; others stay held. Mail
        that another provider may have taken is moved only when `is_forced`.
        """
        is_elsewhere = and_(IS_IN_DOUBT, delivery.c.provider != provider)
        may_go = and_(delivery.c.state.in_(_MOVABLE), true() if is_forced else ~is_elsewhere)
        routes = case(
            (delivery.c.stream == "promotional", provider_route(provider, "promotional")),
            else_=provider_route(provider),
        )
        let_go = {"state": _D.DEFERRED.value, "held_at_ms": None, **hold_columns(None)}
        # nobody has to wait for the other provider any more
        no_doubts = {
            name: case((is_elsewhere, 0), else_=delivery.c[name]) for name in ("doubts", "reclaims")
        }

        def change(tx: Transaction, batch: Sequence[str], now_ms: int) -> int:
            mine = delivery.c.queue_id.in_(batch) & may_go
            if is_forced:
                note_let_go(tx, batch, now_ms)
            left = end_causes(tx, mine, ended.__contains__, now_ms)
            free = [key for key, held in left.items() if not held]
            is_free = tuple_(delivery.c.queue_id, delivery.c.delivery_no).in_(free)
            values: dict[str, ColumnElement[Any]] = {
                name: case((is_free, value), else_=delivery.c[name])
                for name, value in let_go.items()
            }
            held_ms = delivery.c.held_ms + case((is_free, held_until(now_ms)), else_=0)
            times = {"due_at_ms": now_ms, "changed_at_ms": now_ms, "held_ms": held_ms}
            moved = update(delivery).where(mine)
            return tx.execute(moved.values(route=routes, **times, **no_doubts, **values)).rowcount

        return self._change(queue_ids, entry, change)

    def _change(
        self,
        queue_ids: Sequence[str],
        entry: AuditEntry,
        change: Callable[[Transaction, Sequence[str], int], int],
        *,
        is_audited: bool = True,
    ) -> int:
        """Change messages, all or none; audited; return how many deliveries."""
        batches = list(in_batches(sorted(queue_ids)))
        with self._write() as tx:
            now_ms = tx.to_stored(entry.at_ms)
            # before their deliveries, as outcomes and events do, so that none waits for ever
            for batch in batches if tx.is_postgres else ():
                mine = select(recipient.c.queue_id).where(recipient.c.queue_id.in_(batch))
                ordered = mine.order_by(recipient.c.queue_id, recipient.c.rcpt_no)
                tx.execute(ordered.with_for_update()).all()
            number = sum(change(tx, batch, now_ms) for batch in batches)
            if is_audited:
                add_audit(tx, entry, number)
            return number


def _attempts(tx: Transaction, queue_id: str) -> list[AttemptEntry]:
    mine = select(attempt).where(attempt.c.queue_id == queue_id).order_by(attempt.c.attempt_id)
    times = ("at_ms", "since_ms", "next_at_ms")
    rows = tx.execute(mine)
    return [tx.entry(AttemptEntry, row, *times, state=AttemptState(row.state)) for row in rows]


# --- changes ------------------------------------------------------------------------------


def _changed(to: DeliveryState, hold: HoldCause | None, now_ms: int) -> dict[str, Any]:
    values: dict[str, Any] = {"state": to.value, "due_at_ms": now_ms, "changed_at_ms": now_ms}
    if to is _D.DELETED:
        return values  # whether it was held, and why, is kept for who takes it out of the trash
    is_held = delivery.c.state == _D.HELD.value
    values |= {
        **hold_columns(hold),
        "held_ms": delivery.c.held_ms + case((is_held, held_until(now_ms)), else_=0),
        "held_at_ms": now_ms if to is _D.HELD else None,
    }
    if to is _D.DEFERRED:
        values |= {"reclaims": 0, "doubts": 0}  # who lets go of it gives it a fresh start
    return values


def _settle_recipients(
    tx: Transaction, batch: Sequence[str], to: _D, now_ms: int, rules: StoreRules
) -> None:
    """Cancel what is deleted, and let what comes back from the trash be pending again."""
    changes = {_D.DELETED: (_R.PENDING, _R.CANCELLED), _D.DEFERRED: (_R.CANCELLED, _R.PENDING)}
    if to not in changes:
        return
    before, after = changes[to]
    mine = is_listed(tx, recipient.c.queue_id, batch) & (recipient.c.state == before.value)
    values = {"state": after.value, "changed_at_ms": now_ms}
    settled = update(recipient).where(mine, _is_of_a_delivery_in(to.value)).values(values)
    add_changes(tx, _changed_recipients(tx, settled), after, now_ms, rules)


def _undelete(tx: Transaction, batch: Sequence[str], now_ms: int) -> int:
    was_held = delivery.c.held_at_ms.is_not(None)
    is_unchecked = was_held & (delivery.c.hold_code == HoldCode.MODE.value)
    kept = {name: delivery.c[name] for name in ("held_at_ms", *hold_columns(None))}
    dropped = {"held_at_ms": None, **hold_columns(None)}
    has_content = (message.c.queue_id == delivery.c.queue_id) & (message.c.chunk_count > 0)
    is_deleted = delivery.c.queue_id.in_(batch) & (delivery.c.state == _D.DELETED.value)
    # of a held one the time in the trash counts as held
    in_trash_ms = case(
        (is_unchecked, held_until(now_ms)),
        (was_held, 0),
        else_=now_ms - delivery.c.changed_at_ms,
    )
    lock_messages(tx, batch)  # against who drops their content at this moment
    back = tx.execute(
        update(delivery)
        .where(is_deleted, exists().where(has_content))
        .values(
            state=case((was_held & ~is_unchecked, _D.HELD.value), else_=_D.DEFERRED.value),
            **{name: case((is_unchecked, dropped[name]), else_=kept[name]) for name in kept},
            due_at_ms=now_ms,
            changed_at_ms=now_ms,
            held_ms=delivery.c.held_ms + in_trash_ms,
        )
        .returning(delivery.c.queue_id)
    ).scalars()
    queue_ids = list(back)
    # beside other causes it is not looked at again either
    end_causes(tx, delivery.c.queue_id.in_(queue_ids), HoldCause(HoldCode.MODE).__eq__, now_ms)
    is_back = _is_of_a_delivery_in(_D.DEFERRED.value, _D.HELD.value)
    is_mine = recipient.c.queue_id.in_(batch) & (recipient.c.state == _R.CANCELLED.value)
    pending = {"state": _R.PENDING.value, "changed_at_ms": now_ms}
    tx.execute(update(recipient).where(is_mine, is_back).values(pending))
    is_open = message.c.queue_id.in_(set(queue_ids))
    tx.execute(update(message).where(is_open).values(finished_at_ms=None))
    return len(queue_ids)


def _expire(
    tx: Transaction, batch: Sequence[str], reason: str, now_ms: int, rules: StoreRules
) -> list[str]:
    """End open deliveries; return the message of each."""
    may_end = [state.value for state in sources_of(_D.FINISHED) - {_D.ACTIVE}]
    mine = and_(delivery.c.queue_id.in_(batch), delivery.c.state.in_(may_end))
    tx.execute(select(delivery.c.queue_id).where(mine).with_for_update()).all()
    waits = recipient.c.queue_id.in_(batch) & (recipient.c.state == _R.PENDING.value)
    last_words = func.coalesce(literal("; before: ") + recipient.c.reply, "")
    told = {
        "state": _R.EXPIRED.value,
        "changed_at_ms": now_ms,
        "reply": literal(reason) + last_words,
        "dsn": "4.4.7",  # RFC 3463: delivery time expired
    }
    expired = update(recipient).where(waits, _is_of_a_delivery_in(*may_end)).values(told)
    rows = _changed_recipients(tx, expired)
    add_changes(tx, rows, _R.EXPIRED, now_ms, rules)
    note_failed(tx, [(row[0], row[1]) for row in rows], rules, now_ms=now_ms)
    over = {"state": _D.FINISHED.value, "due_at_ms": now_ms, "changed_at_ms": now_ms}
    values = {**over, "held_at_ms": None, **hold_columns(None)}
    ended = update(delivery).where(mine).values(values).returning(delivery.c.queue_id)
    return list(tx.execute(ended).scalars())


def _changed_recipients(tx: Transaction, change: Update) -> list[Row]:
    """Change recipients; return queue_id, rcpt_no, provider, reply and dsn of each."""
    columns = recipient.c["queue_id", "rcpt_no", "provider", "reply", "dsn"]
    return [tuple(row) for row in tx.execute(change.returning(*columns))]


def _is_of_a_delivery_in(*states: str) -> ColumnElement[bool]:
    return exists().where(IS_ITS_RECIPIENT, delivery.c.state.in_(states))
