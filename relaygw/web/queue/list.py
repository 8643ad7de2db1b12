"""The queue as a list: the oldest first, page by page, all that waits or what matches."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from relaygw.mail.clock import clock_ms
from relaygw.mail.state import DeliveryState, RecipientState
from relaygw.operations.queue_actions import ACTIONS
from relaygw.operations.queue_object import leading_delivery, next_attempt_at_ms
from relaygw.operations.selectors import SELECTORS, Kind
from relaygw.store.queue import LaneCount
from relaygw.store.queue_entry import QueueEntry
from relaygw.web import words
from relaygw.web.context import WebContext, is_queue_id
from relaygw.web.inbox import PAGE_ROWS, Filter, line_of
from relaygw.web.page import notice_of, render
from relaygw.web.queue.selection import Conditions, found_messages, read_conditions

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
