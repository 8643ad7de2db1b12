"""What a message says, below its page: its HTML for the frame, its source and parts to be saved.

The frame's document is as harmless when somebody opens it in a tab: `sandbox` in its policy takes
its origin and all rights, and nothing but pictures in the document itself is loaded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from itertools import chain
from urllib.parse import quote

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response, StreamingResponse
from starlette.routing import Route

from relaygw.store.queue_entry import QueueEntry
from relaygw.store.store import Store, read_content
from relaygw.web.context import WebContext, opens, reads
from relaygw.web.gate.guards import STRICT_HEADERS
from relaygw.web.mail.mime_tree import Part, file_name_of, load_tree

Find = Callable[[WebContext, Request], QueueEntry]
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


def content_routes(web: WebContext, one: str, find: Find) -> list[Route]:
    """Return the routes of content below `one`, the path of a message as `find` knows it."""

    async def show_html(request: Request) -> Response:
        entry = await web.read(lambda: find(web, request))
        page = web.mail_pages.get(entry.queue_id)
        if page is None:
            page = await web.open(lambda: web.mail_pages.make(entry, load_tree(web.store, entry)))
        if page is None:
            raise HTTPException(404)
        return HTMLResponse(page.document, headers=FRAME_HEADERS)

    def save_source(web: WebContext, request: Request) -> Response:
        entry = find(web, request)
        headers = {
            "Content-Disposition": f'attachment; filename="{entry.queue_id}.eml"',
            "Content-Length": str(entry.size_bytes),
        }
        chunks = source_chunks(web.store, entry)
        return StreamingResponse(chunks, media_type="message/rfc822", headers=headers)

    def save_part(web: WebContext, request: Request) -> Response:
        entry = find(web, request)
        part, body = read_part(web.store, entry, request.path_params["part_id"])
        # a file, whatever it says it is
        return Response(body, media_type="application/octet-stream", headers=saved_headers(part))

    return [
        Route(one + "/html", show_html, methods=["GET"]),
        Route(one + "/source", partial(reads(save_source), web), methods=["GET"]),
        Route(one + "/part/{part_id}", partial(opens(save_part), web), methods=["GET"]),
    ]
