"""The page of standing holds: what waits, set and ended."""

from __future__ import annotations

from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import Response

from relaygw.mail.standing_hold import HoldScope
from relaygw.operations.standing_holds import ADD, VERBS, waiting_of
from relaygw.operations.verb import Mistake
from relaygw.web.context import WebContext
from relaygw.web.page import redirect, render, with_notice
from relaygw.web.verbs import read_form

_PLACE = "/holds"
_SCOPES = {scope: next(p for p in ADD.parameters if p.name == scope) for scope in HoldScope}
_TYPED = ("scope", "value", "until", "reason")
_VERBS = {verb.name: verb for verb in VERBS}
_NOTICES = {"add": "hold_set", "end": "hold_ended"}


async def show_holds(web: WebContext, request: Request) -> Response:
    """Show the standing holds in force, the oldest first."""
    return await _show(web, request, {})


async def change_hold(web: WebContext, request: Request) -> Response:
    """Set a standing hold, or end one."""
    form = await read_form(request, _VERBS)
    given = form.fields()
    if form.verb is ADD:
        given |= {form.typed("scope"): form.typed("value")}
    try:
        done = await form.carry_out(web, given)
    except Mistake as error:
        typed = {name: form.typed(name) for name in _TYPED}
        return await _show(web, request, {**typed, "problem": str(error)})
    return redirect(request, with_notice(_PLACE, _NOTICES[form.action], done.number))


async def _show(web: WebContext, request: Request, typed: dict[str, str]) -> Response:
    holds = await web.read(lambda: waiting_of(web.store))
    context = {
        "holds": [
            {
                "hold": hold,
                "waiting": waiting,
                "path": f"/queue?{urlencode({'reason': f'standing hold {hold.hold_id}'})}",
            }
            for hold, waiting in holds
        ],
        "scopes": _SCOPES,
        "typed": {**dict.fromkeys((*_TYPED, "problem"), ""), **typed},
    }
    status = 400 if "problem" in typed else 200
    return render(request, "holds.html", context, mode=web.mode, status_code=status)
