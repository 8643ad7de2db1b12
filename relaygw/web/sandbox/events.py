"""Live lists by server-sent events; one look at the store serves all with the same search.

A browser that lost its connection says which message it saw last and gets what is newer.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from relaygw.errors import StoreUnavailable
from relaygw.mail.search import EVERYTHING
from relaygw.store.sandbox import CapturedEntry
from relaygw.web.arrivals import ARRIVAL_LOOK_S
from relaygw.web.context import WebContext
from relaygw.web.gate.identity import is_still_in
from relaygw.web.lists import PAGE_ROWS
from relaygw.web.page import render_text
from relaygw.web.sandbox.captured import read_search
from relaygw.web.sandbox.inbox import make_row, query_of

SIGN_OF_LIFE_S = 5.0  # and a session that has ended is seen so soon
LISTENING_S = 600.0  # after that a page has to come again, and so has a login that still holds
MAX_LISTENERS = 100
_RECHECK_S = 5.0  # for what nobody is woken by
_WAITING_EVENTS = 50  # of a listener that does not read; then it has to come back


@dataclass(frozen=True, slots=True)
class _Look:
    """The newest messages that a search finds, and how many there are, and are unread."""

    entries: tuple[CapturedEntry, ...]
    found: tuple[int, int]
    all: tuple[int, int]

    @property
    def is_read(self) -> dict[str, bool]:
        return {entry.entry.queue_id: entry.entry.read_at_ms is not None for entry in self.entries}


@dataclass(frozen=True, slots=True)
class _Change:
    """What to do to a list."""

    new: tuple[CapturedEntry, ...]  # newest first
    gone: tuple[str, ...] = ()
    read: dict[str, bool] = field(default_factory=dict)


def _difference(old: _Look, new: _Look) -> _Change | None:
    """Return the difference between two looks at one search, None if there is none."""
    before, now = old.is_read, new.is_read
    if (before, old.found, old.all) == (now, new.found, new.all):
        return None
    # what a full list does not show any more may only have been pushed down
    oldest = new.entries[-1].entry.queue_id if len(new.entries) == PAGE_ROWS else ""
    return _Change(
        # or older, moved up because others went: a page puts them in order
        new=tuple(entry for entry in new.entries if entry.entry.queue_id not in before),
        gone=tuple(queue_id for queue_id in before if queue_id not in now and queue_id >= oldest),
        read={
            queue_id: state
            for queue_id, state in now.items()
            if before.get(queue_id, state) != state
        },
    )


@dataclass(eq=False, slots=True)
class _Listener:
    """One open page; None in the queue ends it."""

    query: str
    root_path: str
    mode: str
    events: asyncio.Queue[str | None] = field(
        default_factory=lambda: asyncio.Queue(_WAITING_EVENTS)
    )

    def event(self, change: _Change, look: _Look) -> str:
        """Return a change as an event (HTML standard, 9.2) with the id of the newest message."""
        is_too_much = len(change.new) == PAGE_ROWS  # the page loads the list again
        rows = []
        for mail in () if is_too_much else change.new:
            row = {"row": make_row(mail, self.query, self.mode)}
            html = render_text(self.root_path, "row.html", row)
            rows.append({"id": mail.entry.queue_id, "html": html})
        told = {
            "total": look.all[0],
            "unread": look.all[1],
            "found": look.found[0],
            "found_unread": look.found[1],
            "rows": rows,
            "gone": change.gone,
            "read": change.read,
            "reload": is_too_much,
        }
        newest = look.entries[0].entry.queue_id if look.entries else ""
        return f"event: change\nid: {newest}\ndata: {json.dumps(told)}\n\n"

    def send(self, event: str | None) -> None:
        """Hand on an event; one that is too far behind is sent away, and comes back."""
        try:
            self.events.put_nowait(event)
        except asyncio.QueueFull:
            while not self.events.empty():
                self.events.get_nowait()
            self.events.put_nowait(None)


class Events:
    """The endpoint, and the one task that looks while there are listeners."""

    def __init__(self, web: WebContext) -> None:
        self._web = web
        self._listeners: set[_Listener] = set()
        self._seen: dict[str, _Look] = {}  # by search
        self._watching: asyncio.Task[None] | None = None

    async def show(self, request: Request) -> Response:
        """Answer events until the client hangs up or the role stops."""
        if len(self._listeners) >= MAX_LISTENERS:
            raise HTTPException(503, "too many pages are open", {"Retry-After": "30"})
        root_path = request.scope.get("root_path", "")
        listener = _Listener(query_of(request.query_params), root_path, self._web.mode)
        last = request.headers.get("last-event-id") or request.query_params.get("last", "")
        events, headers = self._stream(request, listener, last), {"X-Accel-Buffering": "no"}
        return StreamingResponse(events, media_type="text/event-stream", headers=headers)

    async def _stream(self, request: Request, listener: _Listener, last: str) -> AsyncIterator[str]:
        look = await self._web.read(lambda: self._look(listener.query))
        self._listeners.add(listener)
        self._seen.setdefault(listener.query, look)
        if self._watching is None or self._watching.done():
            self._watching = asyncio.create_task(self._watch(), name="sandbox events")
        until_s = time.monotonic() + LISTENING_S
        try:
            yield "retry: 1000\n\n"
            newer = tuple(entry for entry in look.entries if entry.entry.queue_id > last)
            yield listener.event(_Change(newer), look)
            while time.monotonic() < until_s:
                event: str | None = ":\n\n"  # a comment: is anybody there?
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(SIGN_OF_LIFE_S):
                        event = await listener.events.get()
                if event is None:
                    return
                if not await is_still_in(request):
                    yield "event: out\ndata: {}\n\n"
                    return
                yield event
            yield "event: again\ndata: {}\n\n"
        finally:
            self._listeners.discard(listener)
            if all(other.query != listener.query for other in self._listeners):
                self._seen.pop(listener.query, None)

    async def _watch(self) -> None:
        while self._listeners and not self._web.arrivals.stop.is_set():
            version = self._web.arrivals.version
            with contextlib.suppress(StoreUnavailable):  # the next look may do
                await self._look_and_tell()
            await self._web.arrivals.after(version, timeout_s=_RECHECK_S)
        for listener in self._listeners:
            listener.send(None)

    async def _look_and_tell(self) -> None:
        seen = dict(self._seen)
        looks = await self._web.read(lambda: {query: self._look(query) for query in seen})
        for query, new in looks.items():
            change = _difference(seen[query], new)
            if change is None:
                continue
            if query in self._seen:
                self._seen[query] = new
            for listener in self._listeners:
                if listener.query == query:
                    listener.send(listener.event(change, new))

    def _look(self, query: str) -> _Look:
        self._web.indexer.catch_up(within_s=ARRIVAL_LOOK_S)
        sandbox, search = self._web.store.sandbox, read_search(query)
        entries = tuple(sandbox.find_captured(search, start=0, limit=PAGE_ROWS))
        total = sandbox.count_captured(EVERYTHING)
        found = total if search == EVERYTHING else sandbox.count_captured(search)
        return _Look(entries, found, total)
