"""The first page: how the gateway is doing; the store is asked each two seconds at most."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import Response

from relaygw.mail.clock import clock_ms
from relaygw.mail.state import DeliveryState
from relaygw.observe.observer import Series
from relaygw.operations.queue_object import UNFINISHED
from relaygw.operations.status import Snapshot, lanes_of, take_snapshot, warnings
from relaygw.settings.model import Settings
from relaygw.store.selection import Selection, ShapeCount, ShapeKey
from relaygw.store.watch import HISTORY_SLICE_MS, HistoryPoint
from relaygw.web.context import SharedRead, WebContext
from relaygw.web.dashboard.providers import Example, provider_cards, sums_by_label
from relaygw.web.page import render
from relaygw.web.words import STATES

FRESH_S = 2.0
REFRESH_S = 10
HOURS = (3, 12, 48)
_DAY_MS = 86_400_000
_MAX_ENDED = 5
_MAX_REFUSALS = 6
_OLD_MS = 3_600_000
_AGES = (  # the ends of the steps by which ages of what waits are shown; the last one has none
    (300_000, "under 5 min"),
    (3_600_000, "under 1 h"),
    (21_600_000, "under 6 h"),
    (86_400_000, "under 1 d"),
)
_PLOTS = (
    ("Accepted", "ink", (Series.ACCEPTED, Series.CAPTURED)),
    ("Delivered", "green", (Series.DELIVERED,)),
    ("Deferred", "amber", (Series.DEFERRED,)),
    ("Bounced", "red", (Series.BOUNCED,)),
)
_REFUSALS = (
    ("Refused to clients here", Series.REFUSED),
    ("Bounced", Series.BOUNCED_FOR),
    ("Deferred", Series.DEFERRED_FOR),
)


class Dashboard:
    """The endpoint of the first page."""

    def __init__(self, web: WebContext) -> None:
        self._web = web
        self._looks = {
            hours: SharedRead(partial(web.read, partial(self._look, hours)), fresh_s=FRESH_S)
            for hours in HOURS
        }

    async def show(self, request: Request) -> Response:
        """Show how the gateway is doing."""
        asked = request.query_params.get("hours", "")
        hours = next((each for each in HOURS if str(each) == asked), HOURS[0])
        context = await self._looks[hours].get()
        return render(request, "dashboard.html", context, mode=self._web.mode)

    def _look(self, hours: int) -> dict[str, Any]:
        store, settings, now = self._web.store, self._web.settings, clock_ms()
        examples: dict[str, Example] = {
            name: (one.queue_id, store.queue.attempts(one.queue_id))
            for name in settings.providers
            for one in store.queue.search(Selection(provider=name), limit=1)
        }
        snapshot, span = take_snapshot(store, settings), span_of(hours, now=now)
        points, incidents = store.watch.history(span.start_ms), store.watch.incidents(now - _DAY_MS)
        bounds_ms = [bound_ms for bound_ms, _ in _AGES]
        ages = store.queue.shape(Selection(), by=ShapeKey.ROUTE, bounds_ms=bounds_ms)
        ended = [one for one in reversed(incidents) if one.recovered_at_ms is not None]
        refusals = (
            (label, sums_by_label(series.value, points).most_common(_MAX_REFUSALS))
            for label, series in _REFUSALS
        )
        return {
            "hostname": settings.hostname,
            "hours": hours,
            "all_hours": HOURS,
            "refresh_s": REFRESH_S,
            "warnings": list(warnings(snapshot)),
            "incidents": [one for one in incidents if one.recovered_at_ms is None],
            "ended": ended[:_MAX_ENDED],
            "plots": [
                plot(label, tone, [each.value for each in series], points, span)
                for label, tone, series in _PLOTS
            ],
            "plot_times": (span.start_ms, (span.start_ms + span.end_ms) // 2, None),
            "queue": [_standing(state, snapshot, now) for state in UNFINISHED],
            "ages": _age_steps(ages),
            "lanes": _lane_lines(snapshot, settings),
            "cards": provider_cards(snapshot, settings, examples, points, now),
            "snapshot": snapshot,
            "drifted": {one.incarnation for one in snapshot.drifted()},
            "refusals": [(label, counts) for label, counts in refusals if counts],
        }


def _standing(state: DeliveryState, snapshot: Snapshot, now: int) -> dict[str, Any]:
    lanes = [lane for lane in snapshot.lanes if lane.state is state]
    oldest_ms = min((lane.oldest_accepted_at_ms for lane in lanes), default=None)
    return {
        "label": STATES[state],
        "path": f"/queue?state={state.value}",
        "number": sum(lane.deliveries for lane in lanes),
        "oldest_ms": oldest_ms,
        "is_old": oldest_ms is not None and now - oldest_ms > _OLD_MS,
    }


def _age_steps(counts: Iterable[ShapeCount]) -> list[tuple[str, int, int]]:
    """Return steps of age with what waits so long, and its share in percent of the greatest."""
    numbers: Counter[int] = Counter()
    for one in counts:
        numbers[one.step] += one.number
    most = max(numbers.values(), default=0) or 1
    labels = [*(label for _, label in _AGES), "older"]
    shown = ((label, numbers[step]) for step, label in enumerate(labels))
    return [(label, number, -(-100 * number // most)) for label, number in shown]


def _lane_lines(snapshot: Snapshot, settings: Settings) -> list[dict[str, Any]]:
    providers = {route.name: tuple(route.providers) for route in settings.routes}
    lines = []
    for route, stream in lanes_of(snapshot, settings):
        mine = [one for one in snapshot.lanes if (one.route, one.stream) == (route, stream)]
        numbers = Counter({one.state: one.deliveries for one in mine})
        line = {
            "route": route,
            "stream": stream,
            "providers": providers.get(route, ()),
            "path": "/queue?" + urlencode({"route": route}),
            "numbers": tuple(numbers[state] for state in UNFINISHED),
            "oldest_ms": min((one.oldest_accepted_at_ms for one in mine), default=None),
        }
        lines.append(line)
    return lines


HEIGHT = 100  # of the greatest bar, in units of the drawing; each bar is a unit of its own wide


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """One step of time."""

    x: int
    y: float
    height: float
    start_ms: int
    end_ms: int
    amount: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Plot:
    """One series."""

    label: str
    tone: str
    total: int
    most: int  # within a step
    steps: int
    step: str  # how long one is, in words
    bars: tuple[Bar, ...]  # those that are not empty

    @property
    def summary(self) -> str:
        """The drawing in a sentence."""
        return f"{self.label}: {self.total:,} in all, at most {self.most:,} in {self.step}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """The time that is drawn: slices of history, several in a step."""

    start_ms: int
    steps: int
    slices: int  # in a step

    @property
    def step_ms(self) -> int:
        """How long a step is."""
        return self.slices * HISTORY_SLICE_MS

    @property
    def end_ms(self) -> int:
        """The end of the last step, which may not be over."""
        return self.start_ms + self.steps * self.step_ms


def span_of(hours: int, *, now: int, max_steps: int = 96) -> Span:
    """Return the last `hours`, up to the slice of now, in at most `max_steps` steps."""
    slices = hours * 3_600_000 // HISTORY_SLICE_MS
    per_step = -(-slices // max_steps)
    steps = -(-slices // per_step)
    step_ms = per_step * HISTORY_SLICE_MS
    end_ms = now - now % step_ms + step_ms
    return Span(start_ms=end_ms - steps * step_ms, steps=steps, slices=per_step)


def plot(
    label: str, tone: str, series: Sequence[str], points: Iterable[HistoryPoint], span: Span
) -> Plot:
    """Return the counts of `series`, all labels together."""
    amounts: Counter[int] = Counter()
    for point in points:
        at = (point.slice_at_ms - span.start_ms) // span.step_ms
        if point.series in series and 0 <= at < span.steps:
            amounts[at] += point.amount
    most = max(amounts.values(), default=0)
    bars = []
    for at, amount in sorted((+amounts).items()):
        height = max(2.0, round(HEIGHT * amount / most, 1))
        start_ms = span.start_ms + at * span.step_ms
        end_ms, y = start_ms + span.step_ms, HEIGHT - height
        bars.append(Bar(x=at, y=y, height=height, start_ms=start_ms, end_ms=end_ms, amount=amount))
    return Plot(
        label=label,
        tone=tone,
        total=amounts.total(),
        most=most,
        steps=span.steps,
        step=f"{span.step_ms // 60_000} min",
        bars=tuple(bars),
    )
