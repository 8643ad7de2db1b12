"""Captured mail on a SQL database: transactions around the statements of this room.

What may be many messages is changed in several transactions, so that the front never waits long
for one of them. Nothing of it is hard to repeat: what a crash leaves undone can be asked for again.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence

from sqlalchemy import Connection

from relaygw.mail.content_facts import ContentFacts
from relaygw.mail.search import EVERYTHING, MailSearch
from relaygw.store import auditing, full_text, indexing, logins, purging, searching, tagging
from relaygw.store.captured import CapturedEntry, WebSession
from relaygw.store.protocol import AuditEntry, QueueEntry
from relaygw.store.transactions import Transactions, Write

_BATCH_MESSAGES = 200
_INDEX_MESSAGES = 25
_INDEX_CHARACTERS = 50_000
_MERGE_STEPS = 8  # after each batch of the index; merging goes on at the next one


class SqlCapturedMail(Transactions):
    """`captured.CapturedMail` in SQLAlchemy Core; see there for what each method promises."""

    @abstractmethod
    def _now_ms(self, connection: Connection) -> int:
        """Return the database's time in milliseconds."""

    # --- content -------------------------------------------------------------------------

    def unindexed(self, *, limit: int) -> list[QueueEntry]:
        with self._read() as connection:
            return indexing.unindexed(connection, limit=limit)

    def index(self, facts: Mapping[str, ContentFacts]) -> None:
        for batch in _index_batches(facts):
            with self._write(Write.UNSYNCED) as connection:
                indexing.index(connection, batch, now_ms=self._now_ms(connection))
                has_to_merge = full_text.has_table(connection)
            for _ in range(_MERGE_STEPS if has_to_merge else 0):
                with self._write(Write.UNSYNCED) as connection:
                    if not full_text.merge(connection):
                        break

    # --- lists and searches --------------------------------------------------------------

    def find_captured(self, search: MailSearch, *, start: int, limit: int) -> list[CapturedEntry]:
        with self._read() as connection:
            return searching.find(connection, search, start=start, limit=limit)

    def count_captured(self, search: MailSearch) -> tuple[int, int]:
        with self._read() as connection:
            return searching.count(connection, search)

    def captured_ids(self, search: MailSearch, *, limit: int, after: str = "") -> list[str]:
        with self._read() as connection:
            return searching.ids(connection, search, limit=limit, after=after)

    def captured_entry(self, queue_id: str | None) -> CapturedEntry | None:
        with self._read() as connection:
            if queue_id is None:
                found = searching.find(connection, EVERYTHING, start=0, limit=1)
            else:
                found = searching.entries(connection, [queue_id])
        return found[0] if found else None

    # --- changes -------------------------------------------------------------------------

    def mark_read(self, queue_ids: Sequence[str] | None, *, at_ms: int | None) -> int:
        changed = 0
        for batch in _batches(self._or_all(queue_ids)):
            with self._write(Write.UNSYNCED) as connection:
                changed += indexing.mark_read(connection, batch, at_ms=at_ms)
        return changed

    def delete_captured(self, queue_ids: Sequence[str] | None, *, entry: AuditEntry) -> int:
        chosen = self._or_all(queue_ids)
        first, *others = list(_batches(chosen)) or [[]]
        with self._write() as connection:
            # what somebody wants to delete is in the trail before the first of it is gone
            auditing.add_audit(connection, entry, len(chosen))
            purging.uncapture(connection, first)
        for batch in others:
            with self._write() as connection:
                purging.uncapture(connection, batch)
        return len(chosen)

    def _or_all(self, queue_ids: Sequence[str] | None) -> Sequence[str]:
        if queue_ids is not None:
            return list(dict.fromkeys(queue_ids))
        with self._read() as connection:
            return searching.all_ids(connection)

    # --- tags ----------------------------------------------------------------------------

    def tags(self) -> dict[str, int]:
        with self._read() as connection:
            return tagging.tags(connection)

    def set_tags(self, queue_ids: Sequence[str], tags: Sequence[str]) -> None:
        for batch in _batches(list(dict.fromkeys(queue_ids))):
            with self._write() as connection:
                tagging.set_tags(connection, batch, tagging.spellings(connection, tags))

    def rename_tag(self, old: str, new: str) -> int:
        queue_ids = self._having_tag(old)
        for batch in _batches(queue_ids):
            with self._write() as connection:
                tagging.rename(connection, batch, old, new)
        return len(queue_ids)

    def delete_tag(self, tag: str) -> int:
        queue_ids = self._having_tag(tag)
        for batch in _batches(queue_ids):
            with self._write() as connection:
                tagging.remove(connection, batch, tag)
        return len(queue_ids)

    def _having_tag(self, tag: str) -> list[str]:
        with self._read() as connection:
            return tagging.having(connection, tag)

    # --- sessions ------------------------------------------------------------------------

    def put_session(self, session: WebSession) -> None:
        with self._write(Write.UNSYNCED) as connection:
            logins.put(connection, session)

    def session(self, token_hash: str) -> WebSession | None:
        with self._read() as connection:
            return logins.get(connection, token_hash)

    def drop_session(self, token_hash: str) -> None:
        with self._write() as connection:
            logins.drop(connection, token_hash)

    def drop_sessions_of(self, user_name: str) -> int:
        with self._write() as connection:
            return logins.drop_all_of(connection, user_name)

    # --- the janitor ---------------------------------------------------------------------

    def _tidy_captured(self, *, limit: int, is_thorough: bool) -> None:
        """Delete logins that have expired and, thoroughly, what deleted messages left behind."""
        with self._read() as connection:
            has_expired = logins.has_expired(connection, self._now_ms(connection))
            strays = indexing.strays(connection, limit=limit) if is_thorough else []
        if has_expired or strays:
            with self._write(Write.UNSYNCED) as connection:
                logins.drop_expired(connection, self._now_ms(connection))
                indexing.forget(connection, strays)


def _batches(queue_ids: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(queue_ids), _BATCH_MESSAGES):
        yield queue_ids[start : start + _BATCH_MESSAGES]


def _index_batches(facts: Mapping[str, ContentFacts]) -> Iterator[dict[str, ContentFacts]]:
    """Cut what is to be indexed into what takes some milliseconds under the write lock."""
    batch: dict[str, ContentFacts] = {}
    characters = 0
    for queue_id, one in facts.items():
        if len(batch) == _INDEX_MESSAGES or (batch and characters > _INDEX_CHARACTERS):
            yield batch
            batch, characters = {}, 0
        batch[queue_id] = one
        characters += len(one.words)
    if batch:
        yield batch
