"""What was done with one message, read from a SQL database: see `attempts.Attempts`."""

# ruff: noqa: D102 (store.attempts documents every method)

from __future__ import annotations

from sqlalchemy import Connection, select

from relaygw.mail.attempt import AttemptState
from relaygw.store.attempts import AttemptEntry, DeliveryCircumstances, MessageRecord
from relaygw.store.auditing import entry_of
from relaygw.store.protocol import AuditEntry
from relaygw.store.tables import attempt, audit, delivery, message
from relaygw.store.transactions import Transactions


class SqlAttempts(Transactions):
    """`attempts.Attempts` in SQLAlchemy Core; see there for what each method promises."""

    def attempts(self, queue_id: str) -> list[AttemptEntry]:
        with self._read() as connection:
            return _attempts(connection, queue_id)

    def record_of(self, queue_id: str) -> MessageRecord:
        with self._read() as connection:
            return MessageRecord(
                attempts=tuple(_attempts(connection, queue_id)),
                actions=tuple(_actions(connection, queue_id)),
                deliveries=tuple(_deliveries(connection, queue_id)),
                finished_at_ms=connection.execute(
                    select(message.c.finished_at_ms).where(message.c.queue_id == queue_id)
                ).scalar(),
            )


def _attempts(connection: Connection, queue_id: str) -> list[AttemptEntry]:
    rows = connection.execute(
        select(attempt).where(attempt.c.queue_id == queue_id).order_by(attempt.c.attempt_id)
    )
    return [
        AttemptEntry(
            delivery_no=row.delivery_no,
            rcpt_no=row.rcpt_no,
            at_ms=row.at_ms,
            since_ms=row.since_ms,
            times=row.times,
            provider=row.provider,
            relay=row.relay,
            stage=row.stage,
            state=AttemptState(row.state),
            reply=row.reply,
            dsn=row.dsn,
            next_at_ms=row.next_at_ms,
        )
        for row in rows
    ]


def _actions(connection: Connection, queue_id: str) -> list[AuditEntry]:
    """Return what operators did with a message; a line of the trail may be about many."""
    rows = connection.execute(
        select(audit)
        .where(audit.c.target.contains(queue_id, autoescape=True))
        .order_by(audit.c.at_ms, audit.c.audit_id)
    )
    return [entry_of(row) for row in rows if queue_id in row.target.split()]


def _deliveries(connection: Connection, queue_id: str) -> list[DeliveryCircumstances]:
    rows = connection.execute(
        select(delivery).where(delivery.c.queue_id == queue_id).order_by(delivery.c.delivery_no)
    )
    return [
        DeliveryCircumstances(
            delivery_no=row.delivery_no,
            changed_at_ms=row.changed_at_ms,
            held_at_ms=row.held_at_ms,
            held_ms=row.held_ms,
            doubts=row.doubts,
            reclaims=row.reclaims,
            lease=row.lease,
        )
        for row in rows
    ]
