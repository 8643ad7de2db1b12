"""Notices that are due to senders: noted with the outcome, made once, kept with their message.

That a notice is due is written in the transaction of what it tells of. It is due when its message
has ended, at the latest an hour later: recipients that end meanwhile are told of together.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from relaygw.mail.envelope import AcceptedMessage, DeliveryUpdate
from relaygw.mail.notice import DueNotice, NoticedRecipient, NoticeEntry, NoticeKind
from relaygw.mail.queue_id import first_id_at
from relaygw.mail.state import RecipientState
from relaygw.store.database import BatchStatement, Repository, Row, Statement, Transaction
from relaygw.store.intake import insert_messages
from relaygw.store.queue_tables import IS_OPEN
from relaygw.store.rules import StoreRules

GATHER_MS = 3_600_000
"""How long the first failure of a message waits for others at most."""
DROP_PREFIX = "notice-"
"""How the drop ids of notices begin; then come the queue id of the mail they are about, and more.
No two messages have one drop id, so none is made twice whatever happens."""
_FAILED = frozenset({RecipientState.BOUNCED, RecipientState.EXPIRED, RecipientState.BLOCKED})


def _wants(occasion: str) -> str:
    """Return the condition that somebody is told of this; its parameters are the two rules."""
    return f"""
        message.sender <> '' AND (
            recipient.dsn_notify LIKE '%{occasion}%'
            OR (recipient.dsn_notify IS NULL AND {{?}} = 1) OR {{?}} = 1
        )
    """


# columns of a row: queue_id, rcpt_no, kind, due_at_ms
_INSERT = """
    INSERT INTO notice (queue_id, kind, rcpt_no, due_at_ms, tries)
    SELECT recipient.queue_id, v.column3, recipient.rcpt_no, v.column4, 0
    FROM (VALUES {rows}) AS v
    JOIN recipient ON recipient.queue_id = v.column1 AND recipient.rcpt_no = v.column2
    JOIN message ON message.queue_id = v.column1
"""
_NOTE_FAILED = BatchStatement(
    f"""
    {_INSERT} WHERE recipient.state IN ('bounced', 'expired', 'blocked') AND {_wants("FAILURE")}
    ON CONFLICT DO NOTHING
    """,
    columns=4,
)
_NOTE_RELAYED = BatchStatement(
    f"""
    {_INSERT} WHERE recipient.state = 'delivered' AND message.sender <> ''
    AND recipient.dsn_notify LIKE '%SUCCESS%'
    ON CONFLICT DO NOTHING
    """,
    columns=4,
)


def note_outcomes(
    tx: Transaction, updates: Sequence[DeliveryUpdate], rules: StoreRules, *, now_ms: int
) -> None:
    """Note of whom senders are told after these outcomes, which are written already."""
    failed, relayed = [], []
    for entry in updates:
        for recipient in entry.recipients:
            if recipient.state in _FAILED:
                failed.append((entry.queue_id, recipient.rcpt_no))
            elif recipient.is_relayed:
                relayed.append((entry.queue_id, recipient.rcpt_no))
    if failed:
        note_failed(tx, failed, rules, now_ms=now_ms)
    if relayed:
        _NOTE_RELAYED.run(tx, _rows(relayed, NoticeKind.RELAYED, now_ms + GATHER_MS))


def note_failed(
    tx: Transaction, keys: Sequence[tuple[str, int]], rules: StoreRules, *, now_ms: int
) -> None:
    """Note that these recipients, as queue id and number, have failed, where somebody is told.

    For whatever ends recipients as bounced, expired or blocked; their state is written already, and
    `finish_messages` comes behind it. `now_ms` is by the database's clock.
    """
    rows = _rows(keys, NoticeKind.FAILED, now_ms + GATHER_MS)
    _NOTE_FAILED.run(tx, rows, int(rules.tells_failures), int(rules.tells_always))


def _rows(keys: Sequence[tuple[str, int]], kind: NoticeKind, due_at_ms: int) -> list[Row]:
    return [(queue_id, rcpt_no, kind.value, due_at_ms) for queue_id, rcpt_no in keys]


# --- what has been waiting for long -----------------------------------------------------------

# captured mail that was let go is as old as its first acceptance
_IS_LATE = f"""
    {IS_OPEN} AND (delivery.released IS NULL OR delivery.released = 'resent')
"""
_LATE = Statement(
    f"""
    SELECT DISTINCT delivery.queue_id FROM delivery
    WHERE {_IS_LATE} AND delivery.queue_id >= {{?}} AND delivery.queue_id < {{?}}
    AND NOT EXISTS (
        SELECT 1 FROM notice
        WHERE notice.queue_id = delivery.queue_id AND notice.kind = 'delayed'
    )
    ORDER BY delivery.queue_id LIMIT {{?}}
    """
)
_NOTE_DELAYED = BatchStatement(
    f"""
    INSERT INTO notice (queue_id, kind, rcpt_no, due_at_ms, tries)
    SELECT recipient.queue_id, 'delayed', recipient.rcpt_no, v.column2, 0
    FROM (VALUES {{rows}}) AS v
    JOIN message ON message.queue_id = v.column1
    JOIN delivery ON delivery.queue_id = v.column1
    JOIN recipient ON recipient.queue_id = delivery.queue_id
        AND recipient.delivery_no = delivery.delivery_no
    WHERE recipient.state = 'pending' AND {_IS_LATE} AND {_wants("DELAY")}
    ON CONFLICT DO NOTHING
    """,
    columns=2,
)

# --- what is due ------------------------------------------------------------------------------

# one that could not be made waits for its time, even if the message has ended
_DUE = Statement(
    """
    SELECT notice.queue_id, notice.kind, max(notice.tries) FROM notice
    JOIN message ON message.queue_id = notice.queue_id
    WHERE notice.made_at_ms IS NULL AND (
        notice.due_at_ms <= {?} OR (notice.tries = 0 AND message.finished_at_ms IS NOT NULL)
    )
    GROUP BY notice.queue_id, notice.kind ORDER BY notice.queue_id, notice.kind LIMIT {?}
    """
)
_OF_MESSAGE = (
    *("sender", "subject", "message_id", "accepted_at_ms", "size_bytes", "smtputf8", "mode"),
    *("source_listener", "source_user", "dsn_ret", "dsn_envid"),
)
_MESSAGE = Statement(f"SELECT {', '.join(_OF_MESSAGE)} FROM message WHERE queue_id = {{?}}")
_OF_RECIPIENT = (
    *("rcpt_no", "delivery_no", "address", "original", "state", "provider", "reply", "dsn"),
    *("changed_at_ms", "dsn_notify", "dsn_orcpt"),
)
_RECIPIENTS = Statement(
    f"""
    SELECT {", ".join(f"recipient.{name}" for name in _OF_RECIPIENT)} FROM notice
    JOIN recipient ON recipient.queue_id = notice.queue_id AND recipient.rcpt_no = notice.rcpt_no
    WHERE notice.queue_id = {{?}} AND notice.kind = {{?}} AND notice.made_at_ms IS NULL
    ORDER BY recipient.rcpt_no
    """
)
_LOCK = Statement(
    """
    SELECT rcpt_no FROM notice WHERE queue_id = {?} AND kind = {?} AND made_at_ms IS NULL
    ORDER BY rcpt_no {for_update}
    """
)
_MAKE = BatchStatement(
    """
    UPDATE notice SET made_at_ms = v.column4, notice_id = v.column5, detail = v.column6
    FROM (VALUES {rows}) AS v
    WHERE notice.queue_id = v.column1 AND notice.kind = v.column2 AND notice.rcpt_no = v.column3
    """,
    columns=6,
)
_PUT_OFF = Statement(
    """
    UPDATE notice SET tries = tries + 1, due_at_ms = {?}
    WHERE queue_id = {?} AND kind = {?} AND made_at_ms IS NULL
    """
)


class Notices(Repository):
    """Notices that are due, and making them."""

    def note_delayed(self, waiting_for_ms: int, *, start: str, limit: int) -> str:
        """Note mail from queue id `start` on that waits for so long; return where to go on.

        Each message is looked at once while it is open: what returns to the queue later, as from
        the trash, is not told of.
        """
        rules = (int(self._rules.tells_failures), int(self._rules.tells_always))
        with self._read() as tx:
            now_ms = tx.now_ms()
            end = first_id_at(now_ms - waiting_for_ms)
            late = [queue_id for (queue_id,) in _LATE.fetch(tx, start, end, limit)]
        if late:
            with self._write() as tx:
                _NOTE_DELAYED.run(tx, [(queue_id, now_ms) for queue_id in late], *rules)
        # ids are of 17 characters: this one stands right behind the last
        return f"{late[-1]}0" if len(late) == limit else max(start, end)

    def due(self, *, limit: int) -> list[DueNotice]:
        """Return the notices due now, of `limit` messages."""
        with self._read() as tx:
            found = _DUE.fetch(tx, tx.now_ms(), limit)
            return [_due(tx, *row) for row in found]

    def store_notice(
        self, notice: DueNotice, messages: Sequence[AcceptedMessage], *, detail: str
    ) -> bool:
        """Store the messages that tell it and mark it as made, once; no messages: nobody is told.

        False, with nothing stored, when it is not as it was any more: others have made it.
        """
        now = [recipient.rcpt_no for recipient in notice.recipients]
        key = (notice.queue_id, notice.kind.value)
        ids = " ".join(message.queue_id for message in messages) or None
        with self._write() as tx:
            left = {rcpt_no for (rcpt_no,) in _LOCK.fetch(tx, *key)}
            if not left.issuperset(now):
                return False
            insert_messages(tx, messages)
            _MAKE.run(tx, [(*key, rcpt_no, tx.now_ms(), ids, detail) for rcpt_no in now])
            return True

    def put_off(self, notice: DueNotice, *, wait_ms: int) -> None:
        """Let a notice that cannot be made wait; the mail it is about stays as it is."""
        with self._write() as tx:
            _PUT_OFF.run(tx, tx.now_ms() + wait_ms, notice.queue_id, notice.kind.value)


def _due(tx: Transaction, queue_id: str, kind: str, tries: int) -> DueNotice:
    (row,) = _MESSAGE.fetch(tx, queue_id)
    values: dict[str, Any] = dict(zip(_OF_MESSAGE, row, strict=True))
    values["smtputf8"] = bool(values["smtputf8"])
    values["accepted_at_ms"] = tx.to_local(values["accepted_at_ms"])
    recipients = []
    for recipient_row in _RECIPIENTS.fetch(tx, queue_id, kind):
        who: dict[str, Any] = dict(zip(_OF_RECIPIENT, recipient_row, strict=True))
        who["state"] = RecipientState(who["state"])
        who["changed_at_ms"] = tx.to_local(who["changed_at_ms"])
        recipients.append(NoticedRecipient(**who))
    return DueNotice(
        queue_id=queue_id,
        kind=NoticeKind(kind),
        tries=tries,
        recipients=tuple(recipients),
        **values,
    )


# --- what was told of a message ---------------------------------------------------------------


_MADE = Statement(
    """
    SELECT DISTINCT kind, made_at_ms, notice_id, detail FROM notice
    WHERE queue_id = {?} AND made_at_ms IS NOT NULL ORDER BY made_at_ms, kind
    """
)
_DROP_ID = Statement("SELECT drop_id FROM message WHERE queue_id = {?}")


def notices_of(tx: Transaction, queue_id: str) -> tuple[NoticeEntry, ...]:
    """Return the notices of a message, oldest first."""
    return tuple(
        NoticeEntry(
            kind=kind,
            at_ms=tx.to_local(at_ms),
            notice_ids=tuple((ids or "").split()),
            detail=detail or "",
        )
        for kind, at_ms, ids, detail in _MADE.fetch(tx, queue_id)
    )


def told_by(tx: Transaction, queue_id: str) -> str | None:
    """Return the queue id of the mail that a message is a notice of, None if it is none."""
    for (drop_id,) in _DROP_ID.fetch(tx, queue_id):
        if drop_id is not None and drop_id.startswith(DROP_PREFIX):
            about: str = drop_id.removeprefix(DROP_PREFIX).partition("-")[0]
            return about
    return None
