"""What was done with one message, try by try and by operators; written by `outcomes`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from sqlalchemy import select

from relaygw.mail.outcome import AttemptState
from relaygw.store.audit import AuditEntry, actions_on
from relaygw.store.database import Transaction
from relaygw.store.tables import attempt, delivery, message

MOST_ATTEMPTS = 200
"""Of one message: the newest are kept."""
MAX_ROWS = 50
"""Rows of one outcome: of many recipients with replies of their own the first ones."""
MAX_REPLY = 2000
"""Characters of a reply."""
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
