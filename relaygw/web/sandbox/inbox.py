"""The list of captured mail: newest first, page by page, all of it or what a search finds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from relaygw.mail.search import EVERYTHING, MAX_CHARACTERS, MAX_TERMS
from relaygw.web import words
from relaygw.web.context import Desk
from relaygw.web.page import notice_of, render
from relaygw.web.sandbox.filters import (
    MAX_QUERY_CHARACTERS,
    Filter,
    list_path,
    make_filter,
    tag_term,
)
from relaygw.web.sandbox.index import PATIENCE_S
from relaygw.web.sandbox.rows import make_rows

PAGE_ROWS = 50
_UNREAD_S = 0.1
_MAX_TAGS = 40
_MAX_PAGE = 1_000_000


class Inbox:
    """The endpoint of the list."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    async def show(self, request: Request) -> Response:
        """Show a page of the list."""
        query = query_of(request)
        number = request.query_params.get("page", "1")
        page = min(int(number), _MAX_PAGE) if number.isascii() and number.isdigit() else 1
        context = await self._desk.read(lambda: self._context(query, max(page, 1)))
        context["notice"] = notice_of(request.query_params)
        context["smtp"] = self._smtp_address(request)
        return render(request, "inbox.html", context)

    def _context(self, query: str, page: int) -> dict[str, Any]:
        store = self._desk.store
        search = self._desk.search(query)
        # a list without a search has lines for mail that nobody has read yet, too
        self._desk.indexer.catch_up(within_s=_UNREAD_S if search == EVERYTHING else PATIENCE_S)
        total, unread = store.count_captured(EVERYTHING)
        found = (total, unread) if search == EVERYTHING else store.count_captured(search)
        pages = max(1, -(-found[0] // PAGE_ROWS))
        page = min(page, pages)
        start = (page - 1) * PAGE_ROWS
        entries = store.find_captured(search, start=start, limit=PAGE_ROWS)
        shows_newest = search == EVERYTHING and page == 1 and bool(entries)
        newest = entries[0] if shows_newest else store.captured_entry(None)
        tags = store.tags()
        return {
            **self._desk.page_context,
            "query": query,
            "rows": make_rows(entries, query, now=words.now_ms()),
            "total": total,
            "found": found[0],
            "found_unread": found[1],
            "is_search": search != EVERYTHING,
            "too_much": (MAX_TERMS, MAX_CHARACTERS) if search.is_void else None,
            "page": page,
            "pages": pages,
            "first": start + 1,
            "last": start + len(entries),
            "newest": entries[0].entry.queue_id if entries else "",
            "newest_of_all": newest.entry.queue_id if newest is not None else "",
            "filters": _filters(query, unread),
            "tags": _tag_filters(query, tags),
            "page_path": lambda number: list_path(query, page=number),
        }

    def _smtp_address(self, request: Request) -> tuple[str, int]:
        """Return where mail is taken, by a name that works where the browser is."""
        listeners = self._desk.settings.listeners
        if not listeners:
            return "127.0.0.1", 1025
        bind = listeners[0].bind
        is_any = bind.host in ("0.0.0.0", "::")
        return (request.url.hostname or "localhost") if is_any else bind.host, bind.port


def query_of(request: Request) -> str:
    """Return the search of a request, on one line."""
    return " ".join(request.query_params.get("query", "")[:MAX_QUERY_CHARACTERS].split())


def _filters(query: str, unread: int) -> list[Filter]:
    return [
        make_filter(query, "is:unread", "Unread", number=unread),
        make_filter(query, "has:attachment", "With attachments"),
    ]


def _tag_filters(query: str, tags: Mapping[str, int]) -> list[Filter]:
    return [
        make_filter(query, tag_term(tag), tag, number=number)
        for tag, number in list(tags.items())[:_MAX_TAGS]
    ]
