"""The tables of the first page: the queue, its lanes, the processes, what was refused most."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from urllib.parse import urlencode

from relaygw.mail.state import DeliveryState
from relaygw.observe.history.series import Series
from relaygw.operations.status import Snapshot
from relaygw.settings.model import Settings
from relaygw.store.commands import ShapeCount
from relaygw.store.watching import HistoryPoint
from relaygw.web import words
from relaygw.web.dashboard.plots import sums_by_label

SHOWN_STATES = (
    (DeliveryState.INCOMING, "Incoming"),
    (DeliveryState.ACTIVE, "Being sent"),
    (DeliveryState.DEFERRED, "Deferred"),
    (DeliveryState.HELD, "Held"),
)
_MAX_REFUSALS = 6
_OLD_MS = 3_600_000
_AGES = (
    (300_000, "under 5 min"),
    (3_600_000, "under 1 h"),
    (21_600_000, "under 6 h"),
    (86_400_000, "under 1 d"),
)
AGE_BOUNDS_MS = tuple(bound_ms for bound_ms, _ in _AGES)
"""Ends of the steps by which the ages of what waits are shown; the last step has none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueLine:
    """What waits in one state."""

    label: str
    path: str
    number: int
    oldest: str  # "" when nothing waits
    is_old: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class LaneLine:
    """What waits on one route."""

    route: str
    stream: str
    providers: tuple[str, ...]
    path: str
    numbers: tuple[int, ...]  # as SHOWN_STATES
    oldest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceLine:
    """One process."""

    name: str
    role: str
    pid: int
    version: str
    state: str
    tone: str
    since: str
    heartbeat: str
    has_drifted: bool


def queue_lines(snapshot: Snapshot, now: int) -> list[QueueLine]:
    """Return what waits, by state."""
    lines = []
    for state, label in SHOWN_STATES:
        lanes = [lane for lane in snapshot.lanes if lane.state is state]
        oldest_ms = min((lane.oldest_accepted_at_ms for lane in lanes), default=None)
        lines.append(
            QueueLine(
                label=label,
                path=f"/queue?state={state.value}",
                number=sum(lane.deliveries for lane in lanes),
                oldest="" if oldest_ms is None else words.age(oldest_ms, now),
                is_old=oldest_ms is not None and now - oldest_ms > _OLD_MS,
            )
        )
    return lines


def age_steps(counts: Iterable[ShapeCount]) -> list[tuple[str, int, int]]:
    """Return steps of age with what waits so long, and its share in percent of the greatest."""
    numbers: Counter[int] = Counter()
    for one in counts:
        numbers[one.step] += one.number
    most = max(numbers.values(), default=0) or 1
    labels = [*(label for _, label in _AGES), "older"]
    return [
        (label, numbers[step], -(-100 * numbers[step] // most)) for step, label in enumerate(labels)
    ]


def lane_lines(
    snapshot: Snapshot, lanes: Sequence[tuple[str, str]], settings: Settings, now: int
) -> list[LaneLine]:
    """Return the routes with what waits on them."""
    providers = {route.name: tuple(route.providers) for route in settings.routes}
    lines = []
    for route, stream in lanes:
        mine = [one for one in snapshot.lanes if (one.route, one.stream) == (route, stream)]
        numbers = Counter({one.state: one.deliveries for one in mine})
        oldest_ms = min((one.oldest_accepted_at_ms for one in mine), default=None)
        lines.append(
            LaneLine(
                route=route,
                stream=stream,
                providers=providers.get(route, ()),
                path="/queue?" + urlencode({"route": route}),
                numbers=tuple(numbers[state] for state, _ in SHOWN_STATES),
                oldest="" if oldest_ms is None else words.age(oldest_ms, now),
            )
        )
    return lines


def instance_lines(snapshot: Snapshot, now: int) -> list[InstanceLine]:
    """Return the processes."""
    drifted = {one.incarnation for one in snapshot.drifted()}
    lines = []
    for one in snapshot.instances:
        is_silent = one.incarnation in snapshot.silent
        tone = "sent" if one.state == "running" else "waiting"
        lines.append(
            InstanceLine(
                name=one.name,
                role=one.role,
                pid=one.pid,
                version=one.version,
                state="silent" if is_silent else one.state,
                tone="failed" if is_silent else tone,
                since=words.age(one.started_at_ms, now),
                heartbeat=words.age(one.heartbeat_at_ms, now),
                has_drifted=one.incarnation in drifted,
            )
        )
    return lines


def refusal_lines(points: Iterable[HistoryPoint]) -> list[tuple[str, list[tuple[str, int]]]]:
    """Return what was refused most in the time that is drawn, and by whom."""
    known = list(points)
    groups = (
        ("Refused to clients here", Series.REFUSED),
        ("Bounced", Series.BOUNCED_FOR),
        ("Deferred", Series.DEFERRED_FOR),
    )
    found = [
        (label, sums_by_label(series.value, known).most_common(_MAX_REFUSALS))
        for label, series in groups
    ]
    return [(label, counts) for label, counts in found if counts]
