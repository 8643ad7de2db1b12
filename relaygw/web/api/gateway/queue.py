"""The queue in the gateway's API: lists, single messages, their stories, and changes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from relaygw.operations.queue_actions import Order, QueueAction, Result
from relaygw.operations.queue_object import queue_object
from relaygw.operations.selectors import ANY_STATE, SELECTORS
from relaygw.operations.story import tell_story
from relaygw.policy.story import as_object as story_object
from relaygw.store.queue_entry import QueueEntry
from relaygw.web import words
from relaygw.web.api.gateway.asked import (
    after_of,
    body_of,
    flag,
    ids_of,
    known_parameters,
    limit_of,
    selection_of,
    text,
)
from relaygw.web.context import WebContext, is_queue_id
from relaygw.web.gate.identity import Role, require
from relaygw.web.problem import Problem
from relaygw.web.queue.actions import QueueChoice, carry_out, known_provider
from relaygw.web.queue.selection import Asked, found_messages, read_asked

Endpoint = Callable[[Request], Awaitable[Response]]


class QueueApi:
    """The endpoints of the queue."""

    def __init__(self, desk: WebContext) -> None:
        self._desk = desk

    async def show_page(self, request: Request) -> Response:
        """Answer a page of messages, the oldest first; `next` is for the page after it."""
        given = known_parameters(request, {*SELECTORS, "limit", "after"})
        limit, after = limit_of(given), after_of(given)
        asked = read_asked(given, now_ms=words.now_ms())
        entries = await self._desk.read(
            lambda: found_messages(self._desk.store, asked, limit=limit + 1, after=after)
        )
        shown = entries[:limit]
        return JSONResponse(
            {
                "messages": [queue_object(entry) for entry in shown],
                "next": shown[-1].queue_id if len(entries) > limit else None,
            }
        )

    async def show(self, request: Request) -> Response:
        """Answer one message."""
        known_parameters(request, ())
        entry = await self._desk.read(lambda: self._found(request))
        return JSONResponse(queue_object(entry))

    async def explain(self, request: Request) -> Response:
        """Answer the story of one message."""
        known_parameters(request, ())
        desk, now = self._desk, words.now_ms()
        queue_id = _id_of(request)
        story = await desk.read(lambda: tell_story(desk.store, desk.settings, queue_id, now_ms=now))
        if story is None:
            raise _missing(queue_id)
        return JSONResponse(story_object(story))

    def act(self, verb: QueueAction) -> Endpoint:
        """Return the endpoint that does something to messages."""

        async def change(request: Request) -> Response:
            principal = require(request, Role.OPERATOR)
            known_parameters(request, ())
            names = {"ids", "select", "all", "dry_run"}
            names |= {"note"} if verb.takes_note else set()
            names |= {"provider"} if verb.takes_provider else set()
            names |= {"force"} if verb.takes_force else set()
            body = await body_of(request, names)
            choice = _choice(body, now_ms=words.now_ms())
            order = Order(
                actor=principal.name,
                detail=choice.words().replace("web", "api", 1),
                note=text(body, "note")[:200],
                provider=text(body, "provider"),
                is_forced=flag(body, "force"),
            )
            if verb.takes_provider:
                senders = known_provider(self._desk.settings, order.provider).senders
                order = replace(order, senders=senders)
            if flag(body, "dry_run"):
                ids = await self._desk.read(lambda: self._would_touch(verb, choice))
                return JSONResponse(_outcome(verb, Result(changed=ids, left=()), is_dry_run=True))
            now = words.now_ms()
            result = await self._desk.change(
                lambda: carry_out(self._desk, verb, choice, order, now_ms=now)
            )
            self._desk.wake_workers()
            return JSONResponse(_outcome(verb, result, is_dry_run=False))

        return change

    def _would_touch(self, verb: QueueAction, choice: QueueChoice) -> tuple[str, ...]:
        store = self._desk.store
        if choice.is_all:
            batches = choice.batches(store, verb.from_states)
            return tuple(queue_id for batch in batches for queue_id in batch)
        found = store.queue.entries(choice.ids)
        return tuple(
            entry.queue_id
            for entry in found
            if verb.from_states & {part.state for part in entry.deliveries}
        )

    def _found(self, request: Request) -> QueueEntry:
        queue_id = _id_of(request)
        found = self._desk.store.queue.entries([queue_id])
        if not found:
            raise _missing(queue_id)
        return found[0]


def _id_of(request: Request) -> str:
    queue_id: str = request.path_params["queue_id"].upper()
    if not is_queue_id(queue_id):
        raise _missing(queue_id)
    return queue_id


def _missing(queue_id: str) -> Problem:
    return Problem(
        404,
        f"there is no message {queue_id[:40]}",
        remedy="see /api/gateway/v1/queue; finished messages go after queue.retention",
    )


def _choice(body: dict[str, Any], *, now_ms: int) -> QueueChoice:
    """Return which messages a body names: by ids, by conditions, or all that wait."""
    given = [name for name in ("ids", "select", "all") if name in body]
    if len(given) != 1:
        said = " and ".join(given) or "nothing"
        raise Problem(
            400,
            f"the body names {said}",
            expected="one of ids, select and all",
            remedy='write {"ids": [...]}, {"select": {...}} or {"all": true}',
        )
    ids = ids_of(body)
    asked = selection_of(body, now_ms=now_ms)
    if given == ["ids"]:
        return QueueChoice(ids=ids, asked=asked, looked_at_ms=None)
    _check_meant(body, asked)
    if "state" not in asked.given:  # those that the change is meant for
        asked = replace(asked, selection=replace(asked.selection, states=ANY_STATE))
    return QueueChoice(ids=(), asked=asked, looked_at_ms=now_ms + 1)


def _check_meant(body: dict[str, Any], asked: Asked) -> None:
    if "select" in body and not asked.given:
        raise Problem(
            400, "select has no condition", expected="one at least", remedy='write {"all": true}'
        )
    if "all" in body and not flag(body, "all"):
        raise Problem(400, "all is false: no message is named", expected="ids or select")


def _outcome(verb: QueueAction, result: Result, *, is_dry_run: bool) -> dict[str, Any]:
    return {
        "action": verb.name,
        "dry_run": is_dry_run,
        "number": len(result.changed),
        "changed": list(result.changed),
        "left": [
            {"queue_id": one.queue_id, "why": one.why, "is_temporary": one.is_temporary}
            for one in result.left
        ],
    }
