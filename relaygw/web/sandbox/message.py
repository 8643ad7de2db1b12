"""One captured message: its HTML in a frame, text, header, links, parts, source, and its fate.

Whoever opens it marks it as read, whatever the view. Whom it was for is told by the
configuration of now, as a release would be decided (`policy.recipients`).
"""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from relaygw.mail.clock import clock_ms, local_time
from relaygw.mail.content import Contact, ContentFacts, hidden_recipients, nobody
from relaygw.mail.envelope import Released
from relaygw.mail.state import RecipientState
from relaygw.operations.captured import (
    Copy,
    RefusedCopy,
    ReleaseRequest,
    ReleaseResult,
    plan_release,
)
from relaygw.policy.recipients import Refusal
from relaygw.settings.model import Settings
from relaygw.store.queue_entry import DeliveryEntry, QueueEntry, RecipientEntry
from relaygw.store.sandbox import CapturedEntry
from relaygw.store.store import Store
from relaygw.web import words
from relaygw.web.context import WebContext
from relaygw.web.mail.html_page import MailPages
from relaygw.web.mail.mime_header import decode_words, read_addresses
from relaygw.web.mail.mime_tree import MimeTree, load_tree
from relaygw.web.mail.views import VIEWS, view_context
from relaygw.web.page import notice_of, render
from relaygw.web.sandbox.captured import before, captured_of, read_search
from relaygw.web.sandbox.inbox import list_path, make_tag, message_path, query_of

MAX_RECIPIENTS = 100
_MAX_CONTACTS = 50
_NEIGHBOURS = 20  # messages of one moment that are looked through for the next one
_STATES = {
    RecipientState.PENDING: ("On its way", "waiting"),
    RecipientState.DELIVERED: ("Delivered", "sent"),
    RecipientState.BOUNCED: ("Bounced", "failed"),
    RecipientState.EXPIRED: ("Expired", "failed"),
    RecipientState.CAPTURED: ("Captured", "captured"),
    RecipientState.BLOCKED: ("Blocked", "failed"),
    RecipientState.CANCELLED: ("Cancelled", "failed"),
}
"""What is said of each state, and the tone that it has."""
_OUTLOOKS = {
    Refusal.INVALID: "Could not be sent: this is no valid address.",
    Refusal.BLOCKED: "Is never sent to: on the block list.",
    Refusal.OUTSIDE: "Only an admin may release it.",
    Refusal.WAITING: "Is on its way there already.",
    Refusal.NO_ROUTE: "Could not be sent: no route and provider for it is configured.",
}


class MessagePage:
    """The endpoints of one message."""

    def __init__(self, web: WebContext, mail_pages: MailPages) -> None:
        self._web = web
        self._mail_pages = mail_pages

    async def show(self, request: Request) -> Response:
        """Show a message in one of its views."""
        found = await self._web.read(lambda: self._found_and_read(request))
        query = query_of(request)
        newer, older = await self._web.read(lambda: self._neighbours(found.entry, query))
        context = await self._web.open(lambda: self._context(request, found))
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
        found = captured_of(self._web, request)
        if found.entry.read_at_ms is None:
            self._web.store.sandbox.mark_read([found.entry.queue_id], at_ms=clock_ms())
        return found

    def _neighbours(self, entry: QueueEntry, query: str) -> tuple[str, str]:
        """Return the ids of the next newer and older message that the search finds, "" for none."""
        store, search = self._web.store, read_search(query)
        newer = store.sandbox.captured_ids(search, limit=1, after=entry.queue_id)
        at_ms = entry.captured_at_ms or entry.accepted_at_ms
        found = store.sandbox.find_captured(before(search, at_ms), start=0, limit=_NEIGHBOURS)
        ids = [one.entry.queue_id for one in found]
        older = [queue_id for queue_id in ids if queue_id < entry.queue_id]
        return (newer[0] if newer else ""), (older[0] if older else "")

    def _context(self, request: Request, found: CapturedEntry) -> dict[str, Any]:
        entry = found.entry
        tree = load_tree(self._web.store, entry)
        page = self._mail_pages.make(entry, tree)
        wanted = request.query_params.get("view", "")
        default = "html" if page is not None else "text"
        view = wanted if wanted in VIEWS and (wanted != "html" or page is not None) else default
        return {
            **self._web.page_context,
            **_envelope_context(found, tree),
            "view": view,
            "mail_path": f"/sandbox/{entry.queue_id}",
            "has_html": page is not None,
            "audience": _audience(self._web.store, self._web.settings, entry),
            "audience_left": max(0, len(entry.recipients) - MAX_RECIPIENTS),
            **view_context(view, tree, page),
        }


def _envelope_context(found: CapturedEntry, tree: MimeTree) -> dict[str, Any]:
    """Return what stands above and beside each view."""
    entry = found.entry
    facts = _people(tree)
    hidden = hidden_recipients(facts, [(one.address, one.original) for one in entry.recipients])
    at_ms = entry.captured_at_ms or entry.accepted_at_ms
    local = local_time(at_ms)
    return {
        "entry": entry,
        "subject": entry.subject,
        "sender": facts.sender,
        "contacts": [
            ("To", facts.to[:_MAX_CONTACTS], len(facts.to) - _MAX_CONTACTS),
            ("Cc", facts.cc[:_MAX_CONTACTS], len(facts.cc) - _MAX_CONTACTS),
            ("Bcc", hidden[:_MAX_CONTACTS], len(hidden) - _MAX_CONTACTS),
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


def _people(tree: MimeTree) -> ContentFacts:
    """Return whom the header names; unlike what the store keeps, of a message not read yet, too."""

    def named(field: str) -> tuple[Contact, ...]:
        return tuple(read_addresses(tree.first(field)))

    return ContentFacts(
        sender=next(iter(named("From")), nobody()),
        to=named("To"),
        cc=named("Cc"),
        bcc=named("Bcc"),
        reply_to=named("Reply-To"),
    )


def _audience(store: Store, settings: Settings, entry: QueueEntry) -> list[dict[str, Any]]:
    """Return the recipients of a message, at most MAX_RECIPIENTS."""
    planned = plan_release(
        store, settings, [entry.queue_id], ReleaseRequest(is_admin=True, anyone=True)
    )
    outlooks = _by_address(planned)
    deliveries = {part.delivery_no: part for part in entry.deliveries}
    return [
        _reader(one, deliveries.get(one.delivery_no), outlooks.get(one.address), settings)
        for one in entry.recipients[:MAX_RECIPIENTS]
    ]


def _by_address(planned: ReleaseResult) -> dict[str, Copy | RefusedCopy]:
    refused = {one.captured: one for one in planned.refused}
    return refused | {one.captured: one for one in planned.copies}


def _reader(
    one: RecipientEntry,
    delivery: DeliveryEntry | None,
    outlook: Copy | RefusedCopy | None,
    settings: Settings,
) -> dict[str, Any]:
    is_captured = one.state is RecipientState.CAPTURED
    filed_under = delivery.route if delivery is not None else ""
    copy = outlook if is_captured and isinstance(outlook, Copy) else None
    route = copy.route if copy is not None else ("" if is_captured else filed_under)
    return {
        "address": one.address,
        "original": words.given_as(one),
        "state": _state(one, delivery),
        "tone": _STATES[one.state][1],
        # why it was captured, or what the provider said
        "story": words.reason_words(one.reply, filed_under) if is_captured else one.reply or "",
        # what would happen to it now, "" when it has happened
        "outlook": _outlook(outlook) if is_captured else "",
        "route": route,
        "providers": _providers(settings, route, one),
    }


def _state(one: RecipientEntry, delivery: DeliveryEntry | None) -> str:
    state = _STATES[one.state][0]
    is_released = delivery is not None and delivery.released is not None
    return f"Released: {state.lower()}" if is_released else state


def _outlook(outlook: Copy | RefusedCopy | None) -> str:
    if outlook is None:
        return ""
    if isinstance(outlook, RefusedCopy):
        return _OUTLOOKS[outlook.refusal]
    if outlook.released is Released.ANYONE:
        return _OUTLOOKS[Refusal.OUTSIDE]
    return "May be released: the lists of now allow it."


def _providers(settings: Settings, route: str, one: RecipientEntry) -> tuple[str, ...]:
    if one.provider:
        return (one.provider,)
    return next((tuple(each.providers) for each in settings.routes if each.name == route), ())
