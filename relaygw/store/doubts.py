"""Doubts: who may have mail already, since when, and which events of providers settle that.

A delivery in doubt counts its doubts and names the provider that may have it. An event of that
provider about a recipient proves that it took the mail, whatever became of it there: the recipient
is delivered, and what the event says stands beside it as the verdict. A bounce mail proves nothing
here, as anybody may have written it. Rows are locked in the order in which outcomes write them:
recipients, deliveries, messages.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from relaygw.mail.state import RecipientState
from relaygw.store.database import BatchStatement, Repository, Row, Statement, Transaction
from relaygw.store.held_causes import IN_FORCE
from relaygw.store.intake import finish_messages
from relaygw.store.outcomes import MAX_REPLY, Settled
from relaygw.store.queue_tables import Key
from relaygw.store.reports import NewVerdict
from relaygw.store.rules import StoreRules
from relaygw.store.webhooks import add_changes

# columns of a row: queue_id, address, provider, words, at_ms
_SETTLE = BatchStatement(
    """
    UPDATE recipient
    SET state = 'delivered', changed_at_ms = v.column5, provider = v.column3, reply = v.column4,
        dsn = '2.0.0'
    FROM (VALUES {rows}) AS v
    WHERE recipient.queue_id = v.column1 AND recipient.address = v.column2
    AND recipient.state = 'pending'
    AND EXISTS (
        SELECT 1 FROM delivery WHERE delivery.queue_id = recipient.queue_id
        AND delivery.delivery_no = recipient.delivery_no
        AND (delivery.doubts > 0 OR delivery.reclaims > 0) AND delivery.provider = v.column3
    )
    RETURNING queue_id, delivery_no, rcpt_no, address, provider, reply
    """,
    columns=5,
)
_TELL = BatchStatement(
    """
    INSERT INTO attempt (queue_id, delivery_no, rcpt_no, at_ms, since_ms, times, provider, relay,
        stage, state, reply, dsn, next_at_ms)
    SELECT v.column1, v.column2, v.column3, v.column4, v.column4, 1, v.column5, NULL,
        'local', 'delivered', v.column6, '2.0.0', NULL
    FROM (VALUES {rows}) AS v
    """,
    columns=6,
)
_LOCK = BatchStatement(
    """
    SELECT queue_id, delivery_no FROM delivery WHERE (queue_id, delivery_no) IN (VALUES {rows})
    ORDER BY queue_id, delivery_no {for_update}
    """,
    columns=2,
)
# what a worker has in hand it ends itself, and the trash stays the trash
_END = BatchStatement(
    """
    UPDATE delivery
    SET state = 'finished', changed_at_ms = v.column3, held_at_ms = NULL, reason = NULL,
        hold_code = NULL, hold_key = NULL
    FROM (VALUES {rows}) AS v
    WHERE delivery.queue_id = v.column1 AND delivery.delivery_no = v.column2
    AND delivery.state IN ('incoming', 'deferred', 'held')
    AND NOT EXISTS (
        SELECT 1 FROM recipient WHERE recipient.queue_id = delivery.queue_id
        AND recipient.delivery_no = delivery.delivery_no AND recipient.state = 'pending'
    )
    RETURNING queue_id, delivery_no
    """,
    columns=3,
)
_TOLD = BatchStatement(
    """
    SELECT DISTINCT recipient.queue_id, recipient.address, told.provider, told.kind
    FROM (VALUES {rows}) AS v
    JOIN delivery ON delivery.queue_id = v.column1 AND delivery.delivery_no = v.column2
    JOIN provider_event AS told ON told.queue_id = delivery.queue_id
    JOIN recipient ON recipient.queue_id = delivery.queue_id AND recipient.rcpt_no = told.rcpt_no
        AND recipient.delivery_no = delivery.delivery_no AND recipient.state = 'pending'
    WHERE delivery.doubts > 0 OR delivery.reclaims > 0
    """,
    columns=2,
)
_IN_DOUBT = BatchStatement(
    """
    SELECT queue_id, delivery_no FROM delivery WHERE queue_id IN (VALUES {rows})
    AND (doubts > 0 OR reclaims > 0)
    """,
    columns=1,
)
_DOUBT = BatchStatement(
    """
    UPDATE delivery SET doubts = doubts + 1, provider = v.column3
    FROM (VALUES {rows}) AS v
    WHERE delivery.queue_id = v.column1 AND delivery.delivery_no = v.column2
    AND delivery.state IN ('incoming', 'deferred', 'held')
    AND NOT ((delivery.doubts > 0 OR delivery.reclaims > 0) AND delivery.provider IS NOT NULL)
    """,
    columns=3,
)
_PUT_OFF = BatchStatement(
    """
    UPDATE delivery SET state = 'deferred', due_at_ms = v.column3
    FROM (VALUES {rows}) AS v
    WHERE delivery.queue_id = v.column1 AND delivery.delivery_no = v.column2
    AND delivery.state IN ('incoming', 'deferred')
    """,
    columns=3,
)
_LET_GO = BatchStatement(
    f"""
    INSERT INTO key_generation (queue_id, rcpt_no, generation, since_ms)
    SELECT recipient.queue_id, recipient.rcpt_no, 1, v.column2
    FROM (VALUES {{rows}}) AS v
    JOIN delivery ON delivery.queue_id = v.column1
    JOIN recipient ON recipient.queue_id = delivery.queue_id
        AND recipient.delivery_no = delivery.delivery_no AND recipient.state = 'pending'
    WHERE delivery.state = 'held' AND (delivery.hold_code = 'in_doubt' OR EXISTS (
        SELECT 1 FROM held_cause WHERE held_cause.hold_code = 'in_doubt' AND {IN_FORCE}
    ))
    ON CONFLICT (queue_id, rcpt_no) DO UPDATE
    SET generation = key_generation.generation + 1, since_ms = excluded.since_ms
    """,
    columns=2,
)
_GENERATIONS = Statement(
    "SELECT rcpt_no, generation, since_ms FROM key_generation WHERE queue_id = {?}"
)
_DOUBTFUL = Statement(
    """
    SELECT rcpt_no, at_ms, since_ms FROM attempt
    WHERE queue_id = {?} AND state IN ('in doubt', 'interrupted')
    """
)
_PENDING = Statement(
    "SELECT rcpt_no FROM recipient WHERE queue_id = {?} AND recipient.state = 'pending'"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class DoubtHistory:
    """What is known of the earlier tries of a delivery."""

    generations: Mapping[int, int]  # of keys, by recipient; 0 where none is named
    since_ms: int | None  # a provider may have it since then, at the earliest


class Doubts(Repository):
    """What a worker asks before it sends again what a provider may have."""

    def history(self, queue_id: str, rcpt_nos: Collection[int]) -> DoubtHistory:
        """Return the generations of keys, and since when a provider may have it, if it may.

        Doubts from before an operator let go of it count no more.
        """
        with self._read() as tx:
            generations = _GENERATIONS.fetch(tx, queue_id)
            doubtful = _DOUBTFUL.fetch(tx, queue_id)
        begun_ms = {rcpt_no: since_ms for rcpt_no, _, since_ms in generations}
        since = (
            since_ms
            for rcpt_no, at_ms, since_ms in doubtful
            for doubted_no in (rcpt_nos if rcpt_no is None else {rcpt_no}.intersection(rcpt_nos))
            if at_ms > begun_ms.get(doubted_no, 0)
        )
        return DoubtHistory(
            generations={rcpt_no: generation for rcpt_no, generation, _ in generations},
            since_ms=tx.to_local(min(since, default=None)),
        )

    def still_wait(self, queue_id: str, rcpt_nos: Collection[int]) -> bool:
        """Return whether all these recipients wait: False once one of them was settled."""
        with self._read() as tx:
            pending = {rcpt_no for (rcpt_no,) in _PENDING.fetch(tx, queue_id)}
        return pending.issuperset(rcpt_nos)


def settle(
    tx: Transaction, verdicts: Sequence[NewVerdict], rules: StoreRules
) -> tuple[Settled, ...]:
    """End doubts about recipients of whom a provider tells that it has their mail.

    Any kind of event proves that. What a worker has in hand at this moment is not sent either: it
    looks right before its final dot (`Doubts.still_wait`).
    """
    told = (
        (verdict.queue_id, verdict.address, verdict.provider, verdict.kind.value)
        for verdict in verdicts
    )
    return _settle(tx, told, rules)


def settle_told(tx: Transaction, keys: Collection[Key], rules: StoreRules) -> tuple[Settled, ...]:
    """End doubts of deliveries of which an event told before they came in doubt."""
    found = _TOLD.fetch(tx, sorted(keys)) if keys else []
    settled = _settle(tx, found, rules)
    if keys:  # an event may have come while its outcome was on its way
        _end(tx, keys, rules)
    return settled


def settle_what_is_back(tx: Transaction, queue_ids: Collection[str], rules: StoreRules) -> None:
    """End the doubts of mail from the trash of which an event told meanwhile."""
    rows = _IN_DOUBT.fetch(tx, [(queue_id,) for queue_id in sorted(queue_ids)])
    settle_told(tx, [(queue_id, delivery_no) for queue_id, delivery_no in rows], rules)


def come_in_doubt(tx: Transaction, told: Iterable[tuple[str, int, str]]) -> None:
    """Note late that a provider may have what waits: no other gets it, and an event settles it."""
    _DOUBT.run(tx, sorted(told))


def put_off(tx: Transaction, keys: Iterable[tuple[str, int]], due_at_ms: int) -> None:
    """Let deliveries wait until a time."""
    _PUT_OFF.run(tx, [(*key, due_at_ms) for key in sorted(keys)])


def note_let_go(tx: Transaction, queue_ids: Iterable[str], now_ms: int) -> None:
    """Give what an operator is about to let go of, held in doubt, another idempotency key."""
    _LET_GO.run(tx, [(queue_id, now_ms) for queue_id in sorted(queue_ids)])


def _settle(
    tx: Transaction, told: Iterable[tuple[str, str, str, str]], rules: StoreRules
) -> tuple[Settled, ...]:
    now_ms = tx.now_ms()
    first: dict[tuple[str, str, str], Row] = {}
    for queue_id, address, told_by, kind in told:
        for provider in rules.siblings_of(told_by):
            words = f"{provider} has it: its event tells {kind}"[:MAX_REPLY]
            key = (queue_id, address, provider)
            first.setdefault(key, (*key, words, now_ms))
    rows = _SETTLE.fetch(tx, [first[key] for key in sorted(first)])
    if not rows:
        return ()
    changed = [
        (queue_id, rcpt_no, by, words, "2.0.0") for queue_id, _, rcpt_no, _, by, words in rows
    ]
    add_changes(tx, changed, RecipientState.DELIVERED, now_ms, rules)
    _TELL.run(tx, [(*key, rcpt_no, now_ms, by, words) for *key, rcpt_no, _, by, words in rows])
    _end(tx, {(queue_id, delivery_no) for queue_id, delivery_no, *_ in rows}, rules)
    return tuple(
        Settled(queue_id=queue_id, rcpt_no=rcpt_no, address=address, provider=by, words=words)
        for queue_id, _, rcpt_no, address, by, words in rows
    )


def _end(tx: Transaction, keys: Collection[Key], rules: StoreRules) -> None:
    """Finish deliveries of which nobody waits any more, unless a worker has them."""
    now_ms, ordered = tx.now_ms(), sorted(keys)
    _LOCK.fetch(tx, ordered)  # of two who settle the last two recipients the second one sees both
    ended = _END.fetch(tx, [(*key, now_ms) for key in ordered])
    queue_ids = sorted({queue_id for queue_id, _ in ended})
    if queue_ids:
        finish_messages(tx, queue_ids, now_ms=now_ms, keep_content=rules.keep_content)
