"""Changes of queued mail from the pages: each asks first and says how many messages it is about."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from starlette.datastructures import FormData
from starlette.requests import Request
from starlette.responses import Response

from relaygw.mail.clock import clock_ms
from relaygw.operations.queue_actions import ACTIONS, Order, QueueAction, Result
from relaygw.store.queue_entry import QueueEntry
from relaygw.web.context import WebContext
from relaygw.web.gate.identity import Role, require
from relaygw.web.inbox import action_of
from relaygw.web.page import note_of, redirect, render, with_notice
from relaygw.web.problem import Problem
from relaygw.web.queue.list import make_queue_rows
from relaygw.web.queue.selection import QueueChoice, carry_out, read_queue_choice

SHOWN = 20


class QueueChanges:
    """The endpoint of the forms around the list and of a message."""

    def __init__(self, web: WebContext) -> None:
        self._web = web

    async def change(self, request: Request) -> Response:
        """Do what a form asks for once it is confirmed; else ask."""
        principal = require(request, Role.OPERATOR)
        form = await request.form()
        action = _action(form)
        choice = read_queue_choice(form, now_ms=clock_ms())
        back = choice.back_path(form)
        if choice.is_empty:
            return redirect(request, back)
        if form.get("confirmed") != "1":
            context = await self._web.read(lambda: self._question(action, choice))
            return render(request, "queue_confirm.html", {**context, "back": back})
        provider = str(form.get("to", ""))
        order = Order(
            actor=principal.name,
            detail=choice.words(),
            note=note_of(form),
            is_forced=form.get("forced") == "1",
        )
        if action.takes_provider:
            senders = self._web.provider(provider).senders
            order = replace(order, provider=provider, senders=senders)
        now = clock_ms()
        result = await self._web.change(
            lambda: carry_out(self._web, action, choice, order, now_ms=now)
        )
        self._web.wake_workers()
        if not result.left:
            return redirect(request, with_notice(back, action.notice, len(result.changed)))
        return render(request, "queue_done.html", self._done(action, result, back))

    def _question(self, action: QueueAction, choice: QueueChoice) -> dict[str, Any]:
        store = self._web.store
        number = 0
        shown: list[QueueEntry] = []
        for batch in choice.batches(store, action.from_states):
            number += len(batch)
            if len(shown) < SHOWN:
                shown += store.queue.entries(batch[: SHOWN - len(shown)])
        return {
            **self._web.page_context,
            "action": action,
            "number": number,
            "choice": choice,
            "rows": make_queue_rows(shown, now=clock_ms()),
            "more": number - len(shown),
            "providers": list(self._web.settings.providers),
        }

    def _done(self, action: QueueAction, result: Result, back: str) -> dict[str, Any]:
        return {
            **self._web.page_context,
            "action": action,
            "number": len(result.changed),
            "left": result.left[:SHOWN],
            "more": max(0, len(result.left) - SHOWN),
            "back": back,
        }


def _action(form: FormData) -> QueueAction:
    name = action_of(form)
    if name not in ACTIONS:
        raise Problem(400, f"action {name[:40]!r} is none", expected=f"one of {', '.join(ACTIONS)}")
    return ACTIONS[name]
