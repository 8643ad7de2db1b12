"""Providers in the gateway's API: lists, and holds of operators."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from relaygw.operations.providers import (
    hold_object,
    hold_provider,
    holds_of,
    provider_object,
    read_usages,
    release_provider,
)
from relaygw.web import words
from relaygw.web.api.gateway.asked import body_of, known_parameters, text
from relaygw.web.context import WebContext
from relaygw.web.gate.identity import Role, require
from relaygw.web.problem import Problem


class ProvidersApi:
    """The endpoints of providers."""

    def __init__(self, desk: WebContext) -> None:
        self._desk = desk

    async def show_all(self, request: Request) -> Response:
        """Answer all providers."""
        known_parameters(request, ())
        return JSONResponse({"providers": await self._desk.read(self._objects)})

    async def hold(self, request: Request) -> Response:
        """Hold a provider until somebody releases it."""
        principal = require(request, Role.OPERATOR)
        name = self._name(request)
        note = text(await body_of(request, {"note"}), "note")[:200]
        store = self._desk.store
        is_new = await self._desk.change(
            lambda: hold_provider(
                store, name, actor=principal.name, now_ms=words.now_ms(), note=note
            )
        )
        self._desk.wake_workers()
        return JSONResponse({"provider": name, "was_held": not is_new})

    async def release(self, request: Request) -> Response:
        """End all holds of a provider."""
        principal = require(request, Role.OPERATOR)
        name = self._name(request)
        await body_of(request, ())
        store = self._desk.store
        ended = await self._desk.change(
            lambda: release_provider(store, name, actor=principal.name, now_ms=words.now_ms())
        )
        self._desk.wake_workers()
        return JSONResponse({"provider": name, "ended": [hold_object(hold) for hold in ended]})

    def _objects(self) -> list[dict[str, Any]]:
        holds = self._desk.store.holds.in_force()
        usages = read_usages(self._desk.store, self._desk.settings.providers)
        return [
            provider_object(name, usage, holds_of(holds, name)) for name, usage in usages.items()
        ]

    def _name(self, request: Request) -> str:
        known_parameters(request, ())
        name: str = request.path_params["name"]
        known = self._desk.settings.providers
        if name not in known:
            raise Problem(
                404, f"there is no provider {name[:40]!r}", expected=", ".join(known) or "none"
            )
        return name
