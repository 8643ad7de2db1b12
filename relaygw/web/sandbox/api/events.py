"""`/api/events`: what happens in the sandbox over a websocket, in Mailpit's words.

`new` carries the message as a list has it, `update` what was marked, `delete` an id that is
gone, `stats` how many there are. Only the newest messages are watched.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass

from starlette.websockets import WebSocket, WebSocketDisconnect

from relaygw import __version__
from relaygw.errors import StoreUnavailable
from relaygw.mail.search import EVERYTHING
from relaygw.store.sandbox import CapturedEntry
from relaygw.web.context import WebContext
from relaygw.web.sandbox.api.message_json import Json, summary_json
from relaygw.web.sandbox.captured import Arrivals

MAX_SOCKETS = 20
WATCHED = 200
"""Messages; of more that come between two looks the first ones are not told."""
_RECHECK_S = 5.0
_LOOKS = 3
_GOING_AWAY = 1001  # RFC 6455, section 7.4.1
_TRY_AGAIN_LATER = 1013  # of the registry that RFC 6455 began


@dataclass(frozen=True, slots=True)
class _Look:
    """The newest messages, newest first, and how many there are, and are unread, of all."""

    entries: dict[str, CapturedEntry]
    counts: tuple[int, int]


class Live:
    """The endpoint."""

    def __init__(self, web: WebContext, arrivals: Arrivals) -> None:
        self._web = web
        self._arrivals = arrivals
        self._open = 0

    async def show(self, socket: WebSocket) -> None:
        """Send events until the client goes or the role stops."""
        if self._open >= MAX_SOCKETS:
            await socket.accept()
            await socket.close(_TRY_AGAIN_LATER)
            return
        self._open += 1
        try:
            # before the client knows that it is heard: what comes from then on is new to it
            seen = await self._web.read(self._look)
            await socket.accept()
            await self._serve(socket, seen)
        finally:
            self._open -= 1

    async def _serve(self, socket: WebSocket, seen: _Look) -> None:
        telling = asyncio.create_task(self._tell(socket, seen))
        try:
            while (await socket.receive())["type"] != "websocket.disconnect":
                pass  # clients of Mailpit say nothing
        finally:
            telling.cancel()
            with contextlib.suppress(asyncio.CancelledError, WebSocketDisconnect, RuntimeError):
                await telling

    async def _tell(self, socket: WebSocket, seen: _Look) -> None:
        while not self._arrivals.stop.is_set():
            version = self._arrivals.version
            with contextlib.suppress(StoreUnavailable):  # the next look may do
                now = await self._web.read(self._look)
                for event in _events(seen, now):
                    await socket.send_json(event)
                seen = now
            await self._arrivals.after(version, timeout_s=_RECHECK_S)
        await socket.close(_GOING_AWAY)

    def _look(self) -> _Look:
        for _ in range(_LOOKS):
            self._web.indexer.catch_up()
            counts = self._web.store.sandbox.count_captured(EVERYTHING)
            found = self._web.store.sandbox.find_captured(EVERYTHING, start=0, limit=WATCHED)
            if all(one.facts is not None for one in found):
                break
        # what came at this moment is told by the next look, with what its content says
        return _Look({one.entry.queue_id: one for one in found if one.facts is not None}, counts)


def _events(seen: _Look, now: _Look) -> list[Json]:
    """Return what happened between two looks, in its order."""
    # what a full list does not show any more may only have been pushed down
    gone = [one for one in _missing(seen, now) if _order(seen.entries[one]) >= _end(now)]
    # and what a list shows then may be old, moved up because others went
    added = [one for one in _missing(now, seen) if _order(now.entries[one]) >= _end(seen)]
    events = [{"Type": "new", "Data": summary_json(now.entries[one])} for one in reversed(added)]
    events += [
        {"Type": "update", "Data": _marks(one)}
        for queue_id, one in now.entries.items()
        if queue_id in seen.entries and _marks(one) != _marks(seen.entries[queue_id])
    ]
    events += [{"Type": "delete", "Data": {"ID": queue_id}} for queue_id in gone]
    if seen.counts != now.counts:
        total, unread = now.counts
        version = f"relaygw {__version__}"
        data = {"Total": total, "Unread": unread, "Version": version}
        events.append({"Type": "stats", "Data": data})
    return events


def _missing(here: _Look, there: _Look) -> list[str]:
    return [queue_id for queue_id in here.entries if queue_id not in there.entries]


def _order(found: CapturedEntry) -> tuple[int, str]:
    return found.entry.captured_at_ms or 0, found.entry.queue_id


def _end(look: _Look) -> tuple[int, str]:
    """Return where a full list ends; one that is not full has all there is."""
    is_full = len(look.entries) == WATCHED
    return _order(next(reversed(look.entries.values()))) if is_full else (0, "")


def _marks(found: CapturedEntry) -> Json:
    return {
        "ID": found.entry.queue_id,
        "Read": found.entry.read_at_ms is not None,
        "Tags": list(found.tags),
    }
