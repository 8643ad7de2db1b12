"""Rows of newly accepted messages."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection

from relaygw.errors import StoreUnavailable
from relaygw.mail.envelope import AcceptedMessage, NewDelivery
from relaygw.mail.state import DeliveryState, RecipientState
from relaygw.store.batch import Row, Statement, insert_into

_INSERT_MESSAGES = insert_into(
    "message",
    "queue_id",
    "accepted_at_ms",
    "sender",
    "subject",
    "message_id",
    "size_bytes",
    "chunk_count",
    "is_8bit",
    "has_long_line",
    "smtputf8",
    "mode",
    "client_key",
    "source_client",
    "source_helo",
    "source_user",
    "source_listener",
    "source_uid",
    "source_script",
    "source_cwd",
    "source_host",
    "drop_id",
    "dsn_ret",
    "dsn_envid",
    "finished_at_ms",
    "captured_at_ms",
)
_INSERT_DELIVERIES = insert_into(
    "delivery",
    "queue_id",
    "delivery_no",
    "route",
    "stream",
    "state",
    "due_at_ms",
    "changed_at_ms",
    "client_key",
    "attempts",
    "doubts",
    "reclaims",
    "held_ms",
)
_INSERT_RECIPIENTS = insert_into(
    "recipient",
    "queue_id",
    "rcpt_no",
    "delivery_no",
    "address",
    "original",
    "state",
    "attempts",
    "changed_at_ms",
    "reply",
    "dsn_notify",
)
_INSERT_CHUNKS = insert_into("chunk", "queue_id", "chunk_no", "body")
# locked: who clears orphans waits, and finds the message then
_STORED_CHUNKS = Statement(
    """
    SELECT chunk_no FROM chunk WHERE queue_id = {?} AND chunk_no < {?}
    ORDER BY chunk_no {key_share}
    """
)


def insert_messages(connection: Connection, messages: Sequence[AcceptedMessage]) -> None:
    """Insert `messages` with their deliveries, recipients and content.

    Raises StoreUnavailable when content that was stored ahead of its message is not all there.
    """
    deliveries: list[Row] = []
    recipients: list[Row] = []
    chunks: list[Row] = []
    rows: list[Row] = []
    for accepted in messages:
        states = _add_deliveries(accepted, deliveries, recipients)
        captured = any(
            entry.state is RecipientState.CAPTURED
            for part in accepted.deliveries
            for entry in part.recipients
        )
        finished = all(state is DeliveryState.FINISHED for state in states)
        kept = captured or not finished  # dropped mail leaves its record only
        if kept:
            if accepted.stored_chunks:
                _check_stored(connection, accepted)
            chunks.extend(
                (accepted.queue_id, number, body) for number, body in enumerate(accepted.content)
            )
        rows.append(_message_row(accepted, captured=captured, finished=finished, kept=kept))
    _INSERT_MESSAGES.run(connection, rows)
    _INSERT_DELIVERIES.run(connection, deliveries)
    _INSERT_RECIPIENTS.run(connection, recipients)
    _INSERT_CHUNKS.run(connection, chunks)


def _check_stored(connection: Connection, accepted: AcceptedMessage) -> None:
    """Raise StoreUnavailable unless all chunks of a message are there; they stay until it is."""
    expected = accepted.stored_chunks
    found = len(_STORED_CHUNKS.fetch(connection, accepted.queue_id, expected))
    if found < expected:
        raise StoreUnavailable(
            f"{accepted.queue_id}: {found} of its {expected} chunks of content are in the queue, "
            "the others were cleared as orphans; its client has to send it again"
        )


def insert_chunks(
    connection: Connection, queue_id: str, first_no: int, bodies: Sequence[bytes]
) -> None:
    """Insert content ahead of its message."""
    _INSERT_CHUNKS.run(
        connection, [(queue_id, number, body) for number, body in enumerate(bodies, first_no)]
    )


def _message_row(accepted: AcceptedMessage, *, captured: bool, finished: bool, kept: bool) -> Row:
    source = accepted.source
    return (
        accepted.queue_id,
        accepted.accepted_at_ms,
        accepted.sender,
        accepted.subject,
        accepted.message_id,
        accepted.size_bytes,
        (len(accepted.content) or accepted.stored_chunks) if kept else 0,
        accepted.is_8bit,
        accepted.has_long_line,
        accepted.smtputf8,
        accepted.mode,
        accepted.client_key,
        source.client,
        source.helo,
        source.user,
        source.listener,
        source.uid,
        source.script,
        source.cwd,
        source.host,
        accepted.drop_id,
        accepted.dsn_ret,
        accepted.dsn_envid,
        accepted.accepted_at_ms if finished else None,
        accepted.accepted_at_ms if captured else None,
    )


def _add_deliveries(
    accepted: AcceptedMessage, deliveries: list[Row], recipients: list[Row]
) -> list[DeliveryState]:
    states = []
    rcpt_no = 0
    queue_id, now_ms = accepted.queue_id, accepted.accepted_at_ms
    for delivery_no, part in enumerate(accepted.deliveries):
        state = _first_state(part)
        states.append(state)
        deliveries.append(
            (
                queue_id,
                delivery_no,
                part.route,
                part.stream,
                state.value,
                now_ms,  # due at once
                now_ms,
                accepted.client_key,
                0,  # attempts, doubts, reclaims, time held
                0,
                0,
                0,
            )
        )
        for entry in part.recipients:
            recipients.append(
                (
                    queue_id,
                    rcpt_no,
                    delivery_no,
                    entry.address,
                    entry.original,
                    entry.state.value,
                    0,  # attempts
                    now_ms,
                    entry.reason,
                    entry.dsn_notify,
                )
            )
            rcpt_no += 1
    return states


def _first_state(part: NewDelivery) -> DeliveryState:
    if any(entry.state is RecipientState.PENDING for entry in part.recipients):
        return DeliveryState.INCOMING
    return DeliveryState.FINISHED
