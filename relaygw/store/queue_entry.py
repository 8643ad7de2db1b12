"""Messages with their deliveries, recipients and attempts, as operators see them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, fields
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import ARRAY, Select, Text, and_, any_, bindparam, delete, func, or_, select, update
from sqlalchemy.sql.elements import ColumnElement

from relaygw.mail.attempt_state import AttemptState
from relaygw.mail.envelope import Envelope, RecipientRecord, Source
from relaygw.mail.hold import SEVERAL, HoldCause, cause_in, sender_domain
from relaygw.mail.notice import NoticeEntry
from relaygw.mail.state import CLAIMABLE, DeliveryState, RecipientState
from relaygw.mail.verdict import PASSING, Kind
from relaygw.store.audit import AuditEntry
from relaygw.store.database import Row, Statement, Transaction
from relaygw.store.find_index import forget_words
from relaygw.store.held_causes import causes_of
from relaygw.store.queue_tables import (
    IS_OPEN,
    Key,
    attempt,
    chunk,
    delivery,
    held_cause,
    message,
    recipient,
)
from relaygw.store.side_tables import key_generation, notice, provider_event, repeated_mail, verdict

if TYPE_CHECKING:
    from relaygw.store.repeats import Repeated
    from relaygw.store.reports import Report
from relaygw.store.batches import in_batches

MOST_ATTEMPTS = 200  # of one message: the newest are kept
_COUNTED = frozenset({AttemptState.DEFERRED, AttemptState.IN_DOUBT})

IS_IN_DOUBT = and_(
    or_(delivery.c.doubts > 0, delivery.c.reclaims > 0), delivery.c.provider.is_not(None)
)
"""Its provider may have taken it already; no other may get it (see delivery.lanes)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecipientEntry(RecipientRecord):
    """A recipient as an operator sees it."""

    attempts: int
    verdict: Kind | None = None  # the last word of what was reported since
    verdict_at_ms: int | None = None  # when it came to that, by the provider's clock


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryEntry:
    """A delivery as an operator sees it."""

    delivery_no: int
    route: str
    stream: str
    state: DeliveryState
    due_at_ms: int
    attempts: int
    provider: str | None
    reason: str | None
    released: str | None = None  # of what an operator sent: see mail.envelope.Released
    is_in_doubt: bool = False  # `provider` may have taken it already
    hold: HoldCause | None = None  # of what is held or put off, the oldest of `causes`
    causes: tuple[HoldCause, ...] = ()  # all that it is held for


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueEntry(Envelope):
    """A message with its deliveries and recipients as an operator sees it."""

    message_id: str
    chunk_count: int
    source: Source
    captured_at_ms: int | None
    read_at_ms: int | None
    deliveries: tuple[DeliveryEntry, ...]
    recipients: tuple[RecipientEntry, ...]
    smtputf8: bool = False


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
    reports: tuple[Report, ...] = ()  # of what happened after a provider's 250, oldest first
    deliveries: tuple[DeliveryCircumstances, ...] = ()
    finished_at_ms: int | None = None
    notices: tuple[NoticeEntry, ...] = ()  # that tell of it, oldest first
    notice_of: str | None = None  # the mail that it tells of, if it is a notice
    repeated: Repeated | None = None  # it came more than once


class Way(NamedTuple):
    """What decides what a delivery waits for that no worker has, and that is not held."""

    route: str
    sender_domain: str  # "" of the null sender
    in_doubt_with: str | None  # the provider that may have it already: no other gets it
    is_due: bool  # its own time has come


class WaitingRecipient(NamedTuple):
    """A recipient that still waits, and why."""

    address: str
    why: str = ""  # what stops it or was said last, or nothing
    way: Way | None = None  # None: a worker has it, or it is held


class Waiting(NamedTuple):
    """A queued message as Postfix's mailq tells it; cheap, since a long queue has many."""

    queue_id: str
    accepted_at_ms: int
    size_bytes: int
    sender: str
    states: frozenset[str]  # of its open deliveries
    recipients: tuple[WaitingRecipient, ...]

    def explained(self, wait_words: Callable[[Way], str]) -> Waiting:
        """Return it with what is in the way of its recipients, where something is, as the why."""
        return self._replace(
            recipients=tuple(
                it._replace(why=wait_words(it.way) or it.why) if it.way is not None else it
                for it in self.recipients
            )
        )


def lock_messages(tx: Transaction, queue_ids: Sequence[str]) -> None:
    """Lock messages against changes and new parts; the next statement sees what others did."""
    mine = select(message.c.queue_id).where(message.c.queue_id.in_(queue_ids))
    tx.execute(mine.order_by(message.c.queue_id).with_for_update()).all()


def part_delivery(tx: Transaction, key: Key, rcpt_nos: Collection[int], **changed: Any) -> None:
    """Move recipients that wait to a copy of their delivery, but for `changed`; message locked."""
    queue_id, delivery_no = key
    of_message = delivery.c.queue_id == queue_id
    last_no = tx.execute(select(func.max(delivery.c.delivery_no)).where(of_message)).scalar_one()
    old = tx.execute(
        select(delivery).where(of_message, delivery.c.delivery_no == delivery_no)
    ).one()
    new_no = {"delivery_no": last_no + 1}
    tx.execute(delivery.insert().values(dict(old._mapping) | changed | new_no))
    is_moved = (recipient.c.queue_id == queue_id) & recipient.c.rcpt_no.in_(rcpt_nos)
    waits = recipient.c.state == RecipientState.PENDING.value
    tx.execute(update(recipient).where(is_moved, waits).values(new_no))


def delete_messages(tx: Transaction, queue_ids: Sequence[str]) -> int:
    """Delete messages with all that belongs to them."""
    for batch in in_batches(queue_ids):
        kept_beside = (attempt, notice, verdict, provider_event, key_generation, repeated_mail)
        for table in (chunk, *kept_beside, recipient, held_cause, delivery, message):
            tx.execute(delete(table).where(table.c.queue_id.in_(batch)))
        forget_words(tx, batch)
    return len(queue_ids)


def is_listed(
    tx: Transaction, column: ColumnElement[str], values: Sequence[str]
) -> ColumnElement[bool]:
    """Return that a column has one of many values: one parameter where that is less work."""
    if not tx.is_postgres:
        return column.in_(values)
    return column == any_(bindparam(None, list(values), type_=ARRAY(Text)))


_OF_DELIVERY = (
    *("delivery_no", "route", "stream", "state", "due_at_ms", "attempts", "provider", "reason"),
    "released",
)
_DELIVERY = select(
    *delivery.c["queue_id", *_OF_DELIVERY],
    delivery.c.doubts + delivery.c.reclaims,
    *delivery.c["hold_code", "hold_key"],
).order_by(delivery.c.queue_id, delivery.c.delivery_no)
_OF_RECIPIENT = tuple(field.name for field in fields(RecipientEntry) if field.name in recipient.c)
_IS_OF_RECIPIENT = (verdict.c.queue_id == recipient.c.queue_id) & (
    verdict.c.rcpt_no == recipient.c.rcpt_no
)
_RECIPIENT = (
    select(*recipient.c["queue_id", *_OF_RECIPIENT], verdict.c.kind, verdict.c.at_ms)
    .outerjoin(verdict, _IS_OF_RECIPIENT)
    .order_by(recipient.c.queue_id, recipient.c.rcpt_no)
)
_OF_SOURCE = tuple(field.name for field in fields(Source))
_DELIVERY_STATES = {state.value: state for state in DeliveryState}
_RECIPIENT_STATES = {state.value: state for state in RecipientState}
_LAST_WORDS = {kind.value: kind for kind in Kind if kind not in PASSING}


def load_entries(tx: Transaction, query: Select[Any]) -> list[QueueEntry]:
    """Run a query over `message` and join what belongs to each row."""
    rows = tx.execute(query).all()
    deliveries: dict[str, list[DeliveryEntry]] = defaultdict(list)
    recipients: dict[str, list[RecipientEntry]] = defaultdict(list)
    for batch in in_batches([row.queue_id for row in rows]):
        _load_deliveries(tx, batch, deliveries)
        _load_recipients(tx, batch, recipients)
    return [
        tx.entry(
            QueueEntry,
            row,
            *("accepted_at_ms", "captured_at_ms", "read_at_ms"),
            source=Source(**{name: getattr(row, f"source_{name}") for name in _OF_SOURCE}),
            deliveries=tuple(deliveries[row.queue_id]),
            recipients=tuple(recipients[row.queue_id]),
        )
        for row in rows
    ]


def entries_by_id(
    tx: Transaction, queue_ids: Iterable[str], *conditions: ColumnElement[bool]
) -> dict[str, QueueEntry]:
    """Return those of the messages that fulfil conditions, by id, in the order of acceptance."""
    found: dict[str, QueueEntry] = {}
    for batch in in_batches(sorted(set(queue_ids))):
        chosen = select(message).where(is_listed(tx, message.c.queue_id, batch), *conditions)
        ordered = chosen.order_by(message.c.queue_id)
        found |= {entry.queue_id: entry for entry in load_entries(tx, ordered)}
    return found


def _load_deliveries(
    tx: Transaction, batch: Sequence[str], into: dict[str, list[DeliveryEntry]]
) -> None:
    rows = tx.execute(_DELIVERY.where(is_listed(tx, delivery.c.queue_id, batch))).all()
    of_several = [(row[0], row[1]) for row in rows if (row.reason or "").startswith(SEVERAL)]
    causes = causes_of(tx, of_several)
    for queue_id, *values, risks, code, key in rows:
        found: dict[str, Any] = dict(zip(_OF_DELIVERY, values, strict=True))
        is_held = found["state"] == DeliveryState.HELD.value
        held = tuple(it.cause for it in causes.get((queue_id, found["delivery_no"]), ()))
        if not held and (is_held or code is not None):
            held = (cause_in(code, key, found["reason"]),)
        found["state"] = _DELIVERY_STATES[found["state"]]
        found["due_at_ms"] = tx.to_local(found["due_at_ms"])
        into[queue_id].append(
            DeliveryEntry(
                **found,
                is_in_doubt=risks > 0 and found["provider"] is not None,
                hold=held[0] if held else None,
                causes=held if is_held else (),
            )
        )


def _load_recipients(
    tx: Transaction, batch: Sequence[str], into: dict[str, list[RecipientEntry]]
) -> None:
    rows = tx.execute(_RECIPIENT.where(is_listed(tx, recipient.c.queue_id, batch)))
    for queue_id, *values, kind, at_ms in rows:
        found: dict[str, Any] = dict(zip(_OF_RECIPIENT, values, strict=True))
        found["state"] = _RECIPIENT_STATES[found["state"]]
        found["changed_at_ms"] = tx.to_local(found["changed_at_ms"])
        if kind in _LAST_WORDS:
            found |= {"verdict": _LAST_WORDS[kind], "verdict_at_ms": tx.to_local(at_ms)}
        into[queue_id].append(RecipientEntry(**found))


# --- what was done with one message -------------------------------------------------------


def tried_since_ms(attempts: Iterable[AttemptEntry], delivery_no: int) -> int | None:
    """Return when a provider was first asked in an attempt that counts and is kept, else None."""
    asked = (
        attempt_entry.since_ms
        for attempt_entry in attempts
        if attempt_entry.delivery_no == delivery_no
        and attempt_entry.provider is not None
        and attempt_entry.state in _COUNTED
    )
    return min(asked, default=None)


# --- what waits ---------------------------------------------------------------------------

# why a recipient waits: what stops a held delivery, else what was said to it last
_WAITING = Statement(
    f"""
    SELECT page.queue_id, delivery.state, message.accepted_at_ms, message.size_bytes,
        message.sender, recipient.address,
        COALESCE(
            NULLIF(
                CASE WHEN delivery.state = 'held' THEN delivery.reason ELSE recipient.reply END, ''
            ),
            delivery.reason, ''
        ), delivery.route, delivery.due_at_ms,
        CASE WHEN delivery.doubts + delivery.reclaims > 0 THEN delivery.provider END
    FROM (
        SELECT DISTINCT delivery.queue_id FROM delivery
        WHERE {IS_OPEN} AND delivery.queue_id > {{?}} ORDER BY delivery.queue_id LIMIT {{?}}
    ) AS page
    JOIN delivery ON delivery.queue_id = page.queue_id
    JOIN message ON message.queue_id = page.queue_id
    LEFT JOIN recipient ON recipient.queue_id = delivery.queue_id
        AND recipient.delivery_no = delivery.delivery_no AND recipient.state = 'pending'
    WHERE {IS_OPEN} ORDER BY page.queue_id, recipient.rcpt_no
    """
)
_ALONE = {state: frozenset({state}) for state in ("incoming", "active", "deferred", "held")}


def load_waiting(tx: Transaction, *, limit: int, after: str) -> list[Waiting]:
    """Return a page of queued messages: see Queue.waiting."""
    rows = _WAITING.fetch(tx, after, limit)
    now_ms = tx.now_ms()
    return [_waiting(tx, list(mine), now_ms) for _, mine in groupby(rows, key=itemgetter(0))]


def _waiting(tx: Transaction, rows: list[Row], now_ms: int) -> Waiting:
    queue_id, state, accepted_at_ms, size_bytes, sender, *_ = rows[0]
    states = _ALONE[state] if len(rows) == 1 else frozenset(row[1] for row in rows)
    domain = sender_domain(sender)
    recipients = tuple(
        WaitingRecipient(
            address,
            why,
            Way(route, domain, provider, due_at_ms <= now_ms) if state in CLAIMABLE else None,
        )
        for _, state, _, _, _, address, why, route, due_at_ms, provider in rows
        if address is not None
    )
    at_ms = tx.to_local(accepted_at_ms)
    return Waiting(queue_id, at_ms, size_bytes, sender, states, recipients)
