"""The pages of the queue: the list, one message with its story, changes, the audit trail.

Nothing is marked by looking. Each change asks first and says how many messages it is about.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from starlette.datastructures import FormData
from starlette.requests import Request
from starlette.responses import Response

from relaygw.mail.clock import clock_ms
from relaygw.mail.state import DeliveryState, RecipientState
from relaygw.operations.queue_actions import ACTIONS, Order, QueueAction, Result
from relaygw.operations.queue_object import leading_delivery, next_attempt_at_ms
from relaygw.operations.selectors import SELECTORS, Kind
from relaygw.operations.story import tell_story
from relaygw.store.audit import AuditEntry
from relaygw.store.queue import LaneCount
from relaygw.store.queue_entry import QueueEntry
from relaygw.web import words
from relaygw.web.context import WebContext, is_queue_id
from relaygw.web.gate.identity import Role, require
from relaygw.web.inbox import PAGE_ROWS, Filter, action_of, line_of
from relaygw.web.mail.html_page import MailPages
from relaygw.web.mail.mime_tree import load_tree
from relaygw.web.mail.views import VIEWS, view_context
from relaygw.web.page import Problem, note_of, notice_of, redirect, render, with_notice
from relaygw.web.queue.selection import (
    Conditions,
    QueueChoice,
    carry_out,
    found_messages,
    queued_of,
    read_conditions,
    read_queue_choice,
)

_FIELDS = sorted(
    (one for one in SELECTORS.values() if one.label),
    key=lambda one: (one.name != "subject", list(Kind).index(one.kind)),
)
"""The search box's own first, then by kind."""
LABELS = {one.name: one.label for one in _FIELDS}
_EXAMPLES = {one.name: one.example for one in _FIELDS}
_STATES = (
    (DeliveryState.DEFERRED, "Deferred"),
    (DeliveryState.HELD, "Held"),
    (DeliveryState.INCOMING, "Incoming"),
    (DeliveryState.ACTIVE, "Being sent"),
)
_ENDED = ((DeliveryState.FINISHED, "Finished"), (DeliveryState.DELETED, "In the trash"))
TONES = {
    DeliveryState.INCOMING: "waiting",
    DeliveryState.ACTIVE: "sent",
    DeliveryState.DEFERRED: "waiting",
    DeliveryState.HELD: "failed",
    DeliveryState.FINISHED: "captured",
    DeliveryState.DELETED: "captured",
}
_MAX_REASON_CHARACTERS = 300


def make_queue_rows(entries: Sequence[QueueEntry], *, now: int) -> list[dict[str, Any]]:
    """Return the lines of messages."""
    return [_row(entry, now) for entry in entries]


def _row(entry: QueueEntry, now: int) -> dict[str, Any]:
    leading = leading_delivery(entry)
    return {
        **line_of(entry, entry.accepted_at_ms, now),
        "to": _to(entry),
        "more": max(0, len(entry.recipients) - 1),  # recipients beside it
        "sender": entry.sender or "<> (no sender)",
        "reason": _reason(entry, leading.reason)[:_MAX_REASON_CHARACTERS],
        "state": shown_state(entry),
        "tone": TONES[leading.state],
        "next_try": words.until(next_attempt_at_ms(leading), now),
        "route": leading.route,
    }


def shown_state(entry: QueueEntry) -> str:
    """Return the state of a message; of a finished one what became of it."""
    state = leading_delivery(entry).state
    if state is not DeliveryState.FINISHED:
        return state.value
    ends = words.unique(one.state.value for one in entry.recipients)
    return ends[0] if len(ends) == 1 else state.value


def _to(entry: QueueEntry) -> str:
    """Return the first recipient, one who still waits before others."""
    waiting = [one for one in entry.recipients if one.state is RecipientState.PENDING]
    first = next(iter(waiting or entry.recipients), None)
    return "(nobody)" if first is None else first.address


def _reason(entry: QueueEntry, reason: str | None) -> str:
    replies = (one.reply for one in entry.recipients if one.reply)
    return reason or next(replies, "")


class QueueList:
    """The endpoint of the list."""

    def __init__(self, web: WebContext) -> None:
        self._web = web

    async def show(self, request: Request) -> Response:
        """Show a page of the list."""
        now = clock_ms()
        conditions = read_conditions(request.query_params, now_ms=now)
        after = request.query_params.get("after", "")
        after = after if is_queue_id(after) else ""
        context = await self._web.read(lambda: self._context(conditions, after, now))
        context["notice"] = notice_of(request.query_params)
        return render(request, "queue.html", context)

    def _context(self, conditions: Conditions, after: str, now: int) -> dict[str, Any]:
        store = self._web.store
        entries = found_messages(store, conditions, limit=PAGE_ROWS + 1, after=after)
        shown = entries[:PAGE_ROWS]
        has_more = len(entries) > PAGE_ROWS
        lanes = store.queue.counts()
        routes = [route.name for route in self._web.settings.routes]
        return {
            **self._web.page_context,
            "conditions": conditions,
            "labels": LABELS,
            "examples": _EXAMPLES,
            "chips": [
                (name, value, conditions.changed(name, "").path())
                for name, value in conditions.pairs()
            ],
            "rows": make_queue_rows(shown, now=now),
            "actions": list(ACTIONS.values()),
            "waiting": sum(lane.deliveries for lane in lanes),
            "looked_at": now,
            "filters": _state_filters(conditions, lanes),
            "ended": [_filter(conditions, "state", state.value, label) for state, label in _ENDED],
            "routes": _route_filters(conditions, lanes, routes),
            "is_first": not after,
            "first_path": conditions.path(),
            "next_path": conditions.path(after=shown[-1].queue_id) if has_more else "",
        }


def _state_filters(conditions: Conditions, lanes: Sequence[LaneCount]) -> list[Filter]:
    numbers: Counter[DeliveryState] = Counter()
    for lane in lanes:
        numbers[lane.state] += lane.deliveries
    return [
        _filter(conditions, "state", state.value, label, number=numbers[state])
        for state, label in _STATES
    ]


def _route_filters(
    conditions: Conditions, lanes: Sequence[LaneCount], configured: Sequence[str]
) -> list[Filter]:
    numbers: Counter[str] = Counter(dict.fromkeys(configured, 0))
    for lane in lanes:
        numbers[lane.route] += lane.deliveries
    return [
        _filter(conditions, "route", route, route, number=number)
        for route, number in numbers.items()
    ]


def _filter(
    conditions: Conditions, name: str, value: str, label: str, *, number: int | None = None
) -> Filter:
    """Return a filter that sets one condition, or takes it away where it is set."""
    is_on = conditions.given.get(name) == (value,)
    path = conditions.changed(name, "" if is_on else value).path()
    return Filter(label=label, path=path, is_on=is_on, number=number)


STORY = "story"
MAX_RECIPIENTS = 200
_TONES = {
    RecipientState.PENDING: "waiting",
    RecipientState.DELIVERED: "sent",
    RecipientState.BOUNCED: "failed",
    RecipientState.EXPIRED: "failed",
    RecipientState.CAPTURED: "captured",
    RecipientState.BLOCKED: "failed",
    RecipientState.CANCELLED: "captured",
}


class QueueMessagePage:
    """The endpoint of a message."""

    def __init__(self, web: WebContext, mail_pages: MailPages) -> None:
        self._web = web
        self._mail_pages = mail_pages

    async def show(self, request: Request) -> Response:
        """Show the story of a message, or a view of its content."""
        entry = await self._web.read(lambda: queued_of(self._web, request))
        wanted = request.query_params.get("view", STORY)
        context = await self._web.read(lambda: self._context(entry))
        if wanted in VIEWS and entry.chunk_count:
            context |= await self._web.open(lambda: self._content(entry, wanted))
        context["notice"] = notice_of(request.query_params)
        return render(request, "queue_message.html", context)

    def _context(self, entry: QueueEntry) -> dict[str, Any]:
        store, settings, now = self._web.store, self._web.settings, clock_ms()
        leading = leading_delivery(entry)
        states = {part.state for part in entry.deliveries}
        record = store.queue.record_of(entry.queue_id)
        path = f"/queue/{entry.queue_id}"
        return {
            **self._web.page_context,
            "story": tell_story(store, settings, entry.queue_id, now_ms=now),  # None: just gone
            "iso_time": words.iso_time,
            "exact_time": words.exact_time,
            "clock_time": lambda at_ms: words.clock_time(at_ms, now),
            "until": lambda at_ms: words.until(at_ms, now),
            "entry": entry,
            "state": shown_state(entry),
            "tone": TONES[leading.state],
            "leading": leading,
            "fates": _fates(entry, now=now)[:MAX_RECIPIENTS],
            "fates_left": max(0, len(entry.recipients) - MAX_RECIPIENTS),
            "size": words.size(entry.size_bytes),
            "accepted": words.exact_time(entry.accepted_at_ms),
            "accepted_iso": words.iso_time(entry.accepted_at_ms),
            "actions": [one for one in ACTIONS.values() if one.from_states & states],
            "audit": deeds_of(reversed(record.actions), now=now),
            "view": STORY,
            "has_content": bool(entry.chunk_count),
            "views": VIEWS,
            "mail_path": path,
            "view_path": lambda view: path if view == STORY else f"{path}?view={view}",
        }

    def _content(self, entry: QueueEntry, wanted: str) -> dict[str, Any]:
        tree = load_tree(self._web.store, entry)
        page = self._mail_pages.make(entry, tree)
        view = "text" if wanted == "html" and page is None else wanted
        return {"view": view, **view_context(view, tree, page)}


def _fates(entry: QueueEntry, *, now: int) -> list[dict[str, Any]]:
    """Return the recipients of a message, those who wait first."""
    routes = {part.delivery_no: part.route for part in entry.deliveries}
    ordered = sorted(entry.recipients, key=lambda one: one.state is not RecipientState.PENDING)
    return [
        {
            "address": one.address,
            "original": words.given_as(one),
            "state": one.state.value,
            "tone": _TONES[one.state],
            "provider": one.provider or "",
            "reply": one.reply or "",
            "at": words.age(one.changed_at_ms, now),
            "route": routes.get(one.delivery_no, ""),
            "attempts": one.attempts,
        }
        for one in ordered
    ]


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


MAX_ENTRIES = 500
_SHOWN_TARGETS = 3
_MAX_DETAIL_CHARACTERS = 400


class AuditPage:
    """The endpoint of the whole trail."""

    def __init__(self, web: WebContext) -> None:
        self._web = web

    async def show(self, request: Request) -> Response:
        """Show the newest lines of the trail."""
        store = self._web.store
        entries = await self._web.read(lambda: store.audit.entries(limit=MAX_ENTRIES))
        now = clock_ms()
        context = {
            **self._web.page_context,
            "deeds_found": deeds_of(entries, now=now),
            "is_cut": len(entries) == MAX_ENTRIES,
        }
        return render(request, "audit.html", context)


def deeds_of(entries: Iterable[AuditEntry], *, now: int) -> list[dict[str, Any]]:
    """Return lines of the trail as a page shows them."""
    return [_deed(entry, now) for entry in entries]


def _deed(entry: AuditEntry, now: int) -> dict[str, Any]:
    targets = entry.target.split() if " " in entry.target else [entry.target]
    is_list = all(is_queue_id(one) for one in targets)
    shown = targets[:_SHOWN_TARGETS] if is_list else [entry.target]
    return {
        **words.moment(entry.at_ms, now),
        "actor": entry.actor,
        "action": entry.action,
        "targets": [(one, is_list) for one in shown if one],  # and whether it is a message
        "more": len(targets) - len(shown) if is_list else 0,
        "affected": entry.affected,
        "detail": entry.detail[:_MAX_DETAIL_CHARACTERS],
    }
