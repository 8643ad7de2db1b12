"""Kinds of mail and how often they come, whatever host they come from: what silence goes by.

Nothing is synced by itself: a power cut may forget the last counts.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace

from sqlalchemy import func, select

from relaygw.mail.clock import HOUR_MS
from relaygw.mail.mail_class import ClassCount
from relaygw.policy.rhythm import LEARNT_MS, LEAST_MESSAGES, MailHour, MailKind
from relaygw.policy.silence import LastMail
from relaygw.store.database import BatchStatement, Row, Statement, Transaction, Write, insert_into
from relaygw.store.side_tables import kind_hour, mail_kind
from relaygw.store.sources import KEPT_MS, HourlyCounts

MAX_KINDS = 20_000
MAX_RHYTHMS = 2000  # kinds with the most mail
MAX_HOURS = 500_000
_RARE_KEPT_MS = 7 * 86_400_000  # for how long a kind stays that came less than LEAST_MESSAGES times
_PRUNED_AT_ONCE = 500  # rows
_READ_AT_ONCE = 200  # kinds

_SEEN = BatchStatement(
    "SELECT kind_id, last_seen_ms FROM mail_kind WHERE kind_id IN (VALUES {rows})", columns=1
)
_RHYTHMIC = Statement(
    f"""
    SELECT * FROM mail_kind WHERE messages >= {LEAST_MESSAGES} AND first_seen_ms <= {{?}}
    ORDER BY messages DESC LIMIT {MAX_RHYTHMS}
    """
)
_FORGOTTEN = Statement(
    f"""
    SELECT kind_id FROM mail_kind
    WHERE last_seen_ms < {{?}} OR (messages < {LEAST_MESSAGES} AND last_seen_ms < {{?}})
    LIMIT {_PRUNED_AT_ONCE}
    """
)
_SMALLEST = Statement("SELECT kind_id FROM mail_kind ORDER BY messages, last_seen_ms LIMIT {?}")
_FIRST_HOUR = Statement("SELECT min(hour) FROM kind_hour")
_HOURS = Statement("SELECT count(*) FROM kind_hour")
_TOTAL = Statement("SELECT count(*) FROM mail_kind")
_ADD_KIND = insert_into(
    "mail_kind",
    "kind_id sender_domain stream template first_seen_ms last_seen_ms messages",
    on_conflict="""(kind_id) DO UPDATE SET
        messages = mail_kind.messages + excluded.messages,
        last_seen_ms = CASE WHEN excluded.last_seen_ms > mail_kind.last_seen_ms
            THEN excluded.last_seen_ms ELSE mail_kind.last_seen_ms END""",
)
_ADD_HOUR = insert_into(
    "kind_hour",
    "kind_id hour messages gap_ms",
    on_conflict="""(kind_id, hour) DO UPDATE SET
        messages = kind_hour.messages + excluded.messages,
        gap_ms = CASE WHEN excluded.gap_ms > kind_hour.gap_ms
            THEN excluded.gap_ms ELSE kind_hour.gap_ms END""",
)


class Rhythms(HourlyCounts):
    """Kinds of mail and their counts by hour."""

    def count_kinds(self, counts: Sequence[ClassCount]) -> None:
        """Add what a front counted; new kinds beyond MAX_KINDS are left out."""
        with self._write(Write.UNSYNCED) as tx:
            kinds, hours = _rows(tx, _by_kind(tx, counts))
            _ADD_KIND.run(tx, kinds)
            _ADD_HOUR.run(tx, hours)

    def rhythmic(self, known_for_ms: int = LEARNT_MS) -> dict[MailKind, LastMail]:
        """Return the kinds that are known for long enough to have a rhythm; the most mail first."""
        with self._read() as tx:
            return {
                MailKind(row.sender_domain, row.stream, row.template): LastMail(
                    tx.to_local(row.first_seen_ms), tx.to_local(row.last_seen_ms), row.messages
                )
                for row in _RHYTHMIC.fetch_named(tx, tx.now_ms() - known_for_ms)
            }

    def kind_hours(
        self, kinds: Iterable[MailKind], since_ms: int
    ) -> dict[MailKind, list[MailHour]]:
        """Return the counts of kinds in hours that began in a time, in order."""
        named = {kind.kind_id: kind for kind in kinds}
        found: defaultdict[MailKind, list[MailHour]] = defaultdict(list)
        ids = sorted(named)
        for start in range(0, len(ids), _READ_AT_ONCE):
            some = ids[start : start + _READ_AT_ONCE]
            with self._read() as tx:
                query = (
                    select(kind_hour)
                    .where(kind_hour.c.kind_id.in_(some))
                    .where(kind_hour.c.hour >= tx.to_stored(since_ms) // HOUR_MS)
                    .order_by(kind_hour.c.kind_id, kind_hour.c.hour)
                )
                for row in tx.execute(query):
                    hour = round(tx.to_local(row.hour * HOUR_MS) / HOUR_MS)
                    found[named[row.kind_id]].append(MailHour(hour, row.messages, row.gap_ms))
        return dict(found)

    def counting_since_ms(self) -> int | None:
        """Return when the first mail was counted that is known, None before."""
        with self._read() as tx:
            first_ms = tx.execute(select(func.min(mail_kind.c.first_seen_ms))).scalar()
            return tx.to_local(first_ms)

    def messages_by_template(self, since_ms: int) -> dict[str, int]:
        """Return how many messages came since the hour of a time."""
        with self._read() as tx:
            total = func.sum(kind_hour.c.messages).label("total")
            query = (
                select(mail_kind.c.template, total)
                .join(kind_hour, kind_hour.c.kind_id == mail_kind.c.kind_id)
                .where(kind_hour.c.hour >= tx.to_stored(since_ms) // HOUR_MS)
                .where(mail_kind.c.template.is_not(None))
                .group_by(mail_kind.c.template)
            )
            return {row.template: int(row.total) for row in tx.execute(query)}

    def forget_kinds(self, older_than_ms: int = KEPT_MS) -> bool:
        """Delete what is so old, what came seldom, and what is too much; True: more is left.

        A few hundred rows at a time, found without the lock on writing.
        """
        with self._read() as tx:
            end_ms = tx.now_ms() - older_than_ms
            gone = _forgotten_kinds(tx, end_ms)
            hour = _forgotten_hour(tx, end_ms)
        return self._delete_counts(mail_kind, kind_hour, gone, hour, _PRUNED_AT_ONCE)


def _by_kind(
    tx: Transaction, counts: Sequence[ClassCount]
) -> dict[tuple[MailKind, int], ClassCount]:
    joined: dict[tuple[MailKind, int], ClassCount] = {}
    for class_count in sorted(counts, key=lambda count: count.first_ms):
        hour = tx.to_stored(class_count.first_ms) // HOUR_MS
        for kind in MailKind.kinds_of(class_count.mail_class):
            before = joined.get((kind, hour))
            if before is None:
                joined[kind, hour] = replace(class_count)
            else:
                before.join(class_count)
    return joined


def _rows(
    tx: Transaction, joined: Mapping[tuple[MailKind, int], ClassCount]
) -> tuple[list[Row], list[Row]]:
    """Return rows of kinds and of hours, each key once and in order: fronts never deadlock."""
    ids = {kind: kind.kind_id for kind, _ in joined}
    seen: dict[str, int] = dict(
        _SEEN.fetch(tx, sorted((key,) for key in ids.values())) if ids else ()
    )
    room = MAX_KINDS - _TOTAL.fetch(tx)[0][0] if len(seen) < len(ids) else 0
    kinds: dict[str, Row] = {}
    hours: list[Row] = []
    for (kind, hour), count in sorted(joined.items(), key=lambda item: item[1].first_ms):
        kind_id = ids[kind]
        first_ms, last_ms = tx.to_stored(count.first_ms), tx.to_stored(count.last_ms)
        before_ms = seen.get(kind_id, first_ms)
        if kind_id not in seen:
            room -= 1
            if room < 0:
                continue
        seen[kind_id] = max(last_ms, before_ms)
        hours.append((kind_id, hour, count.messages, max(count.gap_ms, first_ms - before_ms)))
        *_, earlier_ms, _, total = kinds.get(kind_id, (first_ms, last_ms, 0))
        kinds[kind_id] = (kind_id, *kind, earlier_ms, seen[kind_id], total + count.messages)
    return [kinds[key] for key in sorted(kinds)], sorted(hours)


def _forgotten_kinds(tx: Transaction, end_ms: int) -> Collection[str]:
    gone = [kind_id for (kind_id,) in _FORGOTTEN.fetch(tx, end_ms, tx.now_ms() - _RARE_KEPT_MS)]
    too_many = _TOTAL.fetch(tx)[0][0] - MAX_KINDS * 9 // 10
    if gone or too_many <= 0:
        return gone
    return [kind_id for (kind_id,) in _SMALLEST.fetch(tx, min(too_many, _PRUNED_AT_ONCE))]


def _forgotten_hour(tx: Transaction, end_ms: int) -> int | None:
    """Return an hour that is too old, or the oldest where there are too many; None: neither."""
    first: int | None = _FIRST_HOUR.fetch(tx)[0][0]
    if first is None or first < end_ms // HOUR_MS:
        return first
    total: int = _HOURS.fetch(tx)[0][0]
    return first if total > MAX_HOURS else None
