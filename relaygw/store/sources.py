"""Who sends what: classes of mail and their counts by hour, added up by all fronts, and forgotten.

Nothing is synced by itself: a power cut may forget the last counts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from sqlalchemy import ColumnElement, Table, case, delete, func, select

from relaygw.mail.clock import HOUR_MS
from relaygw.mail.mail_class import ClassCount, MailClass, elsewhere, others_of
from relaygw.store.database import (
    BatchStatement,
    Repository,
    Row,
    Statement,
    Transaction,
    Write,
    insert_into,
)
from relaygw.store.side_tables import class_hour, mail_class

MAX_CLASSES = 20_000
MAX_CLASSES_OF_SOURCE = 200
KEPT_MS = 60 * 86_400_000
MAX_HOURS = 500_000  # rows of counts by hour
_FORGOTTEN_AT_ONCE = 200  # rows
_RARE_MS = 86_400_000  # so long a class stays that was seen once or twice
_RARE = 2  # messages

_SEEN = BatchStatement(
    "SELECT class_id, last_seen_ms FROM mail_class WHERE class_id IN (VALUES {rows})", columns=1
)
_OF_SOURCES = BatchStatement(
    """
    SELECT source_id, count(*) FROM mail_class WHERE source_id IN (VALUES {rows})
    GROUP BY source_id
    """,
    columns=1,
)
_NEW = Statement(
    """
    SELECT * FROM mail_class WHERE source_id IN (
        SELECT source_id FROM mail_class GROUP BY source_id HAVING min(first_seen_ms) >= {?})
    """
)
_SELDOM = "ORDER BY messages, last_seen_ms LIMIT {?}"
_BEFORE = "SELECT class_id FROM mail_class WHERE last_seen_ms < {?}"
_OLD = Statement(f"{_BEFORE} {_SELDOM}")
# what comes once a month stays, unless its source has many that come once
_CROWD = Statement(
    f"""
    {_BEFORE} AND messages <= {_RARE} AND source_id IN (
        SELECT source_id FROM mail_class GROUP BY source_id
        HAVING count(*) >= {MAX_CLASSES_OF_SOURCE // 2})
    {_SELDOM}
    """
)
_ENDS = Statement("SELECT min(hour), max(hour) FROM class_hour")
_HOURS = Statement("SELECT count(*) FROM class_hour")
_IDS = Statement("SELECT class_id, source_id FROM mail_class")
_TOTAL = Statement("SELECT count(*) FROM mail_class")
_ADD_CLASS = insert_into(
    "mail_class",
    "class_id source_id host listener user_name uid script sender_domain template stream"
    " first_seen_ms last_seen_ms messages",
    on_conflict="""(class_id) DO UPDATE SET
        messages = mail_class.messages + excluded.messages,
        first_seen_ms = CASE WHEN excluded.first_seen_ms < mail_class.first_seen_ms
            THEN excluded.first_seen_ms ELSE mail_class.first_seen_ms END,
        last_seen_ms = CASE WHEN excluded.last_seen_ms > mail_class.last_seen_ms
            OR mail_class.last_seen_ms > {?}
            THEN excluded.last_seen_ms ELSE mail_class.last_seen_ms END""",
)
_ADD_HOUR = insert_into(
    "class_hour",
    "class_id hour messages recipients refused gap_ms",
    on_conflict="""(class_id, hour) DO UPDATE SET
        messages = class_hour.messages + excluded.messages,
        recipients = class_hour.recipients + excluded.recipients,
        refused = class_hour.refused + excluded.refused,
        gap_ms = CASE WHEN excluded.gap_ms > class_hour.gap_ms
            THEN excluded.gap_ms ELSE class_hour.gap_ms END""",
)


_COLUMNS = {"user": "user_name"}  # of fields of classes, where they have another name
_COUNTS = ("messages", "recipients", "refused")


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenClass:
    """A class as the queue knows it."""

    mail_class: MailClass
    first_seen_ms: int
    last_seen_ms: int
    messages: int  # ever


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceSum:
    """What was accepted of classes with one key since an hour; `total` and times are of ever."""

    key: str | int | None
    classes: int
    messages: int
    recipients: int
    refused: int
    busiest_hour: int  # messages
    first_seen_ms: int
    last_seen_ms: int
    total: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassHour:
    """What was accepted of a class in an hour."""

    class_id: str
    hour_at_ms: int  # when it began
    messages: int
    recipients: int
    refused: int
    gap_ms: int  # the longest wait for one of these; 0 where that is not known


class HourlyCounts(Repository):
    """Rows of a table that are counted by hour in another one, by the same id."""

    def _delete_counts(
        self, table: Table, by_hour: Table, gone: Collection[str], hour: int | None, at_once: int
    ) -> bool:
        """Delete rows by their ids, and some of the counts of an hour; True: more may be left."""
        if not gone and hour is None:
            return False
        (own_id,) = table.primary_key
        counted_id = by_hour.c[own_id.name]
        with self._write(Write.UNSYNCED) as tx:
            tx.execute(delete(by_hour).where(counted_id.in_(gone)))
            tx.execute(delete(table).where(own_id.in_(gone)))
            if hour is not None:
                is_then = by_hour.c.hour == hour
                some = counted_id.in_(select(counted_id).where(is_then).limit(at_once))
                tx.execute(delete(by_hour).where(is_then, some))
        return hour is not None or len(gone) == at_once


class Sources(HourlyCounts):
    """Classes of mail and their counts."""

    def count_mail(self, counts: Sequence[ClassCount]) -> set[str]:
        """Add what a front counted; return the ids of classes that were counted with others.

        That happens to new ones where their source, or the queue, has too many classes.
        """
        with self._write(Write.UNSYNCED) as tx:
            seen: dict[str, int] = dict(
                _SEEN.fetch(
                    tx, [(class_id,) for class_id in {c.mail_class.class_id for c in counts}]
                )
            )
            instead = _folded(tx, counts, seen)
            if instead:
                counts = [
                    _counted_as(count, instead.get(count.mail_class.class_id)) for count in counts
                ]
                others = {(mail.class_id,) for mail in instead.values()}
                seen |= dict(_SEEN.fetch(tx, sorted(others)))
            classes, hours = _rows(tx, counts, seen)
            # later than that no class was seen: the clock was wrong
            _ADD_CLASS.run(tx, classes, tx.now_ms() + HOUR_MS)
            _ADD_HOUR.run(tx, hours)
            return set(instead)

    def known_classes(
        self, since_ms: int = 0, *, class_ids: Collection[str] = ()
    ) -> list[SeenClass]:
        """Return the classes last seen since a time, of these or all, the latest first."""
        with self._read() as tx:
            query = select(mail_class).order_by(mail_class.c.last_seen_ms.desc())
            if since_ms:
                query = query.where(mail_class.c.last_seen_ms >= tx.to_stored(since_ms))
            if class_ids:
                query = query.where(mail_class.c.class_id.in_(class_ids))
            return [seen_class(tx, row) for row in tx.execute(query)]

    def new_classes(self, since_ms: int) -> list[SeenClass]:
        """Return the classes of sources that were first seen since a time."""
        with self._read() as tx:
            return [seen_class(tx, row) for row in _NEW.fetch_named(tx, tx.to_stored(since_ms))]

    def class_ids(self) -> list[tuple[str, str]]:
        """Return the ids of all classes, each with that of its source."""
        with self._read() as tx:
            return [(class_id, source) for class_id, source in _IDS.fetch(tx)]

    def class_hours(
        self, since_ms: int, *, until_ms: int | None = None, class_ids: Collection[str] = ()
    ) -> list[ClassHour]:
        """Return counts of hours that began in a time, of these classes or of all, by hour."""
        with self._read() as tx:
            hour = class_hour.c.hour
            query = select(class_hour).where(hour >= -(-tx.to_stored(since_ms) // HOUR_MS))
            query = query.where(*_begun_before(tx, until_ms))
            if class_ids:
                query = query.where(class_hour.c.class_id.in_(class_ids))
            rows = tx.execute(query.order_by(hour, class_hour.c.class_id))
            return [
                tx.entry(ClassHour, row, hour_at_ms=tx.to_local(row.hour * HOUR_MS)) for row in rows
            ]

    def sum_mail(self, by: str, since_ms: int, *, until_ms: int | None = None) -> list[SourceSum]:
        """Return the mail accepted since the hour of a time, by a field of classes; most first.

        `until_ms`: what was accepted in hours that began before.
        """
        key = mail_class.c[_COLUMNS.get(by, by)].label("key")
        is_its = class_hour.c.class_id == mail_class.c.class_id
        with self._read() as tx:
            since_hour = tx.to_stored(since_ms) // HOUR_MS
            hourly = (
                select(key, *(func.sum(class_hour.c[name]).label(name) for name in _COUNTS))
                .join(class_hour, is_its)
                .where(class_hour.c.hour >= since_hour, *_begun_before(tx, until_ms))
                .group_by(key, class_hour.c.hour)
                .subquery()
            )
            sums = (func.sum(hourly.c[name]).label(name) for name in _COUNTS)
            busiest = func.max(hourly.c.messages).label("busiest_hour")
            counted = {
                row.key: row._mapping
                for row in tx.execute(select(hourly.c.key, *sums, busiest).group_by(hourly.c.key))
            }
            seen = (
                func.count().label("classes"),
                func.min(mail_class.c.first_seen_ms).label("first_seen_ms"),
                func.max(mail_class.c.last_seen_ms).label("last_seen_ms"),
                func.sum(mail_class.c.messages).label("total"),
            )
            is_recent = mail_class.c.last_seen_ms >= since_hour * HOUR_MS
            rows = tx.execute(select(key, *seen).where(is_recent).group_by(key))
            found = [
                tx.entry(SourceSum, row, "first_seen_ms", "last_seen_ms", **_numbers(row, counted))
                for row in rows
                if row.key in counted
            ]
        return sorted(found, key=lambda total: (-total.messages, -total.last_seen_ms))

    def count_classes(self, since_ms: int) -> tuple[int, int, int]:
        """Return how many classes were seen since a time, how many of these first, of sources."""
        with self._read() as tx:
            since_ms = tx.to_stored(since_ms)
            is_new = mail_class.c.first_seen_ms >= since_ms
            numbers = (
                func.count(),
                func.coalesce(func.sum(case((is_new, 1), else_=0)), 0),
                func.count(mail_class.c.source_id.distinct()),
            )
            row = tx.execute(select(*numbers).where(mail_class.c.last_seen_ms >= since_ms)).one()
            return int(row[0]), int(row[1]), int(row[2])

    def forget_sources(self, older_than_ms: int = KEPT_MS) -> bool:
        """Delete what is so old, what a crowded source sent once or twice, and what is too much.

        A few hundred rows at a time, found without the lock on writing; True: more is left.
        """
        with self._read() as tx:
            now_ms = tx.now_ms()
            gone = _forgotten_classes(tx, now_ms, older_than_ms)
            hour = _forgotten_hour(tx, now_ms // HOUR_MS, (now_ms - older_than_ms) // HOUR_MS)
        return self._delete_counts(mail_class, class_hour, gone, hour, _FORGOTTEN_AT_ONCE)


def _begun_before(tx: Transaction, until_ms: int | None) -> list[ColumnElement[bool]]:
    return [] if until_ms is None else [class_hour.c.hour < -(-tx.to_stored(until_ms) // HOUR_MS)]


def _numbers(row: Any, counted: Mapping[Any, Mapping[Any, Any]]) -> dict[str, Any]:
    names = (*_COUNTS, "busiest_hour")  # PostgreSQL sums up to decimals
    return {"total": int(row.total), **{name: int(counted[row.key][name]) for name in names}}


def _folded(
    tx: Transaction, counts: Sequence[ClassCount], seen: dict[str, int]
) -> dict[str, MailClass]:
    """Return the new classes there is no room for, and what they are counted as."""
    new = {
        count.mail_class.class_id: count.mail_class
        for count in counts
        if count.mail_class.class_id not in seen
    }
    if not new:
        return {}
    sources = {(mail.source_id,) for mail in new.values()}
    of_source: Counter[str] = Counter(dict(_OF_SOURCES.fetch(tx, sorted(sources))))
    total: int = _TOTAL.fetch(tx)[0][0]
    instead: dict[str, MailClass] = {}
    for class_id, mail in new.items():
        others = others_of(mail.source, mail.stream)
        if mail.class_id == others.class_id:
            continue
        is_known_source = of_source[mail.source_id] > 0
        if total >= MAX_CLASSES and not is_known_source:
            instead[class_id] = elsewhere(mail.stream)
        elif total >= MAX_CLASSES or of_source[mail.source_id] >= MAX_CLASSES_OF_SOURCE:
            instead[class_id] = others
        else:
            of_source[mail.source_id] += 1
            total += 1
    return instead


def _counted_as(count: ClassCount, instead: MailClass | None) -> ClassCount:
    return count if instead is None else replace(count, mail_class=instead)


def _rows(
    tx: Transaction, counts: Sequence[ClassCount], seen: dict[str, int]
) -> tuple[list[Row], list[Row]]:
    """Return rows of classes and of hours, each key once and in order: fronts never deadlock."""
    joined: dict[tuple[str, int], ClassCount] = {}
    for count in counts:
        hour = tx.to_stored(count.first_ms) // HOUR_MS
        before = joined.setdefault((count.mail_class.class_id, hour), count)
        if before is not count:
            before.join(count)
    classes: dict[str, Row] = {}
    hours: list[Row] = []
    for (class_id, hour), count in sorted(joined.items()):
        first_ms, last_ms = tx.to_stored(count.first_ms), tx.to_stored(count.last_ms)
        before_ms = seen.get(class_id, first_ms)
        seen[class_id] = max(last_ms, before_ms)
        gap_ms = max(count.gap_ms, first_ms - before_ms)
        hours.append((class_id, hour, count.messages, count.recipients, count.refused, gap_ms))
        earlier = classes.get(class_id)
        if earlier is not None:  # of the hour before
            first_ms = earlier[-3]
        total = count.messages + (0 if earlier is None else earlier[-1])
        classes[class_id] = (*_fields(count.mail_class), first_ms, last_ms, total)
    return list(classes.values()), hours


def _fields(mail: MailClass) -> Row:
    names = (mail.host, mail.listener, mail.user, mail.uid, mail.script)
    return (mail.class_id, mail.source_id, *names, mail.sender_domain, mail.template, mail.stream)


def _forgotten_classes(tx: Transaction, now_ms: int, older_than_ms: int) -> list[str]:
    """Return some that are so old, that came once or twice in a crowd, or that are too many."""
    found = _OLD.fetch(tx, now_ms - older_than_ms, _FORGOTTEN_AT_ONCE)
    found = found or _CROWD.fetch(tx, now_ms - _RARE_MS, _FORGOTTEN_AT_ONCE)
    if not found:
        too_many = _TOTAL.fetch(tx)[0][0] - MAX_CLASSES * 9 // 10
        if too_many > 0:
            found = _OLD.fetch(tx, now_ms - _RARE_MS, min(too_many, _FORGOTTEN_AT_ONCE))
    return [class_id for (class_id,) in found]


def _forgotten_hour(tx: Transaction, now_hour: int, end_hour: int) -> int | None:
    """Return an hour before a time, to come, or the oldest of too many; None without one."""
    ends = _ENDS.fetch(tx)[0]
    first: int | None = ends[0]
    last: int = ends[1]
    if first is None or first < end_hour:
        return first
    if last > now_hour + 1:  # the clock was wrong
        return last
    total: int = _HOURS.fetch(tx)[0][0]
    return first if total > MAX_HOURS else None


def seen_class(tx: Transaction, row: Any) -> SeenClass:
    """Return a row of mail_class."""
    names = (field.name for field in fields(MailClass))
    found = MailClass(**{name: row._mapping[_COLUMNS.get(name, name)] for name in names})
    return tx.entry(SeenClass, row, "first_seen_ms", "last_seen_ms", mail_class=found)
