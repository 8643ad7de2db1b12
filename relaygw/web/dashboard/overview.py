"""The first page: how the gateway is doing now, and how it did in the last hours.

What the store says is read at most each two seconds, however many pages are open.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from relaygw.observe.history.series import Series
from relaygw.operations.status import Snapshot, lanes_of, take_snapshot, warnings
from relaygw.store.commands import ShapeCount, ShapeKey
from relaygw.store.protocol import Selection
from relaygw.store.watching import HistoryPoint, Incident
from relaygw.web import words
from relaygw.web.context import Desk
from relaygw.web.dashboard.plots import Span, plot, span_of
from relaygw.web.dashboard.providers import Example, provider_cards
from relaygw.web.dashboard.tables import (
    AGE_BOUNDS_MS,
    age_steps,
    instance_lines,
    lane_lines,
    queue_lines,
    refusal_lines,
)
from relaygw.web.page import notice_of, render

FRESH_S = 2.0
REFRESH_S = 10
HOURS = (3, 12, 48)
_DAY_MS = 86_400_000
_MAX_ENDED = 5
_PLOTS = (
    ("Accepted", "ink", (Series.ACCEPTED, Series.CAPTURED)),
    ("Delivered", "green", (Series.DELIVERED,)),
    ("Deferred", "amber", (Series.DEFERRED,)),
    ("Bounced", "red", (Series.BOUNCED,)),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What the store said at one time."""

    snapshot: Snapshot
    points: list[HistoryPoint]
    incidents: list[Incident]
    ages: list[ShapeCount]
    examples: dict[str, Example]  # a message that waits, by the provider that it waits for


class Dashboard:
    """The endpoint of the first page."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._looks: dict[int, tuple[float, asyncio.Task[Look]]] = {}

    async def show(self, request: Request) -> Response:
        """Show how the gateway is doing."""
        asked = request.query_params.get("hours", "")
        hours = next((each for each in HOURS if str(each) == asked), HOURS[0])
        look = await self._look(hours)
        now = words.now_ms()
        context = self._context(look, hours, span_of(hours, now=now), now)
        context["notice"] = notice_of(request.query_params)
        return render(request, "dashboard.html", context)

    async def _look(self, hours: int) -> Look:
        """Return what the store says, or said a moment ago; several pages ask it once."""
        read_at_s, reading = self._looks.get(hours, (0.0, None))
        if reading is None or (reading.done() and time.monotonic() - read_at_s > FRESH_S):
            reading = asyncio.create_task(self._desk.read(lambda: self._read(hours)))
            self._looks[hours] = (time.monotonic(), reading)
        return await asyncio.shield(reading)

    def _read(self, hours: int) -> Look:
        store, settings, now = self._desk.store, self._desk.settings, words.now_ms()
        return Look(
            snapshot=take_snapshot(store, settings),
            points=store.history(span_of(hours, now=now).start_ms),
            incidents=store.incidents(now - _DAY_MS),
            ages=store.shape(
                Selection(), by=ShapeKey.ROUTE, bounds_ms=list(AGE_BOUNDS_MS), now_ms=now
            ),
            examples=dict(self._examples()),
        )

    def _examples(self) -> Iterator[tuple[str, Example]]:
        """Yield a message that waits for each provider, if there is one."""
        store = self._desk.store
        for name in self._desk.settings.providers:
            for entry in store.search(Selection(provider=name), limit=1):
                yield name, (entry.queue_id, store.attempts(entry.queue_id))

    def _context(self, look: Look, hours: int, span: Span, now: int) -> dict[str, Any]:
        settings, snapshot = self._desk.settings, look.snapshot
        lasting = [one for one in look.incidents if one.recovered_at_ms is None]
        ended = [one for one in reversed(look.incidents) if one.recovered_at_ms is not None]
        return {
            **self._desk.page_context,
            "hostname": settings.hostname,
            "hours": hours,
            "all_hours": HOURS,
            "refresh_s": REFRESH_S,
            "read_at": words.exact_time(snapshot.at_ms),
            "warnings": list(warnings(snapshot)),
            "incidents": [(one, words.age(one.since_ms, now)) for one in lasting],
            "ended": [
                (one, words.age(one.recovered_at_ms or 0, now)) for one in ended[:_MAX_ENDED]
            ],
            "plots": [
                plot(label, tone, [each.value for each in series], look.points, span)
                for label, tone, series in _PLOTS
            ],
            "plot_times": _times(span),
            "queue": queue_lines(snapshot, now),
            "ages": age_steps(look.ages),
            "lanes": lane_lines(snapshot, lanes_of(snapshot, settings), settings, now),
            "cards": provider_cards(snapshot, settings, look.examples, look.points, now),
            "instances": instance_lines(snapshot, now),
            "refusals": refusal_lines(look.points),
            "captured": snapshot.captured,
            "unread": snapshot.unread,
        }


def _times(span: Span) -> tuple[str, str, str]:
    """Return what stands below a drawing: its start, its middle, and now."""
    middle_ms = (span.start_ms + span.end_ms) // 2
    start, middle = (words.local_time(each) for each in (span.start_ms, middle_ms))
    is_long = span.end_ms - span.start_ms > _DAY_MS
    shape = "%d %b %H:%M" if is_long else "%H:%M"
    return f"{start:{shape}}", f"{middle:{shape}}", "now"
