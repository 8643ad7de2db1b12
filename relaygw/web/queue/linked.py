"""A stable address of mail for other programs: by the number of an order, or by a Message-ID."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import Response

from relaygw.mail.search import Field, MailSearch, Term, split_words
from relaygw.operations.find import unfinished
from relaygw.settings.units import format_duration
from relaygw.web.context import WebContext, reads
from relaygw.web.page import Problem, redirect, render

MAX_CHARACTERS = 998
_EXAMPLES = "/mail?order=100000123 or /mail?message_id=1.2@shop.example"
_BY = {"order": Field.ORDER, "message_id": Field.MESSAGE_ID}


@reads
def show_linked(web: WebContext, request: Request) -> Response:
    """Lead to the story of the one mail, to the list of several, or say why there is none."""
    given = [one for one in request.query_params.multi_items() if one[0] in _BY and one[1].strip()]
    if len(given) != 1:
        raise Problem(400, "the address names no mail", expected=_EXAMPLES)
    ((name, text),) = given
    text = " ".join(text.split())
    is_empty = name == "message_id" and not split_words(text)
    if is_empty or len(text) > MAX_CHARACTERS or "\0" in text or "\ufffd" in text:
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
