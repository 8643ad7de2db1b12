"""Outcomes of attempts: what they change of recipients, deliveries and messages, and what is noted.

A first try that was taken at once leaves no attempt: the recipient tells of it. What is put off
without a charge may come again every second for days: that is counted in the row it has.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from operator import attrgetter
from typing import Any

from relaygw.mail.attempt_state import REPEATED, AttemptState, attempt_state, waiting_state
from relaygw.mail.envelope import DeliveryUpdate, RecipientUpdate
from relaygw.mail.outcome import Stage, Verdict
from relaygw.mail.state import DeliveryState, RecipientState, check_transition
from relaygw.mail.suppression import Suppression
from relaygw.store.database import BatchStatement, Row, Statement, Transaction
from relaygw.store.held_causes import hold_columns
from relaygw.store.intake import finish_messages
from relaygw.store.notices import note_outcomes
from relaygw.store.queue_entry import MOST_ATTEMPTS, lock_messages, part_delivery
from relaygw.store.queue_tables import Key
from relaygw.store.rules import StoreRules
from relaygw.store.suppression import note_refusals
from relaygw.store.webhooks import add_outcomes


@dataclass(frozen=True, slots=True, kw_only=True)
class Settled:
    """A recipient whose mail is in doubt no more: its provider has it, as an event tells."""

    queue_id: str
    rcpt_no: int
    address: str
    provider: str
    words: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """What became of a batch of outcomes."""

    is_alive: bool  # False: the incarnation is dead, and nothing was written
    lost: tuple[Key, ...] = ()  # not written, now or before: their leases were over
    suppressed: tuple[Suppression, ...] = ()  # addresses that were refused for the second time
    settled: tuple[Settled, ...] = ()


MAX_ROWS = 50  # of one outcome: of many recipients with replies of their own the first ones
MAX_REPLY = 2000  # characters
_Updates = Sequence[DeliveryUpdate]
_D = DeliveryState
_R = RecipientState
_INTERRUPTED = (Stage.LOCAL.value, AttemptState.INTERRUPTED.value)
_WORKER_VANISHED = "the worker that had it is unreachable, and may have been sending it"

_RECORD_DELIVERIES = BatchStatement(
    """
    UPDATE delivery
    SET state = v.column3, due_at_ms = v.column4, changed_at_ms = v.column5,
        attempts = attempts + v.column6, doubts = doubts + v.column7,
        held_at_ms = CAST(v.column8 AS BIGINT),
        provider = v.column9, reason = v.column10,
        hold_code = v.column11, hold_key = v.column12,
        lease = CASE WHEN v.column3 = 'active' THEN lease END,  -- more of this attempt follows
        reclaims = 0  -- its worker lived to tell
    FROM (VALUES {rows}) AS v
    WHERE delivery.queue_id = v.column1 AND delivery.delivery_no = v.column2
    AND delivery.lease = {?}
    """,
    columns=12,
)
_RECORD_RECIPIENTS = BatchStatement(
    """
    UPDATE recipient
    SET state = v.column3, attempts = attempts + v.column4, changed_at_ms = v.column5,
        provider = v.column6, reply = v.column7, dsn = v.column8
    FROM (VALUES {rows}) AS v
    WHERE recipient.queue_id = v.column1 AND recipient.rcpt_no = v.column2
    -- what an event of its provider has settled stays settled; a reply tells more than the event
    AND (recipient.state = 'pending' OR (recipient.state = 'delivered' AND v.column3 = 'delivered'))
    AND EXISTS (
        SELECT 1 FROM delivery WHERE delivery.queue_id = recipient.queue_id
        AND delivery.delivery_no = recipient.delivery_no AND delivery.lease = {?}
    )
    """,
    columns=8,
)


# an outcome that was recorded before gave the delivery its due time, which no other outcome has
_RECORDED = BatchStatement(
    """
    SELECT delivery.queue_id, delivery.delivery_no FROM (VALUES {rows}) AS v
    JOIN delivery ON delivery.queue_id = v.column1 AND delivery.delivery_no = v.column2
    WHERE delivery.due_at_ms = v.column3
    """,
    columns=3,
)
_LEASED = Statement(
    "SELECT 1 FROM delivery WHERE queue_id = {?} AND delivery_no = {?} AND lease = {?}"
)
# columns of a row: queue_id, delivery_no, rcpt_no, at_ms, provider, relay, stage, state, reply,
# dsn, next_at_ms
_COUNT = BatchStatement(
    """
    UPDATE attempt
    SET at_ms = v.column4, times = times + 1, relay = v.column6, reply = v.column9,
        dsn = v.column10, next_at_ms = CAST(v.column11 AS BIGINT)
    FROM (VALUES {rows}) AS v
    WHERE attempt.queue_id = v.column1 AND attempt.delivery_no = v.column2
    AND attempt.attempt_id = (
        SELECT max(last.attempt_id) FROM attempt AS last
        WHERE last.queue_id = v.column1 AND last.delivery_no = v.column2
    )
    AND attempt.rcpt_no IS NULL AND CAST(v.column3 AS BIGINT) IS NULL
    AND attempt.provider = v.column5 AND attempt.stage = v.column7 AND attempt.state = v.column8
    AND EXISTS (
        SELECT 1 FROM delivery WHERE delivery.queue_id = v.column1
        AND delivery.delivery_no = v.column2 AND delivery.lease = {?}
    )
    RETURNING queue_id, delivery_no
    """,
    columns=11,
)
# of a doubt, what it began with: the dot was sent after its delivery was claimed
_INSERT = """
    INSERT INTO attempt (queue_id, delivery_no, rcpt_no, at_ms, since_ms, times, provider, relay,
        stage, state, reply, dsn, next_at_ms)
    SELECT v.column1, v.column2, CAST(v.column3 AS INTEGER), v.column4,
        CASE WHEN v.column8 IN ('in doubt', 'interrupted') AND delivery.changed_at_ms < v.column4
            THEN delivery.changed_at_ms ELSE v.column4 END,
        1, v.column5,
        v.column6, v.column7, v.column8, v.column9, v.column10, CAST(v.column11 AS BIGINT)
    FROM (VALUES {rows}) AS v
    JOIN delivery ON delivery.queue_id = v.column1 AND delivery.delivery_no = v.column2
"""
_ADD = BatchStatement(_INSERT + "AND delivery.lease = {?}", columns=11)
_ADD_LATE = BatchStatement(_INSERT, columns=11)
_LEASED_BY = Statement("SELECT queue_id, delivery_no FROM delivery WHERE lease = {?}")
_DROP_OLDEST = BatchStatement(
    f"""
    DELETE FROM attempt WHERE attempt_id IN (
        SELECT old.attempt_id FROM (
            SELECT v.column1 AS queue_id, (
                SELECT newer.attempt_id FROM attempt AS newer WHERE newer.queue_id = v.column1
                ORDER BY newer.attempt_id DESC LIMIT 1 OFFSET {MOST_ATTEMPTS}
            ) AS last_id
            FROM (VALUES {{rows}}) AS v
        ) AS over_full
        JOIN attempt AS old ON old.queue_id = over_full.queue_id
            AND old.attempt_id <= over_full.last_id
    )
    """,
    columns=1,
)


def record(
    tx: Transaction, updates: _Updates, incarnation: str, now_ms: int, rules: StoreRules
) -> Recorded:
    """Write outcomes of an incarnation that lives: see Leases.record_batch."""
    partial = [entry for entry in updates if entry.state is _D.ACTIVE]  # more follows, as leased
    if partial:
        recorded = _recorded(tx, partial)
        # a part that was recorded: its lease goes on, and would let it in again
        updates = [
            update
            for update in updates
            if _key(update) not in recorded or update.state is not _D.ACTIVE
        ]
    for entry in updates:
        if entry.state is not _D.ACTIVE:
            check_transition(_D.ACTIVE, entry.state)
    _write_attempts(tx, updates, incarnation, now_ms)
    if rules.webhooks:
        add_outcomes(tx, updates, incarnation, now_ms, rules)
    _RECORD_RECIPIENTS.run(tx, _recipient_rows(updates, now_ms), incarnation)
    # of whom a sender may be told, or who may be suppressed: nearly nobody
    others = [
        recipient
        for entry in updates
        for recipient in entry.recipients
        if recipient.is_relayed or recipient.state is not _R.DELIVERED
    ]
    if others:
        note_outcomes(tx, updates, rules, now_ms=now_ms)
    for entry in updates:
        if entry.held_apart and _LEASED.fetch(tx, *_key(entry), incarnation):
            _hold_apart(tx, entry, now_ms)
    written = _RECORD_DELIVERIES.run(tx, _delivery_rows(tx, updates, now_ms), incarnation)
    finished = list({entry.queue_id for entry in updates if entry.state is _D.FINISHED})
    finish_messages(tx, finished, now_ms=now_ms, keep_content=rules.keep_content)
    suppressed: tuple[Suppression, ...] = ()
    if others:
        suppressed = tuple(note_refusals(tx, updates, rules.suppression, now_ms))
    if written == len(updates):
        return Recorded(is_alive=True, suppressed=suppressed)
    late = told_too_late(tx, updates, is_alive=True, now_ms=now_ms)
    return replace(late, suppressed=suppressed)


def told_too_late(tx: Transaction, updates: _Updates, *, is_alive: bool, now_ms: int) -> Recorded:
    """Note as attempts what is not in the database, whenever it was written; it changes nothing."""
    recorded = _recorded(tx, updates)
    late = [entry for entry in updates if _key(entry) not in recorded]
    _write_late(tx, late, now_ms)
    return Recorded(is_alive=is_alive, lost=tuple(map(_key, late)))


def _key(entry: DeliveryUpdate) -> Key:
    return entry.queue_id, entry.delivery_no


def _recorded(tx: Transaction, updates: _Updates) -> set[Key]:
    rows = [(*_key(entry), entry.due_at_ms + tx.ahead_ms) for entry in updates]
    return {(queue_id, number) for queue_id, number in _RECORDED.fetch(tx, rows)}


def _recipient_rows(updates: _Updates, now_ms: int) -> list[Row]:
    return [
        (
            *(
                entry.queue_id,
                recipient.rcpt_no,
                recipient.state.value,
                int(recipient.charged),
                now_ms,
            ),
            *(recipient.provider, recipient.reply, recipient.dsn),
        )
        for entry in updates
        for recipient in entry.recipients
    ]


def _delivery_rows(tx: Transaction, updates: _Updates, now_ms: int) -> list[Row]:
    return [
        (
            *(
                update.queue_id,
                update.delivery_no,
                update.state.value,
                update.due_at_ms + tx.ahead_ms,
                now_ms,
            ),
            *(
                int(update.charged),
                int(update.doubted),
                now_ms if update.state is _D.HELD else None,
            ),
            *(update.provider, update.reason),
            *(
                (update.hold.code.value, update.hold.key)
                if update.hold is not None
                else (None, None)
            ),
        )
        for update in updates
    ]


def _hold_apart(tx: Transaction, entry: DeliveryUpdate, now_ms: int) -> None:
    """Move recipients to a new delivery of the same route that is held."""
    lock_messages(tx, [entry.queue_id])
    held = {"state": _D.HELD.value, "held_at_ms": now_ms, "lease": None}
    why = hold_columns(entry.held_apart_for)
    part_delivery(tx, _key(entry), entry.held_apart, **held, **why)


# --- attempts -----------------------------------------------------------------------------


def _write_attempts(tx: Transaction, updates: _Updates, incarnation: str, now_ms: int) -> None:
    """Write what the outcomes tell, before their leases end; nothing for what was taken at once."""
    _add(tx, _ADD, [row for entry in updates for row in _warned(entry, now_ms)], incarnation)
    told = [(entry, list(islice(_rows(tx, entry, now_ms), MAX_ROWS))) for entry in updates]
    repeated = [rows[0] for entry, rows in told if _may_repeat(entry, rows)]
    counted = set(_COUNT.fetch(tx, repeated, incarnation))
    fresh = [row for entry, rows in told if _key(entry) not in counted for row in rows]
    _add(tx, _ADD, fresh, incarnation)


def _may_repeat(entry: DeliveryUpdate, rows: Sequence[Row]) -> bool:
    return len(rows) == 1 and not entry.charged and AttemptState(rows[0][7]) in REPEATED


def _add(tx: Transaction, statement: BatchStatement, rows: Sequence[Row], *last: Any) -> None:
    statement.run(tx, rows, *last)
    _DROP_OLDEST.run(tx, [(queue_id,) for queue_id in sorted({row[0] for row in rows})])


def write_interrupted(
    tx: Transaction,
    incarnation: str,
    begun: Collection[tuple[str, int, str | None]] | None,
    *,
    now_ms: int,
) -> None:
    """Write what a dead worker was sending, before it is freed; None: any of it, maybe."""
    what = (*_INTERRUPTED, "the worker that was sending it died")
    if begun is None:
        what = (*_INTERRUPTED, _WORKER_VANISHED)
        begun = [(*key, None) for key in _LEASED_BY.fetch(tx, incarnation)]
    rows = [
        (queue_id, delivery_no, None, now_ms, provider, None, *what, None, None)
        for queue_id, delivery_no, provider in begun
    ]
    _add(tx, _ADD, rows, incarnation)


def _write_late(tx: Transaction, updates: _Updates, now_ms: int) -> None:
    """Write what was found out with leases that were over by then: others may have sent it, too."""
    rows = [
        _late(row)
        for entry in updates
        if any(map(may_be_taken, entry.recipients))
        for row in islice(_rows(tx, replace(entry, is_first_try=False), now_ms), MAX_ROWS)
    ]
    _add(tx, _ADD_LATE, rows)


def may_be_taken(update: RecipientUpdate) -> bool:
    """True when its provider has the mail, or may have it."""
    return update.state is _R.DELIVERED or update.verdict is Verdict.DOUBT


def _late(row: Row) -> Row:
    told = f"told after its lease was lost: {row[8]}"[:MAX_REPLY]
    return (*row[:7], AttemptState.IN_DOUBT.value, told, row[9], None)


def _rows(tx: Transaction, entry: DeliveryUpdate, now_ms: int) -> Iterator[Row]:
    """Yield the rows of one outcome: one where all recipients have the same."""
    due_at_ms = entry.due_at_ms + tx.ahead_ms
    changes = [
        recipient
        for recipient in entry.recipients
        if not (entry.is_first_try and recipient.state is _R.DELIVERED)
    ]
    if len(changes) == len(entry.recipients) and len(set(map(_said, changes))) == 1:
        yield _row(entry, changes[0], None, now_ms, due_at_ms)
    else:
        for change in changes:
            yield _row(entry, change, change.rcpt_no, now_ms, due_at_ms)
    if not entry.recipients and (entry.state is _D.HELD or entry.charged):  # else waits its turn
        state = waiting_state(entry.state)
        next_at_ms = due_at_ms if state is AttemptState.DEFERRED else None
        yield _untold((*_key(entry), None, now_ms), entry.reason, state, next_at_ms)
    why_apart = entry.held_apart_for.sentence if entry.held_apart_for is not None else None
    for rcpt_no in entry.held_apart:
        yield _untold((*_key(entry), rcpt_no, now_ms), why_apart, AttemptState.HELD, None)


_said = attrgetter("state", "verdict", "stage", "reply", "dsn")


def _row(
    entry: DeliveryUpdate, update: RecipientUpdate, rcpt_no: int | None, now_ms: int, due_at_ms: int
) -> Row:
    relay = entry.relay if update.provider is not None else None  # else nobody was asked
    state = attempt_state(update.state, entry.state, update.verdict).value
    told = (update.stage.value, state, (update.reply or "")[:MAX_REPLY], update.dsn)
    waits = update.state is _R.PENDING and entry.state is _D.DEFERRED
    next_at_ms = due_at_ms if waits else None
    return (*_key(entry), rcpt_no, now_ms, update.provider, relay, *told, next_at_ms)


def _warned(entry: DeliveryUpdate, now_ms: int) -> Iterator[Row]:
    for person in entry.warned[:MAX_ROWS]:
        key = (*_key(entry), person.rcpt_no, now_ms)
        yield _untold(key, person.listed.sentence, AttemptState.WARNED, None)


def _untold(key: Row, reason: str | None, state: AttemptState, next_at_ms: int | None) -> Row:
    """Return the row of what was decided here, without any provider."""
    local = (Stage.LOCAL.value, state.value, (reason or "")[:MAX_REPLY])
    return (*key, None, None, *local, None, next_at_ms)
