"""How the gateway is doing, of one moment: for `relaygw status`, the first page and the API."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from relaygw import __version__
from relaygw.mail.clock import clock_ms, rfc3339, rfc3339_or_none
from relaygw.mail.search import EVERYTHING
from relaygw.mail.standing_hold import StandingHold
from relaygw.mail.words import fields
from relaygw.observe.history import Series
from relaygw.observe.maildrop import LeftMail, look_at_maildrop
from relaygw.observe.waits import WAITS_SLICE_S, Waits, waits_of
from relaygw.operations import providers
from relaygw.operations.standing_holds import hold_object, waiting_of
from relaygw.operations.webhooks import receiver_warnings, receivers
from relaygw.policy.lost_gateways import LOST_MS, LostInstance, lost_gateways
from relaygw.policy.receivers import Endpoint
from relaygw.policy.untended import Untended, untended
from relaygw.settings.model import Settings, fingerprint
from relaygw.store.holds import Hold
from relaygw.store.instances import Instance, silent_incarnations
from relaygw.store.login_endings import endings_of
from relaygw.store.queue import LaneCount
from relaygw.store.standing_mail import standing_of
from relaygw.store.store import Store

HOUR_MS = 3_600_000
SILENT_AFTER_S = 15.0
"""An instance that did not renew its heartbeat for this long is shown as silent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """What the store says at one time."""

    at_ms: int
    fingerprint: str
    instances: list[Instance]
    silent: frozenset[str]  # incarnations
    holds: list[Hold]
    standing: list[tuple[StandingHold, int]]  # with how much waits for each
    usages: dict[str, providers.Usage]  # by the provider's name
    lanes: list[LaneCount]
    captured: int
    unread: int
    untended: list[Untended]
    lost: list[LostInstance]
    in_queue: Counter[str]  # mail of the last hour, by label: see observe.events
    maildrop: LeftMail | None = None
    webhooks: dict[str, Endpoint] = field(default_factory=dict)  # by the receiver's name
    endings: Sequence[str] = ()  # ways of logging in that end, in words

    def drifted(self) -> list[Instance]:
        """Return the instances that routing or policy settings differ than the file's."""
        return [instance for instance in self.instances if instance.fingerprint != self.fingerprint]

    def waits(self, provider: str | None = None) -> Waits | None:
        """Return how long mail of the last hour was in the queue; None: none came to its end."""
        return waits_of(self.in_queue.items(), provider)

    def state_of(self, provider: str) -> str:
        """Return the state of a provider in a word."""
        return providers.state_of(providers.holds_of(self.holds, provider), self.usages[provider])


def take_snapshot(store: Store, settings: Settings) -> Snapshot:
    """Ask the store for everything that the screen shows; raises StoreUnavailable."""
    captured, unread = store.sandbox.count_captured(EVERYTHING)
    now_ms = clock_ms()
    instances, holds = store.instances.registered(), store.holds.in_force()
    lanes, mine = store.queue.counts(), fingerprint(settings)
    standing = standing_of(
        store,
        settings,
        fingerprint=mine,
        lanes=lanes,
        holds=holds,
        instances=instances,
        now_ms=now_ms,
    )
    return Snapshot(
        at_ms=now_ms,
        fingerprint=mine,
        instances=instances,
        silent=silent_incarnations(instances, SILENT_AFTER_S, now_ms=now_ms),
        holds=providers.obeyed(holds, settings.providers),
        standing=waiting_of(store),
        usages=providers.read_usages(store, settings, holds, lanes),
        lanes=lanes,
        captured=captured,
        unread=unread,
        maildrop=look_at_maildrop(settings.maildrop.path),
        untended=untended(standing, settings, now_ms=now_ms),
        lost=store.watch.lost_instances(now_ms - LOST_MS),
        in_queue=in_queue_since(store, now_ms - HOUR_MS),
        webhooks=receivers(store, settings),
        endings=[
            f"{ending.words(now_ms)}; {ending.remedy}" for ending in endings_of(store, settings)
        ],
    )


def in_queue_since(store: Store, since_ms: int) -> Counter[str]:
    """Count mail that came to its end since the slice of a time, by label: see observe.events."""
    start_ms = since_ms - since_ms % (WAITS_SLICE_S * 1000)
    found = store.watch.sums(start_ms, step_ms=2**50, series=[Series.IN_QUEUE])
    return Counter({label: number for _, _, label, number in found})


def lanes_of(snapshot: Snapshot, settings: Settings) -> list[tuple[str, str]]:
    """Return routes and streams of the configuration, then others that still have mail."""
    configured = [(route.name, route.stream.value) for route in settings.routes]
    return list(
        dict.fromkeys([*configured, *((lane.route, lane.stream) for lane in snapshot.lanes)])
    )


def warnings(snapshot: Snapshot) -> Iterator[str]:
    """Yield what an operator should look at."""
    for role in ("front", "delivery"):
        mine = [instance.incarnation for instance in snapshot.instances if instance.role == role]
        if mine and snapshot.silent.issuperset(mine):
            yield silent_words(role)
        elif snapshot.instances and not mine:
            yield f"no {role} runs; start it: relaygw serve --role {role}"
    drifted = snapshot.drifted()
    if drifted:
        names = ", ".join(
            f"{instance.role} {instance.pid} on {instance.name}" for instance in drifted
        )
        yield f"{names}: routing or policy settings differ from the file; reload or restart"
    if snapshot.maildrop is not None and snapshot.maildrop.summary is not None:
        yield f"{snapshot.maildrop.summary}; {snapshot.maildrop.remedy}"
    for lost_gateway in lost_gateways(snapshot.lost):
        yield f"{lost_gateway.summary}; {lost_gateway.remedy}"
    yield from snapshot.endings
    yield from receiver_warnings(snapshot.webhooks, now_ms=snapshot.at_ms)


def silent_words(role: str) -> str:
    """Return a warning about a role whose heartbeats have all stopped, and a remedy."""
    return (
        f"{role} has not renewed its heartbeat for {SILENT_AFTER_S:g} s: it died, hangs or cannot "
        f"write to the queue; check its log, or start it: relaygw serve --role {role}"
    )


def status_object(snapshot: Snapshot, settings: Settings) -> dict[str, Any]:
    """Return the whole in the form of JSON."""
    return {
        "version": __version__,
        "mode": settings.mode.value,
        "hostname": settings.hostname,
        "queue": settings.queue.url,
        "fingerprint": snapshot.fingerprint,
        "instances": [_instance_object(instance, snapshot) for instance in snapshot.instances],
        "providers": [
            {
                "name": name,
                **fields(usage.settings, "host", "port"),
                "state": snapshot.state_of(name),
                "in_queue": _waits_object(snapshot.waits(name)),
                **providers.usage_object(usage),
            }
            for name, usage in snapshot.usages.items()
        ],
        "holds": [providers.hold_object(hold) for hold in snapshot.holds],
        "standing_holds": [hold_object(*pair) for pair in snapshot.standing],
        "lanes": [
            {
                **fields(lane, "route", "stream", "state", "deliveries"),
                "oldest_accepted_at": rfc3339(lane.oldest_accepted_at_ms),
            }
            for lane in snapshot.lanes
        ],
        "untended": [
            {
                **fields(mail, "kind", "rule", "key", "deliveries"),
                "since": rfc3339_or_none(mail.since_ms),
                **fields(mail, "examples", "summary", "remedy"),
            }
            for mail in snapshot.untended
        ],
        "lost": [
            {
                **fields(lost_instance, "role", "name", "incarnation", "pid"),
                "heartbeat_at": rfc3339(lost_instance.heartbeat_at_ms),
                "leases": lost_instance.leases,
            }
            for lost_instance in snapshot.lost
        ],
        "in_queue": _waits_object(snapshot.waits()),
        "captured": snapshot.captured,
        "unread": snapshot.unread,
        "maildrop": None if snapshot.maildrop is None else _maildrop_object(snapshot.maildrop),
    }


def _waits_object(waits: Waits | None) -> dict[str, Any] | None:
    return None if waits is None else asdict(waits)


def _instance_object(instance: Instance, snapshot: Snapshot) -> dict[str, Any]:
    return {
        **fields(instance, "role", "name", "incarnation", "pid", "version", "state"),
        "started_at": rfc3339(instance.started_at_ms),
        "heartbeat_at": rfc3339(instance.heartbeat_at_ms),
        "is_silent": instance.incarnation in snapshot.silent,
        "fingerprint": instance.fingerprint,
        "has_drifted": instance.fingerprint != snapshot.fingerprint,
    }


def _maildrop_object(left: LeftMail) -> dict[str, Any]:
    return {
        **fields(left, "path", "waiting", "late", "aside"),
        "oldest_age_s": int(left.oldest_age_s),
        "files": [{**fields(it, "name", "reason"), "age_s": int(it.age_s)} for it in left.named],
        "trouble": left.trouble,
    }
