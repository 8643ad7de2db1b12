"""The list of captured mail: newest first, page by page, all of it or what a search finds."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, ClassVar
from urllib.parse import urlencode
from zlib import crc32

from starlette.datastructures import FormData
from starlette.requests import Request
from starlette.responses import Response

from relaygw.mail.content_facts import Contact, ContentFacts, hidden_recipients
from relaygw.mail.search import EVERYTHING
from relaygw.mail.state import DeliveryState
from relaygw.policy.recipients import Fate, RecipientPolicy
from relaygw.store.sandbox import CapturedEntry
from relaygw.web import words
from relaygw.web.context import WebContext, is_queue_id, reads
from relaygw.web.indexing import PATIENCE_S
from relaygw.web.lists import PAGE_ROWS, Choice, Filter, ticked_ids
from relaygw.web.mail.html_page import SCHEMES
from relaygw.web.mail.text import PRODUCTION_TAG
from relaygw.web.page import render
from relaygw.web.sandbox.captured import before, captured_batches, read_search

MAX_QUERY_CHARACTERS = 1000
_BATCH_IDS = 500
_UNREAD_S = 0.1
_MAX_TAGS = 40
TAG_COLOURS = 6
_MAX_SHOWN_TAGS = 3
EXAMPLE = "customer@example.com"
_WORD = re.compile(r'(?:[^\s"]|"[^"]*"?)+')


def _page_number(word: str) -> int:
    return int(word) if word.isascii() and word.isdigit() and len(word) < 8 else 1


def list_path(query: str = "", *, page: int = 1) -> str:
    """Return the path of a page of the list."""
    return _path("/sandbox", query=query, page=page if page > 1 else "")


def message_path(
    queue_id: str, query: str = "", *, page: int = 1, view: str = "", scheme: str = ""
) -> str:
    """Return the path of a message, opened from a page of the list that `query` makes."""
    scheme = "" if scheme == SCHEMES[0] else scheme
    shown = {"query": query, "page": page if page > 1 else "", "view": view, "scheme": scheme}
    return _path(f"/sandbox/{queue_id}", **shown)


def _path(path: str, **parameters: str | int) -> str:
    given = urlencode({name: value for name, value in parameters.items() if value})
    return f"{path}?{given}" if given else path


def tag_term(tag: str) -> str:
    """Return the search for a tag."""
    plain = tag.replace('"', " ")
    return f"tag:{plain}" if re.fullmatch(r"[\w.-]+", plain) else f'tag:"{plain}"'


def make_filter(
    query: str, term: str, label: str, *, number: int | None = None, is_live: bool = False
) -> Filter:
    """Return a filter that adds `term` to a search, or takes it out if it is there."""
    words = _WORD.findall(query)
    others = [word for word in words if word.lower() != term.lower()]
    is_on = len(others) < len(words)
    path = list_path(" ".join(others if is_on else [*words, term]))
    return Filter(label=label, path=path, is_on=is_on, number=number, is_live=is_live)


def make_row(mail: CapturedEntry, query: str, mode: str, *, page: int = 1) -> dict[str, Any]:
    """Return the line of a message; it leads back to the page of the list that it was found on.

    Why it was captured is told only where that is not the usual thing in this mode.
    """
    entry, facts = mail.entry, mail.facts or ContentFacts()
    envelope = [(each.address, each.original) for each in entry.recipients]
    # whom the message names and whom its envelope adds
    to = [*facts.to, *facts.cc, *hidden_recipients(facts, envelope)]
    first = (to[0]["Name"] or to[0]["Address"]) if to else "(nobody)"
    usual = words.USUAL_REASONS.get(mode)
    return {
        "entry": entry,
        "facts": facts,
        "path": message_path(entry.queue_id, query, page=page),
        "to": first if len(to) < 2 else f"{first} +{len(to) - 1}",
        "to_title": ", ".join(map(_whole, to[:20])),
        "from_title": _whole(facts.sender) or entry.sender,
        "tags": [make_tag(tag) for tag in _shown_tags(mail.tags)],
        "more_tags": max(0, len(mail.tags) - _MAX_SHOWN_TAGS),
        "reason": ", ".join(why for why in words.capture_reasons(entry) if why != usual),
        "at_ms": entry.captured_at_ms or entry.accepted_at_ms,
    }


def make_tag(name: str) -> dict[str, Any]:
    """Return a tag; the same name always has the same colour."""
    colour: int | str = crc32(name.lower().encode("utf-8", "replace")) % TAG_COLOURS
    colour = "live" if name == PRODUCTION_TAG else colour
    return {"name": name, "path": list_path(tag_term(name)), "colour": colour}


def _shown_tags(tags: Sequence[str]) -> list[str]:
    """Return the first few; a mark of ours is seen whatever else there is."""
    return sorted(tags, key=lambda name: name != PRODUCTION_TAG)[:_MAX_SHOWN_TAGS]


def _whole(contact: Contact) -> str:
    name, address = contact["Name"], contact["Address"]
    return f"{name} <{address}>" if name and address else name or address


@reads
def show_inbox(web: WebContext, request: Request) -> Response:
    """Show a page of the list."""
    is_search = read_search(query_of(request.query_params)) != EVERYTHING
    # a list without a search has lines for mail that nobody has read yet, too
    web.indexer.catch_up(within_s=PATIENCE_S if is_search else _UNREAD_S)
    return render(request, "inbox.html", list_context(web, request), mode=web.mode)


def page_of(request: Request) -> int:
    """Return which page of a list somebody wants to see."""
    return _page_number(request.query_params.get("page", "1"))


def list_context(web: WebContext, request: Request, *, opened: str = "") -> dict[str, Any]:
    """Return the context of a page of the list, alone or beside the message that is `opened`."""
    query, page = query_of(request.query_params), page_of(request)
    sandbox, search = web.store.sandbox, read_search(query)
    total, unread = sandbox.count_captured(EVERYTHING)
    found = (total, unread) if search == EVERYTHING else sandbox.count_captured(search)
    pages = max(1, -(-found[0] // PAGE_ROWS))
    page = min(max(page, 1), pages)
    start = (page - 1) * PAGE_ROWS
    entries = sandbox.find_captured(search, start=start, limit=PAGE_ROWS)
    newest = sandbox.captured_entry(None)
    return {
        **_sending(web, request),
        "opened": opened,
        "query": query,
        "rows": [make_row(entry, query, web.mode, page=page) for entry in entries],
        "total": total,
        "found": found[0],
        "found_unread": found[1],
        "is_search": search != EVERYTHING,
        "mistake": search.mistake,
        "page": page,
        "pages": pages,
        "first": start + 1,
        "last": start + len(entries),
        "newest": entries[0].entry.queue_id if entries else "",
        "newest_of_all": newest.entry.queue_id if newest is not None else "",
        "filters": [
            make_filter(query, "is:unread", "Unread", number=unread, is_live=True),
            make_filter(query, "has:attachment", "With attachments"),
        ],
        "tags": [
            make_filter(query, tag_term(tag), tag, number=number)
            for tag, number in islice(sandbox.tags().items(), _MAX_TAGS)
        ],
        "page_path": lambda number: list_path(query, page=number),
    }


def _sending(web: WebContext, request: Request) -> dict[str, Any]:
    """Return the advice of a page without mail: how mail gets here."""
    settings, recipients = web.settings, web.settings.recipients
    smtp, needs = ("127.0.0.1", 1025), []
    if settings.listeners:
        listener = settings.listeners[0]
        bind = listener.bind
        is_any = bind.host in ("0.0.0.0", "::")  # by a name that works where the browser is
        smtp = ((request.url.hostname or "localhost") if is_any else bind.host, bind.port)
        wants = {"TLS": listener.tls.mode == "implicit", "a login": listener.auth == "required"}
        needs = [what for what, is_wanted in wants.items() if is_wanted]
    own = [
        (f"listener {smtp_listener.bind}", smtp_listener.mode)
        for smtp_listener in settings.listeners
    ]
    own += [(f"user {user.name}", user.mode) for user in settings.users]
    is_kept = RecipientPolicy(settings.mode, recipients).decide(EXAMPLE).fate is Fate.CAPTURE
    return {
        "smtp": smtp,
        "needs": needs,
        "has_recipes": is_kept,  # never a line that would really send
        "example": EXAMPLE,
        "stricter": [
            f"{name}, in {mode} mode"
            for name, mode in own
            if mode is not None and mode.strictness > settings.mode.strictness
        ],
        "refused": recipients.refused,
        "blocked": recipients.blocked,
        "has_block": bool(recipients.block),
    }


def query_of(given: Mapping[str, object]) -> str:
    """Return the search of parameters or of a form, on one line, cut to what is looked at."""
    return " ".join(str(given.get("query", ""))[:MAX_QUERY_CHARACTERS].split())


@dataclass(frozen=True, slots=True)
class Search:
    """A search of captured mail; "" finds all of it."""

    place: ClassVar[str] = "/sandbox"
    box: ClassVar[str] = "id"
    end: ClassVar[str] = "until"

    query: str = ""

    @property
    def words(self) -> str:
        """The search for the audit trail."""
        return f"search: {self.query}" if self.query else "all messages"

    def pairs(self) -> list[tuple[str, str]]:
        """Return the search as a field."""
        return [("query", self.query)]

    def back(self, form: FormData) -> str:
        """Return the path of the page of the list that a form came from."""
        return list_path(self.query, page=_page_number(str(form.get("page", "1"))))

    def batches(
        self, web: WebContext, until: str, states: frozenset[DeliveryState]
    ) -> Iterator[list[str]]:
        """Yield the ids up to that of the newest message, `until`, oldest first."""
        for found in captured_batches(web, read_search(self.query), limit=_BATCH_IDS):
            if batch := [queue_id for queue_id in found if queue_id <= until]:
                yield batch
            if len(batch) < len(found):
                return


CapturedChoice = Choice[Search]


def count_of(web: WebContext, choice: CapturedChoice) -> int:
    """Return how many messages are chosen."""
    if not choice.is_all:
        return len(choice.ids)
    web.indexer.catch_up()
    newest = web.store.sandbox.captured_entry(choice.until)
    search = read_search(choice.listing.query)
    if newest is not None and newest.entry.captured_at_ms is not None:
        search = before(search, newest.entry.captured_at_ms)
    return web.store.sandbox.count_captured(search)[0]


def read_choice(form: FormData) -> CapturedChoice:
    """Return the messages of a form: the boxes, or, without any, the search's."""
    ids, until = ticked_ids(form, Search.box), str(form.get(Search.end, ""))
    until = until if is_queue_id(until) and not ids else ""
    return Choice(listing=Search(query_of(form)), ids=ids, until=until)
