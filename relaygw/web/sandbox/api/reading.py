"""What Mailpit's API answers about captured mail: lists, searches, messages and their parts.

Errors are plain text as there: 400 for bad parameters, 404 for what is not in the sandbox.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import chain

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from relaygw import __version__
from relaygw.mail.content_facts import ContentFacts
from relaygw.mail.search import EVERYTHING, MailSearch
from relaygw.store.captured import CapturedEntry
from relaygw.store.protocol import QueueEntry, read_content
from relaygw.web import words
from relaygw.web.context import Desk
from relaygw.web.mail.mime_tree import MimeTree, Part, load_tree
from relaygw.web.mail.parts import saved_headers
from relaygw.web.sandbox.api.asked import page_of, query_of, search_of
from relaygw.web.sandbox.api.message_json import (
    Json,
    headers_json,
    message_json,
    summary_json,
)

LATEST = "latest"
_BATCH_IDS = 5000

_CHARSET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,39}")


class Reading:
    """The endpoints that change nothing, but for the mark of what was opened."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    async def show_info(self, _: Request) -> Response:
        """Answer what Mailpit tells of itself; 0 where this role does not know."""
        store = self._desk.store

        def read() -> Json:
            total, unread = store.count_captured(EVERYTHING)
            return _info_json(total, unread, store.tags())

        return await self._desk.read(lambda: JSONResponse(read()))

    async def list_messages(self, request: Request) -> Response:
        """Answer `limit` messages from `start` on, newest first."""
        start, limit = page_of(request)
        return await self._desk.read(lambda: self._list(EVERYTHING, start, limit))

    async def search(self, request: Request) -> Response:
        """Answer the messages that `query` finds, as `list_messages` does."""
        search = search_of(request, query_of(request))
        start, limit = page_of(request)
        return await self._desk.read(lambda: self._list(search, start, limit))

    async def list_tags(self, _: Request) -> Response:
        """Answer the tags in use."""
        return JSONResponse(await self._desk.read(lambda: list(self._desk.store.tags())))

    async def show_message(self, request: Request) -> Response:
        """Answer one message with its texts and the list of its parts; it counts as read then."""

        def read() -> Response:
            found = found_by(self._desk, request)
            if found.entry.read_at_ms is None:
                self._desk.store.mark_read([found.entry.queue_id], at_ms=words.now_ms())
            message = message_of(found, load_tree(self._desk.store, found.entry))
            return JSONResponse(message | {"Read": True})

        return await self._desk.open(read)

    async def show_headers(self, request: Request) -> Response:
        """Answer the header of a message as a map of lists."""

        def read() -> Response:
            tree = load_tree(self._desk.store, found_by(self._desk, request).entry)
            return JSONResponse(headers_json(tree))

        return await self._desk.open(read)

    async def show_raw(self, request: Request) -> Response:
        """Answer the source of a message, chunk by chunk as the store has it."""

        def read() -> tuple[QueueEntry, Iterator[bytes]]:
            entry = found_by(self._desk, request).entry
            chunks = read_content(self._desk.store, entry)
            first = next(chunks, None)
            if first is None:
                raise HTTPException(404)
            return entry, chain((first,), chunks)

        entry, chunks = await self._desk.read(read)
        headers = {}
        if request.query_params.get("dl") == "1":
            headers["Content-Disposition"] = f'attachment; filename="{entry.queue_id}.eml"'
        return StreamingResponse(chunks, media_type="text/plain", headers=headers)

    async def show_part(self, request: Request) -> Response:
        """Answer the decoded bytes of a part under its own type, to be saved, never shown."""

        def read() -> tuple[Part, bytes]:
            tree = load_tree(self._desk.store, found_by(self._desk, request).entry)
            for part in tree.leaves:
                if part.part_id == request.path_params["part_id"]:
                    return part, tree.body(part)
            raise HTTPException(404)

        part, body = await self._desk.open(read)
        return Response(body, headers=_part_headers(part))

    def _list(self, search: MailSearch, start: int, limit: int) -> Response:
        store = self._desk.store
        self._desk.indexer.catch_up()
        total, unread = store.count_captured(EVERYTHING)
        matching = (total, unread) if search == EVERYTHING else store.count_captured(search)
        found = store.find_captured(search, start=start, limit=limit)
        shown = {
            "total": total,
            "unread": unread,
            "count": len(found),
            "messages_count": matching[0],
            "messages_unread": matching[1],
            "start": start,
            "tags": list(store.tags()),
            "messages": [summary_of(one) for one in found],
        }
        return JSONResponse(shown)


def summary_of(found: CapturedEntry) -> Json:
    """Return a message as an element of a list."""
    return summary_json(found.entry, found.facts or ContentFacts()) | {"Tags": list(found.tags)}


def message_of(found: CapturedEntry, tree: MimeTree) -> Json:
    """Return a whole message."""
    return message_json(found.entry, tree) | {"Tags": list(found.tags)}


def found_by(desk: Desk, request: Request) -> CapturedEntry:
    """Return the captured message that the path names; raises 404 if there is none."""
    if request.path_params["queue_id"] != LATEST:
        return desk.found(request)
    found = desk.store.captured_entry(None)
    if found is None:
        raise HTTPException(404)
    return found


def found_ids(desk: Desk, search: MailSearch) -> list[str]:
    """Return the ids of all that a search finds, also of what nobody has read yet; may be slow.

    An id is no measure of when something was captured, so nothing less than all of them tells
    what there was before a change.
    """
    desk.indexer.catch_up(within_s=None)
    ids: list[str] = []
    while found := desk.store.captured_ids(search, limit=_BATCH_IDS, after=ids[-1] if ids else ""):
        ids += found
        if len(found) < _BATCH_IDS:
            break
    return ids


def _part_headers(part: Part) -> dict[str, str]:
    content_type = part.content_type
    if content_type.startswith("text/") and _CHARSET.fullmatch(part.charset):
        content_type += f"; charset={part.charset}"
    return saved_headers(part) | {"Content-Type": content_type}


def _info_json(total: int, unread: int, tags: dict[str, int]) -> Json:
    counters = ("Uptime", "Memory", "MessagesDeleted", "SMTPAccepted", "SMTPAcceptedSize")
    return {
        "Version": f"relaygw {__version__}",
        "LatestVersion": "disabled",  # Mailpit's word for not having looked
        "Database": "",
        "DatabaseSize": 0,
        "Messages": total,
        "Unread": unread,
        "Tags": tags,
        "RuntimeStats": dict.fromkeys((*counters, "SMTPRejected", "SMTPIgnored"), 0),
    }
