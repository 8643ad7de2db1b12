"""What Mailpit's API answers about captured mail: lists, searches, messages and their parts.

Errors are plain text as there: 400 for bad parameters, 404 for what is not in the sandbox.
"""

from __future__ import annotations

import re
import zoneinfo
from collections.abc import Iterator
from datetime import UTC, tzinfo

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import (
    HTMLResponse,
    JSONResponse,
    PlainTextResponse,
    RedirectResponse,
    Response,
    StreamingResponse,
)
from starlette.routing import BaseRoute, Route

from relaygw import __version__
from relaygw.mail.clock import clock_ms
from relaygw.mail.search import EVERYTHING, MAX_CHARACTERS, MAX_TERMS, MailSearch, parse_search
from relaygw.store.queue_entry import QueueEntry
from relaygw.store.sandbox import CapturedEntry
from relaygw.web.context import WebContext
from relaygw.web.mail.content import FRAME_HEADERS, read_part, saved_headers, source_chunks
from relaygw.web.mail.html_page import MAX_HTML_CHARACTERS, MailPages, html_part, mail_page
from relaygw.web.mail.mime_tree import MimeTree, Part, load_tree
from relaygw.web.mail.views import ListedLink, listed_links
from relaygw.web.sandbox.api.message_json import Json, headers_json, message_json, summary_json
from relaygw.web.sandbox.captured import captured_of

LATEST = "latest"
MAX_LISTED = 1000
DEFAULT_LISTED = 50
NOT_FETCHED = "not fetched"
_BATCH_IDS = 5000
_NUMBER = re.compile(r"[0-9]{1,9}")
_CHARSET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,39}")
_LINK = re.compile(r'href="#relaygw-link" title="((?:https?|mailto):[^"]*)"')


class Messages:
    """The endpoints of lists."""

    def __init__(self, web: WebContext) -> None:
        self._web = web

    async def show_info(self, _: Request) -> Response:
        """Answer what Mailpit tells of itself; 0 where this role does not know."""
        store = self._web.store

        def read() -> Json:
            total, unread = store.sandbox.count_captured(EVERYTHING)
            return _info_json(total, unread, store.sandbox.tags())

        return await self._web.read(lambda: JSONResponse(read()))

    async def list_messages(self, request: Request) -> Response:
        """Answer `limit` messages from `start` on, newest first."""
        start, limit = page_of(request)
        return await self._web.read(lambda: self._list(EVERYTHING, start, limit))

    async def search(self, request: Request) -> Response:
        """Answer the messages that `query` finds, as `list_messages` does."""
        search = search_of(request, query_of(request))
        start, limit = page_of(request)
        return await self._web.read(lambda: self._list(search, start, limit))

    async def list_tags(self, _: Request) -> Response:
        """Answer the tags in use."""
        return JSONResponse(await self._web.read(lambda: list(self._web.store.sandbox.tags())))

    def _list(self, search: MailSearch, start: int, limit: int) -> Response:
        store = self._web.store
        self._web.indexer.catch_up()
        total, unread = store.sandbox.count_captured(EVERYTHING)
        matching = (total, unread) if search == EVERYTHING else store.sandbox.count_captured(search)
        found = store.sandbox.find_captured(search, start=start, limit=limit)
        shown = {
            "total": total,
            "unread": unread,
            "count": len(found),
            "messages_count": matching[0],
            "messages_unread": matching[1],
            "start": start,
            "tags": list(store.sandbox.tags()),
            "messages": [summary_json(one) for one in found],
        }
        return JSONResponse(shown)


class OneMessage:
    """The endpoints of one message."""

    def __init__(self, web: WebContext, mail_pages: MailPages) -> None:
        self._web = web
        self._mail_pages = mail_pages

    def view_routes(self, path: str) -> list[BaseRoute]:
        """Return the routes of a message as a page or a text, at addresses that tests know."""
        return [
            Route(path + "/latest", self.show_latest, methods=["GET"]),
            Route(path + "/{queue_id}.html", self.show_html, methods=["GET"]),
            Route(path + "/{queue_id}.txt", self.show_text, methods=["GET"]),
        ]

    async def show(self, request: Request) -> Response:
        """Answer a message with its texts and the list of its parts; it counts as read then."""

        def read() -> Response:
            found, tree = self._opened(request)
            if found.entry.read_at_ms is None:
                self._web.store.sandbox.mark_read([found.entry.queue_id], at_ms=clock_ms())
            return JSONResponse(message_json(found.entry, tree, tags=found.tags) | {"Read": True})

        return await self._web.open(read)

    async def show_headers(self, request: Request) -> Response:
        """Answer the header as a map of lists."""
        return await self._web.open(lambda: JSONResponse(headers_json(self._opened(request)[1])))

    async def show_raw(self, request: Request) -> Response:
        """Answer the source, chunk by chunk as the store has it."""

        def read() -> tuple[QueueEntry, Iterator[bytes]]:
            entry = found_by(self._web, request).entry
            return entry, source_chunks(self._web.store, entry)

        entry, chunks = await self._web.read(read)
        headers = {}
        if request.query_params.get("dl") == "1":
            headers["Content-Disposition"] = f'attachment; filename="{entry.queue_id}.eml"'
        return StreamingResponse(chunks, media_type="text/plain", headers=headers)

    async def show_part(self, request: Request) -> Response:
        """Answer the decoded bytes of a part under its own type, to be saved, never shown."""

        def read() -> tuple[Part, bytes]:
            entry = found_by(self._web, request).entry
            return read_part(self._web.store, entry, request.path_params["part_id"])

        part, body = await self._web.open(read)
        return Response(body, headers=_part_headers(part))

    async def check_links(self, request: Request) -> Response:
        """Answer each web link with the status 0, for nobody went there."""

        def read() -> Response:
            found, tree = self._opened(request)
            links = links_of(message_json(found.entry, tree), tree)
            targets = dict.fromkeys(one.target for one in links if one.is_web)
            listed = [{"URL": url, "StatusCode": 0, "Status": NOT_FETCHED} for url in targets]
            return JSONResponse({"Errors": 0, "Links": listed})

        return await self._web.open(read)

    async def show_latest(self, request: Request) -> Response:
        """Lead to the page of the newest message."""
        request.path_params["queue_id"] = LATEST
        found = await self._web.read(lambda: found_by(self._web, request))
        root_path: str = request.scope.get("root_path", "")
        return RedirectResponse(f"{root_path}/sandbox/{found.entry.queue_id}", status_code=302)

    async def show_html(self, request: Request) -> Response:
        """Answer the HTML as the frame of the message's page has it, but with links that lead.

        Nobody goes there by looking at it; tests look for the addresses, or click.
        """

        def make() -> Response:
            found, tree = self._opened(request)
            page = self._mail_pages.make(found.entry, tree)
            if page is None:
                raise HTTPException(404)
            document = _LINK.sub(r'href="\1" rel="noopener noreferrer"', page.document)
            return HTMLResponse(document, headers=FRAME_HEADERS)

        return await self._web.open(make)

    async def show_text(self, request: Request) -> Response:
        """Answer the text of a message."""

        def read() -> Response:
            found, tree = self._opened(request)
            return PlainTextResponse(message_json(found.entry, tree)["Text"])

        return await self._web.open(read)

    def _opened(self, request: Request) -> tuple[CapturedEntry, MimeTree]:
        found = found_by(self._web, request)
        return found, load_tree(self._web.store, found.entry)


def page_of(request: Request) -> tuple[int, int]:
    """Return `start` and `limit` of a list; raises 400."""
    start = _number(request, "start", default=0)
    limit = _number(request, "limit", default=DEFAULT_LISTED)
    # Mailpit takes 0 for all of them
    return start, min(limit, MAX_LISTED) if limit else MAX_LISTED


def query_of(request: Request) -> str:
    """Return the search of a request; raises 400 without one."""
    query = request.query_params.get("query", "").strip()
    if not query:
        raise HTTPException(400, "query is empty; write what to look for, e.g. query=subject:order")
    return query


def search_of(request: Request, query: str) -> MailSearch:
    """Return what `query` asks for, its dates of the zone `tz` of a request; raises 400."""
    search = parse_search(query, tz=_zone(request.query_params.get("tz", "")))
    if search.is_void:  # else a test for "no such mail" would pass
        raise HTTPException(
            400,
            f"query has no word, more than {MAX_TERMS} terms or {MAX_CHARACTERS} characters",
        )
    return search


def _zone(name: str) -> tzinfo:
    try:
        return zoneinfo.ZoneInfo(name) if name else UTC
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        raise HTTPException(400, f"tz is no time zone: {name[:40]!r}; e.g. Europe/Berlin") from None


def _number(request: Request, name: str, *, default: int) -> int:
    value = request.query_params.get(name)
    if not value:
        return default
    if not _NUMBER.fullmatch(value):
        raise HTTPException(400, f"{name} is not a number from 0 to 999999999")
    return int(value)


def found_by(web: WebContext, request: Request) -> CapturedEntry:
    """Return the captured message that the path names; raises 404 if there is none."""
    if request.path_params["queue_id"] != LATEST:
        return captured_of(web, request)
    found = web.store.sandbox.captured_entry(None)
    if found is None:
        raise HTTPException(404)
    return found


def found_ids(web: WebContext, search: MailSearch) -> list[str]:
    """Return the ids of all that a search finds, also of what nobody has read yet; may be slow.

    An id is no measure of when something was captured, so nothing less than all of them tells
    what there was before a change.
    """
    web.indexer.catch_up(within_s=None)
    ids: list[str] = []
    while found := web.store.sandbox.captured_ids(
        search, limit=_BATCH_IDS, after=ids[-1] if ids else ""
    ):
        ids += found
        if len(found) < _BATCH_IDS:
            break
    return ids


def links_of(message: Json, tree: MimeTree) -> list[ListedLink]:
    """Return the links of HTML, text and header with their real targets."""
    part = html_part(tree)
    html = ""
    if part is not None:
        html, _ = tree.text(part, limit_characters=MAX_HTML_CHARACTERS)
    page = mail_page(html, title="", picture=lambda _: None)
    links, _ = listed_links(page.links, message["Text"], message["ListUnsubscribe"]["Links"])
    return links


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
