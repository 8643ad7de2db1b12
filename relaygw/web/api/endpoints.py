"""The endpoints of the gateway's API: those of `mail`, then the guard, providers, what is watched.

Its routes and its description come from here: of each endpoint the first line of the docstring
says what it does, the rest explains.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from relaygw.mail.clock import HOUR_MS, clock_ms, rfc3339, rfc3339_or_none
from relaygw.mail.words import fields
from relaygw.observe.history import Series
from relaygw.operations import guard, provider_holds, providers, standing_holds
from relaygw.operations.access import (
    access_object,
    exempt_networks,
    exempt_object,
    review,
    throttled_object,
)
from relaygw.operations.audit import audit_object
from relaygw.operations.sources import BY, source_object, source_rows
from relaygw.operations.status import status_object, take_snapshot, warnings
from relaygw.operations.suppression import verbs as suppression_verbs
from relaygw.store.audit import Trail
from relaygw.store.watch import HISTORY_SLICE_MS
from relaygw.web.api import answers, requests, suppressions
from relaygw.web.api.answers import said
from relaygw.web.api.endpoint import ENDPOINTS, Endpoint, answer_with
from relaygw.web.api.endpoint import get as _get
from relaygw.web.api.mail import LIMIT, SINCE
from relaygw.web.api.requests import Call
from relaygw.web.api.verbs import post_verb
from relaygw.web.context import WebContext
from relaygw.web.page import Problem

__all__ = ["ENDPOINTS"]

_THROTTLED_MS = 14 * 24 * HOUR_MS


@_get("/guard", answer_with(entries=list[answers.GuardEntryShown]))
async def list_guarded(web: WebContext, _: Call) -> dict[str, Any]:
    """List what the guard holds and allows.

    The latest first.
    """
    found = await web.read(lambda: guard.guarded(web.store))
    return {"entries": list(map(guard.guarded_object, found))}


post_verb(
    guard.HOLD,
    "/guard/{id}/hold",
    answer_with(id=str, label=str, held=(int, said("messages that waited"))),
    about="What of a source is held, and why.",
)
post_verb(
    guard.ALLOW,
    "/guard/{id}/allow",
    answer_with(id=str, label=str, per_hour=int, released=int),
    about="How much may come.",
)
post_verb(
    guard.RELEASE,
    "/guard/{id}/release",
    answer_with(id=str, released=int, per_hour=(int | None, said("what is allowed from now on"))),
)


@_get("/holds", answer_with(holds=list[answers.StandingHold]))
async def list_holds(web: WebContext, _: Call) -> dict[str, Any]:
    """List standing holds.

    The oldest first, each with how much waits for it.
    """
    found = await web.read(lambda: standing_holds.waiting_of(web.store))
    return {"holds": [standing_holds.hold_object(*pair) for pair in found]}


post_verb(standing_holds.ADD, "/holds", answers.StandingHoldSet)
post_verb(
    standing_holds.END,
    "/holds/{id}/end",
    answer_with(
        id=str,
        released=(int, said("deliveries that are due now")),
        still_held=(int, said("deliveries that something else holds")),
        held_for=(list[str], said("what holds these")),
    ),
)

_get("/suppressions", suppressions.LISTED, parameters=suppressions.LIST_PARAMETERS)(
    suppressions.list_suppressions
)
post_verb(
    suppression_verbs.ADD,
    "/suppressions/add",
    suppressions.SUPPRESSED,
    about="Which addresses are suppressed, and why.",
)
post_verb(
    suppression_verbs.REMOVE,
    "/suppressions/remove",
    suppressions.LIFTED,
    about="Which suppressions are lifted; without a sender's domain and a stream all of an "
    "address.",
)


@_get("/providers", answer_with(providers=list[answers.Provider]))
async def list_providers(web: WebContext, _: Call) -> dict[str, Any]:
    """List providers.

    With their limits, what they taught, and why one is held.
    """

    def read() -> list[dict[str, Any]]:
        holds = web.store.holds.in_force()
        lanes = web.store.queue.counts()
        usages = providers.read_usages(web.store, web.settings, holds, lanes).items()
        return [
            providers.provider_object(name, usage, providers.holds_of(holds, name))
            for name, usage in usages
        ]

    return {"providers": await web.read(read)}


post_verb(
    provider_holds.HOLD,
    "/providers/{name}/hold",
    answer_with(provider=str, was_held=(bool, said("by an operator, before this"))),
    about="Why a provider is held.",
)
post_verb(
    provider_holds.RELEASE,
    "/providers/{name}/release",
    answer_with(provider=str, ended=list[answers.Hold]),
)

_INCIDENTS = answer_with(incidents=list[answers.Incident])
_SERIES = {"since": f"{SINCE}; default six hours", "series": "only this one; repeatable"}
_TRAIL = {
    **LIMIT,
    "since": SINCE,
    "until": SINCE,
    "actor": "contains it",
    "action": "is it, or one below it: `queue` for `queue.delete`",
    "target": "is exactly this",
}


@_get(
    "/sources",
    answer_with(sources=list[answers.SourceOfMail]),
    parameters={
        "by": f"{', '.join(BY)}; without it each class of mail for itself",
        "since": f"mail since the hour of this time: {SINCE}; default one day",
        "limit": LIMIT["limit"],
    },
)
async def list_sources(web: WebContext, call: Call) -> dict[str, Any]:
    """List who sends what.

    Classes of mail, or rows by one of their parts, the most mail first; counted by whole hours.
    """
    by, limit = call.given.get("by"), requests.limit_of(call.given)
    if by is not None and by not in BY:
        raise Problem(400, f"by {by[:40]!r} is not known", expected=", ".join(BY))
    since_ms = requests.since_of(call.given, default_ms=clock_ms() - 24 * HOUR_MS)
    rows, _ = await web.read(lambda: source_rows(web.store, by=by, since_ms=since_ms, limit=limit))
    return {"sources": [source_object(row, by=by) for row in rows]}


@_get("/status", answers.Status)
async def show_status(web: WebContext, _: Call) -> dict[str, Any]:
    """Show how the gateway is doing."""
    snapshot = await web.read(lambda: take_snapshot(web.store, web.settings))
    return {**status_object(snapshot, web.settings), "warnings": list(warnings(snapshot))}


@_get("/incidents", _INCIDENTS, parameters={"since": f"{SINCE}; default one day"})
async def list_incidents(web: WebContext, call: Call) -> dict[str, Any]:
    """List incidents.

    Those that last, and those that ended since; oldest first.
    """
    since_ms = requests.since_of(call.given, default_ms=clock_ms() - 24 * HOUR_MS)
    found = await web.read(lambda: web.store.watch.incidents(since_ms))
    incidents = [
        {
            **fields(incident, "incident_id", "rule", "key", "summary", "remedy"),
            "since": rfc3339(incident.since_ms),
            "told": list(incident.told),
            "recovered_at": rfc3339_or_none(incident.recovered_at_ms),
            "recovery_told": list(incident.recovery_told),
        }
        for incident in found
    ]
    return {"incidents": incidents}


@_get("/history", answer_with(slice_s=int, points=list[answers.Point]), parameters=_SERIES)
async def list_history(web: WebContext, call: Call) -> dict[str, Any]:
    """Count what happened.

    In slices of five minutes, kept for 14 days; slices without anything are left out.
    """
    since_ms = requests.since_of(call.given, default_ms=clock_ms() - 6 * HOUR_MS)
    series, known = call.given.getlist("series"), [Sery.value for Sery in Series]
    for name in series:
        if name not in known:
            raise Problem(400, f"series {name[:40]!r} is not known", expected=", ".join(known))
    found = await web.read(lambda: web.store.watch.history(since_ms, series=series))
    points = [{"at": rfc3339(point.pop("slice_at_ms")), **point} for point in map(asdict, found)]
    return {"slice_s": HISTORY_SLICE_MS // 1000, "points": points}


@_get("/audit", answer_with(entries=list[answers.Deed]), parameters=_TRAIL)
async def list_audit(web: WebContext, call: Call) -> dict[str, Any]:
    """List what was changed.

    Newest first.
    """
    given, limit = call.given, requests.limit_of(call.given)
    since_ms, until_ms = (
        requests.since_of(given, default_ms=0, name=name) if name in given else None
        for name in ("since", "until")
    )
    words = {name: given.get(name) for name in ("actor", "action", "target")}
    trail = Trail(since_ms=since_ms, until_ms=until_ms, **words)
    found = await web.read(lambda: web.store.audit.entries(limit=limit, trail=trail))
    return {"entries": list(map(audit_object, found))}


_FOR_ADMINS: dict[str, Any] = {"errors": (400, 401, 403, 503), "is_for_admins": True}


@_get("/access", answer_with(logins=list[answers.Login]), **_FOR_ADMINS)
async def list_access(web: WebContext, _: Call) -> dict[str, Any]:
    """List who may log in.

    To pages and API, by tokens and by SMTP: with which role, since when, and when last, to the
    minute.
    """
    found = await web.read(lambda: review(web.store, web.settings, web.uses))
    return {"logins": list(map(access_object, found))}


@_get(
    "/clients",
    answer_with(throttled=list[answers.ThrottledClient], exempt=list[answers.ExemptNetwork]),
    **_FOR_ADMINS,
)
async def list_clients(web: WebContext, _: Call) -> dict[str, Any]:
    """List throttled clients of the last 14 days, and exempt networks."""
    since_ms = clock_ms() - _THROTTLED_MS
    found = await web.read(lambda: web.store.visitors.throttled(since_ms))
    exempt = exempt_networks(web.settings)
    return {
        "throttled": list(map(throttled_object, found)),
        "exempt": list(map(exempt_object, exempt)),
    }


_WAIT = Endpoint(
    "get",
    "/wait",
    answers.Waited,
    None,
    "Wait for captured mail.\nAnswers when the mail is there, with its codes and links; 408 if it "
    "does not come.",
    parameters={
        "to": "a whole address, of the envelope or the header",
        "from": "a part of the sender",
        "subject": "a part of the subject",
        "query": "a search as in the sandbox",
        "since": "captured after this time, RFC 3339",
        "timeout": "30s; default 10s, at most 120s",
    },
    errors=(400, 401, 408, 503),
)
ENDPOINTS.append(_WAIT)
