"""The sandbox: captured mail as the web pages, the API and the command line see it.

A search finds only messages whose content was read, a list without conditions all of them. That
content was read or a message opened is not synced by itself. Many messages are changed in several
transactions, so that the front never waits long; what a crash leaves undone can be asked for again.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import and_, delete, exists, func, or_, select, text, update

from relaygw.mail.content_facts import ContentFacts
from relaygw.mail.search import EVERYTHING, MailSearch
from relaygw.mail.searchable_text import tag_key
from relaygw.mail.state import DeliveryState
from relaygw.store.audit import AuditEntry, add_audit
from relaygw.store.batches import in_batches, rows_in
from relaygw.store.captured_index import FULL_TEXT, facts_of, forget_captured, write_index
from relaygw.store.captured_search import matching
from relaygw.store.database import Database, Repository, Statement, Transaction, Write, insert_into
from relaygw.store.queue_entry import QueueEntry, delete_messages, entries_by_id, load_entries
from relaygw.store.queue_tables import (
    IS_OPEN,
    IS_UNINDEXED,
    IS_UNREAD,
    captured_index,
    captured_tag,
    delivery,
    message,
)
from relaygw.store.release import Release, release
from relaygw.store.rules import NO_RULES, StoreRules
from relaygw.store.selection import Selection, message_conditions
from relaygw.store.terms import Condition
from relaygw.store.walk import Walk, captured

_BATCH_MESSAGES = 200
_INDEX_MESSAGES = 25
_INDEX_CHARACTERS = 50_000
_MERGE_STEPS = 8  # after each batch of the index; merging goes on at the next one
_NEWEST = 2_000  # rows that are looked at first where the database plans badly
_FREQUENT = 0.1  # of them: an index of words is of no use

_I = captured_index.c
_T = captured_tag.c
_IS_CAPTURED = message.c.captured_at_ms.is_not(None)
_INSERT_TAGS = insert_into("captured_tag", "queue_id tag tag_key")
_ADD_TAGS = insert_into("captured_tag", "queue_id tag tag_key", on_conflict="DO NOTHING")
# asked each second: as a text it keeps SQLAlchemy's compiler out of the memory of an idle process
_HAS_UNINDEXED = Statement(f"SELECT 1 FROM message WHERE {IS_UNINDEXED} LIMIT 1")
_IS_ITS_DELIVERY = delivery.c.queue_id == message.c.queue_id
_OPEN_DELIVERY = exists().where(_IS_ITS_DELIVERY, IS_OPEN)
_IS_DELETED = delivery.c.state == DeliveryState.DELETED.value
_IN_THE_TRASH = and_(
    message.c.finished_at_ms.is_(None), exists().where(_IS_ITS_DELIVERY, _IS_DELETED)
)


@dataclass(frozen=True, slots=True, kw_only=True)
class CapturedEntry:
    """A captured message; `facts` is None as long as nobody has read its content."""

    entry: QueueEntry
    facts: ContentFacts | None
    tags: tuple[str, ...] = ()  # in the order of the alphabet


class Sandbox(Repository):
    """Captured mail, its index and its tags."""

    def __init__(self, database: Database, rules: StoreRules = NO_RULES) -> None:
        super().__init__(database, rules)
        self.production_hosts = rules.production_hosts

    # --- content -------------------------------------------------------------------------

    def unindexed(self, *, limit: int) -> list[QueueEntry]:
        """Return captured messages whose content was not read yet, oldest first."""
        with self._read() as tx:
            if not _HAS_UNINDEXED.fetch(tx):
                return []
            oldest = (
                select(message)
                .where(IS_UNINDEXED)
                .order_by(message.c.captured_at_ms, message.c.queue_id)
            )
            return load_entries(tx, oldest.limit(limit))

    def index(self, facts: Mapping[str, ContentFacts]) -> None:
        """Keep what the content of captured messages says, where that is not kept already."""
        for batch in _index_batches(facts):
            with self._write(Write.UNSYNCED) as tx:
                write_index(tx, batch)
                _add_tags(
                    tx,
                    {queue_id: batch[queue_id].tags for queue_id in batch if batch[queue_id].tags},
                )
                has_to_merge = FULL_TEXT.is_there(tx)
            for _ in range(_MERGE_STEPS if has_to_merge else 0):
                with self._write(Write.UNSYNCED) as tx:
                    if not FULL_TEXT.merge(tx):
                        break

    # --- lists and searches --------------------------------------------------------------

    def find_captured(
        self, search: MailSearch, *, start: int, limit: int, selection: Selection | None = None
    ) -> list[CapturedEntry]:
        """Return matching messages, newest first, without the first `start`.

        Of `selection` what it says of messages and their recipients.
        """
        with self._read() as tx:
            selected = message_conditions(tx, selection) if selection else ()
            ids = _newest_ids(tx, search, selected, start=start, limit=limit)
            return _captured_entries(tx, ids)

    def count_captured(self, search: MailSearch) -> tuple[int, int]:
        """Return how many messages match, and how many of them are unread."""
        with self._read() as tx:
            if search == EVERYTHING:
                captured = select(func.count()).select_from(message)
                total = tx.execute(captured.where(_IS_CAPTURED)).scalar_one()
                return total, tx.execute(captured.where(IS_UNREAD)).scalar_one()
            if tx.is_postgres:
                _plan_count(tx, search)
            unread = func.count().filter(_I.is_unread)
            row = tx.execute(matching(tx, search).select(func.count(), unread)).one()
            return row[0], row[1]

    def captured_ids(self, search: MailSearch, *, limit: int, after: str = "") -> list[str]:
        """Return ids of matching messages in the order of acceptance, those after id `after`."""
        with self._read() as tx:
            rows = _walk(tx, search)
            query = rows.select(rows.queue_id).where(rows.queue_id > after)
            return list(tx.execute(query.order_by(rows.queue_id).limit(limit)).scalars())

    def captured_entry(self, queue_id: str | None) -> CapturedEntry | None:
        """Return a captured message, for None the newest one; None if there is none."""
        with self._read() as tx:
            newest = _newest_ids(tx, EVERYTHING, start=0, limit=1) if queue_id is None else []
            found = _captured_entries(tx, newest if queue_id is None else [queue_id])
        return found[0] if found else None

    def taken_since(self, at_ms: int) -> tuple[int, int]:
        """Return how many captured messages came by SMTP since a time, and their bytes."""
        number, size_bytes = func.count(), func.coalesce(func.sum(message.c.size_bytes), 0)
        query = select(number, size_bytes).where(message.c.source_listener.is_not(None))
        with self._read() as tx:
            since = message.c.captured_at_ms >= tx.to_stored(at_ms)
            found = tx.execute(query.where(since)).one()
        return found[0], int(found[1])

    # --- changes -------------------------------------------------------------------------

    def mark_read(self, queue_ids: Sequence[str] | None, *, is_read: bool) -> int:
        """Mark captured messages (None: all) as opened now, or unread; return how many changed.

        One that was opened before keeps its time. Many are marked in several transactions.
        """
        changed = 0
        for batch in in_batches(self._or_all(queue_ids), _BATCH_MESSAGES):
            with self._write(Write.UNSYNCED) as tx:
                changed += _mark_read(tx, batch, tx.now_ms() if is_read else None)
        return changed

    def delete_captured(self, queue_ids: Sequence[str] | None, *, entry: AuditEntry) -> int:
        """Delete captured mail (None: all of it) with its tags; audited; return how many.

        One that still waits to be sent to somebody only leaves the sandbox.
        """
        chosen = self._or_all(queue_ids)
        first, *others = list(in_batches(chosen, _BATCH_MESSAGES)) or [[]]
        with self._write() as tx:
            # what somebody wants to delete is in the trail before the first of it is gone
            add_audit(tx, entry, len(chosen))
            uncapture(tx, first)
        for batch in others:
            with self._write() as tx:
                uncapture(tx, batch)
        return len(chosen)

    def release_captured(self, releases: Sequence[Release]) -> frozenset[str]:
        """Add deliveries to captured messages, due at once, each audited; return which messages.

        None of a message that is not captured or has no content (any more), or already waits to be
        sent to one of the new recipients.
        """
        with self._write() as tx:
            return release(tx, releases)

    def _or_all(self, queue_ids: Sequence[str] | None) -> Sequence[str]:
        if queue_ids is not None:
            return list(dict.fromkeys(queue_ids))
        with self._read() as tx:
            return list(tx.execute(select(message.c.queue_id).where(_IS_CAPTURED)).scalars())

    # --- tags ----------------------------------------------------------------------------

    def tags(self) -> dict[str, int]:
        """Return the tags in use, in the order of the alphabet, with their messages' number."""
        counted = select(func.min(_T.tag), func.count()).group_by(_T.tag_key).order_by(_T.tag_key)
        with self._read() as tx:
            return {row[0]: row[1] for row in tx.execute(counted)}

    def set_tags(self, queue_ids: Sequence[str], tags: Sequence[str]) -> None:
        """Give captured messages exactly these tags; of one in use its spelling stays."""
        for batch in in_batches(list(dict.fromkeys(queue_ids)), _BATCH_MESSAGES):
            with self._write() as tx:
                _set_tags(tx, batch, _spellings(tx, tags))

    def rename_tag(self, old: str, new: str) -> int:
        """Rename a tag everywhere, into one in use too; return how many messages had it."""
        old_key, new_key = tag_key(old), tag_key(new)
        queue_ids = self._having_tag(old_key)
        for batch in in_batches(queue_ids, _BATCH_MESSAGES):
            here = _T.queue_id.in_(batch)
            with self._write() as tx:
                spelled = " ".join(new.split())
                if old_key != new_key:
                    spelled = _spellings(tx, [new])[new_key]
                    having_both = select(_T.queue_id).where(here, _T.tag_key == new_key)
                    is_double = _T.queue_id.in_(having_both.scalar_subquery())
                    tx.execute(delete(captured_tag).where(here, _T.tag_key == old_key, is_double))
                tx.execute(
                    update(captured_tag)
                    .where(here, _T.tag_key.in_((old_key, new_key)))
                    .values(tag=spelled, tag_key=new_key)
                )
        return len(queue_ids)

    def delete_tag(self, tag: str) -> int:
        """Take a tag off all messages; return how many had it."""
        queue_ids = self._having_tag(tag_key(tag))
        for batch in in_batches(queue_ids, _BATCH_MESSAGES):
            is_mine = _T.queue_id.in_(batch) & (_T.tag_key == tag_key(tag))
            with self._write() as tx:
                tx.execute(delete(captured_tag).where(is_mine))
        return len(queue_ids)

    def _having_tag(self, key: str) -> list[str]:
        with self._read() as tx:
            return list(tx.execute(select(_T.queue_id).where(_T.tag_key == key)).scalars())


def _walk(tx: Transaction, search: MailSearch) -> Walk:
    return captured() if search == EVERYTHING else matching(tx, search)


def _newest_ids(
    tx: Transaction,
    search: MailSearch,
    selected: Sequence[Condition] = (),
    *,
    start: int,
    limit: int,
) -> list[str]:
    rows = _walk(tx, search).of(selected)
    if tx.is_postgres and search != EVERYTHING:
        found = _among_newest(tx, rows, limit=start + limit)
        if len(found) == start + limit:
            return found[start:]
    return [queue_id for *_, queue_id in tx.execute(rows.rows().offset(start).limit(limit))]


def _among_newest(tx: Transaction, rows: Walk, *, limit: int) -> list[str]:
    """Return matching messages among the newest ones.

    PostgreSQL takes every text for a rare one, and would collect all messages with a common word.
    """
    tx.execute(text("SET LOCAL enable_bitmapscan = off"))
    newest = select(_I.index_no).order_by(_I.index_no.desc())
    last = tx.execute(newest.offset(_NEWEST).limit(1)).scalar() or 0
    found = tx.execute(rows.rows(last=(last + 1,)).limit(limit)).all()
    tx.execute(text("SET LOCAL enable_bitmapscan = DEFAULT"))
    return [queue_id for _, queue_id in found]


def _captured_entries(tx: Transaction, queue_ids: Sequence[str]) -> list[CapturedEntry]:
    """Return captured messages with what is kept of them, in the order of `queue_ids`."""
    found = entries_by_id(tx, queue_ids, _IS_CAPTURED)
    facts = facts_of(tx, queue_ids)
    tags = _tags_of(tx, queue_ids)
    return [
        CapturedEntry(entry=found[queue_id], facts=facts.get(queue_id), tags=tags.get(queue_id, ()))
        for queue_id in queue_ids
        if queue_id in found
    ]


def _plan_count(tx: Transaction, search: MailSearch) -> None:
    """Keep PostgreSQL from ways that are good for rare texts only, until the transaction ends."""
    if len(_among_newest(tx, matching(tx, search), limit=_NEWEST)) > _NEWEST * _FREQUENT:
        tx.execute(text("SET LOCAL enable_bitmapscan = off"))
    tx.execute(text("SET LOCAL enable_nestloop = off"))


def _tags_of(tx: Transaction, queue_ids: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Return the tags of messages that have any, in alphabetical order."""
    found: defaultdict[str, tuple[str, ...]] = defaultdict(tuple)
    rows = select(_T.queue_id, _T.tag).order_by(_T.tag_key)
    for queue_id, tag in rows_in(tx, rows, _T.queue_id, queue_ids):
        found[queue_id] += (tag,)
    return found


def _spellings(tx: Transaction, wanted: Sequence[str]) -> dict[str, str]:
    """Return tags by their key, in the spelling that is in use, else as given."""
    given: dict[str, str] = {}
    for tag in wanted:
        given.setdefault(tag_key(tag), " ".join(tag.split()))
    given.pop("", None)
    in_use = select(_T.tag_key, func.min(_T.tag)).where(_T.tag_key.in_(given)).group_by(_T.tag_key)
    return given | {row[0]: row[1] for row in tx.execute(in_use)}


def _set_tags(tx: Transaction, queue_ids: Sequence[str], tags: Mapping[str, str]) -> None:
    queue_id = message.c.queue_id
    mine = select(queue_id).where(queue_id.in_(queue_ids), _IS_CAPTURED).order_by(queue_id)
    captured = tx.execute(mine.with_for_update(read=True)).scalars()
    rows = [(captured_id, tag, key) for captured_id in captured for key, tag in tags.items()]
    tx.execute(delete(captured_tag).where(_T.queue_id.in_(queue_ids)))
    _INSERT_TAGS.run(tx, rows)


def _add_tags(tx: Transaction, tags: Mapping[str, Sequence[str]]) -> None:
    """Add tags to what is captured still, and keep those it has."""
    if not tags:
        return
    is_mine = message.c.queue_id.in_(tags) & _IS_CAPTURED
    there = tx.execute(select(message.c.queue_id).where(is_mine).order_by(message.c.queue_id))
    rows = [
        (queue_id, tag, key)
        for queue_id in there.scalars().all()
        for key, tag in _spellings(tx, tags[queue_id]).items()
    ]
    _ADD_TAGS.run(tx, rows)


def _mark_read(tx: Transaction, queue_ids: Sequence[str], at_ms: int | None) -> int:
    is_unread = message.c.read_at_ms.is_(None)
    is_other = ~is_unread if at_ms is None else is_unread
    mine = update(message).where(message.c.queue_id.in_(queue_ids), _IS_CAPTURED, is_other)
    changed = tx.execute(mine.values(read_at_ms=at_ms)).rowcount
    rows = update(captured_index).where(_I.queue_id.in_(queue_ids))
    tx.execute(rows.values(is_unread=at_ms is None))
    return changed


def uncapture(tx: Transaction, queue_ids: Sequence[str]) -> int:
    """Delete captured messages; what waits to be sent or is in the trash only leaves the sandbox.

    Its content stays until it is finished. Returns how many messages were captured.
    """
    deleted: list[str] = []
    left: list[str] = []
    queue_id = message.c.queue_id
    for batch in in_batches(queue_ids):
        # first, and by a statement of its own: who lets one go meanwhile is waited for
        mine = select(queue_id).where(queue_id.in_(batch), _IS_CAPTURED).order_by(queue_id)
        captured = list(tx.execute(mine.with_for_update()).scalars())
        is_queued = or_(_OPEN_DELIVERY, _IN_THE_TRASH)
        queued = set(
            tx.execute(select(queue_id).where(queue_id.in_(captured), is_queued)).scalars()
        )
        # what is queued is not finished
        out = {"captured_at_ms": None, "indexed_at_ms": None, "finished_at_ms": None}
        tx.execute(update(message).where(queue_id.in_(queued)).values(out))
        deleted += [captured_id for captured_id in captured if captured_id not in queued]
        left += queued
    delete_messages(tx, deleted)
    forget_captured(tx, [*deleted, *left])
    return len(deleted) + len(left)


def _index_batches(facts: Mapping[str, ContentFacts]) -> Iterator[dict[str, ContentFacts]]:
    """Cut what is to be indexed into what takes some milliseconds under the write lock."""
    batch: dict[str, ContentFacts] = {}
    characters = 0
    for queue_id, content_facts in facts.items():
        if len(batch) == _INDEX_MESSAGES or (batch and characters > _INDEX_CHARACTERS):
            yield batch
            batch, characters = {}, 0
        batch[queue_id] = content_facts
        characters += len(content_facts.words)
    if batch:
        yield batch
