"""What providers and bounce mails reported of mail after their 250, as people look at it.

`store.feedback` writes it. Times of a provider are taken for those of the database's clock.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from sqlalchemy import delete, exists, func, select

from relaygw.mail.result import is_news
from relaygw.mail.verdict import PASSING, Kind
from relaygw.observe.events import Judged
from relaygw.store.database import Repository, Transaction, Write
from relaygw.store.feedback_tables import provider_event, verdict
from relaygw.store.queue_entry import in_batches, rows_in
from relaygw.store.selection import domain_of
from relaygw.store.tables import message, recipient
from relaygw.store.verdicts import NewVerdict

MOST_REPORTS = 200  # of one message: the newest are told of
_OLDEST = 2_000  # events that are looked through for what is left of deleted mail
_E, _V = provider_event.c, verdict.c
_OF_JUDGED = select(
    *message.c["queue_id", "sender", "subject", "accepted_at_ms"],
    *recipient.c["rcpt_no", "provider"],
).join(recipient, recipient.c.queue_id == message.c.queue_id)


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """One thing that was told of a message, or of one of its recipients."""

    event_no: int
    provider: str
    kind: Kind
    at_ms: int  # by the provider's clock
    received_at_ms: int
    rcpt_no: int | None  # None: it does not tell which recipient
    address: str | None
    dsn: str | None
    detail: str  # in the provider's words
    raw: str = ""  # as it came, where it was asked for


class LastWords(NamedTuple):
    """How many recipients have the same last word."""

    kind: Kind
    provider: str  # that took their mail
    domain: str  # of the sender; "" is the null sender
    number: int


class Reports(Repository):
    """Events and last words."""

    def of_message(self, queue_id: str, *, limit: int = MOST_REPORTS) -> list[Report]:
        """Return what was told of a message as it came, too; the newest, in the order of time."""
        with self._read() as tx:
            return load_reports(tx, queue_id, limit=limit, is_raw=True)

    def count_last_words(self, since_ms: int) -> Counter[Kind]:
        """Count recipients whose last word, said since a time, is bad news, by that word."""
        is_bad = _V.kind.in_(BAD_NEWS)
        query = select(_V.kind, func.count()).where(is_bad).group_by(_V.kind)
        with self._read() as tx:
            found = tx.execute(query.where(_V.at_ms >= tx.to_stored(since_ms)))
            return Counter({Kind(kind): number for kind, number in found})

    def last_words(self, since_ms: int) -> list[LastWords]:
        """Count the last words that are bad news since a time, by provider and sender's domain."""
        provider = func.coalesce(recipient.c.provider, "").label("provider")
        domain = domain_of(message.c.sender).label("domain")
        is_its = (recipient.c.queue_id == _V.queue_id) & (recipient.c.rcpt_no == _V.rcpt_no)
        query = (
            select(_V.kind, provider, domain, func.count())
            .join(recipient, is_its)
            .join(message, message.c.queue_id == _V.queue_id)
            .group_by(_V.kind, "provider", "domain")
        )
        with self._read() as tx:
            since = _V.at_ms >= tx.to_stored(since_ms)
            found = tx.execute(query.where(_V.kind.in_(BAD_NEWS), since))
            return [LastWords(Kind(kind), *row) for kind, *row in found]

    def judged(self, verdicts: Sequence[NewVerdict]) -> list[Judged]:
        """Return what log and counts are told: the verdicts that say something else than before.

        Those of mail that has gone since are left out.
        """
        found = [one for one in verdicts if one.is_last_word and is_news(one.kind, one.before)]
        news = {(one.queue_id, one.rcpt_no, one.kind): one for one in found}.values()
        if not news:
            return []
        queue_ids = sorted({one.queue_id for one in news})
        with self._read() as tx:
            rows = {
                (row.queue_id, row.rcpt_no): row
                for row in rows_in(tx, _OF_JUDGED, message.c.queue_id, queue_ids)
            }
            return [
                Judged(
                    queue_id=one.queue_id,
                    address=one.address,
                    provider=row.provider or one.provider,
                    kind=one.kind,
                    at_ms=tx.to_local(one.at_ms),
                    dsn=one.dsn,
                    detail=one.detail,
                    sender=row.sender,
                    subject=row.subject,
                    accepted_at_ms=tx.to_local(row.accepted_at_ms),
                )
                for one in news
                if (row := rows.get((one.queue_id, one.rcpt_no))) is not None
            ]

    def forget_strays(self) -> int:
        """Delete what is left, among the oldest events, of mail that is gone; return of how much.

        Another version deletes mail without it, and not all of a damaged queue comes back.
        """
        oldest = select(_E.event_no, _E.queue_id).order_by(_E.event_no).limit(_OLDEST).subquery()
        is_gone = ~exists().where(message.c.queue_id == oldest.c.queue_id)
        strays = select(oldest.c.queue_id).where(oldest.c.queue_id.is_not(None), is_gone)
        with self._read() as tx:
            gone = list(tx.execute(strays.distinct()).scalars())
        if gone:
            with self._write(Write.UNSYNCED) as tx:
                for batch in in_batches(gone):
                    tx.execute(delete(provider_event).where(_E.queue_id.in_(batch)))
                    tx.execute(delete(verdict).where(_V.queue_id.in_(batch)))
        return len(gone)


BAD_NEWS = sorted(set(Kind) - PASSING - {Kind.DELIVERED})
_TOLD = (
    *("event_no", "provider", "kind", "at_ms", "received_at_ms", "rcpt_no", "address", "dsn"),
    "detail",
)


def load_reports(
    tx: Transaction, queue_id: str, *, limit: int = MOST_REPORTS, is_raw: bool = False
) -> list[Report]:
    """Return the newest events of a message, in the order of the provider's time."""
    columns = [_E[name] for name in (*_TOLD, *(["raw"] if is_raw else []))]
    query = select(*columns).where(_E.queue_id == queue_id).order_by(_E.event_no.desc())
    rows = tx.execute(query.limit(limit))
    times = ("at_ms", "received_at_ms")
    more = {} if is_raw else {"raw": ""}
    found = [tx.entry(Report, row, *times, kind=Kind(row.kind), **more) for row in rows]
    return sorted(found, key=lambda one: (one.at_ms, one.event_no))
