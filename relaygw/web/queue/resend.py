"""The page that sends a message again: it shows who would get it, and asks."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from relaygw.errors import InvalidAddress
from relaygw.mail.clock import clock_ms
from relaygw.mail.state import RecipientState
from relaygw.mail.words import escape
from relaygw.operations.resend import (
    SENT_AGAIN,
    ResendRequest,
    ResendResult,
    plan_resend,
    send_again,
)
from relaygw.policy.recipients import check_typed
from relaygw.web.context import WebContext
from relaygw.web.gate.identity import Role, require
from relaygw.web.page import redirect, render, with_notice
from relaygw.web.queue.pages import act_in
from relaygw.web.queue.selection import queued_of

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
    for one in result.messages:
        done = "resent" if one.result == SENT_AGAIN else one.result
        return redirect(request, with_notice(f"/queue/{one.new_id}", done, 1))
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
    states = {one.state for one in entry.recipients}
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
