"""Which messages a form is about: those that were ticked, or all that a search finds.

All that a search finds ends at the newest message that there was when somebody looked, so that
nothing is deleted or released that nobody has seen.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from starlette.datastructures import FormData

from relaygw.mail.search import Field, MailSearch, Term
from relaygw.web.context import Desk, is_queue_id
from relaygw.web.sandbox.filters import MAX_QUERY_CHARACTERS

BATCH_IDS = 500
MAX_TICKED = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """Ticked messages, or, without any, those found by `query` up to the id `until`."""

    ids: tuple[str, ...]
    query: str
    until: str

    @property
    def is_search(self) -> bool:
        """True for all that the search finds."""
        return not self.ids and bool(self.until)

    @property
    def is_empty(self) -> bool:
        """True when nothing was ticked and no search is meant."""
        return not self.ids and not self.until

    def words(self) -> str:
        """Return what was chosen, for the audit trail."""
        if not self.is_search:
            return "web"
        return f"web, search: {self.query}" if self.query else "web, all messages"

    def batches(self, desk: Desk) -> Iterator[list[str]]:
        """Yield the ids of the messages, some at a time, oldest first."""
        if not self.is_search:
            yield list(self.ids)  # none, if nothing was ticked
            return
        search = desk.search(self.query)
        after = ""
        while True:
            found = desk.store.captured_ids(search, limit=BATCH_IDS, after=after)
            batch = [queue_id for queue_id in found if queue_id <= self.until]
            if batch:
                yield batch
            if len(batch) < BATCH_IDS:
                return
            after = batch[-1]

    def count(self, desk: Desk) -> int:
        """Return how many messages these are."""
        if not self.is_search:
            return len(self.ids)
        desk.indexer.catch_up()
        newest = desk.store.captured_entry(self.until)
        search = desk.search(self.query)
        if newest is not None and newest.entry.captured_at_ms is not None:
            until = Term(field=Field.BEFORE, number=newest.entry.captured_at_ms)
            search = MailSearch(terms=(*search.terms, until), is_void=search.is_void)
        return desk.store.count_captured(search)[0]


def read_choice(form: FormData) -> Choice:
    """Return what a form is about: the boxes, or by `all` or `scope` what the search finds."""
    is_search = "all" in form or form.get("scope") == "found"
    given = [] if is_search else [str(value) for value in form.getlist("id")]
    ids = [queue_id for queue_id in given if is_queue_id(queue_id)]
    query = " ".join(str(form.get("query", ""))[:MAX_QUERY_CHARACTERS].split())
    until = str(form.get("until", ""))
    return Choice(
        ids=tuple(dict.fromkeys(ids))[:MAX_TICKED],
        query=query,
        until=until if is_queue_id(until) else "",
    )
