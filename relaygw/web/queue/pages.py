"""The pages of the queue; each change asks first and says how many messages it is about."""

from __future__ import annotations

import re
import shlex
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import Response

from relaygw.mail.clock import clock_ms
from relaygw.mail.result import (
    AFTERWARDS,
    ARRIVED,
    ASKED,
    BOUNCED,
    COMPLAINED,
    NOTHING,
    RETURNED,
    UNSUBSCRIBED,
    WORST_FIRST,
    Asked,
)
from relaygw.mail.state import DeliveryState, RecipientState
from relaygw.mail.verdict import report_words
from relaygw.observe.history import Series
from relaygw.operations.queue_actions import ACTIONS, Order, QueueAction
from relaygw.operations.queue_object import (
    leading_delivery,
    next_attempt_at_ms,
    rank,
    result_of,
    results_of,
    shown_recipient,
    standing,
)
from relaygw.operations.resend import may_be_resent
from relaygw.operations.selectors import CHOICES, SELECTORS, Kind, read_moment
from relaygw.operations.story import tell_story
from relaygw.operations.story.reports import last_word
from relaygw.store.queue_entry import QueueEntry, RecipientEntry
from relaygw.store.reports import Report
from relaygw.web.context import WebContext, is_queue_id, reads
from relaygw.web.gate.identity import Role, principal_of, require
from relaygw.web.lists import PAGE_ROWS, Filter, action_of
from relaygw.web.mail.parts import load_tree
from relaygw.web.mail.views import VIEWS, scheme_of, view_context
from relaygw.web.page import Problem, note_of, redirect, render, with_notice
from relaygw.web.queue import selection
from relaygw.web.queue.audit import make_deed
from relaygw.web.words import RESULT_LABELS, STATES

_D, _R = DeliveryState, RecipientState
_FIELDS = sorted(  # the search box's own first, then by kind
    (selector for selector in SELECTORS.values() if selector.label),
    key=lambda selector: (selector.name != "subject", list(Kind).index(selector.kind)),
)
_ENDED = (_D.FINISHED, _D.DELETED)
_WAITING = (_D.DEFERRED, _D.HELD, _D.INCOMING, _D.ACTIVE)
_TONES = {
    **dict.fromkeys((_D.INCOMING, _D.DEFERRED, _R.PENDING), "waiting"),
    **dict.fromkeys((_D.ACTIVE, _R.DELIVERED), "sent"),
    **dict.fromkeys((_D.HELD, _R.BOUNCED, _R.EXPIRED, _R.BLOCKED), "failed"),
    **dict.fromkeys((_D.FINISHED, _D.DELETED, _R.CAPTURED, _R.CANCELLED), "captured"),
}
_TONES_OF_RESULTS = {
    **{recipient_state.value: _TONES[recipient_state] for recipient_state in _R},
    **dict.fromkeys((RETURNED, COMPLAINED), "failed"),
    UNSUBSCRIBED: "captured",
}
_COUNTED = {_R.DELIVERED: Series.DELIVERED, _R.CAPTURED: Series.CAPTURED}  # by the history
_SOON_MS = 60_000  # a result so soon has the time of acceptance
_MAX_REASON_CHARACTERS = 300
STORY = "story"
MAX_RECIPIENTS = 200
SHOWN = 20  # messages and obstacles that a question and its outcome name


@reads
def show_list(web: WebContext, request: Request) -> Response:
    """Show a page of the queue: the oldest first, all that waits; or what matches."""
    now, given = clock_ms(), request.query_params
    conditions, wrong = selection.read_page(given, now_ms=now)
    order = given.get("order", "")
    newest_first = selection.read_order(order, conditions)
    after = given.get("after", "")
    after = after if is_queue_id(after) else ""
    entries: list[QueueEntry] = []
    if not wrong:
        entries = web.store.queue.search(
            conditions.selection, limit=PAGE_ROWS + 1, after=after, newest_first=newest_first
        )
    lanes = web.store.queue.counts()
    states: Counter[str] = Counter()
    routes = Counter(dict.fromkeys((route.name for route in web.settings.routes), 0))
    for lane in lanes:
        states[lane.state] += lane.deliveries
        routes[lane.route] += lane.deliveries
    results = _results_today(web, now)
    shown = entries[:PAGE_ROWS]
    asked = Asked(conditions.selection.results, conditions.selection.verdicts)
    context = {
        "conditions": conditions,
        "wrong": wrong,
        "selectors": SELECTORS,
        "choices": CHOICES,
        "fields": _FIELDS,
        "rows": [make_row(entry, asked) for entry in shown],
        "actions": list(ACTIONS.values()),
        "waiting": states.total(),
        "looked_at": now,
        "filters": [
            _filter(conditions, STATES[state], states[state], state=state) for state in _WAITING
        ],
        "results": list(_result_filters(conditions, results)),
        "ended": [_filter(conditions, STATES[state], state=state) for state in _ENDED],
        "routes": [_filter(conditions, route, routes[route], route=route) for route in routes],
        "is_first": not after,
        "newest_first": newest_first,
        "order": order,
        "next": shown[-1].queue_id if len(entries) > PAGE_ROWS else "",
    }
    status = 400 if wrong else 200
    return render(request, "queue.html", context, mode=web.mode, status_code=status)


def _results_today(web: WebContext, now: int) -> Counter[str]:
    """Count recipients by result since midnight, from what is counted or indexed already."""
    midnight_ms = read_moment("today", now_ms=now) or 0
    numbers = Counter[str]()
    for result, number in web.store.queue.count_results(midnight_ms).items():
        numbers[result.value] = number
    points = web.store.watch.history(
        midnight_ms, series=[member.value for member in _COUNTED.values()]
    )
    for result, series in _COUNTED.items():
        numbers[result.value] = sum(point.amount for point in points if point.series == series)
    told = web.store.reports.count_last_words(midnight_ms)
    for word in (*AFTERWARDS, BOUNCED):
        numbers[word] += sum(told[kind] for kind in ASKED[word].kinds)
    return numbers


def _result_filters(
    conditions: selection.Conditions, numbers: Mapping[str, int]
) -> Iterator[Filter]:
    """Yield the filters by result; by what providers tell only where they do."""
    asked = conditions.given.get("result", ())
    for word, label in RESULT_LABELS.items():
        if word not in AFTERWARDS or numbers[word] or word in asked:
            # not counted: nearly all mail, where a provider tells of it
            number = None if word == ARRIVED else numbers[word]
            yield _filter(conditions, label, number, result=word)


def make_row(entry: QueueEntry, asked: Asked = NOTHING) -> dict[str, Any]:
    """Return the line of a message in a list; in one of results it is about who came to them."""
    leading = leading_delivery(entry)
    found = [
        recipient
        for recipient in entry.recipients
        if asked.finds(recipient.state, recipient.verdict)
    ]
    first = found[0] if found else shown_recipient(entry)
    reason = _said(found[0]) if found else leading.reason
    state, tone = standing(entry), _tone(entry)
    if found and leading.state is not _D.FINISHED:
        word = result_of(found[0])
        state, tone = f"{state}, {len(found)} {word}", _TONES_OF_RESULTS[word]
    ended_at_ms = max((recipient.changed_at_ms for recipient in entry.recipients), default=0)
    is_late = ended_at_ms > entry.accepted_at_ms + _SOON_MS
    return {
        "entry": entry,
        "path": f"/queue/{entry.queue_id}",
        "to": "(nobody)" if first is None else first.address,
        "reason": (reason or _worst_reply(entry))[:_MAX_REASON_CHARACTERS],
        "state": state,
        "tone": tone,
        "next_at_ms": next_attempt_at_ms(leading),
        "ended_at_ms": ended_at_ms if is_late and leading.state is _D.FINISHED else None,
    }


def _worst_reply(entry: QueueEntry) -> str:
    """Return the last reply, to the recipient whom it went worst."""
    said = [recipient for recipient in entry.recipients if recipient.reply]
    worst = min(said, key=rank, default=None)
    return "" if worst is None else _said(worst)


def _said(recipient: RecipientEntry) -> str:
    """Return the last word on a recipient: a reply, or bad news since."""
    if recipient.verdict is not None and result_of(recipient) != recipient.state:
        return f"{recipient.provider or 'the provider'} reported: {report_words(recipient.verdict)}"
    return recipient.reply or ""


def _tone(entry: QueueEntry) -> str:
    results = results_of(entry)
    worst = next((result for result in WORST_FIRST if result in results), None)
    return _TONES[leading_delivery(entry).state] if worst is None else _TONES_OF_RESULTS[worst]


_FOLDERS = ("state", "result", "since", "until")
"""What a filter beside the list replaces when it is one of these itself."""


def _filter(
    conditions: selection.Conditions, label: str, number: int | None = None, **sets: str
) -> Filter:
    """Return a filter that sets a condition, or takes it away where it is set."""
    ((name, value),) = sets.items()
    is_on = conditions.given.get(name) == (value,)
    given = dict.fromkeys(_FOLDERS, "") if name in _FOLDERS else {}
    given[name] = "" if is_on else value
    if name == "result" and not is_on:
        given["since"] = "today"
    path = conditions.changed(given).path()
    return Filter(label=label, path=path, is_on=is_on, number=number)


async def show_message(web: WebContext, request: Request) -> Response:
    """Show the story of a message, or a view of its content."""
    entry = await web.read(lambda: selection.queued_of(web, request))
    wanted = request.query_params.get("view", STORY)
    context = await web.read(lambda: _message(web, entry, scheme_of(request)))
    principal = principal_of(request)
    if principal is not None and principal.role >= Role.OPERATOR and wanted == STORY:
        context["reports"] = await web.read(lambda: _raw_reports(web, entry.queue_id))

    def content() -> dict[str, Any]:
        tree = load_tree(web.store, entry)
        page = web.mail_pages.make(entry, tree)
        view = "text" if wanted == "html" and page is None else wanted
        shown = view_context(view, tree, page)
        return {"view": view, **shown, "tabs": [*context["tabs"][:1], *shown["tabs"]]}

    if wanted in VIEWS and entry.chunk_count:
        context |= await web.open(content)
    return render(request, "queue_message.html", context, mode=web.mode)


def _raw_reports(web: WebContext, queue_id: str) -> list[Report]:
    """Return the newest reports of a message as they came, the newest first."""
    return web.store.reports.of_message(queue_id, limit=SHOWN)[::-1]


def _message(web: WebContext, entry: QueueEntry, scheme: str) -> dict[str, Any]:
    queue_id, path = entry.queue_id, f"/queue/{entry.queue_id}"
    states = {part.state for part in entry.deliveries}
    # those who wait first
    recipients = sorted(entry.recipients, key=lambda recipient: recipient.state is not _R.PENDING)
    story = tell_story(web.store, web.settings, queue_id, now_ms=clock_ms())
    record = web.store.queue.record_of(queue_id)
    return {
        "story": story,  # None: just gone
        "acts": {advice.command: act_of(advice.command, queue_id) for advice in story.advice}
        if story
        else {},
        "entry": entry,
        "state": standing(entry),
        "tone": _tone(entry),
        "tones": _TONES_OF_RESULTS,
        "result_of": result_of,
        "last_words": {
            recipient.rcpt_no: last_word(record.reports, recipient)
            for recipient in recipients[:MAX_RECIPIENTS]
            if recipient.verdict is not None
        },
        "reports": [],  # as they came
        "recipients": recipients[:MAX_RECIPIENTS],
        "recipients_left": max(0, len(recipients) - MAX_RECIPIENTS),
        "delivery_routes": {part.delivery_no: part.route for part in entry.deliveries},
        "actions": [
            queue_action for queue_action in ACTIONS.values() if queue_action.from_states & states
        ],
        "may_be_resent": bool(may_be_resent(entry)),
        "audit": [make_deed(action, on=queue_id) for action in reversed(record.actions)],
        "view": STORY,
        "tabs": [
            (STORY, "Story", 0),
            *((name, VIEWS[name], 0) for name in VIEWS if entry.chunk_count),
        ],
        "mail_path": path,
        "scheme": scheme,
        "view_path": lambda view, scheme=scheme: (
            path if view == STORY else f"{path}?view={view}&scheme={scheme}"
        ),
    }


async def change(web: WebContext, request: Request) -> Response:
    """Do what a form asks for once it is confirmed; else ask."""
    principal = require(request, Role.OPERATOR)
    form = await request.form()
    name, now = action_of(form), clock_ms()
    if name not in ACTIONS:
        raise Problem(
            400, f"action {name[:40]!r} is not known", expected=f"one of {', '.join(ACTIONS)}"
        )
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
        "rows": [make_row(entry) for entry in shown],
        "more": number - len(shown),
        "providers": list(web.settings.providers),
    }


# --- buttons beside a story -------------------------------------------------------------
# The buttons beside what a story tells to run: each does the command once it is confirmed.


_COMMAND = re.compile(
    r"relaygw (?:(?:queue explain|sandbox release) [A-Z0-9]{10,20}|suppress remove \S+)"
)


@dataclass(frozen=True, slots=True)
class Act:
    """A form that asks first, or a link to a page that does."""

    label: str
    icon: str
    path: str
    fields: tuple[tuple[str, str], ...] = ()  # none: a link
    is_danger: bool = False


def act_of(command: str, queue_id: str) -> Act | None:
    """Return the button of a command on the page of a message, None where there is none."""
    match command.split():
        case ["relaygw", "queue", "explain", named_id]:
            return Act("Its story", "open", f"/queue/{named_id}")
        case ["relaygw", "queue", "resend", named_id, *_]:
            return Act("Send again…", "send", f"/queue/{named_id}/resend")
        case ["relaygw", "queue", name, "--id", named_id, *_] if name in ACTIONS:
            action = ACTIONS[name]
            fields = (("tick", named_id), ("action", name), ("back", "message"))
            return Act(f"{action.label}…", action.icon, "/queue/change", fields, action.is_danger)
        case ["relaygw", "provider", "release", name]:
            fields = (("provider", name), ("action", "release"), ("back", queue_id))
            return Act(f"Release {name}…", "send", "/providers/change", fields)
        case ["relaygw", "sandbox", "release", named_id, *_]:
            return Act("Release…", "send", f"/sandbox/{named_id}/release")
        case ["relaygw", "suppress", "remove", *_]:
            (address, *_) = shlex.split(command)[3:]
            return Act("Lift it…", "open", f"/suppression?{urlencode({'q': address})}")
    return None


def act_in(text: str) -> Act | None:
    """Return the button of the command that a reason names, None where it names none."""
    found = _COMMAND.search(text)
    return act_of(found[0], "") if found else None
