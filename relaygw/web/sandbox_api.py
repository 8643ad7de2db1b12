"""Captured mail under /api/v1, in the form of Mailpit's API; so far for reading only.

Opening a message does not mark it read, and other methods get 405. Errors are plain text, as
there: 400 for bad parameters, 404 for what is not in the sandbox. The store is read and
content parsed in threads, few at a time: a parse holds the whole message in memory.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from itertools import chain
from typing import TypeVar
from urllib.parse import quote

import anyio
import anyio.to_thread
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from relaygw import __version__
from relaygw.mail.state import DeliveryState
from relaygw.store.protocol import QueueEntry, Selection, Store, read_content
from relaygw.web.guards import STRICT_HEADERS
from relaygw.web.message_view import (
    ContentFacts,
    Json,
    file_name_of,
    headers_json,
    message_json,
    read_facts,
    summary_json,
)
from relaygw.web.mime_tree import MimeTree, Part, read_tree
from relaygw.web.summaries import SummaryCache

MAX_PARSED_BYTES = 32 * 2**20
"""Of a message above this only the first chunk is parsed; /raw still gives all of it."""
MAX_LISTED = 1000
DEFAULT_LISTED = 50

_CACHE_BYTES = 8 * 2**20
_THREADS = 2
_QUEUE_ID = re.compile(r"[A-Z0-9]{10,20}")
_NUMBER = re.compile(r"[0-9]{1,9}")
_EVERY_STATE = frozenset(DeliveryState)
_CHARSET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,39}")
_NOT_FOUND = "404 page not found"

Result = TypeVar("Result")


class SandboxApi:
    """The endpoints over one store."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._summaries = SummaryCache(limit_bytes=_CACHE_BYTES)
        self._threads = anyio.CapacityLimiter(_THREADS)

    def routes(self) -> list[Route]:
        """Return the routes under /api/v1."""
        one = "/api/v1/message/{queue_id}"
        return [
            Route("/api/v1/info", self.show_info),
            Route("/api/v1/messages", self.list_messages),
            Route(one, self.show_message),
            Route(one + "/headers", self.show_headers),
            Route(one + "/raw", self.show_raw),
            Route(one + "/part/{part_id}", self.show_part),
        ]

    async def show_info(self, _: Request) -> Response:
        """Answer what Mailpit tells of itself; 0 where this role does not know."""
        total, unread = await self._in_thread(self._store.captured_counts)
        return JSONResponse(_info_json(total, unread))

    async def list_messages(self, request: Request) -> Response:
        """Answer `limit` messages from `start` on, newest first."""
        start = _number(request, "start", default=0)
        limit = _number(request, "limit", default=DEFAULT_LISTED)
        # Mailpit takes 0 for all of them
        listed = min(limit, MAX_LISTED) if limit else MAX_LISTED
        return JSONResponse(await self._in_thread(lambda: self._list_json(start, listed)))

    async def show_message(self, request: Request) -> Response:
        """Answer one message with its texts and the list of its parts."""

        def read() -> Json:
            entry = self._entry(request)
            return message_json(entry, self._tree(entry))

        return JSONResponse(await self._in_thread(read))

    async def show_headers(self, request: Request) -> Response:
        """Answer the header of a message as a map of lists."""
        return JSONResponse(
            await self._in_thread(lambda: headers_json(self._tree(self._entry(request))))
        )

    async def show_raw(self, request: Request) -> Response:
        """Answer the source of a message, chunk by chunk as the store has it."""

        def read() -> tuple[QueueEntry, Iterator[bytes]]:
            entry = self._entry(request)
            chunks = read_content(self._store, entry)
            first = next(chunks, None)
            if first is None:
                raise HTTPException(404, _NOT_FOUND)
            return entry, chain((first,), chunks)

        entry, chunks = await self._in_thread(read)
        headers = {}
        if request.query_params.get("dl") == "1":
            headers["Content-Disposition"] = f'attachment; filename="{entry.queue_id}.eml"'
        return StreamingResponse(chunks, media_type="text/plain", headers=headers)

    async def show_part(self, request: Request) -> Response:
        """Answer the decoded bytes of a part under its own type, to be saved, never shown."""

        def read() -> tuple[Part, bytes]:
            tree = self._tree(self._entry(request))
            for part in tree.leaves:
                if part.part_id == request.path_params["part_id"]:
                    return part, tree.body(part)
            raise HTTPException(404, _NOT_FOUND)

        part, body = await self._in_thread(read)
        return Response(body, headers=_part_headers(part))

    async def _in_thread(self, read: Callable[[], Result]) -> Result:
        return await anyio.to_thread.run_sync(read, limiter=self._threads)

    def _list_json(self, start: int, limit: int) -> Json:
        total, unread = self._store.captured_counts()
        entries = self._store.captured(start=start, limit=limit)
        return {
            "total": total,
            "unread": unread,
            "count": len(entries),
            "messages_count": total,
            "messages_unread": unread,
            "start": start,
            "tags": [],
            "messages": [summary_json(entry, self._facts(entry)) for entry in entries],
        }

    def _facts(self, entry: QueueEntry) -> ContentFacts:
        facts = self._summaries.get(entry.queue_id)
        if facts is None:
            facts = read_facts(self._tree(entry))
            self._summaries.put(entry.queue_id, facts)
        return facts

    def _entry(self, request: Request) -> QueueEntry:
        """Return the captured message that the path names; raises 404 if there is none."""
        queue_id = request.path_params["queue_id"]
        if queue_id == "latest":
            found = self._store.captured(start=0, limit=1)
        elif _QUEUE_ID.fullmatch(queue_id):
            wanted = Selection(queue_ids=(queue_id,), states=_EVERY_STATE)
            found = self._store.search(wanted, limit=1)
        else:
            found = []
        if not found or found[0].captured_at_ms is None:
            raise HTTPException(404, _NOT_FOUND)
        return found[0]

    def _tree(self, entry: QueueEntry) -> MimeTree:
        is_whole = entry.size_bytes <= MAX_PARSED_BYTES
        chunks = read_content(self._store, entry)
        tree = read_tree(b"".join(chunks) if is_whole else next(chunks, b""))
        if not is_whole:
            tree.left_out.append(f"the rest of {entry.size_bytes} bytes; /raw has all of them")
        elif not tree.content and entry.size_bytes:
            tree.left_out.append("the content, which is no longer stored")
        return tree


def _number(request: Request, name: str, *, default: int) -> int:
    value = request.query_params.get(name)
    if not value:
        return default
    if not _NUMBER.fullmatch(value):
        raise HTTPException(400, f"{name} is not a number from 0 to 999999999")
    return int(value)


def _part_headers(part: Part) -> dict[str, str]:
    content_type = part.content_type
    if content_type.startswith("text/") and _CHARSET.fullmatch(part.charset):
        content_type += f"; charset={part.charset}"
    name = file_name_of(part)
    ascii_name = name.encode("ascii", "replace").decode().replace("?", "_")
    return {
        "Content-Type": content_type,
        "Content-Disposition": (
            f"attachment; filename=\"{ascii_name}\"; filename*=UTF-8''{quote(name, safe='')}"
        ),
        # should a browser render it all the same, then without an origin and without scripts
        "Content-Security-Policy": STRICT_HEADERS["Content-Security-Policy"] + "; sandbox",
    }


def _info_json(total: int, unread: int) -> Json:
    counters = ("Uptime", "Memory", "MessagesDeleted", "SMTPAccepted", "SMTPAcceptedSize")
    return {
        "Version": f"relaygw {__version__}",
        "LatestVersion": "disabled",  # Mailpit's word for not having looked
        "Database": "",
        "DatabaseSize": 0,
        "Messages": total,
        "Unread": unread,
        "Tags": {},
        "RuntimeStats": dict.fromkeys((*counters, "SMTPRejected", "SMTPIgnored"), 0),
    }
