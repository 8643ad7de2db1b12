"""How much of the queue is of what kind and age, and what did not get through lately."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NamedTuple

from sqlalchemy import Text, case, cast, func, literal, select
from sqlalchemy.sql.elements import ColumnElement

from relaygw.mail.state import CLAIMABLE, RecipientState
from relaygw.mail.subject_template import subject_template
from relaygw.store.database import Transaction
from relaygw.store.queue_entry import IS_IN_DOUBT, Way
from relaygw.store.queue_tables import (
    HAS_PUT_OFF,
    HAS_RARE_OUTCOME,
    attempt,
    delivery,
    message,
    recipient,
)
from relaygw.store.selection import (
    ATTEMPTED_ID,
    IS_ITS_RECIPIENT,
    IS_TRIED_FOR,
    Selection,
    delivery_conditions,
)
from relaygw.store.terms import HOST, Condition, domain_of


class ShapeKey(StrEnum):
    """What the queue is counted by: recipients' domains by recipient, the rest by delivery."""

    RECIPIENT = "recipient"
    SENDER = "sender"
    PROVIDER = "provider"
    REASON = "reason"
    ROUTE = "route"
    SUBJECT = "subject"  # its template
    SCRIPT = "script"
    HOST = "host"
    UID = "uid"


@dataclass(frozen=True, slots=True, kw_only=True)
class ShapeCount:
    """How much of a key is of one age: step n is younger than bound n, the last has none."""

    key: str
    step: int
    number: int
    way: Way | None = None  # by reason: of what no worker has and is not held


_WAY = (
    delivery.c.route.label("route"),
    domain_of(message.c.sender).label("sender_domain"),
    case((IS_IN_DOUBT, delivery.c.provider)).label("in_doubt_with"),
)
_KEYS: dict[ShapeKey, ColumnElement[Any]] = {
    ShapeKey.RECIPIENT: domain_of(recipient.c.address),
    ShapeKey.SENDER: message.c.sender,
    ShapeKey.PROVIDER: func.coalesce(delivery.c.provider, ""),
    ShapeKey.REASON: func.coalesce(delivery.c.reason, ""),
    ShapeKey.ROUTE: delivery.c.route,
    ShapeKey.SUBJECT: message.c.subject,
    ShapeKey.SCRIPT: func.coalesce(message.c.source_script, ""),
    ShapeKey.HOST: HOST,
    ShapeKey.UID: func.coalesce(cast(message.c.source_uid, Text), ""),
}


def count_shape(
    tx: Transaction, selection: Selection, by: ShapeKey, bounds_ms: Sequence[int]
) -> list[ShapeCount]:
    """Count what waits: see Queue.shape."""
    age_ms = literal(tx.now_ms()) - message.c.accepted_at_ms
    step = case(
        *((age_ms < bound_ms, number) for number, bound_ms in enumerate(bounds_ms)),
        else_=len(bounds_ms),
    )
    rows = delivery.join(message, message.c.queue_id == delivery.c.queue_id)
    conditions = delivery_conditions(tx, selection)
    if by is ShapeKey.RECIPIENT:
        rows = rows.join(recipient, IS_ITS_RECIPIENT)
        conditions.append(recipient.c.state == RecipientState.PENDING.value)
    groups: list[ColumnElement[Any]] = [_KEYS[by].label("key"), step.label("step")]
    if by is ShapeKey.REASON:
        waits = delivery.c.state.in_([state.value for state in CLAIMABLE])
        is_due = delivery.c.due_at_ms <= tx.now_ms()
        groups += [*_WAY, is_due.label("is_due"), waits.label("waits")]
    counted = select(*groups, func.count().label("number")).select_from(rows)
    found = tx.execute(counted.where(*conditions).group_by(*(group.name for group in groups)))
    numbers: Counter[tuple[str, int, Way | None]] = Counter()
    for name, at, *parts, number in found:
        name = subject_template(name) if by is ShapeKey.SUBJECT else name
        *parts_of_way, is_waiting = parts or (False,)
        numbers[name, at, Way(*parts_of_way) if is_waiting else None] += number
    return [
        ShapeCount(key=name, step=at, number=number, way=way)
        for (name, at, way), number in numbers.items()
    ]


# --- failures ---------------------------------------------------------------------------
# What did not get through lately, from the indexes that list it by time: counts and the newest.


FAILED = (RecipientState.BOUNCED, RecipientState.EXPIRED)


class Failure(NamedTuple):
    """A recipient that failed, or the domain of one that an attempt put off."""

    queue_id: str
    provider: str
    domain: str
    reply: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Failures:
    """What failed: `ended` counts all since the time asked for; the rest has times of its own."""

    ended: Counter[tuple[int, str]]  # recipients, by step of time and provider
    final: tuple[Failure, ...]  # bounced or expired
    final_since_ms: int
    put_off: tuple[Failure, ...]
    put_off_since_ms: int


def find_failures(tx: Transaction, since_ms: int, *, step_ms: int, limit: int) -> Failures:
    """Look: see Queue.failures."""
    first_ms = tx.to_stored(since_ms)
    ended_at_ms, tried_at_ms = recipient.c.changed_at_ms, attempt.c.at_ms
    final_ms = first_ms
    for state in FAILED:  # one by one, as the index has each in the order of time
        conditions = _ended(recipient.c.state == state.value)
        final_ms = _start(tx, ended_at_ms, conditions, since_ms=final_ms, limit=limit)
    put_off_ms = _start(tx, tried_at_ms, (HAS_PUT_OFF,), since_ms=first_ms, limit=limit)
    domain, no_text = domain_of(recipient.c.address), ""
    rows = select(
        *(recipient.c.queue_id, func.coalesce(recipient.c.provider, no_text), domain),
        func.coalesce(recipient.c.reply, no_text),
    ).where(*_ended(recipient.c.state.in_(FAILED)), ended_at_ms >= final_ms)
    tries = (
        select(ATTEMPTED_ID, func.coalesce(attempt.c.provider, no_text), domain)
        .add_columns(attempt.c.reply)
        .where(HAS_PUT_OFF, tried_at_ms >= put_off_ms)
        .distinct()
        .join(recipient, IS_TRIED_FOR)
    )
    step = (ended_at_ms - first_ms) // step_ms
    ended = (
        select(step.label("step"), recipient.c.provider, func.count())
        .where(*_ended(recipient.c.state.in_(FAILED)), ended_at_ms >= first_ms)
        .group_by("step", recipient.c.provider)
    )
    return Failures(
        ended=Counter({(at, name or ""): number for at, name, number in tx.execute(ended)}),
        final=tuple(Failure(*row) for row in tx.execute(rows)),
        final_since_ms=tx.to_local(final_ms),
        put_off=tuple(Failure(*row) for row in tx.execute(tries)),
        put_off_since_ms=tx.to_local(put_off_ms),
    )


def _start(
    tx: Transaction,
    at_ms: ColumnElement[int],
    conditions: Sequence[Condition],
    *,
    since_ms: int,
    limit: int,
) -> int:
    """Return since when there are at most `limit` of them."""
    newest = select(at_ms).where(*conditions, at_ms >= since_ms).order_by(at_ms.desc())
    more_ms: int | None = tx.execute(newest.offset(limit).limit(1)).scalar()
    return since_ms if more_ms is None else more_ms + 1


def _ended(is_so: Condition) -> tuple[Condition, ...]:
    return HAS_RARE_OUTCOME, is_so
