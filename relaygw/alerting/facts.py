"""The facts that the rules look at, and how they are found: that blocks on the store and disk.

What a rule finds is a `Finding`.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from relaygw.alerting.history import HOUR_MS, busiest_hour, totals
from relaygw.errors import SettingsError
from relaygw.mail.clock import DAY_MS, clock_ms
from relaygw.mail.state import DeliveryState
from relaygw.observe.hang import Hang, read_hangs
from relaygw.observe.history import Series
from relaygw.observe.maildrop import LeftMail, look_at_maildrop
from relaygw.observe.reload import RefusedReload, read_refused_reload
from relaygw.policy.endings import EndingLogin
from relaygw.policy.lost_gateways import LostInstance
from relaygw.policy.receivers import Endpoint
from relaygw.policy.settings_change import SETTINGS_CHANGE
from relaygw.policy.storms import Storm
from relaygw.policy.untended import Untended, untended
from relaygw.settings.alerts import Rule
from relaygw.settings.certificates import certificate_end, server_context
from relaygw.settings.model import Settings, fingerprint
from relaygw.store.audit import AuditEntry
from relaygw.store.holds import Hold
from relaygw.store.login_endings import endings_of
from relaygw.store.queue import LaneCount
from relaygw.store.standing_mail import standing_of
from relaygw.store.store import Store
from relaygw.store.visitors import TokenUse
from relaygw.store.watch import HISTORY_SLICE_MS, HistoryPoint, Incident
from relaygw.upstream.failure import Unreached
from relaygw.volume import free_share

_RECENT_MS = 2 * HOUR_MS
_USUAL_MS = 7 * DAY_MS
_ENOUGH_MS = DAY_MS
"""Without so much history nobody knows what is usual."""
NEWS_MS = 900_000  # for how long is told of what happened once
_MOST_CHANGES = 50
_RECENT_SERIES = (
    *(Series.ACCEPTED, Series.DELIVERED, Series.BOUNCED, Series.VERDICTS),
    *(Series.REFUSED, Series.QUEUE, Series.LOGIN_FAILURES),
)


class Complaints(NamedTuple):
    """How many recipients complained of mail within a day, of so many that it was sent to."""

    number: int
    sent: int


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueFacts:
    """What the store knows of the queue that all instances share; costs some time to gather."""

    lanes: Sequence[LaneCount] = ()
    points: Sequence[HistoryPoint] = ()  # of the last two hours
    doubts: Mapping[str, int] = field(default_factory=dict)  # open deliveries by provider
    quotas: Mapping[str, float] = field(default_factory=dict)  # provider: share that is used
    busiest_hour: Mapping[str, int] | None = None  # route: recipients; None: not known yet
    untended: Sequence[Untended] = ()
    suppressed: int = 0  # addresses, within the last hour
    webhooks: Sequence[Endpoint] = ()
    complaints: Mapping[str, Complaints] = field(default_factory=dict)  # by sender's domain
    storms: Sequence[Storm] = ()
    changes: Sequence[AuditEntry] = ()  # of configurations, lately; the newest first
    strangers: Sequence[TokenUse] = ()  # what tokens were lately used with first
    endings: Sequence[EndingLogin] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class HostFacts:
    """What is known of one host without the store."""

    host: str
    volumes: Mapping[str, float] = field(default_factory=dict)  # directory: free share
    certificates: Mapping[str, float] = field(default_factory=dict)  # listener: seconds left
    unusable: Mapping[str, str] = field(default_factory=dict)  # listener: what is wrong with it
    maildrop: LeftMail | None = None
    hangs: Sequence[Hang] = ()  # now, or lately; the oldest first
    refused_reload: RefusedReload | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetFacts:
    """All that the rules of the shared queue look at."""

    now_ms: int
    holds: Sequence[Hold] = ()
    unreached: Mapping[str, Unreached] = field(default_factory=dict)  # by provider, from here
    lost: Sequence[LostInstance] = ()
    queue: QueueFacts = QueueFacts()
    clock_step: str | None = None  # how the clock of the queue was set lately


class QueueFactsReader:
    """Reads the facts of the queue, and leaves gauges of it in the history."""

    def __init__(self, store: Store, settings: Settings) -> None:
        self._store = store
        self._settings = settings
        self._usual: dict[str, int] | None = None
        self._usual_until_ms = -1

    def queue_facts(self, open_incidents: Sequence[Incident], *, now_ms: int) -> QueueFacts:
        """Look at the queue; also leaves its gauges in the history. Raises StoreUnavailable."""
        lanes = self._store.queue.counts()
        self._store.watch.add_history(now_ms, _gauges(lanes, now_ms), are_gauges=True)
        standing = standing_of(
            self._store,
            self._settings,
            fingerprint=fingerprint(self._settings),
            lanes=lanes,
            holds=self._store.holds.in_force(),
            instances=self._store.instances.registered(),
            now_ms=now_ms,
        )
        window_ms = max(_RECENT_MS, int(self._settings.alert_rules.no_delivery * 2000))
        return QueueFacts(
            lanes=lanes,
            points=self._store.watch.history(now_ms - window_ms, series=_RECENT_SERIES),
            doubts=self._store.watch.doubtful(),
            quotas={
                name: self._store.limits.quota_used(provider.account or name) / provider.daily_quota
                for name, provider in self._settings.providers.items()
                if provider.daily_quota is not None
            },
            busiest_hour=self._busiest_hour(open_incidents, now_ms),
            suppressed=self._store.suppressions.suppressed_lately(HOUR_MS),
            untended=untended(standing, self._settings, now_ms=now_ms),
            webhooks=self._store.outbox.endpoints() if self._settings.webhooks else (),
            complaints=self._complaints(now_ms - DAY_MS),
            storms=self._storms(),
            changes=self._store.audit.latest(
                SETTINGS_CHANGE, since_ms=now_ms - NEWS_MS, limit=_MOST_CHANGES
            ),
            strangers=self._store.visitors.uses(now_ms - NEWS_MS, are_strange=True),
            endings=endings_of(self._store, self._settings),
        )

    def _storms(self) -> Sequence[Storm]:
        storms = self._settings.storms
        if storms.action == "off":
            return ()
        return self._store.repeats.storms(int(storms.window * 1000))

    def _complaints(self, since_ms: int) -> dict[str, Complaints]:
        told = self._store.watch.history(since_ms, series=[Series.COMPLAINTS])
        if not told:
            return {}
        points = self._store.watch.history(since_ms, series=[Series.SENT])
        sent = totals(points, Series.SENT, since_ms=since_ms)
        numbers = totals(told, Series.COMPLAINTS, since_ms=since_ms)
        return {
            domain: Complaints(number, max(number, sent.get(domain, 0)))
            for domain, number in numbers.items()
        }

    def _busiest_hour(
        self, open_incidents: Sequence[Incident], now_ms: int
    ) -> dict[str, int] | None:
        """Return the usual amount: without the last hour, and without an anomaly that lasts."""
        begun_ms = [
            open_incident.since_ms
            for open_incident in open_incidents
            if open_incident.rule == Rule.VOLUME_ANOMALY
        ]
        until_ms = min([now_ms, *begun_ms]) - HOUR_MS
        until_ms -= until_ms % HISTORY_SLICE_MS
        if until_ms != self._usual_until_ms:
            points = self._store.watch.history(now_ms - _USUAL_MS, series=[Series.ACCEPTED])
            is_enough = bool(points) and points[0].slice_at_ms <= until_ms - _ENOUGH_MS
            self._usual = busiest_hour(points, until_ms=until_ms) if is_enough else None
            self._usual_until_ms = until_ms
        return self._usual


def _gauges(lanes: Sequence[LaneCount], now_ms: int) -> dict[tuple[str, str], int]:
    gauges: dict[tuple[str, str], int] = {}
    for lane in lanes:
        state = (Series.QUEUE.value, lane.state.value)
        gauges[state] = gauges.get(state, 0) + lane.deliveries
        if lane.state is not DeliveryState.HELD:
            oldest = (Series.OLDEST_S.value, lane.route)
            age_s = max(0, now_ms - lane.oldest_accepted_at_ms) // 1000
            gauges[oldest] = max(gauges.get(oldest, 0), age_s)
    # an empty queue is a fact, too: without a row nobody would know that somebody looked
    return gauges or {(Series.QUEUE.value, DeliveryState.DEFERRED.value): 0}


def host_facts(settings: Settings, state_dir: Path) -> HostFacts:
    """Look at this host: the volume of the state, certificates of listeners, the maildrop."""
    volumes: dict[str, float] = {}
    with contextlib.suppress(OSError):
        volumes[str(state_dir)] = free_share(state_dir)
    left, unusable = _certificates(settings)
    return HostFacts(
        host=settings.hostname,
        volumes=volumes,
        certificates=left,
        unusable=unusable,
        maildrop=look_at_maildrop(settings.maildrop.path),
        hangs=_recent_hangs(state_dir),
        refused_reload=read_refused_reload(state_dir),
    )


def _recent_hangs(state_dir: Path) -> list[Hang]:
    now_ms = clock_ms()
    hangs = read_hangs(state_dir)
    return [
        hang for hang in hangs if hang.ended_ms is None or abs(now_ms - hang.ended_ms) < NEWS_MS
    ]


def _certificates(settings: Settings) -> tuple[dict[str, float], dict[str, str]]:
    """Return how long those of listeners last, and what is wrong with those nobody can use."""
    left: dict[str, float] = {}
    unusable: dict[str, str] = {}
    for listener in settings.listeners:
        if listener.tls.mode != "off" and listener.tls.cert is not None:
            name = str(listener.bind)
            try:
                end = certificate_end(Path(listener.tls.cert))
                left[name] = end.timestamp() - time.time()
                server_context(listener.tls)
            except (OSError, ValueError, SettingsError) as error:
                unusable[name] = str(error)
    return left, unusable


# --- findings ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Finding:
    """Something is wrong now."""

    rule: Rule
    key: str
    summary: str
    remedy: str
    since_ms: int | None = None  # when it began, where that is known
    is_certain: bool = False  # told at once: it does not come and go

    @property
    def kind(self) -> tuple[str, str]:
        """What tells it from others."""
        return self.rule.value, self.key
