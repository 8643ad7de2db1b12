"""Whether mail is accepted, claimed and not late."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from relaygw.alerting.facts import Finding, QueueFacts
from relaygw.alerting.history import totals
from relaygw.mail.state import CLAIMABLE
from relaygw.observe.history import Series
from relaygw.settings.alerts import Rule
from relaygw.settings.model import Settings
from relaygw.settings.routes import Stream
from relaygw.store.home import home_elsewhere
from relaygw.store.instances import front_trouble
from relaygw.store.store import Store
from relaygw.volume import is_full

LATE_MS = 5 * 60_000
CLAIMED_S = 30.0  # a worker looks for due mail once a second
_MOVING_MS = 10 * 60_000


def mail_trouble(
    store: Store,
    settings: Settings,
    queue: QueueFacts,
    findings: Collection[Finding],
    *,
    state_dir: Path,
    claimed_s: float,
    now_ms: int,
) -> str | None:
    """Return why no call is made, None while mail is accepted, claimed and not late; blocks."""
    fronts = [instance for instance in store.instances.registered() if instance.role == "front"]
    problem = front_trouble(fronts, now_ms=now_ms)
    if problem is not None:
        return problem
    if is_full(state_dir, settings.queue.min_free) or any(
        finding.rule is Rule.FRONT_REFUSING for finding in findings
    ):
        return "the front refuses mail"
    if home_elsewhere(store.homes, settings) is not None:
        return "the queue belongs to another machine, so nothing is sent from this one"
    if claimed_s > CLAIMED_S:
        return f"the delivery worker has not looked for due mail for {CLAIMED_S:.0f} s"
    for route in _late_routes(store, settings, queue, now_ms):
        return f"mail of route {route} is due for more than five minutes"
    return None


def _late_routes(store: Store, settings: Settings, queue: QueueFacts, now_ms: int) -> list[str]:
    """Return routes with late mail; promotional mail takes its time while some of it goes out."""
    old = {
        lane.route
        for lane in queue.lanes
        if lane.state in CLAIMABLE and lane.oldest_accepted_at_ms <= now_ms - LATE_MS
    }
    delivered = totals(queue.points, Series.DELIVERED, since_ms=now_ms - _MOVING_MS)
    patient = {
        entry.name
        for entry in settings.routes
        if entry.stream is Stream.PROMOTIONAL and any(map(delivered.get, entry.providers))
    }
    late = []
    for route in sorted(old - patient):
        due_ms = store.leases.next_due_at_ms(route)
        if due_ms is not None and due_ms <= now_ms - LATE_MS:
            late.append(route)
    return late
