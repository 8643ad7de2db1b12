"""Searches over all mail in every state, newest first, and the words that they look at.

Rare outcomes and open deliveries have indexes of their own. Words are looked for among the newest
messages first, by reading: what is frequent is found there, and what is not is what an index is
good for. Where nothing is found, or the next page is asked for, newer mail is read for parts inside
of words. Each step looks at slices, so that its time is bounded: what is left is on the next page.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import exists, func, select, text
from sqlalchemy.sql.elements import ColumnElement

from relaygw.mail.queue_id import CLOCKS_MS, first_id_at, time_of_id
from relaygw.mail.result import ASKED
from relaygw.mail.search import WITH_WORDS, Field, MailSearch
from relaygw.store import find_terms
from relaygw.store.batches import rows_in
from relaygw.store.database import Repository, Statement, Transaction, Write
from relaygw.store.find_index import (
    FULL_TEXT,
    read_links,
    read_words,
    take_older,
    take_todo,
    write_links,
)
from relaygw.store.find_words import words_in
from relaygw.store.queue_entry import QueueEntry, entries_by_id
from relaygw.store.queue_tables import delivery, mail_search, message
from relaygw.store.terms import ALL_TIMES
from relaygw.store.walk import (
    Key,
    NoPlace,
    Walk,
    captured,
    ended_by_time,
    greatest,
    newest,
    read_place,
)

__all__ = ["Find", "FindProgress", "Found", "NoPlace"]

PATIENCE_S = 1.0  # a search looks at more for so long, then it says how far it came
READ_INSIDE = 100_000  # newest messages that are read for parts inside of words
_NEWEST = 20_000  # messages whose words are read before the index is asked
_FREQUENT = 50  # of these: the index is of no use
_UNWRITTEN = 2_000  # messages whose words are not written yet, and are looked at themselves
_FIRST_SLICE, _SLICE = 1_000, 16_000
_MERGE_STEPS = 4

_S, _M, _D = mail_search.c, message.c, delivery.c
_UNWRITTEN_IDS = Statement(
    "SELECT queue_id FROM search_todo WHERE since_ms > 0 ORDER BY todo_no DESC LIMIT {?}"
)
_COUNT_TODO = Statement("SELECT count(*) FROM (SELECT 1 FROM search_todo LIMIT {?}) AS waiting")
_BEFORE = Statement("SELECT before_id FROM search_backfill")
_HAS_TODO = Statement("SELECT 1 FROM search_todo LIMIT 1")
# the planner knows nothing of slices, and would read whole tables
_PLAN = "SET LOCAL enable_seqscan = off; SET LOCAL enable_hashjoin = off;"
_PLAN += " SET LOCAL enable_mergejoin = off"


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A page of what a search finds.

    `next` is the `before` of the next page, "" when there is none. `read_inside`: so many of the
    newest messages were read for parts inside of words; 0: all, or that was not needed. `until_ms`:
    time was up, what was accepted before that was not looked at; the next page begins there.
    """

    entries: tuple[QueueEntry, ...]
    next: str = ""
    read_inside: int = 0
    until_ms: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FindProgress:
    """How far the words of mail are written; what waits is looked at itself, if it is not much."""

    waiting: int  # messages that are new or changed; MOST_WAITING for more
    older_than_ms: int | None  # words of mail accepted before are not written yet; None: all are


MOST_WAITING = 10_000


class Find(Repository):
    """One search over all mail."""

    def find(self, search: MailSearch, *, limit: int, before: str = "") -> Found:
        """Return matching messages, newest first; raises NoPlace for another `before`.

        Times of a search for an outcome are those of the outcome, else those of acceptance.
        """
        step, key = read_place(before)
        with self._read() as tx:
            if tx.is_postgres:
                tx.execute(text(_PLAN))
            looking = _Looking(tx, search, limit)
            looking.run(step, key)
            entries = entries_by_id(tx, looking.ids)
            until_ms = time_of_id(looking.until) if looking.until else None
        inside = looking.read_inside
        found = tuple(entries[queue_id] for queue_id in looking.ids if queue_id in entries)
        return Found(entries=found, next=looking.next, read_inside=inside, until_ms=until_ms)

    def index_batch(self, *, limit: int, link_header: str | None = None) -> int:
        """Write the words of messages, of new and changed ones first; return how many were taken.

        Then read `link_header` of what was accepted before it was set. Less than `limit`: nothing
        more waits for now. Several transactions, not synced by themselves; safe beside others who
        do the same.
        """
        done = self._write_words(limit)
        if done >= limit or not link_header:
            return done
        with self._read() as tx:
            looked, values, next_id = read_links(tx, link_header, limit=limit - done)
        if looked:
            with self._write(Write.UNSYNCED) as tx:
                write_links(tx, link_header, values, next_id)
        return done + looked

    def _write_words(self, limit: int) -> int:
        with self._read() as tx:
            has_older = bool(_BEFORE.fetch(tx))
            if not (has_older or _HAS_TODO.fetch(tx)):
                return 0
        with self._write(Write.UNSYNCED) as tx:
            done = take_todo(tx, limit=limit)
            has_to_merge = FULL_TEXT.is_there(tx)
        if has_older and done < limit:
            with self._write(Write.UNSYNCED) as tx:
                done += take_older(tx, limit=limit - done)
        for _ in range(_MERGE_STEPS if done and has_to_merge else 0):
            with self._write(Write.UNSYNCED) as tx:
                if not FULL_TEXT.merge(tx):
                    break
        return done

    def progress(self) -> FindProgress:
        """Return how far the words are written."""
        with self._read() as tx:
            waiting = int(_COUNT_TODO.fetch(tx, MOST_WAITING)[0][0])
            before = _BEFORE.fetch(tx)
            if not before:
                return FindProgress(waiting=waiting, older_than_ms=None)
            at_ms = time_of_id(before[0][0]) or tx.now_ms()
            return FindProgress(waiting=waiting, older_than_ms=min(at_ms, tx.now_ms()))


class _Looking:
    """One search under way: what was found so far, and where the next page begins."""

    def __init__(self, tx: Transaction, search: MailSearch, limit: int) -> None:
        self._tx = tx
        self._search = search
        self._limit = limit
        self._span = find_terms.span_of(tx, search)
        self._words = words_in(search)
        # one whole word, which is rare: nothing is to be read beside the index
        with_words = [term.field for term in search.terms if term.field in WITH_WORDS]
        self._is_of_order = with_words == [Field.ORDER]
        self._outcome = find_terms.outcome_of(search)
        self._conditions = find_terms.conditions(tx, search, self._span)
        self._until_s = time.monotonic() + PATIENCE_S
        since_ms = None if self._outcome else self._span.since_ms
        # what an id tells: older mail is not looked for
        self._oldest = "" if since_ms is None else first_id_at(since_ms - CLOCKS_MS)
        self._seen: set[str] = set()
        self._key: Key | None = None  # where the last walk ended, None: at its end
        self.ids: list[str] = []
        self.next = ""
        self.until = ""  # the id at which time was up
        self.read_inside = 0

    def run(self, step: str, key: Key | None) -> None:
        """Take the steps from one on, until a page is full or time is up."""
        if self._search.is_void:
            return
        if self._words and step in ("", "unwritten"):
            if not self._look_at_unwritten(key):
                return
            step, key = "", None
        walk = self._walk_beside_words()
        if walk is None:
            self._run_in_words(step, key)
        else:
            self._go(walk, key, [self._has_words()] if self._words else [])

    def _walk_beside_words(self) -> Walk | None:
        """Return the walk that leads to the fewest messages, None: their words do."""
        open_ones = find_terms.open_states(self._search)
        if self._outcome and self._outcome in find_terms.RARE:
            return ended_by_time(ASKED[self._outcome], self._span)
        if open_ones is not None:
            return Walk(delivery, (_D.queue_id,), _D.queue_id, open_ones, "open")
        if self._words.wanted:
            return None
        if find_terms.is_of_captured(self._search):
            return captured(self._span if self._outcome else ALL_TIMES)
        until_ms = self._span.until_ms
        where = [] if until_ms is None else [_M.queue_id < first_id_at(until_ms + CLOCKS_MS)]
        return Walk(message, (_M.queue_id,), _M.queue_id, where, "newest")

    def _has_words(self) -> ColumnElement[bool]:
        """Return the condition on `message` that its words are so, inside of words too."""
        is_its = _S.queue_id == _M.queue_id
        holds = self._words.stand_in_sql(self._tx, _S.words)
        if self._words.wanted:
            return exists().where(is_its, holds)
        return ~exists().where(is_its, ~holds)

    def _look_at_unwritten(self, key: Key | None) -> bool:
        """Look at the newest messages themselves; True when there are no more of them."""
        waiting = {waiting_id for (waiting_id,) in _UNWRITTEN_IDS.fetch(self._tx, _UNWRITTEN)}
        words = read_words(self._tx, waiting)
        found = [found_id for found_id, its in words.items() if self._words.stand_in(its)]
        if self._conditions:
            query = select(_M.queue_id).where(*self._conditions)
            found = sorted(found_id for (found_id,) in rows_in(self._tx, query, _M.queue_id, found))
        self._seen = waiting
        for queue_id in reversed(found):
            if key is not None and queue_id >= str(key[0]):
                continue
            if len(self.ids) == self._limit:
                self.next = f"unwritten.{self.ids[-1]}"
                return False
            self.ids.append(queue_id)
        return True

    # --- by words ------------------------------------------------------------------------

    def _run_in_words(self, step: str, key: Key | None) -> None:
        begins = self._words.begin_in(self._tx, _S.words)
        if self._is_of_order and self._has_index():
            self._take(self._walk_of_index(), key, None, [begins])
            return
        if step in ("", "words"):
            if not self._go(newest("words"), key, [begins], most=_NEWEST):
                return
            step, key = "inside", None
            if self._key is not None:
                step, key = ("read" if self._is_frequent() else "index"), self._key
        if step == "index":
            if not self._take(self._walk_of_index(), key, None, [begins]):
                return
            step, key = "inside", None
        if step == "read":
            if not self._go(newest("read"), key, [begins]):
                return
            step, key = "inside", None
        inside = self._words.stand_inside(self._tx, _S.words)
        if self.ids and key is None:  # who wants more asks for it: this takes the most time
            self.next = "inside"
            return
        is_near = _S.search_no > greatest(self._tx) - READ_INSIDE
        self._go(newest("inside", [is_near]), key, [inside], is_extra=True)

    def _is_frequent(self) -> bool:
        """True when an index would find too many messages to be of use; after a look at some."""
        if not self._has_index():
            return True
        if not self._conditions:
            return len(self.ids) >= _FREQUENT
        holds = self._words.begin_in(self._tx, _S.words)
        some = newest("words").rows(None, self._key).where(holds).limit(_FREQUENT).subquery()
        return self._tx.execute(select(func.count()).select_from(some)).scalar_one() >= _FREQUENT

    def _has_index(self) -> bool:
        return self._tx.is_postgres or FULL_TEXT.is_there(self._tx)

    def _walk_of_index(self) -> Walk:
        if not self._tx.is_postgres:
            source = FULL_TEXT.table.join(mail_search, _S.search_no == FULL_TEXT.rowid)
            found = FULL_TEXT.matches(self._words.for_fts5())
            return Walk(source, (FULL_TEXT.rowid,), _S.queue_id, [found], "index")
        is_there = text("mail_search.words::tsvector @@ CAST(:wanted AS tsquery)")
        where = [is_there.bindparams(wanted=self._words.for_postgres())]
        # a sum, so that nobody goes through all rows in the order of their numbers
        return Walk(mail_search, (_S.search_no + 0,), _S.queue_id, where, "index")

    # --- slices --------------------------------------------------------------------------

    def _go(
        self,
        walk: Walk,
        key: Key | None,
        holds: Sequence[ColumnElement[bool]] = (),
        *,
        most: int = sys.maxsize,
        is_extra: bool = False,
    ) -> bool:
        """Look at slices; False when a page is full or time is up, and the next one begins here.

        `is_extra`: what takes too long is left alone.
        """
        size, looked = _FIRST_SLICE, 0
        while looked < most:
            size = min(size, most - looked)
            before, end = key, walk.end(self._tx, key, size)
            last = None if end is None else end[0]
            looked += size
            self.read_inside = min(looked, READ_INSIDE) if is_extra else 0
            if not self._take(walk, key, last, holds):
                return False
            if end is None or (end[1] < self._oldest and self._is_over(walk, before, last)):
                self._key = None
                if looked < READ_INSIDE:
                    self.read_inside = 0
                return True
            key, size = last, min(size * 4, _SLICE)
            if time.monotonic() > self._until_s:
                if not is_extra:
                    self.next, self.until = walk.place(key), end[1]
                return is_extra
        self._key = key
        return True

    def _is_over(self, walk: Walk, key: Key | None, last: Key | None) -> bool:
        """True when a slice is of older mail alone; words of old mail may be newer than it."""
        if walk.source is not mail_search:
            return True
        ids = walk.rows(key, last).with_only_columns(func.max(_S.queue_id)).order_by(None)
        return (self._tx.execute(ids).scalar() or "") < self._oldest

    def _take(
        self, walk: Walk, key: Key | None, last: Key | None, holds: Sequence[ColumnElement[bool]]
    ) -> bool:
        """Add matching rows of a slice; False when the page is full and there is more."""
        while True:
            room = self._limit - len(self.ids) + 1
            query = walk.rows(key, last).where(*holds, *self._conditions)
            if walk.source is not message:
                query = query.where(_M.queue_id == walk.queue_id)
            found = self._tx.execute(query.limit(room)).all()
            for *here, queue_id in found:
                if queue_id not in self._seen:
                    if len(self.ids) == self._limit:
                        self.next = walk.place(key)
                        return False
                    self._seen.add(queue_id)
                    self.ids.append(queue_id)
                key = tuple(here)
            if len(found) < room:  # else some were known, and there may be more
                return True
