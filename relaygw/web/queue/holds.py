"""The page of standing holds: what waits, set and ended."""

from __future__ import annotations

from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import Response

from relaygw.mail.clock import clock_ms
from relaygw.mail.standing_hold import HoldScope
from relaygw.operations.standing_holds import ADD, END, MAX_TEXT_CHARACTERS, waiting_of
from relaygw.operations.verb import Asked, Mistake
from relaygw.web.context import WebContext
from relaygw.web.gate.identity import Role, require
from relaygw.web.page import Problem, redirect, render, with_notice

_PLACE = "/holds"
_SCOPES = {scope: next(p for p in ADD.parameters if p.name == scope) for scope in HoldScope}
_TYPED = ("scope", "value", "until", "reason")
_DONE = {"add": "hold_set", "end": "hold_ended"}


async def show_holds(web: WebContext, request: Request) -> Response:
    """Show the standing holds in force, the oldest first."""
    return await _show(web, request, {})


async def change_hold(web: WebContext, request: Request) -> Response:
    """Set a standing hold, or end one."""
    actor = require(request, Role.OPERATOR).name
    form = await request.form()
    typed = {name: str(form.get(name, ""))[:1000] for name in _TYPED}
    action = str(form.get("action", ""))
    if action not in _DONE:
        raise Problem(400, f"action {action[:40]!r} is not known", expected=" or ".join(_DONE))
    given = {"id": str(form.get("id", ""))}
    if action == "add":
        given = {typed["scope"]: typed["value"], **_filled(typed, "until", "reason")}
    verb = ADD if action == "add" else END
    asked = Asked(store=web.store, settings=web.settings, actor=actor, now_ms=clock_ms())
    try:
        done = await web.change(lambda: verb.carry_out(given, asked))
    except Mistake as error:
        return await _show(web, request, {**typed, "problem": str(error)})
    web.wake_workers()
    number = done["waiting"] if action == "add" else done["released"]
    return redirect(request, with_notice(_PLACE, _DONE[action], number))


def _filled(typed: dict[str, str], *names: str) -> dict[str, str]:
    return {name: typed[name] for name in names if typed[name]}


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
        "most": MAX_TEXT_CHARACTERS,
    }
    status = 400 if "problem" in typed else 200
    return render(request, "holds.html", context, mode=web.mode, status_code=status)
