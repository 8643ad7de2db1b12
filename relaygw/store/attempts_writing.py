"""What attempts came to, written with their outcomes.

Outcomes whose lease still stands leave rows, in the transaction that ends the lease; what was found
out with a lease that was over leaves one in doubt if it may have been sent. What a provider puts
off without a charge may come again every second for days: that is counted in the row it has. A
message keeps its newest KEPT rows, an outcome adds at most MAX_ROWS.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from itertools import islice

from sqlalchemy import Connection

from relaygw.mail.attempt import REPEATED, AttemptState, attempt_state, waiting_state
from relaygw.mail.envelope import DeliveryUpdate, RecipientUpdate
from relaygw.mail.outcome import Stage, Verdict
from relaygw.mail.state import DeliveryState, RecipientState
from relaygw.store.attempts import MOST_ATTEMPTS
from relaygw.store.batch import BatchStatement, Row, Statement
from relaygw.store.protocol import Begun

KEPT = MOST_ATTEMPTS
"""Rows of one message."""
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
_ADD = BatchStatement(
    """
    INSERT INTO attempt (queue_id, delivery_no, rcpt_no, at_ms, since_ms, times, provider, relay,
        stage, state, reply, dsn, next_at_ms)
    SELECT v.column1, v.column2, CAST(v.column3 AS INTEGER), v.column4, v.column4, 1, v.column5,
        v.column6, v.column7, v.column8, v.column9, v.column10, CAST(v.column11 AS BIGINT)
    FROM (VALUES {rows}) AS v
    JOIN delivery ON delivery.queue_id = v.column1 AND delivery.delivery_no = v.column2
        AND delivery.lease = {?}
    """,
    columns=11,
)
_ADD_LATE = BatchStatement(
    """
    INSERT INTO attempt (queue_id, delivery_no, rcpt_no, at_ms, since_ms, times, provider, relay,
        stage, state, reply, dsn, next_at_ms)
    SELECT v.column1, v.column2, CAST(v.column3 AS INTEGER), v.column4, v.column4, 1, v.column5,
        v.column6, v.column7, v.column8, v.column9, v.column10, CAST(v.column11 AS BIGINT)
    FROM (VALUES {rows}) AS v
    JOIN delivery ON delivery.queue_id = v.column1 AND delivery.delivery_no = v.column2
    """,
    columns=11,
)
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
                ORDER BY newer.attempt_id DESC LIMIT 1 OFFSET {KEPT}
            ) AS last_id
            FROM (VALUES {{rows}}) AS v
        ) AS over_full
        JOIN attempt AS old ON old.queue_id = over_full.queue_id
            AND old.attempt_id <= over_full.last_id
    )
    """,
    columns=1,
)


def write(
    connection: Connection, updates: Sequence[DeliveryUpdate], *, incarnation: str, now_ms: int
) -> None:
    """Write what the outcomes tell, before their leases end; nothing for what was taken at once."""
    told = [(entry, list(islice(_rows(entry, now_ms), MAX_ROWS))) for entry in updates]
    repeated = [rows[0] for entry, rows in told if _may_repeat(entry, rows)]
    counted = set(_COUNT.fetch(connection, repeated, incarnation))
    fresh = [
        row
        for entry, rows in told
        if (entry.queue_id, entry.delivery_no) not in counted
        for row in rows
    ]
    _add(connection, fresh, incarnation)


def write_interrupted(
    connection: Connection, incarnation: str, begun: Collection[Begun], *, now_ms: int
) -> None:
    """Write which deliveries a dead worker was sending, before they are freed."""
    told = (Stage.LOCAL.value, AttemptState.INTERRUPTED.value, _WORKER_DIED)
    rows = [
        (queue_id, delivery_no, None, now_ms, provider, None, *told, None, None)
        for queue_id, delivery_no, provider in begun
    ]
    _add(connection, rows, incarnation)


def write_vanished(connection: Connection, incarnation: str, *, now_ms: int) -> None:
    """Write which deliveries a worker held that nobody can ask, before they are freed."""
    told = (Stage.LOCAL.value, AttemptState.INTERRUPTED.value, _WORKER_VANISHED)
    _ADD_VANISHED.run(connection, now_ms, now_ms, *told, incarnation)


def write_late(connection: Connection, updates: Sequence[DeliveryUpdate], *, now_ms: int) -> None:
    """Write what was found out with leases that were over by then: others may have sent it, too."""
    rows = [
        _late(row)
        for entry in updates
        for row in islice(_rows(replace(entry, is_first_try=False), now_ms), MAX_ROWS)
        if any(_may_be_taken(change) for change in entry.recipients)
    ]
    _ADD_LATE.run(connection, rows)
    _DROP_OLDEST.run(connection, [(queue_id,) for queue_id in sorted({row[0] for row in rows})])


def _may_be_taken(change: RecipientUpdate) -> bool:
    return change.state is RecipientState.DELIVERED or change.verdict is Verdict.DOUBT


def _late(row: Row) -> Row:
    told = f"{_TOO_LATE}: {row[8]}"[:MAX_REPLY]
    return (*row[:7], AttemptState.IN_DOUBT.value, told, row[9], None)


def _add(connection: Connection, rows: Sequence[Row], incarnation: str) -> None:
    _ADD.run(connection, rows, incarnation)
    _DROP_OLDEST.run(connection, [(queue_id,) for queue_id in sorted({row[0] for row in rows})])


def _may_repeat(entry: DeliveryUpdate, rows: Sequence[Row]) -> bool:
    return len(rows) == 1 and not entry.charged and AttemptState(rows[0][7]) in REPEATED


def _rows(entry: DeliveryUpdate, now_ms: int) -> Iterator[Row]:
    """Yield the rows of one outcome: one where all recipients have the same."""
    changes = [change for change in entry.recipients if not _is_plain(entry, change)]
    if len(changes) == len(entry.recipients) and len({_alike(change) for change in changes}) == 1:
        yield _row(entry, changes[0], None, now_ms)
    else:
        for change in changes:
            yield _row(entry, change, change.rcpt_no, now_ms)
    is_held = entry.state is DeliveryState.HELD
    if not entry.recipients and (is_held or entry.charged):  # else it only waits its turn
        yield _untold(entry, None, entry.reason, waiting_state(entry.state), now_ms)
    for rcpt_no in entry.held_apart:
        yield _untold(entry, rcpt_no, entry.held_apart_reason, AttemptState.HELD, now_ms)


def _is_plain(entry: DeliveryUpdate, change: RecipientUpdate) -> bool:
    return entry.is_first_try and change.state is RecipientState.DELIVERED


def _alike(change: RecipientUpdate) -> tuple[object, ...]:
    return change.state, change.verdict, change.stage, change.reply, change.dsn


def _row(entry: DeliveryUpdate, change: RecipientUpdate, rcpt_no: int | None, now_ms: int) -> Row:
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
        entry.due_at_ms if waits else None,
    )


def _untold(
    entry: DeliveryUpdate, rcpt_no: int | None, reason: str | None, state: AttemptState, now_ms: int
) -> Row:
    """Return the row of what was decided here, without any provider."""
    return (
        entry.queue_id,
        entry.delivery_no,
        rcpt_no,
        now_ms,
        None,
        None,
        Stage.LOCAL.value,
        state.value,
        (reason or "")[:MAX_REPLY],
        None,
        entry.due_at_ms if state is AttemptState.DEFERRED else None,
    )
