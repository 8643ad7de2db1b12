"""One captured message: its HTML in a frame, text, header, links, parts, source, and its fate.

Whoever opens it marks it as read, whatever the view.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from relaygw.mail.content_facts import Contact, hidden_recipients
from relaygw.mail.search import Field, MailSearch, Term
from relaygw.store.captured import CapturedEntry
from relaygw.store.protocol import QueueEntry, read_content
from relaygw.web.message_view import read_facts
from relaygw.web.mime_header import decode_words
from relaygw.web.mime_tree import MimeTree
from relaygw.web.pages import contents, words
from relaygw.web.pages.audience import MAX_RECIPIENTS, audience
from relaygw.web.pages.contents import MailPages
from relaygw.web.pages.desk import Desk
from relaygw.web.pages.filters import list_path, message_path
from relaygw.web.pages.inbox import query_of
from relaygw.web.pages.links import listed_links
from relaygw.web.pages.mail_html import MailPage
from relaygw.web.pages.notices import notice_of
from relaygw.web.pages.parts import MAX_LISTED_PARTS, part_lines, part_response
from relaygw.web.pages.rendering import render
from relaygw.web.pages.rows import make_tag

VIEWS = ("html", "text", "headers", "links", "parts", "source")
_NEIGHBOURS = 20  # messages of one moment that are looked through for the next one
_MAX_CONTACTS = 50


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

    async def show_source(self, request: Request) -> Response:
        """Answer the source as it is stored, chunk by chunk, to be saved."""

        def start() -> tuple[QueueEntry, Iterator[bytes]]:
            entry = self._desk.found(request).entry
            chunks = read_content(self._desk.store, entry)
            first = next(chunks, None)
            if first is None:
                raise HTTPException(404)
            return entry, chain((first,), chunks)

        entry, chunks = await self._desk.read(start)
        disposition = f'attachment; filename="{entry.queue_id}.eml"'
        return StreamingResponse(
            chunks,
            media_type="message/rfc822",
            headers={"Content-Disposition": disposition, "Content-Length": str(entry.size_bytes)},
        )

    async def show_part(self, request: Request) -> Response:
        """Answer a part, to be saved."""

        def read() -> Response | None:
            tree = self._desk.tree(self._desk.found(request).entry)
            return part_response(tree, request.path_params["part_id"])

        response = await self._desk.open(read)
        if response is None:
            raise HTTPException(404)
        return response

    def _found_and_read(self, request: Request) -> CapturedEntry:
        found = self._desk.found(request)
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
        tree = self._desk.tree(entry)
        page = self._mail_pages.make(entry, tree)
        wanted = request.query_params.get("view", "")
        default = "html" if page is not None else "text"
        view = wanted if wanted in VIEWS and (wanted != "html" or page is not None) else default
        parts = part_lines(tree)
        return {
            **self._desk.page_context,
            **_envelope(found, tree),
            "view": view,
            "has_html": page is not None,
            "parts": parts[:MAX_LISTED_PARTS],
            "parts_left": max(0, len(parts) - MAX_LISTED_PARTS),
            "left_out": tree.left_out,
            "audience": audience(self._desk.store, self._desk.settings, entry),
            "audience_left": max(0, len(entry.recipients) - MAX_RECIPIENTS),
            **_view(view, tree, page),
        }


def _envelope(found: CapturedEntry, tree: MimeTree) -> dict[str, Any]:
    """Return what stands above and beside each view."""
    entry = found.entry
    facts = read_facts(tree)
    envelope = [(one.address, one.original) for one in entry.recipients]
    at_ms = entry.captured_at_ms or entry.accepted_at_ms
    local = words.local_time(at_ms)
    return {
        "entry": entry,
        "subject": entry.subject,
        "sender": facts.sender,
        "contacts": [
            ("To", facts.to[:_MAX_CONTACTS], len(facts.to) - _MAX_CONTACTS),
            ("Cc", facts.cc[:_MAX_CONTACTS], len(facts.cc) - _MAX_CONTACTS),
            *_hidden(hidden_recipients(facts, envelope)),
            ("Reply-To", facts.reply_to[:_MAX_CONTACTS], 0),
        ],
        "date": decode_words(tree.first("Date")),
        "tags": [make_tag(tag) for tag in found.tags],
        "tag_names": list(found.tags),
        "reasons": words.capture_reasons(entry),
        "size": words.size(entry.size_bytes),
        "captured": words.exact_time(at_ms),
        "captured_iso": words.iso_time(at_ms),
        "stamp": (f"{local.day} {local:%b %Y}".upper(), f"{local:%H:%M}"),
        "was_read": words.exact_time(entry.read_at_ms) if entry.read_at_ms else "",
    }


def _hidden(contacts: list[Contact]) -> Iterator[tuple[str, list[Contact], int]]:
    yield "Bcc", contacts[:_MAX_CONTACTS], len(contacts) - _MAX_CONTACTS


def _view(view: str, tree: MimeTree, page: MailPage | None) -> dict[str, Any]:
    """Return what one view shows."""
    text = contents.plain_text(tree)
    unsubscribe = _unsubscribe(tree)
    links, has_more = listed_links(
        page.links if page is not None else (), text.text if text is not None else "", unsubscribe
    )
    shown: dict[str, Any] = {"links": links, "has_more_links": has_more}
    match view:
        case "html" if page is not None:
            not_loaded, taken_out = contents.removed_words(page.removed)
            shown |= {"not_loaded": not_loaded, "taken_out": taken_out, "is_cut": page.is_cut}
        case "text":
            shown |= {"is_from_html": text is None, "text": text or contents.text_of_page(tree)}
        case "headers":
            shown |= {"fields": contents.decoded_fields(tree), "raw": contents.raw_header(tree)}
        case "source":
            shown |= {"source": contents.source(tree)}
    return shown


def _unsubscribe(tree: MimeTree) -> list[str]:
    value = decode_words(tree.first("List-Unsubscribe"))
    return [word.strip("<> ") for word in value.split(",") if word.strip("<> ")][:10]
