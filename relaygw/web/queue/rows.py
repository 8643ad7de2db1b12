"""A queued message as a line of the list: for whom, what, where it stands and why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from relaygw.mail.state import DeliveryState, RecipientState
from relaygw.operations.queue_object import leading_delivery, next_attempt_at_ms
from relaygw.store.protocol import QueueEntry
from relaygw.web import words

TONES = {
    DeliveryState.INCOMING: "waiting",
    DeliveryState.ACTIVE: "sent",
    DeliveryState.DEFERRED: "waiting",
    DeliveryState.HELD: "failed",
    DeliveryState.FINISHED: "captured",
    DeliveryState.DELETED: "captured",
}
_MAX_REASON_CHARACTERS = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueRow:
    """What a line says."""

    queue_id: str
    to: str
    more: int  # recipients beside it
    sender: str
    subject: str
    reason: str
    state: str
    tone: str
    next_try: str  # "" when no timer runs
    route: str
    size: str
    age: str
    at: str  # for machines
    exact: str


def make_queue_rows(entries: Sequence[QueueEntry], *, now: int) -> list[QueueRow]:
    """Return the lines of messages."""
    return [_row(entry, now) for entry in entries]


def _row(entry: QueueEntry, now: int) -> QueueRow:
    leading = leading_delivery(entry)
    due_at_ms = next_attempt_at_ms(leading)
    return QueueRow(
        queue_id=entry.queue_id,
        to=_to(entry),
        more=max(0, len(entry.recipients) - 1),
        sender=entry.sender or "<> (no sender)",
        subject=entry.subject or "(no subject)",
        reason=_reason(entry, leading.reason)[:_MAX_REASON_CHARACTERS],
        state=shown_state(entry),
        tone=TONES[leading.state],
        next_try="" if due_at_ms is None else words.until(due_at_ms, now),
        route=leading.route,
        size=words.size(entry.size_bytes),
        age=words.age(entry.accepted_at_ms, now),
        at=words.iso_time(entry.accepted_at_ms),
        exact=words.exact_time(entry.accepted_at_ms),
    )


def shown_state(entry: QueueEntry) -> str:
    """Return the state of a message; of a finished one what became of it."""
    state = leading_delivery(entry).state
    if state is not DeliveryState.FINISHED:
        return state.value
    ends = words.unique(one.state.value for one in entry.recipients)
    return ends[0] if len(ends) == 1 else state.value


def _to(entry: QueueEntry) -> str:
    """Return the first recipient, one who still waits before others."""
    waiting = [one for one in entry.recipients if one.state is RecipientState.PENDING]
    first = next(iter(waiting or entry.recipients), None)
    return "(nobody)" if first is None else first.address


def _reason(entry: QueueEntry, reason: str | None) -> str:
    replies = (one.reply for one in entry.recipients if one.reply)
    return reason or next(replies, "")
