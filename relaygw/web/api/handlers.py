"""What the endpoints of the gateway's API do: the queue, providers, and what is watched.

Their docstrings stand in the description of the API.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from relaygw.mail.clock import clock_ms, rfc3339, rfc3339_or_none
from relaygw.observe.observer import Series
from relaygw.operations.audit import audit_object
from relaygw.operations.providers import (
    hold_object,
    hold_provider,
    holds_of,
    provider_object,
    read_usages,
    release_provider,
)
from relaygw.operations.queue_actions import Order, QueueAction, Result
from relaygw.operations.queue_object import queue_object
from relaygw.operations.status import status_object, take_snapshot, warnings
from relaygw.operations.story import tell_story
from relaygw.policy.story import as_object as story_object
from relaygw.store.audit import Trail
from relaygw.store.watch import HISTORY_SLICE_MS, HistoryPoint, Incident
from relaygw.web.api.requests import Call, after_of, limit_of, since_of
from relaygw.web.context import WebContext, is_queue_id
from relaygw.web.page import MAX_NOTE_CHARACTERS, Problem
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


_DAY_MS = 86_400_000
_HOURS_MS = 6 * 3_600_000


async def list_providers(web: WebContext, _: Call) -> dict[str, Any]:
    """List providers.

    With their limits, what they taught, and why one is held.
    """
    return {"providers": await web.read(lambda: _provider_objects(web))}


async def post_provider_hold(web: WebContext, call: Call) -> dict[str, Any]:
    """Hold a provider.

    Nothing is sent by it until somebody releases it.
    """
    name, now = _provider_name(web, call), clock_ms()
    actor, note = call.principal.name, call.body.note[:MAX_NOTE_CHARACTERS]
    is_new = await web.change(
        lambda: hold_provider(web.store, name, actor=actor, now_ms=now, note=note)
    )
    web.wake_workers()
    return {"provider": name, "was_held": not is_new}


async def post_provider_release(web: WebContext, call: Call) -> dict[str, Any]:
    """Release a provider.

    Ends its holds, those of its key and of its sender domains.
    """
    name, now = _provider_name(web, call), clock_ms()
    actor = call.principal.name
    ended = await web.change(lambda: release_provider(web.store, name, actor=actor, now_ms=now))
    web.wake_workers()
    return {"provider": name, "ended": [hold_object(hold) for hold in ended]}


async def show_status(web: WebContext, _: Call) -> dict[str, Any]:
    """Show how the gateway is doing."""
    store, settings = web.store, web.settings
    snapshot = await web.read(lambda: take_snapshot(store, settings))
    return {**status_object(snapshot, settings), "warnings": list(warnings(snapshot))}


async def list_incidents(web: WebContext, call: Call) -> dict[str, Any]:
    """List incidents.

    Those that last, and those that ended since; oldest first.
    """
    since_ms = since_of(call.given, default_ms=clock_ms() - _DAY_MS)
    found = await web.read(lambda: web.store.watch.incidents(since_ms))
    return {"incidents": [_incident_object(one) for one in found]}


async def list_history(web: WebContext, call: Call) -> dict[str, Any]:
    """Count what happened.

    In slices of five minutes, kept for 14 days; slices without anything are left out.
    """
    since_ms = since_of(call.given, default_ms=clock_ms() - _HOURS_MS)
    series = call.given.getlist("series")
    known = [one.value for one in Series]
    for name in series:
        if name not in known:
            raise Problem(400, f"series {name[:40]!r} is none", expected=", ".join(known))
    found = await web.read(lambda: web.store.watch.history(since_ms, series=series))
    points = [_point_object(one) for one in found]
    return {"slice_s": HISTORY_SLICE_MS // 1000, "points": points}


async def list_audit(web: WebContext, call: Call) -> dict[str, Any]:
    """List what was changed.

    Newest first.
    """
    given = call.given
    trail = Trail(
        since_ms=since_of(given, default_ms=0) if "since" in given else None,
        actor=given.get("actor"),
        action=given.get("action"),
        target=given.get("target"),
    )
    limit, store = limit_of(given), web.store
    found = await web.read(lambda: store.audit.entries(limit=limit, trail=trail))
    return {"entries": [audit_object(one) for one in found]}


def _provider_objects(web: WebContext) -> list[dict[str, Any]]:
    holds = web.store.holds.in_force()
    usages = read_usages(web.store, web.settings.providers)
    return [provider_object(name, usage, holds_of(holds, name)) for name, usage in usages.items()]


def _provider_name(web: WebContext, call: Call) -> str:
    name: str = call.request.path_params["name"]
    known = web.settings.providers
    if name not in known:
        what = f"there is no provider {name[:40]!r}"
        raise Problem(404, what, expected=", ".join(known) or "none")
    return name


def _incident_object(one: Incident) -> dict[str, Any]:
    return {
        "incident_id": one.incident_id,
        "rule": one.rule,
        "key": one.key,
        "summary": one.summary,
        "remedy": one.remedy,
        "since": rfc3339(one.since_ms),
        "told": list(one.told),
        "recovered_at": rfc3339_or_none(one.recovered_at_ms),
        "recovery_told": list(one.recovery_told),
    }


def _point_object(one: HistoryPoint) -> dict[str, Any]:
    return {
        "at": rfc3339(one.slice_at_ms),
        "series": one.series,
        "label": one.label,
        "amount": one.amount,
    }
