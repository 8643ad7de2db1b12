"""What did not get through lately, from the indexes that list it by time: counts and the newest."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import NamedTuple

from sqlalchemy import func, select

from relaygw.mail.state import RecipientState
from relaygw.store.database import Transaction
from relaygw.store.selection import ATTEMPTED_ID, IS_TRIED_FOR, Condition, domain_of
from relaygw.store.tables import HAS_PUT_OFF, HAS_RARE_OUTCOME, attempt, recipient

FAILED = (RecipientState.BOUNCED, RecipientState.EXPIRED)


class Failure(NamedTuple):
    """A recipient that failed, or the domain of one that an attempt put off."""

    queue_id: str
    provider: str
    domain: str
    reply: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Failures:
    """What failed: `ended` counts all since the time asked for, the rest is since `since_ms`."""

    ended: Counter[tuple[int, str]]  # recipients, by step of time and provider
    final: tuple[Failure, ...]  # bounced or expired
    put_off: tuple[Failure, ...]
    since_ms: int


def find_failures(tx: Transaction, since_ms: int, *, step_ms: int, limit: int) -> Failures:
    """Look: see Queue.failures."""
    first_ms = start_ms = tx.to_stored(since_ms)
    ended_at_ms, tried_at_ms = recipient.c.changed_at_ms, attempt.c.at_ms
    # each by itself, as its index has it in the order of time
    kinds = [(ended_at_ms, _ended(recipient.c.state == state.value)) for state in FAILED]
    for at_ms, conditions in (*kinds, (tried_at_ms, (HAS_PUT_OFF,))):
        newest = select(at_ms).where(*conditions, at_ms >= start_ms).order_by(at_ms.desc())
        more_ms: int | None = tx.execute(newest.offset(limit).limit(1)).scalar()
        start_ms = start_ms if more_ms is None else more_ms + 1
    domain, no_text = domain_of(recipient.c.address), ""
    rows = select(
        *(recipient.c.queue_id, func.coalesce(recipient.c.provider, no_text), domain),
        func.coalesce(recipient.c.reply, no_text),
    ).where(*_ended(recipient.c.state.in_(FAILED)), ended_at_ms >= start_ms)
    tries = (
        select(ATTEMPTED_ID, func.coalesce(attempt.c.provider, no_text), domain)
        .add_columns(attempt.c.reply)
        .where(HAS_PUT_OFF, tried_at_ms >= start_ms)
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
        put_off=tuple(Failure(*row) for row in tx.execute(tries)),
        since_ms=tx.to_local(start_ms),
    )


def _ended(is_so: Condition) -> tuple[Condition, ...]:
    return HAS_RARE_OUTCOME, is_so
