"""Rows of newly accepted messages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, insert

from relaygw.mail.envelope import AcceptedMessage, NewDelivery
from relaygw.mail.state import DeliveryState, RecipientState
from relaygw.store.tables import chunk, delivery, message, recipient

_INSERT_MESSAGE = insert(message)
_INSERT_DELIVERY = insert(delivery)
_INSERT_RECIPIENT = insert(recipient)
_INSERT_CHUNK = insert(chunk)

Row = dict[str, Any]


def insert_messages(connection: Connection, messages: Sequence[AcceptedMessage]) -> None:
    """Insert `messages` with their deliveries, recipients and content."""
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
            chunks.extend(
                {"queue_id": accepted.queue_id, "chunk_no": number, "body": body}
                for number, body in enumerate(accepted.content)
            )
        rows.append(_message_row(accepted, captured=captured, finished=finished, kept=kept))
    connection.execute(_INSERT_MESSAGE, rows)
    connection.execute(_INSERT_DELIVERY, deliveries)
    connection.execute(_INSERT_RECIPIENT, recipients)
    if chunks:
        connection.execute(_INSERT_CHUNK, chunks)


def insert_chunks(
    connection: Connection, queue_id: str, first_no: int, bodies: Sequence[bytes]
) -> None:
    """Insert content ahead of its message."""
    connection.execute(
        _INSERT_CHUNK,
        [
            {"queue_id": queue_id, "chunk_no": number, "body": body}
            for number, body in enumerate(bodies, first_no)
        ],
    )


def _message_row(accepted: AcceptedMessage, *, captured: bool, finished: bool, kept: bool) -> Row:
    source = accepted.source
    return {
        "queue_id": accepted.queue_id,
        "accepted_at_ms": accepted.accepted_at_ms,
        "sender": accepted.sender,
        "subject": accepted.subject,
        "message_id": accepted.message_id,
        "size_bytes": accepted.size_bytes,
        "chunk_count": (len(accepted.content) or accepted.stored_chunks) if kept else 0,
        "is_8bit": accepted.is_8bit,
        "has_long_line": accepted.has_long_line,
        "smtputf8": accepted.smtputf8,
        "mode": accepted.mode,
        "client_key": accepted.client_key,
        "source_client": source.client,
        "source_helo": source.helo,
        "source_user": source.user,
        "source_listener": source.listener,
        "source_uid": source.uid,
        "source_script": source.script,
        "finished_at_ms": accepted.accepted_at_ms if finished else None,
        "captured_at_ms": accepted.accepted_at_ms if captured else None,
    }


def _add_deliveries(
    accepted: AcceptedMessage, deliveries: list[Row], recipients: list[Row]
) -> list[DeliveryState]:
    states = []
    rcpt_no = 0
    for delivery_no, part in enumerate(accepted.deliveries):
        state = _first_state(part)
        states.append(state)
        deliveries.append(
            {
                "queue_id": accepted.queue_id,
                "delivery_no": delivery_no,
                "route": part.route,
                "stream": part.stream,
                "state": state.value,
                "due_at_ms": accepted.accepted_at_ms,
                "changed_at_ms": accepted.accepted_at_ms,
                "client_key": accepted.client_key,
                "attempts": 0,
                "doubts": 0,
                "reclaims": 0,
                "held_ms": 0,
            }
        )
        for entry in part.recipients:
            recipients.append(
                {
                    "queue_id": accepted.queue_id,
                    "rcpt_no": rcpt_no,
                    "delivery_no": delivery_no,
                    "address": entry.address,
                    "original": entry.original,
                    "state": entry.state.value,
                    "attempts": 0,
                    "changed_at_ms": accepted.accepted_at_ms,
                    "reply": entry.reason,
                }
            )
            rcpt_no += 1
    return states


def _first_state(part: NewDelivery) -> DeliveryState:
    if any(entry.state is RecipientState.PENDING for entry in part.recipients):
        return DeliveryState.INCOMING
    return DeliveryState.FINISHED
