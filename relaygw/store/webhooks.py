"""Events for receivers of webhooks, written with what they tell of, in the same transaction.

Only what a receiver wants becomes a row, for each of them one, by one statement a batch; without
receivers nothing is done. Their order is that of the changes (see `store.outbox` for the sending).
"""

from __future__ import annotations

from collections.abc import Sequence

from relaygw.mail.attempt_state import AttemptState, attempt_state
from relaygw.mail.envelope import AcceptedMessage, DeliveryUpdate, RecipientUpdate
from relaygw.mail.state import RecipientState
from relaygw.mail.verdict import OF_OUTCOME, OF_VERDICT, ONLY_LAST, Told
from relaygw.store.database import BatchStatement, Row, Transaction, insert_into
from relaygw.store.reports import NewVerdict
from relaygw.store.rules import StoreRules

MAX_REPLY = 500  # characters
_WAITS = RecipientState.PENDING
_WORDS = {state: told.value for state, told in OF_OUTCOME.items()}
_COLUMNS = "endpoint queue_id rcpt_no kind at_ms queued_at_ms verdict provider reply dsn"
_ADD = insert_into("webhook_event", _COLUMNS)
# an outcome is one as long as its lease is not over, and its recipient waits: what an event of a
# provider has settled was told then
_ADD_LEASED = BatchStatement(
    f"""
    INSERT INTO webhook_event ({", ".join(_COLUMNS.split())})
    SELECT v.column1, v.column2, v.column4, v.column5, v.column6, v.column6, NULL, v.column7,
        v.column8, v.column9
    FROM (VALUES {{rows}}) AS v
    JOIN delivery ON delivery.queue_id = v.column2 AND delivery.delivery_no = v.column3
        AND delivery.lease = {{?}}
    JOIN recipient ON recipient.queue_id = v.column2 AND recipient.rcpt_no = v.column4
        AND recipient.state = 'pending'
    """,
    columns=9,
)


def add_outcomes(
    tx: Transaction,
    updates: Sequence[DeliveryUpdate],
    incarnation: str,
    now_ms: int,
    rules: StoreRules,
) -> None:
    """Have the receivers told of outcomes, before they are written and their leases end."""
    rows: list[Row] = [
        (
            *(rule.endpoint, entry.queue_id, entry.delivery_no, recipient.rcpt_no, kind, now_ms),
            *(recipient.provider, (recipient.reply or "")[:MAX_REPLY], recipient.dsn),
        )
        for entry in updates
        for recipient in entry.recipients
        for kind in (
            _told_of_waiting(entry, recipient)
            if recipient.state is _WAITS
            else _WORDS[recipient.state],
        )
        for rule in rules.webhooks
        if kind in rule.kinds
    ]
    _ADD_LEASED.run(tx, rows, incarnation)


def add_accepted(tx: Transaction, messages: Sequence[AcceptedMessage], rules: StoreRules) -> None:
    """Have the receivers told of what was captured or blocked when it was accepted."""
    ended = {  # of nearly no mail; nothing else is done for the others
        accepted.queue_id: accepted
        for accepted in messages
        for part in accepted.deliveries
        for recipient in part.recipients
        if recipient.state is not _WAITS
    }
    for kind in (Told.CAPTURED, Told.BLOCKED) if ended else ():
        found = [
            (accepted.queue_id, number, None, recipient.reason, None, accepted.accepted_at_ms)
            for accepted in ended.values()
            for number, recipient in enumerate(
                entry for part in accepted.deliveries for entry in part.recipients
            )
            if recipient.state.value == kind.value
        ]
        _add_changes(tx, found, kind, tx.ahead_ms, rules)


def add_changes(
    tx: Transaction,
    changed: Sequence[Row],
    state: RecipientState,
    now_ms: int,
    rules: StoreRules,
) -> None:
    """Have the receivers told of recipients that came to an end otherwise than by an attempt.

    `changed`: queue_id, rcpt_no, provider, reply and dsn of each.
    """
    if rules.webhooks and state in OF_OUTCOME:
        _add_changes(tx, [(*row, now_ms) for row in changed], OF_OUTCOME[state], 0, rules)


def add_verdicts(tx: Transaction, verdicts: Sequence[NewVerdict], rules: StoreRules) -> None:
    """Have the receivers told of what providers reported and nobody knew."""
    if not (rules.webhooks and verdicts):
        return
    now_ms = tx.now_ms()
    rows = []
    for new in verdicts:
        kind = OF_VERDICT.get(new.kind)
        if kind is None or not (new.is_last_word or new.kind not in ONLY_LAST):
            continue
        what = (new.queue_id, new.rcpt_no, kind.value, new.at_ms, now_ms)
        said = (new.kind.value, new.provider, new.detail[:MAX_REPLY], new.dsn)
        rows += [
            (webhook.endpoint, *what, *said)
            for webhook in rules.webhooks
            if kind.value in webhook.kinds
        ]
    _ADD.run(tx, rows)


def _add_changes(
    tx: Transaction, found: Sequence[Row], kind: Told, ahead_ms: int, rules: StoreRules
) -> None:
    rows = []
    for webhook in rules.webhooks:
        if kind.value in webhook.kinds:
            for queue_id, rcpt_no, provider, reply, dsn, at_ms in found:
                when = (at_ms + ahead_ms,) * 2
                told = (None, provider, (reply or "")[:MAX_REPLY] or None, dsn)
                rows.append((webhook.endpoint, queue_id, rcpt_no, kind.value, *when, *told))
    _ADD.run(tx, rows)


def _told_of_waiting(entry: DeliveryUpdate, update: RecipientUpdate) -> str | None:
    """Return the event to tell of who waits: that it was tried, not each time it was put off."""
    state = attempt_state(update.state, entry.state, update.verdict)
    return Told.DEFERRED.value if state is AttemptState.DEFERRED and update.charged else None
