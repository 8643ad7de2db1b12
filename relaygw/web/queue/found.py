"""The page of one search over all mail: what it finds in any state, and where it has looked."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import Response

from relaygw.mail.result import asked_for
from relaygw.mail.search import MAX_CHARACTERS, OUTCOMES, WAITING, Field, SearchMistake
from relaygw.mail.state import RecipientState
from relaygw.operations.find import looked_words, search_of
from relaygw.store.find import NoPlace
from relaygw.store.queue_entry import QueueEntry
from relaygw.web.context import WebContext, reads
from relaygw.web.inbox import PAGE_ROWS, Filter
from relaygw.web.page import Problem, render
from relaygw.web.queue.pages import make_row

_ANY = "is:"
_FILTERS = (WAITING, *OUTCOMES)


@reads
def show_found(web: WebContext, request: Request) -> Response:
    """Show a page of what a search finds, the newest first; without a text all mail."""
    given = request.query_params
    query = " ".join(given.get("q", "").split())[: MAX_CHARACTERS + 1]
    before = given.get("before", "")
    context: dict[str, Any] = {
        "query": query,
        "filters": [_filter(query, word) for word in _FILTERS],
        "before": before,
        "first": _path(query),
        **_found(web, query, before),
    }
    return render(request, "found.html", context, mode=web.mode)


def _found(web: WebContext, query: str, before: str) -> dict[str, Any]:
    try:
        search = search_of(query, tz=None)
        found = web.store.find.find(search, limit=PAGE_ROWS, before=before)
    except SearchMistake as mistake:  # while somebody types it is no reason for an error page
        said = {"mistake": mistake.what, "expected": mistake.expected}
        return {**said, "rows": [], "next": "", "looked": "", "is_inside": False}
    except NoPlace as error:
        raise Problem(400, f"before {error}", expected="the link to the next page") from None
    asked = asked_for(
        one.text for one in search.terms if one.field is Field.OUTCOME and not one.is_negated
    )
    return {
        "mistake": "",
        "expected": "",
        "rows": [{**make_row(entry, asked), "path": _path_of(entry)} for entry in found.entries],
        "next": _path(query, before=found.next) if found.next else "",
        "is_inside": found.next == "inside",  # whatever begins so was found
        "looked": looked_words(web.store, found, search),
    }


def _path_of(entry: QueueEntry) -> str:
    """Return where a message is read: in the sandbox if nobody else could get it."""
    states = {one.state for one in entry.recipients}
    return f"/{'sandbox' if states == {RecipientState.CAPTURED} else 'queue'}/{entry.queue_id}"


def _path(query: str, **more: str) -> str:
    given = urlencode({name: value for name, value in {"q": query, **more}.items() if value})
    return f"/find?{given}" if given else "/find"


def _filter(query: str, word: str) -> Filter:
    """Return a filter that puts a condition in the place of others of its kind, or takes it out."""
    term = f"{_ANY}{word}"
    others = [one for one in query.split() if not one.lower().startswith(_ANY)]
    is_on = term in query.lower().split()
    path = _path(" ".join(others if is_on else [*others, term]))
    return Filter(label=word.capitalize(), path=path, is_on=is_on)
