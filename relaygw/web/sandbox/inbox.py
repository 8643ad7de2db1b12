"""The list of captured mail: newest first, page by page, all of it or what a search finds.

Searches are put together by clicking, too: a filter is a word of the search, set or taken out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode
from zlib import crc32

from starlette.datastructures import FormData
from starlette.requests import Request
from starlette.responses import Response

from relaygw.mail.clock import clock_ms
from relaygw.mail.content import Contact, ContentFacts, hidden_recipients
from relaygw.mail.search import EVERYTHING, MAX_CHARACTERS, MAX_TERMS
from relaygw.store.sandbox import CapturedEntry
from relaygw.web import words
from relaygw.web.context import WebContext, is_queue_id
from relaygw.web.inbox import PAGE_ROWS, Choice, Filter, line_of, ticked_ids
from relaygw.web.page import notice_of, render
from relaygw.web.sandbox.captured import before, read_search
from relaygw.web.sandbox.index import PATIENCE_S

MAX_QUERY_CHARACTERS = 1000
_BATCH_IDS = 500
_UNREAD_S = 0.1
_MAX_TAGS = 40
_MAX_PAGE = 1_000_000
TAG_COLOURS = 6
_MAX_SHOWN_TAGS = 3
_WORD = re.compile(r'(?:[^\s"]|"[^"]*"?)+')


def list_path(query: str = "", *, page: int = 1) -> str:
    """Return the path of a page of the list."""
    parameters: dict[str, str | int] = {}
    if query:
        parameters["query"] = query
    if page > 1:
        parameters["page"] = page
    return "/sandbox" + (f"?{urlencode(parameters)}" if parameters else "")


def message_path(queue_id: str, query: str = "", *, view: str = "") -> str:
    """Return the path of a message, opened from the list that `query` makes."""
    parameters = {"query": query, "view": view}
    given = urlencode({name: value for name, value in parameters.items() if value})
    return f"/sandbox/{queue_id}" + (f"?{given}" if given else "")


def tag_term(tag: str) -> str:
    """Return the search for a tag."""
    plain = tag.replace('"', " ")
    return f"tag:{plain}" if re.fullmatch(r"[\w.-]+", plain) else f'tag:"{plain}"'


def make_filter(
    query: str, term: str, label: str, *, number: int | None = None, is_live: bool = False
) -> Filter:
    """Return a filter that adds `term` to a search, or takes it out if it is there."""
    words = [match[0] for match in _WORD.finditer(query)]
    others = [word for word in words if word.lower() != term.lower()]
    is_on = len(others) < len(words)
    wanted = others if is_on else [*words, term]
    path = list_path(" ".join(wanted))
    return Filter(label=label, path=path, is_on=is_on, number=number, is_live=is_live)


def make_rows(found: Sequence[CapturedEntry], query: str, *, now: int) -> list[dict[str, Any]]:
    """Return the lines of messages that a search found."""
    return [make_row(one, query, now=now) for one in found]


def make_row(one: CapturedEntry, query: str, *, now: int) -> dict[str, Any]:
    """Return the line of a message; it leads back to the search that found it."""
    entry = one.entry
    facts = one.facts or ContentFacts()
    to = recipients_of(one)
    at_ms = entry.captured_at_ms or entry.accepted_at_ms
    return {
        **line_of(entry, at_ms, now),
        "path": message_path(entry.queue_id, query),
        "is_read": entry.read_at_ms is not None,
        "to": _shortened(to),
        "to_title": ", ".join(map(_whole, to[:20])),
        "sender": _name(facts.sender) or entry.sender or "<> (no sender)",
        "snippet": facts.snippet,
        "tags": [make_tag(tag) for tag in one.tags[:_MAX_SHOWN_TAGS]],
        "more_tags": max(0, len(one.tags) - _MAX_SHOWN_TAGS),
        "reason": ", ".join(words.capture_reasons(entry)),
        "attachments": facts.attachments,
    }


def make_tag(name: str) -> dict[str, Any]:
    """Return a tag; the same name always has the same colour."""
    colour = crc32(name.lower().encode("utf-8", "replace")) % TAG_COLOURS
    return {"name": name, "path": list_path(tag_term(name)), "colour": colour}


def recipients_of(one: CapturedEntry) -> list[Contact]:
    """Return whom a message names and whom its envelope adds."""
    facts = one.facts or ContentFacts()
    envelope = [(each.address, each.original) for each in one.entry.recipients]
    return [*facts.to, *facts.cc, *hidden_recipients(facts, envelope)]


def _shortened(contacts: Sequence[Contact]) -> str:
    if not contacts:
        return "(nobody)"
    first = contacts[0]["Address"] or contacts[0]["Name"]
    return first if len(contacts) == 1 else f"{first} +{len(contacts) - 1}"


def _name(contact: Contact) -> str:
    return contact["Name"] or contact["Address"]


def _whole(contact: Contact) -> str:
    name, address = contact["Name"], contact["Address"]
    return f"{name} <{address}>" if name and address else name or address


class Inbox:
    """The endpoint of the list."""

    def __init__(self, web: WebContext) -> None:
        self._web = web

    async def show(self, request: Request) -> Response:
        """Show a page of the list."""
        query = query_of(request)
        number = request.query_params.get("page", "1")
        page = min(int(number), _MAX_PAGE) if number.isascii() and number.isdigit() else 1
        context = await self._web.read(lambda: self._context(query, max(page, 1)))
        context["notice"] = notice_of(request.query_params)
        context["smtp"] = self._smtp_address(request)
        return render(request, "inbox.html", context)

    def _context(self, query: str, page: int) -> dict[str, Any]:
        store = self._web.store
        search = read_search(query)
        # a list without a search has lines for mail that nobody has read yet, too
        self._web.indexer.catch_up(within_s=_UNREAD_S if search == EVERYTHING else PATIENCE_S)
        total, unread = store.sandbox.count_captured(EVERYTHING)
        found = (total, unread) if search == EVERYTHING else store.sandbox.count_captured(search)
        pages = max(1, -(-found[0] // PAGE_ROWS))
        page = min(page, pages)
        start = (page - 1) * PAGE_ROWS
        entries = store.sandbox.find_captured(search, start=start, limit=PAGE_ROWS)
        shows_newest = search == EVERYTHING and page == 1 and bool(entries)
        newest = entries[0] if shows_newest else store.sandbox.captured_entry(None)
        tags = store.sandbox.tags()
        return {
            **self._web.page_context,
            "query": query,
            "rows": make_rows(entries, query, now=clock_ms()),
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
        listeners = self._web.settings.listeners
        if not listeners:
            return "127.0.0.1", 1025
        bind = listeners[0].bind
        is_any = bind.host in ("0.0.0.0", "::")
        return (request.url.hostname or "localhost") if is_any else bind.host, bind.port


def query_of(request: Request) -> str:
    """Return the search of a request, on one line."""
    return one_line(request.query_params.get("query", ""))


def one_line(query: str) -> str:
    """Return a search without line ends, cut to what is looked at."""
    return " ".join(query[:MAX_QUERY_CHARACTERS].split())


def _filters(query: str, unread: int) -> list[Filter]:
    return [
        make_filter(query, "is:unread", "Unread", number=unread, is_live=True),
        make_filter(query, "has:attachment", "With attachments"),
    ]


def _tag_filters(query: str, tags: Mapping[str, int]) -> list[Filter]:
    return [
        make_filter(query, tag_term(tag), tag, number=number)
        for tag, number in list(tags.items())[:_MAX_TAGS]
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class CapturedChoice(Choice):
    """Ticked messages, or, without any, those found by `query` up to the id `until`."""

    box = "id"
    place = "/sandbox"

    query: str = ""
    until: str = ""  # the newest message that there was when somebody looked

    @property
    def is_all(self) -> bool:
        """True for all that the search finds."""
        return not self.ids and bool(self.until)

    @property
    def found(self) -> str:
        """The search."""
        return f"search: {self.query}" if self.query else "all messages"

    def list_fields(self) -> list[tuple[str, str]]:
        """Return the search and its end."""
        return [("query", self.query), *([("until", self.until)] if self.is_all else [])]

    def list_path(self, form: FormData) -> str:
        """Return the path of the page of the list that a form came from."""
        page = str(form.get("page", "1"))
        return list_path(self.query, page=int(page) if page.isdigit() and len(page) < 8 else 1)

    def batches(self, web: WebContext) -> Iterator[list[str]]:
        """Yield the ids of the messages, some at a time, oldest first."""
        if not self.is_all:
            yield list(self.ids)  # none, if nothing was ticked
            return
        search = read_search(self.query)
        after = ""
        while True:
            found = web.store.sandbox.captured_ids(search, limit=_BATCH_IDS, after=after)
            batch = [queue_id for queue_id in found if queue_id <= self.until]
            if batch:
                yield batch
            if len(batch) < _BATCH_IDS:
                return
            after = batch[-1]

    def count(self, web: WebContext) -> int:
        """Return how many messages these are."""
        if not self.is_all:
            return len(self.ids)
        web.indexer.catch_up()
        newest = web.store.sandbox.captured_entry(self.until)
        search = read_search(self.query)
        if newest is not None and newest.entry.captured_at_ms is not None:
            search = before(search, newest.entry.captured_at_ms)
        return web.store.sandbox.count_captured(search)[0]


def read_choice(form: FormData) -> CapturedChoice:
    """Return what a form is about: the boxes, or by `all` or `scope` what the search finds."""
    until = str(form.get("until", ""))
    return CapturedChoice(
        ids=ticked_ids(form, CapturedChoice.box),
        query=one_line(str(form.get("query", ""))),
        until=until if is_queue_id(until) else "",
    )
