"""One captured message: its HTML in a frame, text, header, links, parts, source, and its fate.

Whoever opens it marks it as read, whatever the view.
"""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from relaygw.mail.search import Field, MailSearch, Term
from relaygw.store.captured import CapturedEntry
from relaygw.store.protocol import QueueEntry
from relaygw.web import words
from relaygw.web.context import Desk
from relaygw.web.mail.html_page import MailPages
from relaygw.web.mail.mime_tree import load_tree
from relaygw.web.mail.parts import MAX_LISTED_PARTS, part_lines
from relaygw.web.mail.views import view_context
from relaygw.web.page import notice_of, render
from relaygw.web.sandbox.audience import MAX_RECIPIENTS, audience
from relaygw.web.sandbox.captured import captured_of
from relaygw.web.sandbox.filters import list_path, message_path
from relaygw.web.sandbox.inbox import query_of
from relaygw.web.sandbox.message_context import envelope_context

VIEWS = ("html", "text", "headers", "links", "parts", "source")
_NEIGHBOURS = 20  # messages of one moment that are looked through for the next one


class MessagePage:
    """The endpoints of one message."""

    def __init__(self, desk: Desk, mail_pages: MailPages) -> None:
        self._desk = desk
        self._mail_pages = mail_pages

    async def show(self, request: Request) -> Response:
        """Show a message in one of its views."""
        found = await self._desk.read(lambda: self._found_and_read(request))
        query = query_of(request)
        newer, older = await self._desk.read(lambda: self._neighbours(found.entry, query))
        context = await self._desk.open(lambda: self._context(request, found))
        paths = {"newer": newer, "older": older}
        context |= {
            name: message_path(queue_id, query) if queue_id else ""
            for name, queue_id in paths.items()
        }
        context |= {
            "query": query,
            "back": list_path(query),
            "notice": notice_of(request.query_params),
            "view_path": lambda view: message_path(found.entry.queue_id, query, view=view),
        }
        return render(request, "message.html", context)

    def _found_and_read(self, request: Request) -> CapturedEntry:
        found = captured_of(self._desk, request)
        if found.entry.read_at_ms is None:
            self._desk.store.mark_read([found.entry.queue_id], at_ms=words.now_ms())
        return found

    def _neighbours(self, entry: QueueEntry, query: str) -> tuple[str, str]:
        """Return the ids of the next newer and older message that the search finds, "" for none."""
        store, search = self._desk.store, self._desk.search(query)
        newer = store.captured_ids(search, limit=1, after=entry.queue_id)
        at_ms = entry.captured_at_ms or entry.accepted_at_ms
        until = Term(field=Field.BEFORE, number=at_ms)
        before = MailSearch(terms=(*search.terms, until), is_void=search.is_void)
        found = store.find_captured(before, start=0, limit=_NEIGHBOURS)
        ids = [one.entry.queue_id for one in found]
        older = [queue_id for queue_id in ids if queue_id < entry.queue_id]
        return (newer[0] if newer else ""), (older[0] if older else "")

    def _context(self, request: Request, found: CapturedEntry) -> dict[str, Any]:
        entry = found.entry
        tree = load_tree(self._desk.store, entry)
        page = self._mail_pages.make(entry, tree)
        wanted = request.query_params.get("view", "")
        default = "html" if page is not None else "text"
        view = wanted if wanted in VIEWS and (wanted != "html" or page is not None) else default
        parts = part_lines(tree)
        return {
            **self._desk.page_context,
            **envelope_context(found, tree),
            "view": view,
            "mail_path": f"/sandbox/{entry.queue_id}",
            "has_html": page is not None,
            "parts": parts[:MAX_LISTED_PARTS],
            "parts_left": max(0, len(parts) - MAX_LISTED_PARTS),
            "left_out": tree.left_out,
            "audience": audience(self._desk.store, self._desk.settings, entry),
            "audience_left": max(0, len(entry.recipients) - MAX_RECIPIENTS),
            **view_context(view, tree, page),
        }
