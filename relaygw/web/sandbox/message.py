"""One captured message in all its views, its fate as by a release now; opening it marks it read.

Links of it are visited, and its spam is scored, when somebody asks.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from relaygw.mail.content_facts import ContentFacts, hidden_recipients
from relaygw.mail.envelope import Released
from relaygw.mail.mime_header import decode_words
from relaygw.mail.mime_tree import MimeTree
from relaygw.mail.state import RecipientState
from relaygw.operations.captured import Copy, RefusedCopy, ReleaseRequest, plan_release
from relaygw.policy.recipients import Refusal
from relaygw.settings.model import Settings
from relaygw.store.queue_entry import DeliveryEntry, QueueEntry, RecipientEntry
from relaygw.store.sandbox import CapturedEntry
from relaygw.web import words
from relaygw.web.context import WebContext
from relaygw.web.gate.identity import Role, require
from relaygw.web.mail.html_check import table
from relaygw.web.mail.html_page import Link
from relaygw.web.mail.parts import load_tree
from relaygw.web.mail.text import hosts_linked, hosts_named, people_of
from relaygw.web.mail.views import VIEWS, scheme_of, view_context
from relaygw.web.page import render
from relaygw.web.sandbox.captured import (
    before,
    captured_of,
    check_page,
    read_search,
    spam_score,
    visit_links,
    visitable,
)
from relaygw.web.sandbox.inbox import (
    list_context,
    list_path,
    make_tag,
    message_path,
    page_of,
    query_of,
)
from relaygw.web.sandbox.spamd import NoScore

CHECKS = "checks"  # the view of captured mail only
MAX_RECIPIENTS = 100
_MAX_CONTACTS = 50
_NEIGHBOURS = 20  # messages of one moment that are looked through for the next one
_STATES = {  # what is said of each, and its tone
    RecipientState.PENDING: ("On its way", "waiting"),
    RecipientState.DELIVERED: ("Delivered", "sent"),
    RecipientState.BOUNCED: ("Bounced", "failed"),
    RecipientState.EXPIRED: ("Expired", "failed"),
    RecipientState.CAPTURED: ("Captured", "captured"),
    RecipientState.BLOCKED: ("Blocked", "failed"),
    RecipientState.CANCELLED: ("Cancelled", "failed"),
}
_MAY_BE_RELEASED = "May be released."
_OUTLOOKS = {
    Refusal.INVALID: "Could not be sent: this is not a valid address.",
    Refusal.BLOCKED: "Never sent to: on the block list.",
    Refusal.OUTSIDE: "Only an admin may release it.",
    Refusal.WAITING: "Already on its way.",
    Refusal.NO_ROUTE: "Could not be sent: no route and provider for it is configured.",
}


async def show_message(web: WebContext, request: Request) -> Response:
    """Show a message in one of its views."""
    query, scheme = query_of(request.query_params), scheme_of(request)
    path = partial(message_path, query=query, page=page_of(request), scheme=scheme)

    def read() -> tuple[CapturedEntry, str, str, dict[str, Any]]:
        found = captured_of(web, request)
        queue_id = found.entry.queue_id
        if found.entry.read_at_ms is None:
            web.store.sandbox.mark_read([queue_id], is_read=True)
        beside = list_context(web, request, opened=queue_id)
        return found, *_neighbours(web, found.entry, query), beside

    found, newer, older, beside = await web.read(read)
    wanted = request.query_params.get("view", "")
    context = beside | await web.open(lambda: _context(web, found, wanted))
    context |= {
        "newer": path(newer) if newer else "",
        "older": path(older) if older else "",
        "scheme": scheme,
        "back": list_path(query, page=page_of(request)),
        "view_path": lambda view, scheme=scheme: path(
            found.entry.queue_id, view=view, scheme=scheme
        ),
    }
    return render(request, "message.html", context, mode=web.mode)


def _neighbours(web: WebContext, entry: QueueEntry, query: str) -> tuple[str, str]:
    """Return the ids of the next newer and older message that the search finds, "" for none."""
    sandbox, search = web.store.sandbox, read_search(query)
    newer = sandbox.captured_ids(search, limit=1, after=entry.queue_id)
    at_ms = entry.captured_at_ms or entry.accepted_at_ms
    found = sandbox.find_captured(before(search, at_ms), start=0, limit=_NEIGHBOURS)
    older = (mail.entry.queue_id for mail in found if mail.entry.queue_id < entry.queue_id)
    return next(iter(newer), ""), next(older, "")


def _context(web: WebContext, found: CapturedEntry, wanted: str) -> dict[str, Any]:
    entry = found.entry
    tree = load_tree(web.store, entry)
    page = web.mail_pages.make(entry, tree)
    view = wanted if wanted in (*VIEWS, CHECKS) else "html"
    if view == "html" and page is None:
        view = "text"
    people = people_of(tree)  # of a message that was not read yet, too
    hidden = hidden_recipients(
        people, [(recipient.address, recipient.original) for recipient in entry.recipients]
    )
    at_ms = entry.captured_at_ms or entry.accepted_at_ms
    named = (("To", people.to), ("Cc", people.cc), ("Bcc", hidden))
    contacts = [(label, each[:_MAX_CONTACTS], len(each) - _MAX_CONTACTS) for label, each in named]
    audience = _audience(web, entry, people)
    outlooks = {person["outlook"] for person in audience}
    shown = view_context(view, tree, page)
    shown["tabs"].append((CHECKS, "Checks", 0))
    if view == CHECKS:
        shown |= {
            "html_check": check_page(tree),
            "caniemail": table(),
            "visitable": visitable(shown["links"]),
            "has_spamd": web.settings.sandbox.spamd is not None,
        }
    return {
        "entry": entry,
        "sender": people.sender,
        "contacts": [*contacts, ("Reply-To", people.reply_to[:_MAX_CONTACTS], 0)],
        "date": decode_words(tree.first("Date")),
        "own_tags": [make_tag(tag) for tag in found.tags],
        "captured_at_ms": at_ms,
        "view": view,
        "mail_path": f"/sandbox/{entry.queue_id}",
        "audience": audience,
        "takes_admin": _OUTLOOKS[Refusal.OUTSIDE] in outlooks and _MAY_BE_RELEASED not in outlooks,
        "is_sent": any(
            recipient.state is not RecipientState.CAPTURED for recipient in entry.recipients
        ),
        "audience_left": max(0, len(entry.recipients) - MAX_RECIPIENTS),
        **_links_to_production(tree, shown["links"], web.settings.sandbox.production_hosts),
        **shown,
    }


def _links_to_production(
    tree: MimeTree, links: Sequence[Link], production_hosts: tuple[str, ...]
) -> dict[str, Any]:
    linked = hosts_linked(tree, production_hosts)
    targets = {link.target: "".join(link.target.split()) for link in links}  # as browsers do
    return {
        "live_hosts": linked.hosts,
        "is_live_cut": linked.is_cut,
        "live_links": {
            address for address, target in targets.items() if hosts_named(target, production_hosts)
        },
    }


def _audience(web: WebContext, entry: QueueEntry, people: ContentFacts) -> list[dict[str, Any]]:
    contacts = (*people.to, *people.cc, *people.bcc)
    names = {contact["Address"].lower(): contact["Name"] for contact in reversed(contacts)}
    request = ReleaseRequest(is_admin=True, anyone=True)
    planned = plan_release(web.store, web.settings, [entry.queue_id], request)
    plans: tuple[Copy | RefusedCopy, ...] = (*planned.refused, *planned.copies)
    outlooks = {plan.captured: plan for plan in plans}
    deliveries = {part.delivery_no: part for part in entry.deliveries}
    return [
        _reader(
            recipient,
            deliveries.get(recipient.delivery_no),
            outlooks.get(recipient.address),
            web.settings,
        )
        | {"name": names.get((recipient.original or recipient.address).lower(), "")}
        for recipient in entry.recipients[:MAX_RECIPIENTS]
    ]


def _reader(
    recipient: RecipientEntry,
    delivery: DeliveryEntry | None,
    planned: Copy | RefusedCopy | None,
    settings: Settings,
) -> dict[str, Any]:
    state, tone = _STATES[recipient.state]
    if delivery is not None and delivery.released in (Released.ALLOWED, Released.ANYONE):
        state = f"Released: {state.lower()}"
    filed_under = route = delivery.route if delivery is not None else ""
    story, outlook = recipient.reply or "", ""  # what the provider said
    if recipient.state is RecipientState.CAPTURED:  # why it was, and what would happen to it now
        story, outlook = words.reason_words(recipient.reply, filed_under), _outlook(planned)
        route = planned.route if isinstance(planned, Copy) else ""
    providers = next((each.providers for each in settings.routes if each.name == route), ())
    return {
        "entry": recipient,
        "state": state,
        "tone": tone,
        "story": story,
        "outlook": outlook,
        "route": route,
        "providers": (recipient.provider,) if recipient.provider else tuple(providers),
    }


def _outlook(planned: Copy | RefusedCopy | None) -> str:
    if isinstance(planned, RefusedCopy):
        return _OUTLOOKS[planned.refusal]
    if planned is not None and planned.released is Released.ANYONE:
        return _OUTLOOKS[Refusal.OUTSIDE]
    return _MAY_BE_RELEASED if planned is not None else ""


# --- checks -----------------------------------------------------------------------------


async def show_visited(web: WebContext, request: Request) -> Response:
    """Visit the links of a message, and show what each answered."""
    principal = require(request, Role.OPERATOR)

    def read() -> tuple[CapturedEntry, list[str]]:
        found = captured_of(web, request)
        tree = load_tree(web.store, found.entry)
        page = web.mail_pages.make(found.entry, tree)
        return found, visitable(view_context("links", tree, page)["links"])

    found, urls = await web.open(read)
    visited = await visit_links(web, found.entry, urls, actor=principal.name, by="web", follow=True)
    broken = sum(link.is_broken for link in visited)
    context = {"entry": found.entry, "visited": visited, "broken": broken}
    return render(request, "links_visited.html", context, mode=web.mode)


async def show_score(web: WebContext, request: Request) -> Response:
    """Show what SpamAssassin says of a message."""
    entry = (await web.read(lambda: captured_of(web, request))).entry
    context: dict[str, object] = {"entry": entry, "score": None, "why": ""}
    try:
        context["score"] = await spam_score(web, entry)
    except NoScore as error:
        context["why"] = str(error)
    return render(request, "spam_score.html", context, mode=web.mode)
