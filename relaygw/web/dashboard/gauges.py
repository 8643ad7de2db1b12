"""What the store and the host know, as gauges: queue, providers, instances, disk, certificates.

In a fleet every instance tells the same of the store, for they share it; only `instances` are
those of this host's name.
"""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from relaygw import __version__
from relaygw.mail.outcome import Scope
from relaygw.mail.state import OPEN
from relaygw.observe.maildrop import look_at_maildrop
from relaygw.observe.metrics.files import GaugeFamily, Numbers
from relaygw.operations.providers import holds_of, read_usages
from relaygw.operations.status import SILENT_AFTER_S
from relaygw.policy.untended import KINDS, LOST_MS, LostInstance, Untended, untended
from relaygw.settings.certificates import certificate_end
from relaygw.settings.model import Settings, fingerprint
from relaygw.settings.provider import Provider
from relaygw.store.holds import UNREACHABLE, Hold
from relaygw.store.instances import Instance, silent_incarnations
from relaygw.store.queue import LaneCount
from relaygw.store.store import Store
from relaygw.store.watch import standing_of

ROLES = ("front", "delivery", "web")
CAUSES = ("account", "credential", "operator", "sender_domain")
"""Why a provider is held: its account (quota, standing), its key, an operator, a sender."""


def store_gauges(store: Store, settings: Settings, *, now_ms: int) -> Iterator[GaugeFamily]:
    """Yield the gauges; blocks on the store, raises StoreUnavailable."""
    lanes, holds, instances = (
        store.queue.counts(),
        store.holds.in_force(),
        store.instances.registered(),
    )
    yield from _queue(lanes, [route.name for route in settings.routes], now_ms)
    yield from _health(holds, settings.providers)
    yield from _limits(store, settings.providers)
    stale = silent_incarnations(instances, SILENT_AFTER_S, now_ms=now_ms)
    name = settings.hostname if settings.queue.is_postgres else None
    yield _instances([one for one in instances if one.incarnation not in stale], name)
    standing = standing_of(
        store,
        settings,
        fingerprint=fingerprint(settings),
        lanes=lanes,
        holds=holds,
        instances=instances,
        now_ms=now_ms,
    )
    yield _untended(untended(standing, settings, now_ms=now_ms))
    yield _lost(store.watch.lost_instances(now_ms - LOST_MS))


def _queue(lanes: Sequence[LaneCount], routes: Sequence[str], now_ms: int) -> Iterator[GaugeFamily]:
    names = dict.fromkeys([*routes, *(lane.route for lane in lanes)])
    queued: Numbers = {(state.value, name): 0.0 for name in names for state in sorted(OPEN)}
    oldest: Numbers = {(name,): 0.0 for name in names}
    for lane in lanes:
        queued[lane.state.value, lane.route] += lane.recipients
        age_s = (now_ms - lane.oldest_accepted_at_ms) / 1000
        oldest[lane.route,] = max(oldest[lane.route,], age_s)
    yield GaugeFamily(
        name="queue_recipients",
        meaning="Recipients that wait, by state of their delivery.",
        labels=("state", "route"),
        numbers=queued,
    )
    yield GaugeFamily(
        name="queue_oldest_age_seconds",
        meaning="Age of the oldest message that waits; 0 without any.",
        labels=("route",),
        numbers=oldest,
    )


def _health(holds: Sequence[Hold], providers: Mapping[str, Provider]) -> Iterator[GaugeFamily]:
    down = {hold.key for hold in holds if hold.scope == UNREACHABLE}
    yield GaugeFamily(
        name="provider_up",
        meaning="0 while the provider cannot be reached.",
        labels=("provider",),
        numbers={(name,): float(name not in down) for name in providers},
    )
    held: Numbers = {(name, cause): 0.0 for name in providers for cause in CAUSES}
    for name in providers:
        for hold in holds_of(holds, name):
            if hold.scope != UNREACHABLE:
                held[name, _cause(hold)] += 1
    yield GaugeFamily(
        name="provider_held",
        meaning="Holds in force, by cause.",
        labels=("provider", "cause"),
        numbers=held,
    )


def _cause(hold: Hold) -> str:
    if hold.scope == Scope.SENDER_DOMAIN:
        return "sender_domain"
    if hold.probe_at_ms is None:
        return "operator"
    return "credential" if hold.scope == Scope.CREDENTIAL else "account"


def _limits(store: Store, providers: Mapping[str, Provider]) -> Iterator[GaugeFamily]:
    rates: Numbers = {}
    quotas: Numbers = {}
    for name, usage in read_usages(store, providers).items():
        if usage.rate_per_s is not None:
            rates[name,] = usage.rate_per_s
        if usage.settings.daily_quota is not None:
            quotas[name,] = usage.quota_used / usage.settings.daily_quota
    yield GaugeFamily(
        name="provider_rate_limit",
        meaning="What may be sent per second now; absent without a limit.",
        labels=("provider",),
        numbers=rates,
    )
    yield GaugeFamily(
        name="provider_quota_used_ratio",
        meaning="Share of daily_quota used in the last 24 hours.",
        labels=("provider",),
        numbers=quotas,
    )


def _untended(found: Sequence[Untended]) -> GaugeFamily:
    waiting = Counter(dict.fromkeys(KINDS, 0))
    for one in found:
        waiting[one.kind] += one.deliveries
    return GaugeFamily(
        name="waiting_untended",
        meaning="Deliveries that do not move by themselves, by what keeps them.",
        labels=("kind",),
        numbers={(kind,): float(number) for kind, number in waiting.items()},
    )


def _lost(lost: Sequence[LostInstance]) -> GaugeFamily:
    return GaugeFamily(
        name="instances_lost",
        meaning="Processes that died in the last day and have not come back.",
        labels=("role",),
        numbers={(role,): float(sum(one.role == role for one in lost)) for role in ROLES},
    )


def _instances(alive: Sequence[Instance], name: str | None) -> GaugeFamily:
    running = Counter(one.role for one in alive if name in (None, one.name))
    return GaugeFamily(
        name="instances",
        meaning="Processes with a fresh heartbeat.",
        labels=("role",),
        numbers={(role,): float(running[role]) for role in ROLES},
    )


def host_gauges(settings: Settings, state_dir: Path) -> Iterator[GaugeFamily]:
    """Yield the gauges; reads the certificates of listeners."""
    yield GaugeFamily(
        name="build_info",
        meaning="The version that answers.",
        labels=("version",),
        numbers={(__version__,): 1},
    )
    volume = os.statvfs(state_dir)
    yield GaugeFamily(
        name="volume_free_ratio",
        meaning="Free share of the volume of the state directory.",
        numbers={(): volume.f_bavail / max(volume.f_blocks, 1)},
    )
    yield GaugeFamily(
        name="tls_certificate_expiry_timestamp_seconds",
        meaning="When the certificate of a listener ends.",
        labels=("listener",),
        numbers=_ends(settings),
    )
    yield from _maildrop(settings.maildrop.path)


def _maildrop(path: str | None) -> Iterator[GaugeFamily]:
    """Yield what lies in the maildrop, no numbers where nobody can tell."""
    left = look_at_maildrop(path)
    files: Numbers = {}
    oldest: Numbers = {}
    if left is not None and left.trouble is None:
        files = {("waiting",): left.waiting, ("aside",): left.aside}
        oldest = {(): left.oldest_age_s}
    yield GaugeFamily(
        name="maildrop_files",
        meaning="Files in the maildrop: to be taken, or left alone by the front.",
        labels=("state",),
        numbers=files,
    )
    yield GaugeFamily(
        name="maildrop_oldest_age_seconds",
        meaning="Age of the oldest file in the maildrop; 0 without any.",
        numbers=oldest,
    )


def _ends(settings: Settings) -> Numbers:
    ends: Numbers = {}
    for listener in settings.listeners:
        if listener.tls.mode == "off" or listener.tls.cert is None:
            continue
        with contextlib.suppress(OSError, ValueError):  # the front says what is wrong with it
            end = certificate_end(Path(listener.tls.cert))
            ends[str(listener.bind),] = end.timestamp()
    return ends
