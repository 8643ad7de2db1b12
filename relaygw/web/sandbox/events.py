"""Live lists by server-sent events: new mail, what is gone, what was read.

One look at the store serves all listeners, and all with the same search share one more. Each
event carries the lines to put in as HTML. A browser that lost its connection says which message
it saw last and gets what is newer.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from relaygw.errors import StoreUnavailable
from relaygw.mail.clock import clock_ms
from relaygw.mail.search import EVERYTHING
from relaygw.store.sandbox import CapturedEntry
from relaygw.web.context import WebContext
from relaygw.web.inbox import PAGE_ROWS
from relaygw.web.page import render_text
from relaygw.web.sandbox.captured import LOOK_S, Arrivals, read_search
from relaygw.web.sandbox.inbox import make_row, query_of

SIGN_OF_LIFE_S = 15.0
LISTENING_S = 600.0
"""After that a page has to come again, and so has a login that still holds."""
MAX_LISTENERS = 100
_RECHECK_S = 5.0  # for what nobody is woken by
_WAITING_EVENTS = 50  # of a listener that does not read; then it has to come back


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The newest messages that a search finds, and how many there are."""

    entries: tuple[CapturedEntry, ...] = ()
    found: tuple[int, int] = (0, 0)  # and how many of them are unread
    all: tuple[int, int] = (0, 0)

    @property
    def newest(self) -> str:
        """The id of the first message, "" without one."""
        return self.entries[0].entry.queue_id if self.entries else ""

    @property
    def is_read(self) -> dict[str, bool]:
        """Which of the messages are read, by id."""
        return {one.entry.queue_id: one.entry.read_at_ms is not None for one in self.entries}

    @property
    def shown(self) -> tuple[Any, ...]:
        """What an open page is told of when it changes."""
        return self.all, self.found, self.is_read


@dataclass(frozen=True, slots=True)
class Change:
    """What to do to a list."""

    new: tuple[CapturedEntry, ...] = ()  # newest first
    gone: tuple[str, ...] = ()
    read: dict[str, bool] = field(default_factory=dict)
    is_too_much: bool = False  # load the list again


def since(last: str, snapshot: Snapshot) -> Change:
    """Return what is newer than the last message that a page shows."""
    new = tuple(one for one in snapshot.entries if one.entry.queue_id > last)
    return Change(new=new, is_too_much=len(new) == PAGE_ROWS)


def difference(old: Snapshot, new: Snapshot) -> Change:
    """Return what happened between two looks at one search."""
    before, now = old.is_read, new.is_read
    # what a full list does not show any more may only have been pushed down
    is_full = len(new.entries) == PAGE_ROWS
    oldest = new.entries[-1].entry.queue_id if is_full else ""
    added = tuple(one for one in new.entries if one.entry.queue_id not in before)
    return Change(
        new=added,  # or older, moved up because others went: a page puts them in order
        gone=tuple(one for one in before if one not in now and one >= oldest),
        read={one: state for one, state in now.items() if before.get(one, state) != state},
        is_too_much=len(added) == PAGE_ROWS,
    )


@dataclass(eq=False, slots=True)
class Listener:
    """One open page; None in the queue ends it."""

    query: str
    root_path: str
    events: asyncio.Queue[str | None] = field(
        default_factory=lambda: asyncio.Queue(_WAITING_EVENTS)
    )

    def event(self, change: Change, snapshot: Snapshot) -> str:
        """Return a change as a server-sent event (HTML standard, 9.2).

        Its id is that of the newest message.
        """
        now = clock_ms()
        rows = [
            {"id": one.entry.queue_id, "html": self._row(one, now)}
            for one in (() if change.is_too_much else change.new)
        ]
        told = {
            "total": snapshot.all[0],
            "unread": snapshot.all[1],
            "found": snapshot.found[0],
            "found_unread": snapshot.found[1],
            "rows": rows,
            "gone": change.gone,
            "read": change.read,
            "reload": change.is_too_much,
        }
        return f"event: change\nid: {snapshot.newest}\ndata: {json.dumps(told)}\n\n"

    def _row(self, one: CapturedEntry, now: int) -> str:
        return render_text(self.root_path, "row.html", {"row": make_row(one, self.query, now=now)})

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

    def __init__(self, web: WebContext, arrivals: Arrivals) -> None:
        self._web = web
        self._arrivals = arrivals
        self._listeners: set[Listener] = set()
        self._seen: dict[str, Snapshot] = {}  # by search
        self._watching: asyncio.Task[None] | None = None

    async def show(self, request: Request) -> Response:
        """Answer events until the client hangs up or the role stops."""
        if len(self._listeners) >= MAX_LISTENERS:
            raise HTTPException(503, "too many pages are open", {"Retry-After": "30"})
        listener = Listener(query_of(request), request.scope.get("root_path", ""))
        last = request.headers.get("last-event-id") or request.query_params.get("last", "")
        return StreamingResponse(
            self._stream(listener, last),
            media_type="text/event-stream",
            headers={"X-Accel-Buffering": "no"},
        )

    async def _stream(self, listener: Listener, last: str) -> AsyncIterator[str]:
        snapshot = await self._web.read(lambda: self._snapshot(listener.query))
        self._join(listener, snapshot)
        until_s = time.monotonic() + LISTENING_S
        try:
            yield "retry: 1000\n\n"
            yield listener.event(since(last, snapshot), snapshot)
            while time.monotonic() < until_s:
                event: str | None = ":\n\n"  # a comment: is anybody there?
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(SIGN_OF_LIFE_S):
                        event = await listener.events.get()
                if event is None:
                    return
                yield event
            yield "event: again\ndata: {}\n\n"
        finally:
            self._leave(listener)

    def _join(self, listener: Listener, snapshot: Snapshot) -> None:
        self._listeners.add(listener)
        self._seen.setdefault(listener.query, snapshot)
        if self._watching is None or self._watching.done():
            self._watching = asyncio.create_task(self._watch(), name="sandbox events")

    def _leave(self, listener: Listener) -> None:
        self._listeners.discard(listener)
        if all(one.query != listener.query for one in self._listeners):
            self._seen.pop(listener.query, None)

    async def _watch(self) -> None:
        """Look until nobody listens any more or the role stops."""
        while self._listeners and not self._arrivals.stop.is_set():
            version = self._arrivals.version
            with contextlib.suppress(StoreUnavailable):  # the next look may do
                await self._look()
            await self._arrivals.after(version, timeout_s=_RECHECK_S)
        for listener in self._listeners:
            listener.send(None)

    async def _look(self) -> None:
        seen = dict(self._seen)
        for query, new in (await self._web.read(lambda: self._changed(seen))).items():
            change = difference(seen[query], new)
            if query in self._seen:
                self._seen[query] = new
            for listener in list(self._listeners):
                if listener.query == query:
                    listener.send(listener.event(change, new))

    def _changed(self, seen: dict[str, Snapshot]) -> dict[str, Snapshot]:
        """Return the searches for which there is something new."""
        found = {query: self._snapshot(query) for query in seen}
        return {query: new for query, new in found.items() if new.shown != seen[query].shown}

    def _snapshot(self, query: str) -> Snapshot:
        self._web.indexer.catch_up(within_s=LOOK_S)
        store, search = self._web.store, read_search(query)
        entries = tuple(store.sandbox.find_captured(search, start=0, limit=PAGE_ROWS))
        total = store.sandbox.count_captured(EVERYTHING)
        return Snapshot(
            entries, total if search == EVERYTHING else store.sandbox.count_captured(search), total
        )
