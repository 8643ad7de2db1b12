"""What was done with one message, try by try and by operators.

A first try that was taken at once leaves no attempt: the recipient itself tells of it. Outcomes
whose lease still stands leave rows, in the transaction that ends the lease; what was found out
with a lease that was over leaves one in doubt if it may have been sent. What a provider puts off
without a charge may come again every second for days: that is counted in the row it has. A message
keeps its newest MOST_ATTEMPTS rows, an outcome adds at most MAX_ROWS.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice

from sqlalchemy import select

from relaygw.mail.envelope import DeliveryUpdate, RecipientUpdate
from relaygw.mail.outcome import (
    REPEATED,
    AttemptState,
    Stage,
    Verdict,
    attempt_state,
    waiting_state,
)
from relaygw.mail.state import DeliveryState, RecipientState
from relaygw.store.audit import AuditEntry, actions_on
from relaygw.store.database import BatchStatement, Row, Statement, Transaction
from relaygw.store.tables import attempt, delivery, message

MOST_ATTEMPTS = 200
"""Of one message: the newest are kept."""
MAX_ROWS = 50
"""Rows of one outcome: of many recipients with replies of their own the first ones."""
MAX_REPLY = 2000
"""Characters of a reply."""
_WORKER_DIED = "the worker that was sending it died"
_WORKER_VANISHED = "the worker that held it is out of reach, and may have been sending it"
_TOO_LATE = "told after its lease was lost"

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
_INSERT = """
    INSERT INTO attempt (queue_id, delivery_no, rcpt_no, at_ms, since_ms, times, provider, relay,
        stage, state, reply, dsn, next_at_ms)
    SELECT v.column1, v.column2, CAST(v.column3 AS INTEGER), v.column4, v.column4, 1, v.column5,
        v.column6, v.column7, v.column8, v.column9, v.column10, CAST(v.column11 AS BIGINT)
    FROM (VALUES {rows}) AS v
    JOIN delivery ON delivery.queue_id = v.column1 AND delivery.delivery_no = v.column2
"""
_ADD = BatchStatement(_INSERT + "AND delivery.lease = {?}", columns=11)
_ADD_LATE = BatchStatement(_INSERT, columns=11)
_ADD_VANISHED = Statement(
    """
    INSERT INTO attempt (queue_id, delivery_no, at_ms, since_ms, times, stage, state, reply)
    SELECT queue_id, delivery_no, CAST({?} AS BIGINT), CAST({?} AS BIGINT), 1, CAST({?} AS TEXT),
        CAST({?} AS TEXT), CAST({?} AS TEXT)
    FROM delivery WHERE lease = {?}
    """
)
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
_COUNTED = frozenset({AttemptState.DEFERRED, AttemptState.IN_DOUBT})


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptEntry:
    """What an attempt came to; attempts without a charge that were alike are one entry."""

    delivery_no: int
    rcpt_no: int | None  # None: all that the delivery had left
    at_ms: int  # the last one
    since_ms: int  # the first one
    times: int
    provider: str | None
    relay: str | None  # "host[address]:port"
    stage: str  # a mail.outcome.Stage
    state: AttemptState
    reply: str  # or what happened, where no reply came
    dsn: str | None
    next_at_ms: int | None  # when it is due again


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryCircumstances:
    """What only the store knows of a delivery; times in ms."""

    delivery_no: int
    changed_at_ms: int
    held_at_ms: int | None
    held_ms: int  # time spent held so far, which does not count as age
    doubts: int
    reclaims: int  # workers that died with it
    lease: str | None  # the incarnation that has it in hand


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageRecord:
    """What was done with a message so far, of one moment."""

    attempts: tuple[AttemptEntry, ...] = ()  # oldest first
    actions: tuple[AuditEntry, ...] = ()  # of operators, oldest first
    deliveries: tuple[DeliveryCircumstances, ...] = ()
    finished_at_ms: int | None = None


# --- writing ------------------------------------------------------------------------------


def write(
    tx: Transaction, updates: Sequence[DeliveryUpdate], *, incarnation: str, now_ms: int
) -> None:
    """Write what the outcomes tell, before their leases end; nothing for what was taken at once."""
    told = [(entry, list(islice(_rows(tx, entry, now_ms), MAX_ROWS))) for entry in updates]
    repeated = [rows[0] for entry, rows in told if _may_repeat(entry, rows)]
    counted = set(_COUNT.fetch(tx, repeated, incarnation))
    fresh = [
        row
        for entry, rows in told
        if (entry.queue_id, entry.delivery_no) not in counted
        for row in rows
    ]
    _add(tx, fresh, incarnation)


def write_interrupted(
    tx: Transaction, incarnation: str, begun: Collection[tuple[str, int, str]], *, now_ms: int
) -> None:
    """Write which deliveries a dead worker was sending, before they are freed."""
    told = (Stage.LOCAL.value, AttemptState.INTERRUPTED.value, _WORKER_DIED)
    rows = [
        (queue_id, delivery_no, None, now_ms, provider, None, *told, None, None)
        for queue_id, delivery_no, provider in begun
    ]
    _add(tx, rows, incarnation)


def write_vanished(tx: Transaction, incarnation: str, *, now_ms: int) -> None:
    """Write which deliveries a worker held that nobody can ask, before they are freed."""
    told = (Stage.LOCAL.value, AttemptState.INTERRUPTED.value, _WORKER_VANISHED)
    _ADD_VANISHED.run(tx, now_ms, now_ms, *told, incarnation)


def write_late(tx: Transaction, updates: Sequence[DeliveryUpdate], *, now_ms: int) -> None:
    """Write what was found out with leases that were over by then: others may have sent it, too."""
    rows = [
        _late(row)
        for entry in updates
        for row in islice(_rows(tx, replace(entry, is_first_try=False), now_ms), MAX_ROWS)
        if any(_may_be_taken(change) for change in entry.recipients)
    ]
    _ADD_LATE.run(tx, rows)
    _DROP_OLDEST.run(tx, [(queue_id,) for queue_id in sorted({row[0] for row in rows})])


def _may_be_taken(change: RecipientUpdate) -> bool:
    return change.state is RecipientState.DELIVERED or change.verdict is Verdict.DOUBT


def _late(row: Row) -> Row:
    told = f"{_TOO_LATE}: {row[8]}"[:MAX_REPLY]
    return (*row[:7], AttemptState.IN_DOUBT.value, told, row[9], None)


def _add(tx: Transaction, rows: Sequence[Row], incarnation: str) -> None:
    _ADD.run(tx, rows, incarnation)
    _DROP_OLDEST.run(tx, [(queue_id,) for queue_id in sorted({row[0] for row in rows})])


def _may_repeat(entry: DeliveryUpdate, rows: Sequence[Row]) -> bool:
    return len(rows) == 1 and not entry.charged and AttemptState(rows[0][7]) in REPEATED


def _rows(tx: Transaction, entry: DeliveryUpdate, now_ms: int) -> Iterator[Row]:
    """Yield the rows of one outcome: one where all recipients have the same."""
    due_at_ms = entry.due_at_ms + tx.ahead_ms
    changes = [change for change in entry.recipients if not _is_plain(entry, change)]
    if len(changes) == len(entry.recipients) and len({_alike(change) for change in changes}) == 1:
        yield _row(entry, changes[0], None, now_ms, due_at_ms)
    else:
        for change in changes:
            yield _row(entry, change, change.rcpt_no, now_ms, due_at_ms)
    is_held = entry.state is DeliveryState.HELD
    if not entry.recipients and (is_held or entry.charged):  # else it only waits its turn
        state = waiting_state(entry.state)
        next_at_ms = due_at_ms if state is AttemptState.DEFERRED else None
        yield _untold(entry, None, entry.reason, state, now_ms, next_at_ms)
    why_apart = entry.held_apart_for.sentence if entry.held_apart_for is not None else None
    for rcpt_no in entry.held_apart:
        yield _untold(entry, rcpt_no, why_apart, AttemptState.HELD, now_ms, None)


def _is_plain(entry: DeliveryUpdate, change: RecipientUpdate) -> bool:
    return entry.is_first_try and change.state is RecipientState.DELIVERED


def _alike(change: RecipientUpdate) -> tuple[object, ...]:
    return change.state, change.verdict, change.stage, change.reply, change.dsn


def _row(
    entry: DeliveryUpdate, change: RecipientUpdate, rcpt_no: int | None, now_ms: int, due_at_ms: int
) -> Row:
    waits = change.state is RecipientState.PENDING and entry.state is DeliveryState.DEFERRED
    return (
        entry.queue_id,
        entry.delivery_no,
        rcpt_no,
        now_ms,
        change.provider,
        entry.relay if change.provider is not None else None,  # else nobody was asked
        change.stage.value,
        attempt_state(change.state, entry.state, change.verdict).value,
        (change.reply or "")[:MAX_REPLY],
        change.dsn,
        due_at_ms if waits else None,
    )


def _untold(
    entry: DeliveryUpdate,
    rcpt_no: int | None,
    reason: str | None,
    state: AttemptState,
    now_ms: int,
    next_at_ms: int | None,
) -> Row:
    """Return the row of what was decided here, without any provider."""
    local = (Stage.LOCAL.value, state.value, (reason or "")[:MAX_REPLY])
    return (
        entry.queue_id,
        entry.delivery_no,
        rcpt_no,
        now_ms,
        None,
        None,
        *local,
        None,
        next_at_ms,
    )


# --- reading ------------------------------------------------------------------------------


def attempts_of(tx: Transaction, queue_id: str) -> list[AttemptEntry]:
    """Return the attempts to send a message, oldest first."""
    rows = tx.execute(
        select(attempt).where(attempt.c.queue_id == queue_id).order_by(attempt.c.attempt_id)
    )
    times = ("at_ms", "since_ms", "next_at_ms")
    return [tx.entry(AttemptEntry, row, *times, state=AttemptState(row.state)) for row in rows]


def record_of(tx: Transaction, queue_id: str) -> MessageRecord:
    """Return all that was done with a message: see Queue.record_of."""
    deliveries = tx.execute(
        select(delivery).where(delivery.c.queue_id == queue_id).order_by(delivery.c.delivery_no)
    )
    finished_at_ms: int | None = tx.execute(
        select(message.c.finished_at_ms).where(message.c.queue_id == queue_id)
    ).scalar()
    return MessageRecord(
        attempts=tuple(attempts_of(tx, queue_id)),
        actions=tuple(actions_on(tx, queue_id)),
        deliveries=tuple(
            tx.entry(DeliveryCircumstances, row, "changed_at_ms", "held_at_ms")
            for row in deliveries
        ),
        finished_at_ms=tx.to_local(finished_at_ms),
    )


def tried_since_ms(attempts: Iterable[AttemptEntry], delivery_no: int) -> int | None:
    """Return when a provider was first asked to take a delivery, in an attempt that counts.

    None when none is written down; of a history that was cut it is the oldest that is left.
    """
    asked = (
        one.since_ms
        for one in attempts
        if one.delivery_no == delivery_no and one.provider is not None and one.state in _COUNTED
    )
    return min(asked, default=None)
