"""Finding mail: one search over all of it, and a stable address for other programs.

What was found and is at its end can be sent again: a page shows who would get it, and asks.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import Response

from relaygw.errors import InvalidAddress
from relaygw.mail.clock import clock_ms
from relaygw.mail.result import asked_for
from relaygw.mail.search import (
    MAX_CHARACTERS,
    OUTCOMES,
    WAITING,
    Field,
    MailSearch,
    SearchMistake,
    Term,
)
from relaygw.mail.search_words import split_words
from relaygw.mail.state import RecipientState
from relaygw.mail.words import escape
from relaygw.operations.resend import (
    SENT_AGAIN,
    ResendRequest,
    ResendResult,
    plan_resend,
    send_again,
)
from relaygw.operations.selectors import looked_words, search_of, unfinished
from relaygw.policy.recipients import check_typed
from relaygw.settings.section import format_duration
from relaygw.store.find import NoPlace
from relaygw.store.queue_entry import QueueEntry
from relaygw.web.context import WebContext, reads
from relaygw.web.gate.identity import Role, require
from relaygw.web.lists import PAGE_ROWS, Filter
from relaygw.web.page import Problem, redirect, render, with_notice
from relaygw.web.queue.pages import act_in, make_row
from relaygw.web.queue.selection import queued_of

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
        term.text for term in search.terms if term.field is Field.OUTCOME and not term.is_negated
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
    states = {recipient.state for recipient in entry.recipients}
    return f"/{'sandbox' if states == {RecipientState.CAPTURED} else 'queue'}/{entry.queue_id}"


def _path(query: str, **more: str) -> str:
    given = urlencode({name: value for name, value in {"q": query, **more}.items() if value})
    return f"/find?{given}" if given else "/find"


def _filter(query: str, word: str) -> Filter:
    """Return a filter that puts a condition in the place of others of its kind, or takes it out."""
    term = f"{_ANY}{word}"
    others = [condition for condition in query.split() if not condition.lower().startswith(_ANY)]
    is_on = term in query.lower().split()
    path = _path(" ".join(others if is_on else [*others, term]))
    return Filter(label=word.capitalize(), path=path, is_on=is_on)


# --- a stable address -------------------------------------------------------------------
# A stable address of mail for other programs: by the number of an order, or by a Message-ID.


_MAX_ID_CHARACTERS = 998
_EXAMPLES = "/mail?order=100000123 or /mail?message_id=1.2@shop.example"
_BY = {"order": Field.ORDER, "message_id": Field.MESSAGE_ID}


@reads
def show_linked(web: WebContext, request: Request) -> Response:
    """Lead to the story of the one mail, to the list of several, or say why there is none."""
    given = [
        multi_item
        for multi_item in request.query_params.multi_items()
        if multi_item[0] in _BY and multi_item[1].strip()
    ]
    if len(given) != 1:
        raise Problem(400, "the address names no mail", expected=_EXAMPLES)
    ((name, text),) = given
    text = " ".join(text.split())
    is_empty = name == "message_id" and not split_words(text)
    if is_empty or len(text) > _MAX_ID_CHARACTERS or "\0" in text or "\ufffd" in text:
        raise Problem(400, f"{name} cannot be searched for", expected=_EXAMPLES)
    search = None
    for value in _spellings(name, text):
        search = MailSearch(terms=(Term(field=_BY[name], text=value),))
        found = web.store.find.find(search, limit=2).entries
        if len(found) == 1:
            return redirect(request, f"/queue/{found[0].queue_id}")
        if found:
            quoted = value.replace('"', " ")
            query = urlencode({"q": f'{_BY[name]}:"{quoted}"'})
            return redirect(request, f"/find?{query}")
    assert search is not None
    return render(
        request, "linked.html", _told(web, name, text, search), mode=web.mode, status_code=404
    )


def _spellings(name: str, text: str) -> tuple[str, ...]:
    """Return as what a value is looked for; some programs write a Message-ID without brackets."""
    bare = text.removeprefix("<").removesuffix(">")
    return (f"<{bare}>", bare) if name == "message_id" else (text,)


def _told(web: WebContext, name: str, text: str, search: MailSearch) -> dict[str, Any]:
    queue = web.settings.queue
    return {
        "text": text,
        "what": "order" if name == "order" else "Message-ID",
        "header": web.settings.web.link_header if name == "order" else "Message-ID",
        "retention": format_duration(queue.retention),
        "unfinished": list(unfinished(web.store, search)),
        "find": f"/find?{urlencode({'q': text})}",
    }


_CHANGED = "It has changed meanwhile. This is its current state."
_MAX_ADDRESS_CHARACTERS = 1000


async def show_resend(web: WebContext, request: Request) -> Response:
    """Show who would get a message again."""
    require(request, Role.OPERATOR)
    return await _ask(web, request, ResendRequest())


async def resend(web: WebContext, request: Request) -> Response:
    """Show who would get it at another address, or send again what was confirmed."""
    principal = require(request, Role.OPERATOR)
    form = await request.form()
    to = str(form.get("to", "")).strip()[:_MAX_ADDRESS_CHARACTERS]
    wanted = ResendRequest(
        to=to or None,
        with_delivered=form.get("delivered") == "1",
        is_forced=form.get("forced") == "1",
    )
    is_seen = str(form.get("asked", to)) == to  # whom somebody typed is shown first
    if form.get("confirmed") != "1" or not is_seen:
        return await _ask(web, request, wanted)
    planned = await web.open(lambda: _plan(web, request, wanted))
    if planned.mark != form.get("shown"):
        return await _ask(web, request, wanted, problem=_CHANGED)
    result = await web.open(
        lambda: send_again(
            web.store, web.resender, planned, actor=principal.name, now_ms=clock_ms(), detail="web"
        )
    )
    web.wake_workers()
    for message in result.messages:
        done = "resent" if message.result == SENT_AGAIN else message.result
        return redirect(request, with_notice(f"/queue/{message.new_id}", done, 1))
    return await _ask(web, request, wanted, problem=_CHANGED)


def _plan(web: WebContext, request: Request, wanted: ResendRequest) -> ResendResult:
    queue_id = queued_of(web, request).queue_id
    return plan_resend(web.store, web.resender, [queue_id], wanted)


async def _ask(
    web: WebContext, request: Request, wanted: ResendRequest, *, problem: str = ""
) -> Response:
    entry = await web.read(lambda: queued_of(web, request))
    planned = ResendResult()
    try:
        if wanted.to is not None:
            check_typed(wanted.to)
        planned = await web.open(lambda: _plan(web, request, wanted))
    except InvalidAddress as error:
        problem = (
            f"{escape(wanted.to or '')} is not an address: {error}; write one like ann@example.com"
        )
    left = next(iter(planned.left), None)
    states = {recipient.state for recipient in entry.recipients}
    ended = {RecipientState.BOUNCED, RecipientState.EXPIRED}
    context = {
        "entry": entry,
        "wanted": wanted,
        "problem": problem,
        "resent": next(iter(planned.messages), None),
        "left": left,
        "act": act_in(left.why) if left else None,
        "shown": planned.mark,
        "has_both": bool(states & ended) and RecipientState.DELIVERED in states,
        "is_in_doubt": any(part.is_in_doubt for part in entry.deliveries),
        "is_kept": bool(entry.chunk_count),
    }
    return render(request, "resend.html", context, mode=web.mode)
