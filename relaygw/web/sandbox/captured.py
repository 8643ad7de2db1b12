"""Captured mail as pages and API find it, and how they notice that it has changed."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from datetime import UTC, datetime

from starlette.exceptions import HTTPException
from starlette.requests import Request

from relaygw.errors import StoreUnavailable
from relaygw.mail.search import EVERYTHING, Field, MailSearch, Term, parse_search
from relaygw.store.sandbox import CapturedEntry
from relaygw.web.context import WebContext, is_queue_id

LOOK_S = 0.2
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


class Arrivals:
    """Wakes those who wait for something to come, to go or to be read; `stop` ends all waits.

    The store is looked at five times a second, only while somebody waits, and once for all.
    """

    def __init__(self, web: WebContext, *, stop: asyncio.Event | None = None) -> None:
        self.stop = stop or asyncio.Event()
        self.version = 0  # another one after each change
        self._web = web
        self._seen: tuple[str | int, ...] | None = None
        self._changed = asyncio.Event()
        self._waiting = 0
        self._watching: asyncio.Task[None] | None = None

    async def after(self, version: int, *, timeout_s: float) -> None:
        """Wait for a change after `version` (read before a look), for the stop, or so long."""
        self._waiting += 1
        try:
            if self._watching is None or self._watching.done():
                self._watching = asyncio.create_task(self._watch(), name="sandbox arrivals")
            if self.version == version and not self.stop.is_set():
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(timeout_s):
                        await self._changed.wait()
        finally:
            self._waiting -= 1

    async def _watch(self) -> None:
        while self._waiting and not self.stop.is_set():
            with contextlib.suppress(StoreUnavailable):  # the next look may do
                if await self._web.read(self._look):
                    self._tell()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.stop.wait(), LOOK_S)
        self._tell()

    def _tell(self) -> None:
        self.version += 1
        self._changed.set()
        self._changed = asyncio.Event()

    def _look(self) -> bool:
        """Return whether something changed; while content is still being read it does."""
        is_all_read = self._web.indexer.catch_up()
        newest = self._web.store.sandbox.captured_entry(None)
        counts = self._web.store.sandbox.count_captured(EVERYTHING)
        before, self._seen = self._seen, (newest.entry.queue_id if newest else "", *counts)
        return self._seen != before or not is_all_read
