"""Messages and their content: stored as they are accepted, finished when none of them waits."""

from __future__ import annotations

from collections.abc import Sequence
from operator import attrgetter

from relaygw.errors import StoreUnavailable
from relaygw.mail.envelope import AcceptedMessage, NewDelivery
from relaygw.mail.hold import HoldCause, several
from relaygw.mail.state import DeliveryState, RecipientState
from relaygw.mail.verdict import BOUNCE_MAIL
from relaygw.store.audit import AuditEntry, add_audit
from relaygw.store.database import (
    BatchStatement,
    Repository,
    Row,
    Statement,
    Transaction,
    Write,
    insert_into,
)
from relaygw.store.held_causes import INSERT_CAUSES, cause_rows, hold_columns
from relaygw.store.queue_tables import HAS_NO_NOTICE_DUE
from relaygw.store.repeats import taken_before
from relaygw.store.webhooks import add_accepted

_SAME_IN_MESSAGE = (  # columns that are fields of an accepted message
    "queue_id sender subject message_id size_bytes is_8bit has_long_line smtputf8 mode client_key"
    " drop_id dsn_ret dsn_envid link_value"
)
_SAME_IN_SOURCE = ("client", "helo", "user", "listener", "uid", "script", "cwd", "host")
_of_message = attrgetter(*_SAME_IN_MESSAGE.split())
_of_source = attrgetter(*_SAME_IN_SOURCE)
_INSERT_MESSAGES = insert_into(
    "message",
    f"{_SAME_IN_MESSAGE} {' '.join(f'source_{name}' for name in _SAME_IN_SOURCE)}"
    " accepted_at_ms chunk_count finished_at_ms captured_at_ms",
)
INSERT_DELIVERIES = insert_into(
    "delivery",
    "queue_id delivery_no route stream state due_at_ms changed_at_ms client_key held_ms released",
    attempts=0,
    doubts=0,
    reclaims=0,
)
INSERT_RECIPIENTS = insert_into(
    "recipient",
    "queue_id rcpt_no delivery_no address original state changed_at_ms reply dsn_notify dsn_orcpt",
    attempts=0,
)
_INSERT_CHUNKS = insert_into("chunk", "queue_id chunk_no body")
_ACCEPTED = Statement("SELECT 1 FROM message WHERE queue_id = {?}")
_CHUNK = Statement("SELECT body FROM chunk WHERE queue_id = {?} AND chunk_no = {?}")
_TAKEN_DROPS = BatchStatement(
    "SELECT drop_id FROM message WHERE drop_id IN (VALUES {rows})", columns=1
)
_HOLD = BatchStatement(
    """
    UPDATE delivery
    SET state = 'held', held_at_ms = v.column3, reason = v.column4, hold_code = v.column5,
        hold_key = v.column6
    FROM (VALUES {rows}) AS v
    WHERE delivery.queue_id = v.column1 AND delivery.delivery_no = v.column2
        AND delivery.state = 'incoming'
    """,
    columns=6,
)
# locked: who clears orphans waits, and finds the message then
_STORED_CHUNKS = Statement(
    """
    SELECT chunk_no FROM chunk WHERE queue_id = {?} AND chunk_no < {?}
    ORDER BY chunk_no {key_share}
    """
)


class Intake(Repository):
    """Accepting mail; reading what was accepted."""

    def accept_batch(
        self,
        messages: Sequence[AcceptedMessage],
        *,
        hold: HoldCause | None = None,
        entry: AuditEntry | None = None,
    ) -> dict[str, str]:
        """Store all of `messages` or none; a delivery without pending recipients is finished.

        But for those whose `mail_key` another has that was taken within the last minute, and is
        durable: these are left out and returned, with the queue id of the other.

        The others are held from the start for `hold`, and for what their parts say; `entry` says
        who stores them. Raises AlreadyAccepted when one has the drop id of a message that was
        stored before, and StoreUnavailable when content that was stored ahead of its message is
        not there any more.
        """

        new, again = messages, dict[str, str]()

        def write() -> None:
            nonlocal new, again
            with self._write() as tx:
                keyed = [message for message in messages if message.mail_key is not None]
                if keyed:
                    again = taken_before(tx, keyed)
                    new = [message for message in messages if message.queue_id not in again]
                insert_messages(tx, new)
                bounces = [
                    accepted_message for accepted_message in new if accepted_message.is_bounce_mail
                ]
                if bounces:
                    note_bounce_mail(tx, bounces)
                if self._rules.webhooks:
                    add_accepted(tx, new, self._rules)
                _hold(tx, new, hold)
                if entry is not None:
                    add_audit(tx, entry, entry.affected)

        def is_stored() -> bool:
            # one transaction: the first is there if all of them are; duplicates never are
            with self._read() as tx:
                return not new or bool(_ACCEPTED.fetch(tx, new[0].queue_id))

        self._database.refuse_if_broken()
        self._database.outlive_restarts(write, is_done=is_stored)
        return again

    def add_chunks(self, queue_id: str, first_no: int, bodies: Sequence[bytes]) -> None:
        """Store content ahead of its large message; cleared when for an hour no more comes."""

        def write() -> None:
            rows = [(queue_id, number, body) for number, body in enumerate(bodies, first_no)]
            with self._write(Write.BULK) as tx:
                _INSERT_CHUNKS.run(tx, rows)

        def is_stored() -> bool:
            return self.read_chunk(queue_id, first_no) is not None

        self._database.refuse_if_broken()
        self._database.outlive_restarts(write, is_done=is_stored)

    def read_chunk(self, queue_id: str, chunk_no: int) -> bytes | None:
        """Return one chunk of content, or None when it is gone."""
        with self._read() as tx:
            found = _CHUNK.fetch(tx, queue_id, chunk_no)
            return found[0][0] if found else None

    def taken_drops(self, drop_ids: Sequence[str]) -> set[str]:
        """Return which of these drop ids a message was stored with."""
        with self._read() as tx:
            return {
                drop_id
                for (drop_id,) in _TAKEN_DROPS.fetch(tx, [(drop_id,) for drop_id in drop_ids])
            }


def insert_messages(tx: Transaction, messages: Sequence[AcceptedMessage]) -> None:
    """Insert messages with all their parts; StoreUnavailable when stored content is gone."""
    rows: list[Row] = []
    deliveries: list[Row] = []
    recipients: list[Row] = []
    chunks: list[Row] = []
    for accepted in messages:
        at_ms = accepted.accepted_at_ms + tx.ahead_ms
        _add_deliveries(accepted, at_ms, deliveries, recipients)
        states = {entry.state for part in accepted.deliveries for entry in part.recipients}
        is_captured = RecipientState.CAPTURED in states
        is_finished = RecipientState.PENDING not in states
        count = 0
        if is_captured or not is_finished:  # dropped mail leaves its record only
            count = len(accepted.content) or accepted.stored_chunks
            if accepted.stored_chunks:
                _check_stored(tx, accepted)
            chunks += [(accepted.queue_id, no, body) for no, body in enumerate(accepted.content)]
        ended = (at_ms if is_finished else None, at_ms if is_captured else None)
        rows.append((*_of_message(accepted), *_of_source(accepted.source), at_ms, count, *ended))
    _INSERT_MESSAGES.run(tx, rows)
    INSERT_DELIVERIES.run(tx, deliveries)
    INSERT_RECIPIENTS.run(tx, recipients)
    _INSERT_CHUNKS.run(tx, chunks)


def _hold(tx: Transaction, messages: Sequence[AcceptedMessage], for_all: HoldCause | None) -> None:
    rows: list[Row] = []
    causes: list[Row] = []
    for message in messages:
        for number, part in enumerate(message.deliveries):
            holds = part.holds if for_all is None else (for_all, *part.holds)
            if not holds or not _is_open(part):
                continue
            held = (message.queue_id, number, message.accepted_at_ms + tx.ahead_ms)
            rows.append((*held, *hold_columns(several(holds)).values()))
            causes += cause_rows(*held, holds)
    if rows:
        _HOLD.run(tx, rows)
    if causes:
        INSERT_CAUSES.run(tx, causes)


def _is_open(part: NewDelivery) -> bool:
    return RecipientState.PENDING in [entry.state for entry in part.recipients]


def _check_stored(tx: Transaction, accepted: AcceptedMessage) -> None:
    """Raise StoreUnavailable unless all chunks of a message are there; they stay until it is."""
    expected = accepted.stored_chunks
    found = len(_STORED_CHUNKS.fetch(tx, accepted.queue_id, expected))
    if found < expected:
        raise StoreUnavailable(
            f"{accepted.queue_id}: {found} of its {expected} chunks of content are in the queue, "
            "the others were removed as orphans; its client has to send it again"
        )


def _add_deliveries(
    accepted: AcceptedMessage, at_ms: int, deliveries: list[Row], recipients: list[Row]
) -> None:
    rcpt_no = 0
    queue_id, client = accepted.queue_id, accepted.client_key
    for number, part in enumerate(accepted.deliveries):
        state = DeliveryState.INCOMING if _is_open(part) else DeliveryState.FINISHED
        where = (queue_id, number, part.route, part.stream, str(state))
        deliveries.append((*where, at_ms, at_ms, client, 0, part.released and part.released.value))
        for entry in part.recipients:
            who = (queue_id, rcpt_no, number, entry.address, entry.original, str(entry.state))
            recipients.append((*who, at_ms, entry.reason, entry.dsn_notify, entry.dsn_orcpt))
            rcpt_no += 1


# --- bounce mails -----------------------------------------------------------------------
# Bounce mails that were accepted: noted with them as a post to read, so that none is forgotten.
#
# The post has the queue id of the mail, whose content stays where it is: people may look at it.


_ADD_POST = insert_into("event_post", "provider received_at_ms due_at_ms body", tries=0)


def note_bounce_mail(tx: Transaction, messages: Sequence[AcceptedMessage]) -> None:
    """Have those read that are bounce mails; written with them or not at all."""
    queue_ids = [message.queue_id for message in messages if message.is_bounce_mail]
    now_ms = tx.now_ms()
    _ADD_POST.run(tx, [(BOUNCE_MAIL, now_ms, now_ms, queue_id.encode()) for queue_id in queue_ids])


# --- messages that are done -------------------------------------------------------------


# small content goes with the outcome, large content piece by piece later (Janitor.shed_content);
# captured mail keeps its content for the sandbox's own retention, and what a sender is to be told
# of until that is made
def _finish_statement(ended_states: str) -> BatchStatement:
    return BatchStatement(
        f"""
        UPDATE message
        SET finished_at_ms = v.column2,
            chunk_count = CASE WHEN chunk_count = 1 AND captured_at_ms IS NULL
                AND {HAS_NO_NOTICE_DUE} THEN v.column3 ELSE chunk_count END
        FROM (VALUES {{rows}}) AS v
        WHERE message.queue_id = v.column1
        AND NOT EXISTS (
            SELECT 1 FROM delivery WHERE delivery.queue_id = message.queue_id
            AND delivery.state NOT IN ({ended_states})
        )
        """,
        columns=3,
    )


# what is in the trash may come back, with its content
_FINISH_MESSAGES = _finish_statement("'finished'")
_EMPTY_TRASH = _finish_statement("'finished', 'deleted'")
# Two workers that record the last two deliveries of a message at once would each see the other's
# as open. Who waits for this lock sees in the next statement what the one before wrote.
_LOCK_PARTED = BatchStatement(
    """
    SELECT queue_id FROM message WHERE queue_id IN (VALUES {rows})
    AND EXISTS (
        SELECT 1 FROM delivery WHERE delivery.queue_id = message.queue_id AND delivery_no > 0
    )
    ORDER BY queue_id {for_update}
    """,
    columns=1,
)
_DROP_FORGOTTEN_CONTENT = BatchStatement(
    """
    DELETE FROM chunk WHERE queue_id IN (
        SELECT queue_id FROM message WHERE queue_id IN (VALUES {rows}) AND chunk_count = 0
    )
    """,
    columns=1,
)


def finish_messages(
    tx: Transaction, queue_ids: Sequence[str], *, now_ms: int, keep_content: bool
) -> None:
    """Finish messages without a delivery that waits or may come back; drop small content."""
    if tx.is_postgres:  # SQLite has one writer at a time
        _LOCK_PARTED.fetch(tx, [(queue_id,) for queue_id in sorted(queue_ids)])
    _FINISH_MESSAGES.run(tx, [(queue_id, now_ms, int(keep_content)) for queue_id in queue_ids])
    if not keep_content:
        _DROP_FORGOTTEN_CONTENT.run(tx, [(queue_id,) for queue_id in queue_ids])


def empty_trash(tx: Transaction, queue_ids: Sequence[str], *, now_ms: int) -> None:
    """Finish messages whose trash has been there for long enough; locked before (lock_messages)."""
    _EMPTY_TRASH.run(tx, [(queue_id, now_ms, 0) for queue_id in queue_ids])
    _DROP_FORGOTTEN_CONTENT.run(tx, [(queue_id,) for queue_id in queue_ids])
