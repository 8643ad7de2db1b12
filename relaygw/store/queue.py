"""The queue as operators see it, and what they do to it.

What is open is found by its index, in the order of acceptance, so that a page of a long queue
costs a look at a page; finished messages, which are nearly all of them, are never looked at.
Leases are never taken away: a delivery that a worker is sending stays as it is.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from sqlalchemy import Select, TextClause, case, exists, func, literal, select
from sqlalchemy.sql.elements import ColumnElement

from relaygw.mail.hold import HoldCause
from relaygw.mail.state import OPEN, DeliveryState, RecipientState
from relaygw.store import attempts, changes
from relaygw.store.attempts import AttemptEntry, MessageRecord
from relaygw.store.audit import AuditEntry, add_audit
from relaygw.store.database import Database, Repository, Transaction
from relaygw.store.letter_case import has_text
from relaygw.store.queue_entry import (
    QueueEntry,
    Waiting,
    in_batches,
    is_listed,
    load_entries,
    load_waiting,
)
from relaygw.store.tables import IS_OPEN, delivery, message, recipient

MAX_TEXT_CHARACTERS = 1000
"""Of a text that is looked for: far below what SQLite takes as a pattern."""
Condition = ColumnElement[bool] | TextClause


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Which messages: every condition set must hold; texts match anywhere, without case."""

    queue_ids: tuple[str, ...] = ()
    sender: str | None = None
    recipient: str | None = None
    subject: str | None = None
    states: frozenset[DeliveryState] = OPEN
    provider: str | None = None
    route: str | None = None
    stream: str | None = None
    client: str | None = None
    accepted_before_ms: int | None = None
    reason: str | None = None
    reply: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LaneCount:
    """How many deliveries of a route are in a state, and the oldest acceptance.

    `recipients` are those that still wait.
    """

    route: str
    stream: str
    state: DeliveryState
    deliveries: int
    recipients: int
    oldest_accepted_at_ms: int


class ShapeKey(StrEnum):
    """What the queue is counted by: recipients' domains by recipient, the rest by delivery."""

    RECIPIENT = "recipient"
    SENDER = "sender"
    PROVIDER = "provider"
    REASON = "reason"
    ROUTE = "route"


@dataclass(frozen=True, slots=True, kw_only=True)
class ShapeCount:
    """How much of a key is of one age: step n is younger than bound n, the last has none."""

    key: str
    step: int
    number: int


class Queue(Repository):
    """Searches, counts and changes."""

    def __init__(self, database: Database, *, keep_content: bool) -> None:
        super().__init__(database)
        self._keep_content = keep_content

    # --- searches ------------------------------------------------------------------------

    def search(self, selection: Selection, *, limit: int, after: str = "") -> list[QueueEntry]:
        """Return messages in the order of acceptance, those after queue id `after`."""
        with self._read() as tx:
            return _entries(tx, _matching_ids(tx, selection, limit=limit, after=after))

    def search_ids(self, selection: Selection, *, limit: int, after: str = "") -> list[str]:
        """Return the queue ids of what `search` would return."""
        with self._read() as tx:
            return _matching_ids(tx, selection, limit=limit, after=after)

    def entries(self, queue_ids: Sequence[str]) -> list[QueueEntry]:
        """Return those of the messages that there are, in the order of acceptance."""
        with self._read() as tx:
            return _entries(tx, queue_ids)

    def waiting(self, *, limit: int, after: str = "") -> list[Waiting]:
        """Return queued messages in the order of acceptance, those after queue id `after`.

        One statement a page: a list of 100,000 messages takes a second.
        """
        with self._read() as tx:
            return load_waiting(tx, limit=limit, after=after)

    def attempts(self, queue_id: str) -> list[AttemptEntry]:
        """Return the attempts to send a message, oldest first: the newest MOST_ATTEMPTS."""
        with self._read() as tx:
            return attempts.attempts_of(tx, queue_id)

    def record_of(self, queue_id: str) -> MessageRecord:
        """Return all that was done with a message; of an unknown one, what operators did."""
        with self._read() as tx:
            return attempts.record_of(tx, queue_id)

    # --- counts --------------------------------------------------------------------------

    def counts(self) -> list[LaneCount]:
        """Return the open deliveries, and what waits in them, by route, stream and state."""
        waiting = (
            select(func.count())
            .where(_IS_ITS_RECIPIENT, recipient.c.state == RecipientState.PENDING.value)
            .scalar_subquery()
        )
        lane = (delivery.c.route, delivery.c.stream, delivery.c.state)
        oldest = func.min(message.c.accepted_at_ms)
        query = (
            select(*lane, func.count(), func.sum(waiting), oldest)
            .join(message, message.c.queue_id == delivery.c.queue_id)
            .where(IS_OPEN)
            .group_by(*lane)
            .order_by(*lane)
        )
        with self._read() as tx:
            return [
                LaneCount(
                    route=route,
                    stream=stream,
                    state=DeliveryState(state),
                    deliveries=number,
                    recipients=int(recipients),
                    oldest_accepted_at_ms=tx.to_local(oldest_ms),
                )
                for route, stream, state, number, recipients, oldest_ms in tx.execute(query)
            ]

    def shape(
        self, selection: Selection, *, by: ShapeKey, bounds_ms: Sequence[int], now_ms: int
    ) -> list[ShapeCount]:
        """Count what waits by a key and by age, in steps that end at `bounds_ms`."""
        with self._read() as tx:
            age_ms = literal(tx.to_stored(now_ms)) - message.c.accepted_at_ms
            step = case(
                *((age_ms < bound_ms, number) for number, bound_ms in enumerate(bounds_ms)),
                else_=len(bounds_ms),
            )
            key = _KEYS[by].label("key")
            counted = select(key, step.label("step"), func.count().label("number"))
            rows = tx.execute(
                _counted_from(counted, by)
                .where(*_delivery_conditions(selection), *_message_conditions(tx, selection))
                .group_by("key", "step")
            )
            return [ShapeCount(key=row.key, step=row.step, number=row.number) for row in rows]

    # --- changes -------------------------------------------------------------------------

    def change_state(
        self,
        queue_ids: Sequence[str],
        *,
        from_states: frozenset[DeliveryState],
        to: DeliveryState,
        hold: HoldCause | None,
        due_at_ms: int,
        entry: AuditEntry,
    ) -> int:
        """Move the deliveries of `queue_ids` that are in `from_states`; audited; return how many.

        A lease is never taken away: active deliveries stay, whatever `from_states` says.
        """
        with self._write() as tx:
            number = changes.change_state(
                tx,
                queue_ids,
                from_states=from_states,
                to=to,
                hold=hold,
                due_at_ms=tx.to_stored(due_at_ms),
                now_ms=tx.to_stored(entry.at_ms),
            )
            add_audit(tx, entry, number)
            return number

    def undelete(self, queue_ids: Sequence[str], *, entry: AuditEntry) -> int:
        """Take deliveries out of the trash; audited; return how many.

        What was held is held as before, the rest is due now; time in the trash is no age.
        """
        with self._write() as tx:
            number = changes.undelete(tx, queue_ids, now_ms=tx.to_stored(entry.at_ms))
            add_audit(tx, entry, number)
            return number

    def expire(self, queue_ids: Sequence[str], *, reason: str, entry: AuditEntry) -> int:
        """End open deliveries as expired; audited; return how many.

        Each recipient that still waited is told as `reason` and what was said to it last.
        """
        with self._write() as tx:
            number = changes.expire(
                tx,
                queue_ids,
                reason=reason,
                now_ms=tx.to_stored(entry.at_ms),
                keep_content=self._keep_content,
            )
            add_audit(tx, entry, number)
            return number

    def move(
        self,
        queue_ids: Sequence[str],
        *,
        provider: str,
        ended: Collection[HoldCause],
        is_forced: bool,
        entry: AuditEntry,
    ) -> int:
        """Let open deliveries go by one provider alone; audited; return how many.

        Deferred ones are due now, and so are those held for one of `ended`; others stay
        held. Mail that another provider may have taken is moved only when `is_forced`.
        """
        with self._write() as tx:
            number = changes.move(
                tx,
                queue_ids,
                provider=provider,
                ended=ended,
                is_forced=is_forced,
                now_ms=tx.to_stored(entry.at_ms),
            )
            add_audit(tx, entry, number)
            return number


def _delivery_conditions(selection: Selection) -> Iterator[Condition]:
    """Yield what a selection asks of a delivery."""
    if selection.queue_ids:
        yield delivery.c.queue_id.in_(selection.queue_ids)
    if selection.states != frozenset(DeliveryState):
        yield delivery.c.state.in_([state.value for state in selection.states])
    if selection.states <= OPEN:
        yield IS_OPEN
    if selection.provider is not None:
        yield delivery.c.provider == selection.provider
    if selection.route is not None:
        yield delivery.c.route == selection.route
    if selection.stream is not None:
        yield delivery.c.stream == selection.stream
    if selection.reason is not None:
        yield has_text(delivery.c.reason, selection.reason)


def _message_conditions(tx: Transaction, selection: Selection) -> Iterator[ColumnElement[bool]]:
    """Yield what a selection asks of a message."""
    if selection.sender is not None:
        yield has_text(message.c.sender, selection.sender)
    if selection.subject is not None:
        yield has_text(message.c.subject, selection.subject)
    if selection.client is not None:
        yield (message.c.source_client == selection.client) | (
            message.c.source_user == selection.client
        )
    if selection.accepted_before_ms is not None:
        yield message.c.accepted_at_ms < tx.to_stored(selection.accepted_before_ms)
    if selection.recipient is not None:
        yield exists().where(
            recipient.c.queue_id == message.c.queue_id,
            has_text(recipient.c.address, selection.recipient),
        )
    if selection.reply is not None:
        yield exists().where(
            recipient.c.queue_id == message.c.queue_id,
            has_text(recipient.c.reply, selection.reply),
        )


def _matching_ids(tx: Transaction, selection: Selection, *, limit: int, after: str) -> list[str]:
    """Return the ids of matching messages in the order of acceptance."""
    ids = sorted(set(selection.queue_ids))
    selection = replace(selection, queue_ids=())
    of_messages = list(_message_conditions(tx, selection))
    query = (
        select(delivery.c.queue_id)
        .distinct()
        .where(*_delivery_conditions(selection), delivery.c.queue_id > after, *of_messages)
        .order_by(delivery.c.queue_id)
        .limit(limit)
    )
    if of_messages:
        query = query.join(message, message.c.queue_id == delivery.c.queue_id)
    if not ids:
        return list(tx.execute(query).scalars())
    found: list[str] = []
    for batch in in_batches(ids):
        found += tx.execute(query.where(delivery.c.queue_id.in_(batch))).scalars()
    return found[:limit]


def _entries(tx: Transaction, queue_ids: Sequence[str]) -> list[QueueEntry]:
    """Return those of the messages that there are, in the order of acceptance."""
    found: list[QueueEntry] = []
    for batch in in_batches(sorted(set(queue_ids))):
        chosen = select(message).where(is_listed(tx, message.c.queue_id, batch))
        found += load_entries(tx, chosen.order_by(message.c.queue_id))
    return found


# --- counts -------------------------------------------------------------------------------

_JOINED = delivery.join(message, message.c.queue_id == delivery.c.queue_id)
_IS_ITS_RECIPIENT = (recipient.c.queue_id == delivery.c.queue_id) & (
    recipient.c.delivery_no == delivery.c.delivery_no
)


def _domain(address: ColumnElement[str]) -> ColumnElement[str]:
    """Return what follows the last @: what is left of it is cut off from the right."""
    local_part = func.rtrim(address, func.replace(address, "@", ""))
    return func.lower(func.substr(address, func.length(local_part) + 1))


_KEYS: dict[ShapeKey, ColumnElement[Any]] = {
    ShapeKey.RECIPIENT: _domain(recipient.c.address),
    ShapeKey.SENDER: message.c.sender,
    ShapeKey.PROVIDER: func.coalesce(delivery.c.provider, ""),
    ShapeKey.REASON: func.coalesce(delivery.c.reason, ""),
    ShapeKey.ROUTE: delivery.c.route,
}


def _counted_from(counted: Select[Any], by: ShapeKey) -> Select[Any]:
    if by is not ShapeKey.RECIPIENT:
        return counted.select_from(_JOINED)
    return counted.select_from(_JOINED.join(recipient, _IS_ITS_RECIPIENT)).where(
        recipient.c.state == RecipientState.PENDING.value
    )
