"""The endpoints of the gateway's API: the queue, providers, and what is watched.

Its routes and its description come from here: of each endpoint the first line of the docstring
says what it does, the rest explains.
"""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC
from itertools import chain
from typing import Any

from relaygw.mail.clock import clock_ms, rfc3339, rfc3339_or_none
from relaygw.mail.search import OUTCOMES
from relaygw.mail.words import fields
from relaygw.observe.observer import Series
from relaygw.operations import providers
from relaygw.operations.audit import audit_object
from relaygw.operations.queue_actions import ACTIONS, Order, QueueAction, Result
from relaygw.operations.queue_object import queue_object, shown_object
from relaygw.operations.selectors import SELECTORS, found_object
from relaygw.operations.sources import BY, source_object, source_rows
from relaygw.operations.status import status_object, take_snapshot, warnings
from relaygw.operations.story import tell_story
from relaygw.policy.story import as_object as story_object
from relaygw.store.audit import Trail
from relaygw.store.find import NoPlace
from relaygw.store.watch import HISTORY_SLICE_MS
from relaygw.web.api import answers, guard, mail_answers, requests, suppressions, visitors
from relaygw.web.api.answer import Time, said
from relaygw.web.api.endpoint import ENDPOINTS, Endpoint, answer_with
from relaygw.web.api.endpoint import get as _get
from relaygw.web.api.endpoint import post as _post
from relaygw.web.api.requests import Call
from relaygw.web.api.resend import Resend, resend
from relaygw.web.context import WebContext, is_queue_id
from relaygw.web.gate.identity import Role
from relaygw.web.page import MAX_NOTE_CHARACTERS, Problem
from relaygw.web.queue.selection import (
    QueueChoice,
    carry_out,
    found_messages,
    read_conditions,
    read_order,
)

__all__ = ["ENDPOINTS"]

_SINCE = "RFC 3339, or an age like 6h"
_LIMIT = {"limit": f"1 to {requests.MAX_LISTED}, default {requests.DEFAULT_LISTED}"}
_HOUR_MS = 3_600_000
_NEXT = (str | None, said("`after` of the next page; null on the last one"))
_PAGE = answer_with(messages=list[mail_answers.Message], next=_NEXT)
_LISTED = {
    **{name: one.help for name, one in SELECTORS.items()},
    "state": f"{SELECTORS['state'].help} `all` is every state; commas work as well.",
    "order": "newest or oldest; default: waiting mail oldest first, finished mail newest first",
    **_LIMIT,
    "after": "`next` of the page before",
}
_ONE = (401, 404, 503)


@_get("/queue", _PAGE, parameters=_LISTED)
async def list_messages(web: WebContext, call: Call) -> dict[str, Any]:
    """List messages.

    Without `state`, `result` and `id`, what still waits.
    """
    limit, after = requests.limit_of(call.given), requests.after_of(call.given)
    conditions = read_conditions(call.given, now_ms=clock_ms(), tz=UTC)
    newest_first = read_order(call.given.get("order", ""), conditions)
    entries = await web.read(
        lambda: found_messages(
            web.store, conditions, limit=limit + 1, after=after, newest_first=newest_first
        )
    )
    following = entries[limit - 1].queue_id if len(entries) > limit else None
    return {"messages": list(map(queue_object, entries[:limit])), "next": following}


_FOUND = answer_with(
    messages=list[mail_answers.Message],
    next=(str | None, said("`before` of the next page; null if there is none")),
    looked=(str, said("what was searched, and what was not")),
    until=(Time | None, said("time was up: older mail is on the next pages")),
)
_FIND = {
    "q": "an address or a part of it, words of the subject, an order number, a queue id, a "
    "Message-ID, a provider's id; conditions like is:bounced user:shop1 after:7d",
    "result": f"of a recipient: {', '.join(OUTCOMES)}",
    "since": f"accepted since; with a result: ended since: {_SINCE}",
    "until": "accepted or ended until",
    **_LIMIT,
    "before": "`next` of the page before",
}


@_get("/find", _FOUND, parameters=_FIND)
async def find_messages(web: WebContext, call: Call) -> dict[str, Any]:
    """Find mail in any state.

    The newest first; one of q, result and since at least. A page may be empty and have a next one.
    """
    search, limit = requests.search_of_all(call.given), requests.limit_of(call.given)
    before = call.given.get("before", "")
    try:
        return await web.read(lambda: found_object(web.store, search, limit=limit, before=before))
    except NoPlace as error:
        raise Problem(400, f"before {error}", expected="`next` of the page before") from None


@_get("/queue/{queue_id}", mail_answers.MessageShown, errors=_ONE)
async def show_message(web: WebContext, call: Call) -> dict[str, Any]:
    """Show one message.

    With what was reported of it after the provider's 250, for operators as it came.
    """
    queue_id = _id_of(call)
    found = await web.read(lambda: web.store.queue.entries([queue_id]))
    if not found:
        raise _missing(queue_id)
    reports = await web.read(lambda: web.store.reports.of_message(queue_id))
    return shown_object(found[0], reports, is_raw=call.principal.role >= Role.OPERATOR)


@_get("/queue/{queue_id}/explain", mail_answers.Story, errors=_ONE)
async def explain_message(web: WebContext, call: Call) -> dict[str, Any]:
    """Tell the story of one message.

    What happened to it, what each reply means, what comes next, what to do.
    """
    queue_id, now = _id_of(call), clock_ms()
    story = await web.read(lambda: tell_story(web.store, web.settings, queue_id, now_ms=now))
    if story is None:
        raise _missing(queue_id)
    return story_object(story)


def _id_of(call: Call) -> str:
    queue_id: str = call.request.path_params["queue_id"].upper()
    if not is_queue_id(queue_id):
        raise _missing(queue_id)
    return queue_id


def _missing(queue_id: str) -> Problem:
    remedy = "see /api/gateway/v1/queue; finished messages go after queue.retention"
    return Problem(404, f"there is no message {queue_id[:40]}", remedy=remedy)


def _change_by(action: QueueAction) -> Endpoint:
    states = " or ".join(sorted(action.from_states))

    async def change(web: WebContext, call: Call) -> dict[str, Any]:
        now = clock_ms()
        choice: QueueChoice = call.body.choice(now_ms=now)
        provider = getattr(call.body, "provider", "")
        order = Order(
            actor=call.principal.name,
            detail=choice.words().replace("web", "api", 1),
            note=getattr(call.body, "note", "")[:MAX_NOTE_CHARACTERS],
            is_forced=getattr(call.body, "force", False),
            provider=provider,
            senders=web.provider(provider).senders if action.takes_provider else (),
        )
        if call.body.dry_run:
            result = await web.read(lambda: _would_touch(web, action, choice))
        else:
            result = await web.change(lambda: carry_out(web, action, choice, order, now_ms=now))
            web.wake_workers()
        return {
            "action": action.name,
            "dry_run": call.body.dry_run,
            "number": len(result.changed),
            "changed": list(result.changed),
            "left": [asdict(one) for one in result.left],
        }

    return Endpoint(
        "post",
        f"/queue/{action.name}",
        mail_answers.Outcome,
        change,
        f"{action.label} messages.\n{action.means} For mail that is {states}; other mail is "
        "left alone and listed.",
        body=requests.change_of(action),
        errors=(400, 401, 403, 503),
    )


ENDPOINTS += map(_change_by, ACTIONS.values())
_post("/queue/resend", mail_answers.Resending, body=Resend, errors=(400, 401, 403, 503))(resend)

_get("/guard", guard.LISTED)(guard.list_guarded)
for _verb, _done, _takes, _change in guard.CHANGES:
    _post(f"/guard/{{id}}/{_verb}", _done, body=_takes, errors=(400, 401, 403, 404, 503))(_change)
_get("/suppressions", suppressions.LISTED, parameters=suppressions.LIST_PARAMETERS)(
    suppressions.list_suppressions
)
for _path, _answer, _body, _handle in (
    ("add", suppressions.SUPPRESSED, suppressions.Suppress, suppressions.add_suppressions),
    ("remove", suppressions.LIFTED, suppressions.Lift, suppressions.remove_suppressions),
):
    _post(f"/suppressions/{_path}", _answer, body=_body, errors=(400, 401, 403, 503))(_handle)


def _would_touch(web: WebContext, action: QueueAction, choice: QueueChoice) -> Result:
    if choice.is_all:
        ids = chain.from_iterable(choice.batches(web, action.from_states))
        return Result(changed=tuple(ids), left=())
    changed = (
        entry.queue_id
        for entry in web.store.queue.entries(choice.ids)
        if action.from_states & {part.state for part in entry.deliveries}
    )
    return Result(changed=tuple(changed), left=())


@_get("/providers", answer_with(providers=list[answers.Provider]))
async def list_providers(web: WebContext, _: Call) -> dict[str, Any]:
    """List providers.

    With their limits, what they taught, and why one is held.
    """

    def read() -> list[dict[str, Any]]:
        holds = web.store.holds.in_force()
        usages = providers.read_usages(web.store, web.settings.providers).items()
        return [
            providers.provider_object(name, usage, providers.holds_of(holds, name))
            for name, usage in usages
        ]

    return {"providers": await web.read(read)}


_HELD = answer_with(provider=str, was_held=(bool, said("by an operator, before this")))
_RELEASED = answer_with(provider=str, ended=list[answers.Hold])
_CHANGED = (400, 401, 403, 404, 503)


@_post("/providers/{name}/hold", _HELD, body=requests.ProviderHold, errors=_CHANGED)
async def hold(web: WebContext, call: Call) -> dict[str, Any]:
    """Hold a provider.

    Nothing is sent by it until somebody releases it.
    """
    name, now = _provider_name(web, call), clock_ms()
    actor, note = call.principal.name, call.body.note[:MAX_NOTE_CHARACTERS]
    is_new = await web.change(
        lambda: providers.hold_provider(web.store, name, actor=actor, now_ms=now, note=note)
    )
    web.wake_workers()
    return {"provider": name, "was_held": not is_new}


@_post("/providers/{name}/release", _RELEASED, errors=_CHANGED)
async def release(web: WebContext, call: Call) -> dict[str, Any]:
    """Release a provider.

    Ends its holds, those of its key and of its sender domains.
    """
    name, now, actor = _provider_name(web, call), clock_ms(), call.principal.name
    ended = await web.change(
        lambda: providers.release_provider(web.store, name, actor=actor, now_ms=now)
    )
    web.wake_workers()
    return {"provider": name, "ended": list(map(providers.hold_object, ended))}


def _provider_name(web: WebContext, call: Call) -> str:
    name: str = call.request.path_params["name"]
    known = web.settings.providers
    if name not in known:
        what = f"there is no provider {name[:40]!r}"
        raise Problem(404, what, expected=", ".join(known) or "none")
    return name


_INCIDENTS = answer_with(incidents=list[answers.Incident])
_SERIES = {"since": f"{_SINCE}; default six hours", "series": "only this one; repeatable"}
_TRAIL = {
    **_LIMIT,
    "since": _SINCE,
    "until": _SINCE,
    "actor": "contains it",
    "action": "is it, or one below it: `queue` for `queue.delete`",
    "target": "is exactly this",
}


@_get(
    "/sources",
    answer_with(sources=list[answers.SourceOfMail]),
    parameters={
        "by": f"{', '.join(BY)}; without it each class of mail for itself",
        "since": f"mail since the hour of this time: {_SINCE}; default one day",
        "limit": _LIMIT["limit"],
    },
)
async def list_sources(web: WebContext, call: Call) -> dict[str, Any]:
    """List who sends what.

    Classes of mail, or rows by one of their parts, the most mail first; counted by whole hours.
    """
    by, limit = call.given.get("by"), requests.limit_of(call.given)
    if by is not None and by not in BY:
        raise Problem(400, f"by {by[:40]!r} is not known", expected=", ".join(BY))
    since_ms = requests.since_of(call.given, default_ms=clock_ms() - 24 * _HOUR_MS)
    rows, _ = await web.read(lambda: source_rows(web.store, by=by, since_ms=since_ms, limit=limit))
    return {"sources": [source_object(row, by=by) for row in rows]}


@_get("/status", answers.Status)
async def show_status(web: WebContext, _: Call) -> dict[str, Any]:
    """Show how the gateway is doing."""
    snapshot = await web.read(lambda: take_snapshot(web.store, web.settings))
    return {**status_object(snapshot, web.settings), "warnings": list(warnings(snapshot))}


@_get("/incidents", _INCIDENTS, parameters={"since": f"{_SINCE}; default one day"})
async def list_incidents(web: WebContext, call: Call) -> dict[str, Any]:
    """List incidents.

    Those that last, and those that ended since; oldest first.
    """
    since_ms = requests.since_of(call.given, default_ms=clock_ms() - 24 * _HOUR_MS)
    found = await web.read(lambda: web.store.watch.incidents(since_ms))
    incidents = [
        {
            **fields(one, "incident_id", "rule", "key", "summary", "remedy"),
            "since": rfc3339(one.since_ms),
            "told": list(one.told),
            "recovered_at": rfc3339_or_none(one.recovered_at_ms),
            "recovery_told": list(one.recovery_told),
        }
        for one in found
    ]
    return {"incidents": incidents}


@_get("/history", answer_with(slice_s=int, points=list[answers.Point]), parameters=_SERIES)
async def list_history(web: WebContext, call: Call) -> dict[str, Any]:
    """Count what happened.

    In slices of five minutes, kept for 14 days; slices without anything are left out.
    """
    since_ms = requests.since_of(call.given, default_ms=clock_ms() - 6 * _HOUR_MS)
    series, known = call.given.getlist("series"), [one.value for one in Series]
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


for _path, _answer, _list in visitors.LISTS:
    _get(_path, _answer, errors=(400, 401, 403, 503), is_for_admins=True)(_list)


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
