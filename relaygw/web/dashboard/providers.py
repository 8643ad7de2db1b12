"""Providers as the first page shows them, and as its forms hold and release them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from relaygw.mail.clock import utc_text
from relaygw.observe.history import Series
from relaygw.operations.provider_holds import HOLD, RELEASE
from relaygw.operations.providers import (
    Usage,
    busy_words,
    holds_of,
    put_off_words,
    rate_words,
    turn_words,
)
from relaygw.operations.status import Snapshot
from relaygw.operations.story.facts import Meanings
from relaygw.operations.verb import Mistake
from relaygw.settings.model import Settings
from relaygw.store.holds import Hold
from relaygw.store.queue_entry import AttemptEntry
from relaygw.store.watch import HISTORY_SLICE_MS, HistoryPoint
from relaygw.web.context import WebContext, is_queue_id
from relaygw.web.page import redirect, render, with_notice
from relaygw.web.verbs import problem_of, read_form

_VERBS = {verb.name: verb for verb in (HOLD, RELEASE)}
_NOTICES = {"hold": "provider_held", "release": "provider_released"}
_WAITING = ("busy", "deferring", "slowed", "paused", "partly held")
_TONES = {"ok": "sent", **dict.fromkeys(_WAITING, "waiting")}
TRIED = (Series.DELIVERED, Series.DEFERRED, Series.BOUNCED)

Example = tuple[str, Sequence[AttemptEntry]]  # a message by its id, and its attempts, oldest first


def provider_cards(
    snapshot: Snapshot,
    settings: Settings,
    examples: Mapping[str, Example],
    lately: Sequence[HistoryPoint],
) -> list[dict[str, Any]]:
    """Return the providers; `examples` are messages that wait for them, and how they were tried.

    `lately` has the last two slices of history.
    """
    meanings, now = Meanings(settings), snapshot.at_ms
    start_ms = now - now % HISTORY_SLICE_MS - HISTORY_SLICE_MS  # 5 to 10 minutes ago
    asked: Counter[str] = Counter()  # recipients that a provider was asked to take since then
    for point in lately:
        asked[point.label] += point.amount
    cards = []
    for name, usage in snapshot.usages.items():
        state = snapshot.state_of(name)
        queue_id, attempts = examples.get(name, ("", ()))
        quota = usage.settings.daily_quota
        used = usage.quota_used / max(1, quota or 0)
        card = {
            "name": name,
            "path": f"/providers/{name}",
            "where": f"{usage.settings.host}:{usage.settings.port}",
            "state": "unreachable" if state == "down" else state,
            "tone": _TONES.get(state, "failed"),
            "is_held": state in ("held", "partly held"),
            "limits": _limits(name, usage, asked[name] * 1000 / (now - start_ms)),
            "quota_share": None if quota is None else min(100, round(100 * used)),  # percent
            "holds": [_held(hold, name) for hold in holds_of(snapshot.holds, name)],
            "last": _last_reply(meanings, name, attempts, queue_id),
        }
        cards.append(card)
    return cards


def _limits(name: str, usage: Usage, lately_per_s: float) -> list[tuple[str, str]]:
    settings, taught = usage.settings, usage.account
    rate = rate_words(usage.rate_per_s)
    if usage.is_slower:
        when = utc_text(taught.ceiling_at_ms)
        rate += f"; it asked to slow down at {rate_words(taught.ceiling_per_s)} on {when}"
    if lately_per_s:
        rate += f"; lately {rate_words(lately_per_s)}"
    connections = str(settings.max_connections)
    if usage.is_narrower:
        when = utc_text(taught.connections_at_ms)
        connections = f"{usage.connections} of {connections}; it refused more on {when}"
    limits = [("Rate", rate), ("Connections", f"at most {connections}")]
    if settings.daily_quota is not None:
        used = f"{usage.quota_used:,} of {settings.daily_quota:,} {settings.quota_counts} a day"
        limits.append(("Quota", used))
    if usage.put_off is not None:
        limits.append(("Deferring", put_off_words(name, usage.put_off)))
    if usage.is_behind:
        limits.append(("Waiting", turn_words(name, usage)))
    if usage.is_busy:
        limits.append(("In hand", busy_words(name, usage)))
    if usage.doubts:
        limits.append(("In doubt", f"{usage.doubts} that it may have taken"))
    return limits


def _held(hold: Hold, provider: str) -> dict[str, Any]:
    is_whole = hold.key == provider
    what = hold.scope if is_whole else f"{hold.scope} {hold.key.partition(' ')[2]}"
    return {"hold": hold, "what": what}


def _last_reply(
    meanings: Meanings, name: str, attempts: Sequence[AttemptEntry], queue_id: str
) -> dict[str, Any] | None:
    newest = next((attempt for attempt in reversed(attempts) if attempt.provider == name), None)
    if newest is None:
        return None
    return {
        "reply": newest.reply,
        "meaning": meanings.of(newest),
        "queue_id": queue_id,
        "at_ms": newest.at_ms,
    }


def _back(queue_id: str) -> str:
    """Return where somebody came from: the page of a message, else the first one."""
    return f"/queue/{queue_id}" if is_queue_id(queue_id) else "/"


async def change_provider(web: WebContext, request: Request) -> Response:
    """Hold or release a provider once it is confirmed; else ask."""
    form = await read_form(request, _VERBS)
    name, back = form.typed("provider"), _back(form.typed("back"))
    web.provider(name)
    if form.typed("confirmed") != "1":
        holds = holds_of(await web.read(web.store.holds.in_force), name)
        context = {"provider": name, "action": form.action, "holds": holds, "back": back}
        return render(request, "provider_confirm.html", context, mode=web.mode)
    try:
        await form.carry_out(web, {"name": name, **form.fields()})
    except Mistake as error:
        raise problem_of(form.verb, error) from None
    return redirect(request, with_notice(back, _NOTICES[form.action], 1))
