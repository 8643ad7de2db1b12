"""Providers and what is watched, in the gateway's API: status, incidents, history, the audit.

The texts of the endpoints stand in the description of the API.
"""

from __future__ import annotations

from typing import Any

from relaygw.mail.clock import clock_ms, rfc3339, rfc3339_or_none
from relaygw.observe.history import Series
from relaygw.operations.audit import audit_object
from relaygw.operations.providers import (
    hold_object,
    hold_provider,
    holds_of,
    provider_object,
    read_usages,
    release_provider,
)
from relaygw.operations.status import status_object, take_snapshot, warnings
from relaygw.store.audit import Trail
from relaygw.store.watch import HISTORY_SLICE_MS, HistoryPoint, Incident
from relaygw.web.api.requests import MAX_NOTE_CHARACTERS, Call, limit_of, since_of
from relaygw.web.context import WebContext
from relaygw.web.problem import Problem

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
