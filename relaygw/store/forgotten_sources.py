"""Which classes of mail and which hours of them the queue has to forget; see store.sources."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, Select, func, select

from relaygw.store.database import Transaction
from relaygw.store.guard_tables import class_hour, mail_class

FORGOTTEN_AT_ONCE = 200  # rows
MAX_HOURS = 500_000  # rows of counts by hour
_RARE_MS = 86_400_000  # so long a class stays that was seen once or twice
_RARE = 2  # messages


def forgotten_classes(
    tx: Transaction, now_ms: int, older_than_ms: int, *, most: int, most_of_source: int
) -> list[str]:
    """Return some that are so old, that came once or twice in a crowd, or that are too many."""
    seen_ms, messages = mail_class.c.last_seen_ms, mail_class.c.messages
    query: Select[Any] = select(mail_class.c.class_id).order_by(messages, seen_ms)

    def found(limit: int, *conditions: ColumnElement[bool]) -> list[str]:
        return [one for (one,) in tx.execute(query.where(*conditions).limit(limit))]

    gone = found(FORGOTTEN_AT_ONCE, seen_ms < now_ms - older_than_ms)
    if gone:
        return gone
    # what comes once a month stays, unless its source has many that come once
    crowded = (
        select(mail_class.c.source_id)
        .group_by(mail_class.c.source_id)
        .having(func.count() >= most_of_source // 2)
    )
    is_of_yesterday = seen_ms < now_ms - _RARE_MS
    is_crowd = (messages <= _RARE) & mail_class.c.source_id.in_(crowded)
    gone = found(FORGOTTEN_AT_ONCE, is_of_yesterday, is_crowd)
    if gone:
        return gone
    total: int = tx.execute(select(func.count()).select_from(mail_class)).scalar_one()
    too_many = min(total - most * 9 // 10, FORGOTTEN_AT_ONCE)
    return found(too_many, is_of_yesterday) if too_many > 0 else []


def forgotten_hour(tx: Transaction, now_hour: int, end_hour: int) -> int | None:
    """Return an hour before a time, to come, or the oldest of too many; None without one."""
    hour = class_hour.c.hour
    ends = tx.execute(select(func.min(hour), func.max(hour))).one()
    first: int | None = ends[0]
    last: int = ends[1]
    if first is None or first < end_hour:
        return first
    if last > now_hour + 1:  # the clock was wrong
        return last
    total: int = tx.execute(select(func.count()).select_from(class_hour)).scalar_one()
    return first if total > MAX_HOURS else None
