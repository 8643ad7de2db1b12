"""Providers held and let go again from the first page; each asks first."""

from __future__ import annotations

from starlette.datastructures import FormData
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from relaygw.operations.providers import hold_provider, holds_of, release_provider
from relaygw.web import words
from relaygw.web.context import Desk
from relaygw.web.gate.identity import Principal, Role, require
from relaygw.web.page import render, with_notice
from relaygw.web.problem import Problem
from relaygw.web.queue.changes import MAX_NOTE_CHARACTERS
from relaygw.web.queue.work import known_provider

_ACTIONS = ("hold", "release")


class ProviderChanges:
    """The endpoint of the forms beside the providers."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    async def change(self, request: Request) -> Response:
        """Hold or release a provider once it is confirmed; else ask."""
        principal = require(request, Role.OPERATOR)
        form = await request.form()
        name, action = str(form.get("provider", "")), str(form.get("action", ""))
        known_provider(self._desk.settings, name)
        if action not in _ACTIONS:
            raise Problem(400, f"action {action[:40]!r} is none", expected=" or ".join(_ACTIONS))
        if form.get("confirmed") != "1":
            holds = await self._desk.read(self._desk.store.holds)
            context = {
                **self._desk.page_context,
                "provider": name,
                "action": action,
                "holds": holds_of(holds, name),
            }
            return render(request, "provider_confirm.html", context)
        await self._desk.change(lambda: self._carry_out(name, action, principal, form))
        self._desk.wake_workers()
        root_path: str = request.scope.get("root_path", "")
        path = with_notice("/", "provider_held" if action == "hold" else "provider_released", 1)
        return RedirectResponse(root_path + path, status_code=303)

    def _carry_out(self, name: str, action: str, principal: Principal, form: FormData) -> None:
        store, now = self._desk.store, words.now_ms()
        if action == "hold":
            note = " ".join(str(form.get("note", "")).split())[:MAX_NOTE_CHARACTERS]
            hold_provider(store, name, actor=principal.name, now_ms=now, note=note)
        else:
            release_provider(store, name, actor=principal.name, now_ms=now)
