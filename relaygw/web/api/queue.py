"""The queue in the gateway's API: lists, single messages, their stories, and changes.

The texts of the endpoints stand in the description of the API.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from relaygw.mail.clock import clock_ms
from relaygw.operations.queue_actions import Order, QueueAction, Result
from relaygw.operations.queue_object import queue_object
from relaygw.operations.story import tell_story
from relaygw.policy.story import as_object as story_object
from relaygw.web.api.requests import MAX_NOTE_CHARACTERS, Call, after_of, limit_of
from relaygw.web.context import WebContext, is_queue_id
from relaygw.web.problem import Problem
from relaygw.web.queue.selection import (
    QueueChoice,
    carry_out,
    found_messages,
    read_conditions,
)


async def list_messages(web: WebContext, call: Call) -> dict[str, Any]:
    """List messages.

    The oldest first. Without `state` and `id`, what still waits.
    """
    limit, after = limit_of(call.given), after_of(call.given)
    conditions = read_conditions(call.given, now_ms=clock_ms())
    entries = await web.read(
        lambda: found_messages(web.store, conditions, limit=limit + 1, after=after)
    )
    shown = entries[:limit]
    return {
        "messages": [queue_object(entry) for entry in shown],
        "next": shown[-1].queue_id if len(entries) > limit else None,
    }


async def show_message(web: WebContext, call: Call) -> dict[str, Any]:
    """Show one message."""
    queue_id = _id_of(call)
    found = await web.read(lambda: web.store.queue.entries([queue_id]))
    if not found:
        raise _missing(queue_id)
    return queue_object(found[0])


async def explain_message(web: WebContext, call: Call) -> dict[str, Any]:
    """Tell the story of one message.

    What happened to it, what each reply means, what comes next, what to do.
    """
    queue_id, now = _id_of(call), clock_ms()
    story = await web.read(lambda: tell_story(web.store, web.settings, queue_id, now_ms=now))
    if story is None:
        raise _missing(queue_id)
    return story_object(story)


def change_by(action: QueueAction) -> Callable[[WebContext, Call], Awaitable[dict[str, Any]]]:
    """Return the endpoint of an action."""

    async def change(web: WebContext, call: Call) -> dict[str, Any]:
        now = clock_ms()
        choice: QueueChoice = call.body.choice(now_ms=now)
        given = call.body.model_dump(include={"note", "provider", "force"})
        provider = given.get("provider", "")
        by = web.provider(provider) if action.takes_provider else None
        order = Order(
            actor=call.principal.name,
            detail=choice.words().replace("web", "api", 1),
            note=given.get("note", "")[:MAX_NOTE_CHARACTERS],
            is_forced=given.get("force", False),
            provider=provider,
            senders=by.senders if by is not None else (),
        )
        if call.body.dry_run:
            ids = await web.read(lambda: _would_touch(web, action, choice))
            return _outcome(action, Result(changed=ids, left=()), is_dry_run=True)
        result = await web.change(lambda: carry_out(web, action, choice, order, now_ms=now))
        web.wake_workers()
        return _outcome(action, result, is_dry_run=False)

    return change


def _would_touch(web: WebContext, action: QueueAction, choice: QueueChoice) -> tuple[str, ...]:
    if choice.is_all:
        batches = choice.batches(web.store, action.from_states)
        return tuple(queue_id for batch in batches for queue_id in batch)
    return tuple(
        entry.queue_id
        for entry in web.store.queue.entries(choice.ids)
        if action.from_states & {part.state for part in entry.deliveries}
    )


def _id_of(call: Call) -> str:
    queue_id: str = call.request.path_params["queue_id"].upper()
    if not is_queue_id(queue_id):
        raise _missing(queue_id)
    return queue_id


def _missing(queue_id: str) -> Problem:
    return Problem(
        404,
        f"there is no message {queue_id[:40]}",
        remedy="see /api/gateway/v1/queue; finished messages go after queue.retention",
    )


def _outcome(action: QueueAction, result: Result, *, is_dry_run: bool) -> dict[str, Any]:
    return {
        "action": action.name,
        "dry_run": is_dry_run,
        "number": len(result.changed),
        "changed": list(result.changed),
        "left": [
            {"queue_id": one.queue_id, "why": one.why, "is_temporary": one.is_temporary}
            for one in result.left
        ],
    }
