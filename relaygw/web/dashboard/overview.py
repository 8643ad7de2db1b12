"""The first page, and that of a provider: how the gateway is doing; each number has its list.

The store is asked each two seconds at most.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from relaygw.mail.clock import DAY_MS, clock_ms
from relaygw.mail.search import Field, make_term
from relaygw.mail.state import DeliveryState
from relaygw.observe.history import Series
from relaygw.observe.waits import WAITS_SLICE_S, Waits, waits_of
from relaygw.operations.queue_object import UNFINISHED
from relaygw.operations.status import Snapshot, in_queue_since, lanes_of, take_snapshot, warnings
from relaygw.settings.alerts import Rule
from relaygw.settings.model import Settings
from relaygw.store.reports import LastWords
from relaygw.store.selection import Selection
from relaygw.store.shape import Failures, ShapeCount, ShapeKey
from relaygw.store.watch import HISTORY_SLICE_MS, HistoryPoint, Incident
from relaygw.web.context import WebContext
from relaygw.web.dashboard import figures
from relaygw.web.dashboard.figures import MOST, failing, reported
from relaygw.web.dashboard.providers import TRIED, Example, provider_cards
from relaygw.web.page import render
from relaygw.web.shared_read import SharedRead
from relaygw.web.words import STATES

FRESH_S = 2.0
REFRESH_S = 10
_MAX_ENDED = 5
_MAX_REFUSALS = 6
_OLD_MS = 3_600_000
_AGES = (  # the ends of the steps by which ages of what waits are shown; the last one has none
    (300_000, "under 5 min"),
    (3_600_000, "under 1 h"),
    (21_600_000, "under 6 h"),
    (86_400_000, "under 1 d"),
)
_COUNTED = (Series.MESSAGES, *TRIED, Series.REFUSED, Series.SENT)


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What the store says of a span of time, and of now."""

    now: int
    span: figures.Span
    snapshot: Snapshot
    incidents: Sequence[Incident]
    ages: Sequence[ShapeCount]
    examples: dict[str, Example]
    sums: Sequence[tuple[int, str, str, int]]  # of the history: step, series, label, amount
    in_queue: Counter[str]  # mail that came to its end, by label: see observe.events
    lately: Sequence[HistoryPoint]  # the last two slices
    failures: Failures
    last_words: Sequence[LastWords]  # bad ones, that providers reported
    kept_ms: int  # mail that ended before is deleted

    def by_label(self, series: Series) -> Counter[str]:
        """Return how much there was of each label of a series."""
        found: Counter[str] = Counter()
        for _, name, label, amount in self.sums:
            if name == series:
                found[label] += amount
        return found

    def amounts(self, provider: str) -> figures.Amounts:
        """Return the counts by step, of a provider or with "" of all.

        What failed is counted in the queue itself as far as it goes back: that knows more.
        """
        found: defaultdict[str, Counter[int]] = defaultdict(Counter)
        for step, series, label, amount in self.sums:
            is_old = series != Series.BOUNCED or not self._is_kept(step)
            if series in figures.SERIES and provider in ("", label) and is_old:
                found[series][step] += amount
        for (step, name), amount in self.failures.ended.items():
            if provider in ("", name) and self._is_kept(step):
                found[Series.BOUNCED][step] += amount
        return found

    def put_off(self, provider: str, *, tries: int) -> tuple[int, str]:
        """Return how many messages were put off, or where there are too many how often; a unit."""
        if self.failures.put_off_since_ms > self.span.start_ms:
            return tries, "tries"
        found = self.failures.put_off
        mails = {failure.queue_id for failure in found if provider in ("", failure.provider)}
        return len(mails), f"messages, {tries:,} tries"

    def _is_kept(self, step: int) -> bool:
        return self.span.start_ms + step * self.span.step_ms >= self.kept_ms

    def waits(self, provider: str) -> Waits | None:
        """Return how long mail took that came to its end, of a provider or with "" of all."""
        return waits_of(self.in_queue.items(), provider or None)


class Dashboard:
    """The endpoints of the first page and of those of providers."""

    def __init__(self, web: WebContext) -> None:
        self._web = web
        self._looks = {
            hours: SharedRead(partial(web.read, partial(self._look, hours)), fresh_s=FRESH_S)
            for hours in figures.SPANS
        }

    async def show(self, request: Request) -> Response:
        """Show how the gateway is doing."""
        hours, look = await self._looked(request)
        settings = self._web.settings
        ended = [
            incident
            for incident in reversed(look.incidents)
            if incident.recovered_at_ms is not None
        ]
        incidents = [incident for incident in look.incidents if incident.recovered_at_ms is None]
        context = {
            **_about(look, hours, "", "/"),
            "hostname": settings.hostname,
            "warnings": list(warnings(_without_alerted(look.snapshot, incidents))),
            "incidents": incidents,
            "ended": ended[:_MAX_ENDED],
            "queue": [_standing(state, look.snapshot, look.now) for state in UNFINISHED],
            "ages": _age_steps(look.ages, look.now),
            "lanes": _lane_lines(look.snapshot, settings),
            "cards": self._cards(look),
            "snapshot": look.snapshot,
            "drifted": {instance.incarnation for instance in look.snapshot.drifted()},
            "refused": look.by_label(Series.REFUSED).most_common(_MAX_REFUSALS),
        }
        return render(request, "dashboard.html", context, mode=self._web.mode)

    async def show_provider(self, request: Request) -> Response:
        """Show the same numbers of one provider."""
        name = request.path_params["name"]
        if name not in self._web.settings.providers:
            raise HTTPException(404)
        hours, look = await self._looked(request)
        context = {
            **_about(look, hours, name, f"/providers/{name}"),
            "cards": [card for card in self._cards(look) if card["name"] == name],
            "routes": [
                (route.name, figures.queue_path(route=route.name))
                for route in self._web.settings.routes
                if name in route.providers
            ],
            "waiting_path": figures.queue_path(provider=name),
            "snapshot": look.snapshot,
        }
        return render(request, "dashboard_provider.html", context, mode=self._web.mode)

    async def _looked(self, request: Request) -> tuple[int, Look]:
        asked = request.query_params.get("hours", "")
        hours = next(
            (each for each in figures.SPANS if str(each) == asked), next(iter(figures.SPANS))
        )
        if "did" in request.query_params:  # who changed something sees it changed
            self._looks[hours].forget()
        return hours, await self._looks[hours].get()

    def _look(self, hours: int) -> Look:
        store, settings, now = self._web.store, self._web.settings, clock_ms()
        examples: dict[str, Example] = {
            name: (entry.queue_id, store.queue.attempts(entry.queue_id))
            for name in settings.providers
            for entry in store.queue.search(
                Selection(terms=(make_term(Field.PROVIDER, name),)), limit=1
            )
        }
        span = figures.span_of(hours, now=now)
        start_ms, step_ms = span.start_ms, span.step_ms
        series = [member.value for member in _COUNTED]
        bounds_ms = [bound_ms for bound_ms, _ in _AGES]
        return Look(
            now=now,
            span=span,
            snapshot=take_snapshot(store, settings),
            incidents=store.watch.incidents(now - DAY_MS),
            ages=store.queue.shape(Selection(), by=ShapeKey.ROUTE, bounds_ms=bounds_ms),
            examples=examples,
            sums=store.watch.sums(start_ms, step_ms=step_ms, series=series),
            # from the first slice that lies within the span
            in_queue=in_queue_since(store, start_ms + -start_ms % (WAITS_SLICE_S * 1000)),
            lately=store.watch.history(now - HISTORY_SLICE_MS, series=TRIED),
            failures=store.queue.failures(start_ms, step_ms=step_ms, limit=MOST),
            last_words=store.reports.last_words(start_ms),
            kept_ms=now - int(settings.queue.retention * 1000),
        )

    def _cards(self, look: Look) -> list[dict[str, Any]]:
        cards = provider_cards(look.snapshot, self._web.settings, look.examples, look.lately)
        for card in cards:
            card["figures"] = list(_figures(look, card["name"]))
            card["waits"] = look.waits(card["name"])
        return cards


def _without_alerted(snapshot: Snapshot, incidents: Iterable[Incident]) -> Snapshot:
    """Leave out receivers that an incident shown beside the warnings tells of."""
    alerted = {
        incident.key for incident in incidents if incident.rule == Rule.WEBHOOK_FAILING.value
    }
    left = {name: receiver for name, receiver in snapshot.webhooks.items() if name not in alerted}
    return replace(snapshot, webhooks=left)


def _about(look: Look, hours: int, provider: str, path: str) -> dict[str, Any]:
    """Return the context of both pages: numbers, the drawing, and failures."""
    span, amounts = look.span, look.amounts(provider)
    return {
        "provider": provider,
        "refresh_s": REFRESH_S,
        "hours": hours,
        "spans": [
            (name, f"{path}?hours={each}", each == hours)
            for each, (name, _) in figures.SPANS.items()
        ],
        "span_name": figures.SPANS[hours][0],
        "span": span,
        "figures": list(_figures(look, provider)),
        "waits": look.waits(provider),
        "columns": figures.columns_of(amounts, span, kept_ms=look.kept_ms, provider=provider),
        "series": figures.SERIES,
        "kept_ms": look.kept_ms if look.kept_ms > span.start_ms else None,
        "failing": failing(look.failures, provider),
        "failures": look.failures,
        "reported": reported(
            look.last_words,
            provider,
            since_ms=span.start_ms,
            delivered=look.by_label(Series.DELIVERED),
            sent=look.by_label(Series.SENT),
        ),
    }


def _figures(look: Look, provider: str) -> Iterator[dict[str, Any]]:
    """Yield the numbers of a span: label, colour, number, unit and the path of the list."""
    since, amounts = figures.moment(look.span.start_ms), look.amounts(provider)
    if not provider:
        number = look.by_label(Series.MESSAGES).total()
        path = figures.queue_path(state="all", since=since)
        yield _figure("Accepted", "ink", number, "messages", path)
    for name, (label, tone, conditions) in figures.SERIES.items():
        number, unit = amounts[name].total(), "recipients"
        if name == Series.DEFERRED:
            number, unit = look.put_off(provider, tries=number)
        path = figures.queue_path(**conditions, since=since, provider=provider)
        yield _figure(label, tone, number, unit, path)


def _figure(label: str, tone: str, number: int, unit: str, path: str) -> dict[str, Any]:
    return {"label": label, "tone": tone, "number": number, "unit": unit, "path": path}


def _standing(state: DeliveryState, snapshot: Snapshot, now: int) -> dict[str, Any]:
    lanes = [lane for lane in snapshot.lanes if lane.state is state]
    oldest_ms = min((lane.oldest_accepted_at_ms for lane in lanes), default=None)
    return {
        "label": STATES[state],
        "path": figures.queue_path(state=state.value),
        "number": sum(lane.deliveries for lane in lanes),
        "oldest_ms": oldest_ms,
        "is_old": oldest_ms is not None and now - oldest_ms > _OLD_MS,
    }


def _age_steps(counts: Iterable[ShapeCount], now: int) -> list[tuple[str, int, int, str]]:
    """Return steps of age: what waits so long, its share in percent of the greatest, its list."""
    numbers: Counter[int] = Counter()
    for count in counts:
        numbers[count.step] += count.number
    most = max(numbers.values(), default=0) or 1
    steps, until_ms = [], now
    for step, (bound_ms, label) in enumerate((*_AGES, (None, "older"))):
        since = None if bound_ms is None else figures.moment(now - bound_ms + 1)
        path = figures.queue_path(since=since, until=figures.moment(until_ms) if step else None)
        steps.append((label, numbers[step], -(-100 * numbers[step] // most), path))
        until_ms = now - (bound_ms or 0)
    return steps


def _lane_lines(snapshot: Snapshot, settings: Settings) -> list[dict[str, Any]]:
    providers = {route.name: tuple(route.providers) for route in settings.routes}
    lines = []
    for route, stream in lanes_of(snapshot, settings):
        mine = [lane for lane in snapshot.lanes if (lane.route, lane.stream) == (route, stream)]
        numbers = Counter({lane_count.state: lane_count.deliveries for lane_count in mine})
        line = {
            "route": route,
            "stream": stream,
            "providers": providers.get(route, ()),
            "path": figures.queue_path(route=route, stream=stream),
            "numbers": [
                (numbers[state], figures.queue_path(route=route, stream=stream, state=state.value))
                for state in UNFINISHED
            ],
            "oldest_ms": min(
                (lane_count.oldest_accepted_at_ms for lane_count in mine), default=None
            ),
        }
        lines.append(line)
    return lines
