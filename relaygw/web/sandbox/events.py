"""Live lists by server-sent events: new mail, what is gone, what was read.

The store is looked at five times a second, and only while somebody listens; one look serves all
listeners, and all with the same search share one more. Each event carries the lines to put in
as HTML. A browser that lost its connection says which message it saw last and gets what is newer.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from relaygw.errors import StoreUnavailable
from relaygw.mail.search import EVERYTHING
from relaygw.web.context import Desk
from relaygw.web.sandbox.changes import Change, Snapshot, difference, event_text, since, state_of
from relaygw.web.sandbox.inbox import PAGE_ROWS, query_of

LOOK_S = 0.2
SIGN_OF_LIFE_S = 15.0
LISTENING_S = 600.0
"""After that a page has to come again, and so has a login that still holds."""
MAX_LISTENERS = 100

_WAITING_EVENTS = 50  # of a listener that does not read; then it has to come back


@dataclass(eq=False, slots=True)
class Listener:
    """One open page; None in the queue ends it."""

    query: str
    root_path: str
    events: asyncio.Queue[str | None] = field(
        default_factory=lambda: asyncio.Queue(_WAITING_EVENTS)
    )

    def event(self, change: Change, snapshot: Snapshot) -> str:
        """Return a change as this page is told of it."""
        return event_text(change, snapshot, query=self.query, root_path=self.root_path)

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

    def __init__(self, desk: Desk, *, stop: asyncio.Event | None = None) -> None:
        self._desk = desk
        self._stop = stop or asyncio.Event()
        self._listeners: set[Listener] = set()
        self._seen: dict[str, Snapshot] = {}  # by search
        self._watching: asyncio.Task[None] | None = None
        self._mark: tuple[str, tuple[int, int]] | None = None  # of the look before

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
        snapshot = await self._desk.read(lambda: self._snapshot(listener.query))
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
        while self._listeners and not self._stop.is_set():
            with contextlib.suppress(StoreUnavailable):  # the next look may do
                await self._look()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stop.wait(), LOOK_S)
        for listener in self._listeners:
            listener.send(None)

    async def _look(self) -> None:
        seen = dict(self._seen)
        for query, new in (await self._desk.read(lambda: self._changed(seen))).items():
            change = difference(seen[query], new)
            if query in self._seen:
                self._seen[query] = new
            for listener in list(self._listeners):
                if listener.query == query:
                    listener.send(listener.event(change, new))

    def _changed(self, seen: dict[str, Snapshot]) -> dict[str, Snapshot]:
        """Return the searches for which there is something new."""
        self._desk.indexer.catch_up(within_s=LOOK_S)
        store = self._desk.store
        now_all = store.count_captured(EVERYTHING)
        newest = store.captured_entry(None)
        mark = (newest.entry.queue_id if newest else "", now_all)
        if mark == self._mark:
            return {}
        self._mark = mark
        found = {query: self._snapshot(query) for query in seen}
        return {
            query: new for query, new in found.items() if state_of(new) != state_of(seen[query])
        }

    def _snapshot(self, query: str) -> Snapshot:
        self._desk.indexer.catch_up(within_s=LOOK_S)
        store, search = self._desk.store, self._desk.search(query)
        entries = tuple(store.find_captured(search, start=0, limit=PAGE_ROWS))
        total = store.count_captured(EVERYTHING)
        return Snapshot(
            entries, total if search == EVERYTHING else store.count_captured(search), total
        )
