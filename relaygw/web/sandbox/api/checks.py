"""What Mailpit's API answers about checks of a captured mail."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from relaygw.store.sandbox import CapturedEntry
from relaygw.web.context import WebContext, existing, opens
from relaygw.web.gate.identity import Role, require
from relaygw.web.mail.html_check import Feature, HtmlCheck, table
from relaygw.web.mail.parts import load_tree
from relaygw.web.sandbox.api.messages import NOT_FETCHED, Json, found_by, links_of, message_json
from relaygw.web.sandbox.captured import check_page, spam_score, visit_links, visitable
from relaygw.web.sandbox.spamd import NoScore


def _web_links(web: WebContext, request: Request) -> tuple[CapturedEntry, list[str], list[str]]:
    """Return a message, all its web links, and those that a check visits."""
    found = found_by(web, request)
    tree = load_tree(web.store, found.entry)
    links = links_of(message_json(found.entry, tree), tree)
    every = dict.fromkeys(link.target for link in links if link.is_web)
    return found, list(every), visitable(links)


@opens
def list_links(web: WebContext, request: Request) -> Response:
    """Answer each web link with the status 0, for nobody went there."""
    _, urls, _ = _web_links(web, request)
    return _links_answer(((url, 0, NOT_FETCHED) for url in urls), errors=0)


async def visit(web: WebContext, request: Request) -> Response:
    """Visit each web link, with `follow=true` also where it leads on."""
    principal = require(request, Role.OPERATOR)
    found, _, urls = await web.open(lambda: _web_links(web, request))
    follow = request.query_params.get("follow", "").lower() in ("1", "true")
    visited = await visit_links(
        web, found.entry, urls, actor=principal.name, by="api", follow=follow
    )
    listed = ((link.url, link.status, link.text) for link in visited)
    return _links_answer(listed, errors=sum(link.is_broken for link in visited))


def _links_answer(links: Iterable[tuple[str, int, str]], *, errors: int) -> Response:
    listed = [{"URL": url, "StatusCode": code, "Status": text} for url, code, text in links]
    return JSONResponse({"Errors": errors, "Links": listed})


@opens
def show_html_check(web: WebContext, request: Request) -> Response:
    """Answer what mail programs make of the HTML; 404 for mail without."""
    found = existing(check_page(load_tree(web.store, found_by(web, request).entry)))
    return JSONResponse(_html_json(found))


def _html_json(found: HtmlCheck) -> Json:
    platforms: dict[str, list[str]] = {}
    for family, platform, _ in table()["clients"]:
        platforms.setdefault(platform, []).append(family)
    total = {"Tests": len(table()["features"]), "Nodes": found.tags, **_shares(found)}
    return {
        "Warnings": list(map(_warning, found.lacking)),
        "Platforms": platforms,
        "Total": total,
    }


def _shares(checked: HtmlCheck | Feature) -> dict[str, float]:
    return {
        "Supported": round(checked.supported, 2),
        "Partial": round(checked.partial, 2),
        "Unsupported": round(checked.unsupported, 2),
    }


def _warning(feature: Feature) -> dict[str, Any]:
    return {
        "Slug": feature.slug,
        "Title": feature.title,
        "Description": feature.about,
        "URL": feature.url,
        "Category": feature.category,
        "Tags": [],
        "Keywords": "",
        "Results": [
            {
                "Name": each.name,
                "Platform": each.platform,
                "Family": each.family,
                "Version": "",  # the one tested last
                "Support": each.support,
                "NoteNumber": each.note,
            }
            for each in feature.programs
        ],
        "NotesByNumber": feature.notes,
        "Score": {"Found": feature.found, **_shares(feature)},
    }


async def show_spam_score(web: WebContext, request: Request) -> Response:
    """Answer what SpamAssassin says; 404 where `sandbox.spamd` is not set."""
    entry = (await web.read(lambda: found_by(web, request))).entry
    try:
        score = await spam_score(web, entry)
    except NoScore as error:
        return JSONResponse({"IsSpam": False, "Error": str(error), "Score": 0, "Rules": []})
    rules = [
        {"Score": rule.score, "Name": rule.name, "Description": rule.description}
        for rule in score.rules
    ]
    told = {"IsSpam": score.is_spam, "Error": "", "Score": score.score, "Rules": rules}
    return JSONResponse(told)
