"""What a message says, below its page: its HTML for the frame, its source and parts to be saved.

The frame's document is as harmless when somebody opens it in a tab: `sandbox` in its policy takes
its origin and all rights, and nothing but pictures in the document itself is loaded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import chain
from urllib.parse import quote

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response, StreamingResponse
from starlette.routing import Route

from relaygw.store.queue_entry import QueueEntry
from relaygw.store.store import Store, read_content
from relaygw.web.context import WebContext
from relaygw.web.gate.guards import STRICT_HEADERS
from relaygw.web.mail.html_page import MailPage, MailPages
from relaygw.web.mail.mime_tree import Part, file_name_of, load_tree

Find = Callable[[Request], QueueEntry]
"""Returns the message that a request is about; raises 404 where there is none."""

FRAME_HEADERS = {
    "Content-Security-Policy": (
        "sandbox; default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
        "form-action 'none'; base-uri 'none'; frame-ancestors 'self'"
    ),
    "X-DNS-Prefetch-Control": "off",
}


def saved_headers(part: Part) -> dict[str, str]:
    """Return the fields that make a browser save a part under its name."""
    name = file_name_of(part)
    plain = name.encode("ascii", "replace").decode().replace("?", "_")
    return {
        "Content-Disposition": (
            f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe='')}"
        ),
        # should a browser show it all the same, then without an origin and without scripts
        "Content-Security-Policy": STRICT_HEADERS["Content-Security-Policy"] + "; sandbox",
    }


def source_chunks(store: Store, entry: QueueEntry) -> Iterator[bytes]:
    """Return the source of a message as it is stored; raises 404 when it is gone."""
    chunks = read_content(store, entry)
    first = next(chunks, None)
    if first is None:
        raise HTTPException(404)
    return chain((first,), chunks)


def read_part(store: Store, entry: QueueEntry, part_id: str) -> tuple[Part, bytes]:
    """Return a part and its decoded bytes; raises 404 if there is none of that id."""
    tree = load_tree(store, entry)
    for part in tree.leaves:
        if part.part_id == part_id:
            return part, tree.body(part)
    raise HTTPException(404)


class MailContent:
    """The endpoints of content, for messages as `find` knows them."""

    def __init__(self, web: WebContext, mail_pages: MailPages, find: Find) -> None:
        self._web = web
        self._mail_pages = mail_pages
        self._find = find

    def routes(self, one: str) -> list[Route]:
        """Return the routes below `one`, the path of a message."""
        return [
            Route(one + "/html", self.show_html, methods=["GET"]),
            Route(one + "/source", self.save_source, methods=["GET"]),
            Route(one + "/part/{part_id}", self.save_part, methods=["GET"]),
        ]

    async def show_html(self, request: Request) -> Response:
        """Answer the document; 404 for a message without HTML."""
        entry = await self._web.read(lambda: self._find(request))
        page = self._mail_pages.get(entry.queue_id)
        if page is None:
            page = await self._web.open(lambda: self._make_page(entry))
        return HTMLResponse(page.document, headers=FRAME_HEADERS)

    def _make_page(self, entry: QueueEntry) -> MailPage:
        page = self._mail_pages.make(entry, load_tree(self._web.store, entry))
        if page is None:
            raise HTTPException(404)
        return page

    async def save_source(self, request: Request) -> Response:
        """Answer the source, chunk by chunk."""

        def start() -> tuple[QueueEntry, Iterator[bytes]]:
            entry = self._find(request)
            return entry, source_chunks(self._web.store, entry)

        entry, chunks = await self._web.read(start)
        disposition = f'attachment; filename="{entry.queue_id}.eml"'
        return StreamingResponse(
            chunks,
            media_type="message/rfc822",
            headers={"Content-Disposition": disposition, "Content-Length": str(entry.size_bytes)},
        )

    async def save_part(self, request: Request) -> Response:
        """Answer a part as a file, whatever it says it is."""

        def read() -> tuple[Part, bytes]:
            return read_part(self._web.store, self._find(request), request.path_params["part_id"])

        part, body = await self._web.open(read)
        return Response(body, media_type="application/octet-stream", headers=saved_headers(part))
