"""Pages with what a check of a captured mail found: its links visited, its spam score."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from relaygw.store.sandbox import CapturedEntry
from relaygw.web.context import WebContext
from relaygw.web.gate.identity import Role, require
from relaygw.web.mail.mime_tree import load_tree
from relaygw.web.mail.views import view_context
from relaygw.web.page import render
from relaygw.web.sandbox.captured import captured_of
from relaygw.web.sandbox.checking import spam_score, visit_links, visitable
from relaygw.web.sandbox.spamd import NoScore


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
    broken = sum(one.is_broken for one in visited)
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
