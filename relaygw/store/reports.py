"""What providers and bounce mails reported of mail after their 250, and the last word on each.

`store.feedback` writes both; here is what is new of them, and how people look at them. Reports are
brought into a form that every database takes. Times of a provider are taken for those of the
database's clock.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from sqlalchemy import delete, exists, func, select

from relaygw.mail.result import is_news
from relaygw.mail.verdict import PASSING, Kind, outweighs
from relaygw.observe.events import Judged
from relaygw.store.batches import in_batches, rows_in
from relaygw.store.database import BatchStatement, Repository, Transaction, Write
from relaygw.store.queue_tables import message, recipient
from relaygw.store.side_tables import provider_event, verdict
from relaygw.store.terms import domain_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Word:
    """What a provider said of a mail after its 250."""

    kind: Kind
    at_ms: int  # by the provider's clock
    provider: str
    dsn: str | None
    detail: str  # in the provider's words


@dataclass(frozen=True, slots=True, kw_only=True)
class NewVerdict(Word):
    """One thing that was not known of a recipient before."""

    queue_id: str
    rcpt_no: int
    address: str  # the recipient's, as the provider was given it
    others: int  # how many more people the report may be about, or may come of
    before: Kind | None = None  # the last word until then, where this one is the last now
    is_last_word: bool  # False: something that outweighs it is known already


def _weight(column: str) -> str:
    weights = (
        f"WHEN '{kind}' THEN {sum(outweighs(kind, other) for other in Kind)}" for kind in Kind
    )
    return f"CASE {column} {' '.join(weights)} ELSE -1 END"


_PUT = BatchStatement(
    f"""
    INSERT INTO verdict (queue_id, rcpt_no, kind, at_ms) VALUES {{rows}}
    ON CONFLICT (queue_id, rcpt_no) DO UPDATE SET kind = excluded.kind, at_ms = excluded.at_ms
    WHERE {_weight("excluded.kind")} > {_weight("verdict.kind")}
    RETURNING queue_id, rcpt_no, kind
    """,
    columns=4,
)


_BEFORE = BatchStatement(
    "SELECT queue_id, rcpt_no, kind FROM verdict WHERE (queue_id, rcpt_no) IN (VALUES {rows})",
    columns=2,
)


def put_verdicts(
    tx: Transaction, told: Iterable[tuple[str, int, Kind, int]]
) -> dict[tuple[str, int, str], Kind | None]:
    """Write what outweighs the last word on a recipient; return these, with the words before."""
    heaviest: dict[tuple[str, int], tuple[Kind, int]] = {}
    for queue_id, rcpt_no, kind, at_ms in told:
        before = heaviest.get((queue_id, rcpt_no))
        if outweighs(kind, before[0] if before else None):
            heaviest[queue_id, rcpt_no] = (kind, at_ms)
    # in one order, so that two who do this at once do not wait for each other
    rows = [(*key, kind.value, at_ms) for key, (kind, at_ms) in sorted(heaviest.items())]
    found = _BEFORE.fetch(tx, sorted(heaviest))
    before_of = {(queue_id, rcpt_no): Kind(kind) for queue_id, rcpt_no, kind in found}
    return {
        (queue_id, rcpt_no, kind): before_of.get((queue_id, rcpt_no))
        for queue_id, rcpt_no, kind in _PUT.fetch(tx, rows)
    }


# --- texts of providers -----------------------------------------------------------------


_MAX_KEY_CHARACTERS = 200  # a longer one is hashed: an index takes 2,700 bytes at most


def short_key(key: str) -> str:
    """Return a key that an index takes, and the same for the same."""
    if clean(key) == key and len(key) <= _MAX_KEY_CHARACTERS:
        return key
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()


def clean(text: str) -> str:
    """Return text that every database takes: JSON may hold NUL and halves of characters."""
    return text.replace("\0", "").encode("utf-8", "replace").decode()


def past(at_ms: int, now_ms: int) -> int:
    """Return the time of something that has happened, whatever a provider's clock says."""
    return min(max(at_ms, 0), now_ms)


MOST_REPORTS = 200  # of one message: the newest are told of
_OLDEST = 2_000  # events that are looked through for what is left of deleted mail
_E, _V = provider_event.c, verdict.c
_OF_JUDGED = select(
    *message.c["queue_id", "sender", "subject", "accepted_at_ms"],
    *recipient.c["rcpt_no", "provider"],
).join(recipient, recipient.c.queue_id == message.c.queue_id)


@dataclass(frozen=True, slots=True, kw_only=True)
class Report(Word):
    """One thing that was told of a message, or of one of its recipients."""

    event_no: int
    received_at_ms: int
    rcpt_no: int | None  # None: it does not tell which recipient
    address: str | None
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
        """Return the reports of a message as they came, too; the newest, in the order of time."""
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
        """Return the verdicts for log and counts: those that say something else than before.

        Those of mail that has gone since are left out.
        """
        found = [
            new_verdict
            for new_verdict in verdicts
            if new_verdict.is_last_word and is_news(new_verdict.kind, new_verdict.before)
        ]
        news = {
            (verdict.queue_id, verdict.rcpt_no, verdict.kind): verdict for verdict in found
        }.values()
        if not news:
            return []
        queue_ids = sorted({verdict.queue_id for verdict in news})
        with self._read() as tx:
            rows = {
                (row.queue_id, row.rcpt_no): row
                for row in rows_in(tx, _OF_JUDGED, message.c.queue_id, queue_ids)
            }
            return [
                Judged(
                    queue_id=verdict.queue_id,
                    address=verdict.address,
                    provider=row.provider or verdict.provider,
                    kind=verdict.kind,
                    at_ms=tx.to_local(verdict.at_ms),
                    dsn=verdict.dsn,
                    detail=verdict.detail,
                    sender=row.sender,
                    subject=row.subject,
                    accepted_at_ms=tx.to_local(row.accepted_at_ms),
                )
                for verdict in news
                if (row := rows.get((verdict.queue_id, verdict.rcpt_no))) is not None
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
    return sorted(found, key=lambda report: (report.at_ms, report.event_no))
