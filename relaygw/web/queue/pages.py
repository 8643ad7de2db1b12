"""The pages of the queue; each change asks first and says how many messages it is about."""

from __future__ import annotations

from collections import Counter
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from relaygw.mail.clock import clock_ms
from relaygw.mail.state import DeliveryState, RecipientState
from relaygw.operations.queue_actions import ACTIONS, Order, QueueAction
from relaygw.operations.queue_object import leading_delivery, next_attempt_at_ms
from relaygw.operations.selectors import SELECTORS, Kind
from relaygw.operations.story import tell_story
from relaygw.store.audit import AuditEntry
from relaygw.store.queue_entry import QueueEntry
from relaygw.web.context import WebContext, is_queue_id, reads
from relaygw.web.gate.identity import Role, require
from relaygw.web.inbox import PAGE_ROWS, Filter, action_of
from relaygw.web.mail.mime_tree import load_tree
from relaygw.web.mail.views import VIEWS, view_context
from relaygw.web.page import Problem, note_of, redirect, render, with_notice
from relaygw.web.queue import selection
from relaygw.web.words import STATES

_D, _R = DeliveryState, RecipientState
_FIELDS = sorted(  # the search box's own first, then by kind
    (one for one in SELECTORS.values() if one.label),
    key=lambda one: (one.name != "subject", list(Kind).index(one.kind)),
)
_ENDED = (_D.FINISHED, _D.DELETED)
_WAITING = (_D.DEFERRED, _D.HELD, _D.INCOMING, _D.ACTIVE)
_TONES = {
    **dict.fromkeys((_D.INCOMING, _D.DEFERRED, _R.PENDING), "waiting"),
    **dict.fromkeys((_D.ACTIVE, _R.DELIVERED), "sent"),
    **dict.fromkeys((_D.HELD, _R.BOUNCED, _R.EXPIRED, _R.BLOCKED), "failed"),
    **dict.fromkeys((_D.FINISHED, _D.DELETED, _R.CAPTURED, _R.CANCELLED), "captured"),
}
_MAX_REASON_CHARACTERS = 300
STORY = "story"
MAX_RECIPIENTS = 200
SHOWN = 20  # messages and obstacles that a question and its outcome name
MAX_ENTRIES = 500
_SHOWN_TARGETS = 3


@reads
def show_list(web: WebContext, request: Request) -> Response:
    """Show a page of the queue: the oldest first, all that waits or what matches."""
    now = clock_ms()
    conditions = selection.read_conditions(request.query_params, now_ms=now)
    after = request.query_params.get("after", "")
    after = after if is_queue_id(after) else ""
    entries = selection.found_messages(web.store, conditions, limit=PAGE_ROWS + 1, after=after)
    lanes = web.store.queue.counts()
    states: Counter[str] = Counter()
    routes = Counter(dict.fromkeys((one.name for one in web.settings.routes), 0))
    for lane in lanes:
        states[lane.state] += lane.deliveries
        routes[lane.route] += lane.deliveries
    shown = entries[:PAGE_ROWS]
    context = {
        "conditions": conditions,
        "selectors": SELECTORS,
        "fields": _FIELDS,
        "rows": [_row(entry) for entry in shown],
        "actions": list(ACTIONS.values()),
        "waiting": states.total(),
        "looked_at": now,
        "filters": [
            _filter(conditions, "state", one, STATES[one], states[one]) for one in _WAITING
        ],
        "ended": [_filter(conditions, "state", one, STATES[one]) for one in _ENDED],
        "routes": [_filter(conditions, "route", one, one, routes[one]) for one in routes],
        "is_first": not after,
        "next": shown[-1].queue_id if len(entries) > PAGE_ROWS else "",
    }
    return render(request, "queue.html", context, mode=web.mode)


def _row(entry: QueueEntry) -> dict[str, Any]:
    leading = leading_delivery(entry)
    waiting = [one for one in entry.recipients if one.state is _R.PENDING]
    first = next(iter(waiting or entry.recipients), None)
    reason = leading.reason or next((one.reply for one in entry.recipients if one.reply), "")
    return {
        "entry": entry,
        "to": "(nobody)" if first is None else first.address,
        "reason": reason[:_MAX_REASON_CHARACTERS],
        "state": _shown_state(entry),
        "tone": _TONES[leading.state],
        "next_at_ms": next_attempt_at_ms(leading),
    }


def _shown_state(entry: QueueEntry) -> str:
    """Return the state of a message; of a finished one what became of it."""
    state = leading_delivery(entry).state
    ends = {one.state.value for one in entry.recipients}
    return ends.pop() if state is _D.FINISHED and len(ends) == 1 else state.value


def _filter(
    conditions: selection.Conditions, name: str, value: str, label: str, number: int | None = None
) -> Filter:
    """Return a filter that sets one condition, or takes it away where it is set."""
    is_on = conditions.given.get(name) == (value,)
    path = conditions.changed(name, "" if is_on else value).path()
    return Filter(label=label, path=path, is_on=is_on, number=number)


async def show_message(web: WebContext, request: Request) -> Response:
    """Show the story of a message, or a view of its content."""
    entry = await web.read(lambda: selection.queued_of(web, request))
    wanted = request.query_params.get("view", STORY)
    context = await web.read(lambda: _message(web, entry))

    def content() -> dict[str, Any]:
        tree = load_tree(web.store, entry)
        page = web.mail_pages.make(entry, tree)
        view = "text" if wanted == "html" and page is None else wanted
        return {"view": view, **view_context(view, tree, page)}

    if wanted in VIEWS and entry.chunk_count:
        context |= await web.open(content)
    return render(request, "queue_message.html", context, mode=web.mode)


def _message(web: WebContext, entry: QueueEntry) -> dict[str, Any]:
    queue_id, path = entry.queue_id, f"/queue/{entry.queue_id}"
    states = {part.state for part in entry.deliveries}
    # those who wait first
    recipients = sorted(entry.recipients, key=lambda one: one.state is not _R.PENDING)
    story = tell_story(web.store, web.settings, queue_id, now_ms=clock_ms())
    return {
        "story": story,  # None: just gone
        "entry": entry,
        "state": _shown_state(entry),
        "tone": _TONES[leading_delivery(entry).state],
        "tones": _TONES,
        "recipients": recipients[:MAX_RECIPIENTS],
        "recipients_left": max(0, len(recipients) - MAX_RECIPIENTS),
        "delivery_routes": {part.delivery_no: part.route for part in entry.deliveries},
        "actions": [one for one in ACTIONS.values() if one.from_states & states],
        "audit": [_deed(one) for one in reversed(web.store.queue.record_of(queue_id).actions)],
        "view": STORY,
        "views": VIEWS,
        "mail_path": path,
        "view_path": lambda view: path if view == STORY else f"{path}?view={view}",
    }


async def change(web: WebContext, request: Request) -> Response:
    """Do what a form asks for once it is confirmed; else ask."""
    principal = require(request, Role.OPERATOR)
    form = await request.form()
    name, now = action_of(form), clock_ms()
    if name not in ACTIONS:
        raise Problem(400, f"action {name[:40]!r} is none", expected=f"one of {', '.join(ACTIONS)}")
    action, choice = ACTIONS[name], selection.read_queue_choice(form, now_ms=now)
    context = {"action": action, "choice": choice, "back": choice.back_path(form)}
    if choice.is_empty:
        return redirect(request, choice.back_path(form))
    if form.get("confirmed") != "1":
        context |= await web.read(lambda: _question(web, action, choice))
        return render(request, "queue_confirm.html", context, mode=web.mode)
    provider = str(form.get("to", "")) if action.takes_provider else ""
    order = Order(
        actor=principal.name,
        detail=choice.words(),
        note=note_of(form),
        is_forced=form.get("forced") == "1",
        provider=provider,
        senders=web.provider(provider).senders if action.takes_provider else (),
    )
    result = await web.change(lambda: selection.carry_out(web, action, choice, order, now_ms=now))
    web.wake_workers()
    if not result.left:
        back = with_notice(choice.back_path(form), action.notice, len(result.changed))
        return redirect(request, back)
    context |= {
        "number": len(result.changed),
        "left": result.left[:SHOWN],
        "more": max(0, len(result.left) - SHOWN),
    }
    return render(request, "queue_done.html", context, mode=web.mode)


def _question(
    web: WebContext, action: QueueAction, choice: selection.QueueChoice
) -> dict[str, Any]:
    number = 0
    shown: list[QueueEntry] = []
    for batch in choice.batches(web, action.from_states):
        number += len(batch)
        if len(shown) < SHOWN:
            shown += web.store.queue.entries(batch[: SHOWN - len(shown)])
    return {
        "number": number,
        "rows": [_row(entry) for entry in shown],
        "more": number - len(shown),
        "providers": list(web.settings.providers),
    }


@reads
def show_audit(web: WebContext, request: Request) -> Response:
    """Show the newest lines of the audit trail."""
    entries = web.store.audit.entries(limit=MAX_ENTRIES)
    context = {"deeds_found": list(map(_deed, entries)), "is_cut": len(entries) == MAX_ENTRIES}
    return render(request, "audit.html", context, mode=web.mode)


def _deed(entry: AuditEntry) -> dict[str, Any]:
    targets = entry.target.split() if " " in entry.target else [entry.target]
    is_list = all(map(is_queue_id, targets))  # of messages
    shown = targets[:_SHOWN_TARGETS] if is_list else [entry.target]
    more = len(targets) - len(shown) if is_list else 0
    return {"entry": entry, "targets": list(filter(None, shown)), "is_list": is_list, "more": more}
