"""Captured mail as pages and API find it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

from starlette.exceptions import HTTPException
from starlette.requests import Request

from relaygw.mail.search import Field, MailSearch, Term, parse_search
from relaygw.store.sandbox import CapturedEntry
from relaygw.web.context import WebContext, is_queue_id

MAX_TAGS = 20  # of a message
MAX_TAG_CHARACTERS = 100


def captured_of(web: WebContext, request: Request) -> CapturedEntry:
    """Return the captured message that the path names; raises 404 if there is none."""
    queue_id = request.path_params["queue_id"]
    found = web.store.sandbox.captured_entry(queue_id) if is_queue_id(queue_id) else None
    if found is None:
        raise HTTPException(404)
    return found


def read_search(query: str) -> MailSearch:
    """Return what a search box asks for; its dates are of this machine's time zone."""
    return parse_search(query, tz=datetime.now().astimezone().tzinfo or UTC)


def before(search: MailSearch, at_ms: int) -> MailSearch:
    """Return a search for what of it was captured up to a time."""
    until = Term(field=Field.BEFORE, number=at_ms)
    return MailSearch(terms=(*search.terms, until), is_void=search.is_void)


def captured_batches(web: WebContext, search: MailSearch, *, limit: int) -> Iterator[list[str]]:
    """Yield the ids of what a search finds, oldest first, `limit` at a time."""
    after = ""
    while found := web.store.sandbox.captured_ids(search, limit=limit, after=after):
        yield found
        if len(found) < limit:
            return
        after = found[-1]
