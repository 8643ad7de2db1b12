"""The list of suppressed addresses as operators see it, change it, import and export it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Select, delete, func, or_, select, text, tuple_

from relaygw.mail.address import mailbox
from relaygw.mail.envelope import ClaimedDelivery
from relaygw.mail.suppression import ANY, Cause, Listed, Suppression, domain_of
from relaygw.store.audit import AuditEntry, add_audit
from relaygw.store.database import BatchStatement, Repository, Statement, Transaction, Write
from relaygw.store.side_tables import refusal, suppression
from relaygw.store.suppression import SuppressionKey, joined, put, stored, with_suppressions

_REMOVE = BatchStatement(
    "DELETE FROM suppression WHERE (address, sender_domain, stream) IN (VALUES {rows})", columns=3
)
_LATELY = Statement(  # what came by itself
    """
    SELECT count(*) FROM suppression
    WHERE cause IN ('bounce', 'complaint', 'unsubscribe', 'refused') AND created_at_ms >= {?}
        AND queue_id IS NOT NULL
    """
)
_EXPIRED = Statement(
    """
    SELECT address, sender_domain, stream FROM suppression WHERE expires_at_ms <= {?} LIMIT {?}
    """
)
_FORGET_REFUSALS = BatchStatement("DELETE FROM refusal WHERE address IN (VALUES {rows})", columns=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class SuppressionFilter:
    """Which suppressions: every condition set must hold."""

    text: str | None = None  # stands in the address, without regard to case
    sender_domain: str | None = None  # is it; ANY: those for every sender
    stream: str | None = None
    causes: frozenset[Cause] = frozenset()  # empty: any


EVERY = SuppressionFilter()


class Suppressions(Repository):
    """The list as operators see it; those who claim mail look it up beside the claim."""

    def suppressed(
        self,
        *,
        limit: int,
        wanted: SuppressionFilter = EVERY,
        after: Suppression | None = None,
    ) -> list[Suppression]:
        """Return suppressions in force, newest first; `after` is the last one of the page before.

        What is added while somebody turns pages is not missed twice, and nothing is shown twice.
        """
        order = [suppression.c[name].desc() for name in _ORDER]
        with self._read() as tx:
            query = _matching(tx, select(*suppression.c), wanted)
            if after is not None:
                at_ms = tx.to_stored(after.created_at_ms)
                query = query.where(
                    tuple_(*(suppression.c[name] for name in _ORDER)) < (at_ms, *after.key)
                )
            rows = tx.execute(query.order_by(*order).limit(limit))
            return [_entry(tx, row) for row in rows]

    def count_suppressed(self, wanted: SuppressionFilter = EVERY, *, most: int) -> int:
        """Return how many suppressions in force there are, counting up to `most`."""
        with self._read() as tx:
            some = _matching(tx, select(suppression.c.address), wanted).limit(most).subquery()
            return int(tx.execute(select(func.count()).select_from(some)).scalar_one())

    def suppressed_of(self, addresses: Sequence[str]) -> dict[str, list[Suppression]]:
        """Return the entries in force of these addresses, for any sender, by their mailbox."""
        found: dict[str, list[Suppression]] = defaultdict(list)
        with self._read() as tx:
            names = sorted({mailbox(address) for address in addresses})
            for start in range(0, len(names), _STEP):
                one_of = suppression.c.address.in_(names[start : start + _STEP])
                query = _matching(tx, select(*suppression.c).where(one_of), EVERY)
                for row in tx.execute(query.order_by(*suppression.primary_key)):
                    found[row.address].append(_entry(tx, row))
        return dict(found)

    def listed_for(
        self, addresses: Sequence[str], *, sender: str, stream: str
    ) -> dict[str, Listed]:
        """Return by address what holds for mail of a sender to it, where something does."""
        if not (addresses and self._rules.suppression.is_on):
            return {}
        domain, known = domain_of(sender), self.suppressed_of(addresses)
        found: dict[str, Listed] = {}
        for address in addresses:
            entries = known.get(mailbox(address), ())
            mine = (entry for entry in entries if entry.sender_domain in (ANY, domain))
            listed = self._rules.suppression.listed(mine, stream)
            if listed is not None:
                found[address] = listed
        return found

    def suppressed_lately(self, within_ms: int) -> int:
        """Return how many addresses events and refusals have suppressed within a time."""
        with self._read() as tx:
            ((number,),) = _LATELY.fetch(tx, tx.now_ms() - within_ms)
            return int(number)

    def looked_at_again(self, claimed: ClaimedDelivery) -> ClaimedDelivery:
        """Return a delivery that was claimed a while ago with what is known of its recipients now.

        Raises StoreUnavailable.
        """
        with self._read() as tx:
            now_ms = tx.now_ms()
            (found,) = with_suppressions(tx, [claimed], self._rules.suppression, now_ms=now_ms)
            return found

    def suppress(self, entries: Sequence[Suppression], *, entry: AuditEntry) -> int:
        """Suppress addresses as given, whatever was known of them; audited. Returns how many."""
        with self._write() as tx:
            rows = {row.key: row for row in entries}
            put(tx, [stored(tx, row) for row in rows.values()])
            add_audit(tx, entry, len(rows))
            return len(rows)

    def suppress_batch(self, entries: Sequence[Suppression], *, entry: AuditEntry | None) -> int:
        """Add what is not known yet, or for a graver cause or longer; return how many were not.

        `entry` goes into the audit trail with the number that it says.
        """
        with self._write() as tx:
            results = joined(tx, [stored(tx, row) for row in entries], tx.now_ms())
            if entry is not None:
                add_audit(tx, entry, entry.affected)
            return sum(old is None for old, _ in results)

    def tell_planner(self) -> None:
        """Let PostgreSQL see now how long the list is: its plans may be of when it was short.

        Else a claim would read all of a list that somebody just imported, for a minute.
        """
        with self._write(Write.UNSYNCED) as tx:
            if tx.is_postgres:
                tx.execute(text("ANALYZE suppression"))

    def lift(self, keys: Sequence[SuppressionKey], *, entry: AuditEntry) -> int:
        """Lift suppressions; audited if there were any. Refusals of those addresses are forgotten.

        Return how many.
        """
        with self._write() as tx:
            removed = _REMOVE.run(tx, sorted(set(keys)))
            _FORGET_REFUSALS.run(tx, [(address,) for address in sorted({key[0] for key in keys})])
            if removed:
                add_audit(tx, entry, removed)
            return removed

    def purge_suppressed(self, *, limit: int) -> int:
        """Delete up to `limit` suppressions that have expired; return how many."""
        ends_ms = suppression.c.expires_at_ms
        keys = list(suppression.primary_key)
        with self._read() as tx:
            over = _EXPIRED.fetch(tx, tx.now_ms(), limit)
        if not over:
            return 0
        with self._write(Write.UNSYNCED) as tx:
            is_over = tuple_(*keys).in_(over) & (ends_ms <= tx.now_ms())
            return tx.execute(delete(suppression).where(is_over)).rowcount

    def forget_refusals(self, older_than_ms: int) -> int:
        """Delete first refusals that are so old that a second one would count anew."""
        with self._write(Write.UNSYNCED) as tx:
            is_old = refusal.c.refused_at_ms < tx.now_ms() - older_than_ms
            return tx.execute(delete(refusal).where(is_old)).rowcount


_STEP = 500
_ORDER = ("created_at_ms", "address", "sender_domain", "stream")


def _matching(tx: Transaction, query: Select[Any], wanted: SuppressionFilter) -> Select[Any]:
    column = suppression.c
    query = query.where(or_(column.expires_at_ms.is_(None), column.expires_at_ms > tx.now_ms()))
    if wanted.text:
        query = query.where(column.address.contains(wanted.text.lower(), autoescape=True))
    if wanted.sender_domain is not None:
        query = query.where(column.sender_domain == wanted.sender_domain)
    if wanted.stream is not None:
        query = query.where(column.stream == wanted.stream)
    if wanted.causes:
        query = query.where(column.cause.in_(sorted(cause.value for cause in wanted.causes)))
    return query


def _entry(tx: Transaction, row: Any) -> Suppression:
    return tx.entry(Suppression, row, "created_at_ms", "expires_at_ms", cause=Cause(row.cause))


def every_suppression(
    store: Suppressions, wanted: SuppressionFilter = EVERY, *, step: int = 1000
) -> Iterator[Suppression]:
    """Yield all suppressions in force, newest first, a page at a time."""
    after: Suppression | None = None
    while page := store.suppressed(limit=step, wanted=wanted, after=after):
        yield from page
        after = page[-1]
