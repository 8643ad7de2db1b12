"""The page of suppressed addresses: found, added, lifted."""

from __future__ import annotations

from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import Response

from relaygw.mail.suppression import STREAMS, Cause, Suppression
from relaygw.operations.suppression.verbs import ADD, REMOVE
from relaygw.operations.verb import Mistake
from relaygw.store.suppression_list import SuppressionFilter
from relaygw.web.context import WebContext
from relaygw.web.page import Problem, redirect, render, with_notice
from relaygw.web.queue.selection import read_word
from relaygw.web.suppression_place import place_of, read_place
from relaygw.web.verbs import read_form

PAGE_ENTRIES = 100
_MOST = 10_000
_PLACE = "/suppression"
_WORDS = {
    Cause.BOUNCE: "Hard bounce",
    Cause.REFUSED: "Refused twice",
    Cause.COMPLAINT: "Complaint",
    Cause.UNSUBSCRIBE: "Unsubscribed",
    Cause.MANUAL: "By hand",
}
_VERBS = {"add": ADD, "remove": REMOVE}
_NOTICES = {"add": "suppressed", "remove": "lifted"}
_TYPED = ("addresses", "sender_domain", "note")
_REASONS = {cause.value: word for cause, word in _WORDS.items()}


async def show_suppression(web: WebContext, request: Request) -> Response:
    """Show a page of the list, newest first."""
    return await _show(web, request, {})


async def change_suppression(web: WebContext, request: Request) -> Response:
    """Add an address, or lift one."""
    form = await read_form(request, _VERBS)
    try:
        await form.carry_out(web, form.fields())
    except Mistake as error:
        typed = {name: form.typed(name) for name in _TYPED}
        return await _show(web, request, {**typed, "problem": str(error)})
    return redirect(request, with_notice(_PLACE, _NOTICES[form.action], 1))


async def _show(web: WebContext, request: Request, typed: dict[str, str]) -> Response:
    query = request.query_params
    given = {name: read_word(name, query.get(name, "")) for name in ("q", "reason")}
    causes = frozenset({Cause(given["reason"])} if given["reason"] in _REASONS else ())
    wanted = SuppressionFilter(text=given["q"] or None, causes=causes)
    unknown = Problem(400, "the page is not known", expected="the first one")
    after = read_place(query.get("after", ""), unknown)

    def read() -> tuple[list[Suppression], int]:
        listed = web.store.suppressions
        found = listed.suppressed(limit=PAGE_ENTRIES + 1, wanted=wanted, after=after)
        return found, listed.count_suppressed(wanted, most=_MOST)

    found, number = await web.read(read)
    has_more = len(found) > PAGE_ENTRIES
    following = place_of(found[PAGE_ENTRIES - 1]) if has_more else ""
    context = {
        "entries": found[:PAGE_ENTRIES],
        "number": f"{number:,}" + ("+" if number >= _MOST else ""),
        "given": given,
        "is_filtered": any(given.values()),
        "reasons": _REASONS,
        "words": _WORDS,
        "streams": STREAMS,
        "rules": web.settings.suppression,
        "typed": {**dict.fromkeys((*_TYPED, "problem"), ""), **typed},
        "next_path": _path({**given, "after": following}) if has_more else "",
        "first_path": _path(given) if after is not None else "",
    }
    status = 400 if "problem" in typed else 200
    return render(request, "suppression.html", context, mode=web.mode, status_code=status)


def _path(given: dict[str, str]) -> str:
    words = {name: value for name, value in given.items() if value}
    return f"{_PLACE}?{urlencode(words)}" if words else _PLACE
