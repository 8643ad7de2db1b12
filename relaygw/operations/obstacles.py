"""What is in the way of mail that waits, worked out with the present configuration.

Stories tell it of one message with the remedy; lists and counts of the queue in a few words.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache

from relaygw.mail.clock import clock_ms, utc_text
from relaygw.mail.keys import packed
from relaygw.mail.outcome import Scope
from relaygw.mail.state import DeliveryState
from relaygw.mail.words import printable, span, wait_span
from relaygw.operations.providers import Usage, holds_of, read_usages, turn_words
from relaygw.policy.router import provider_of_route, providers_of
from relaygw.policy.story import Advice, Note
from relaygw.policy.untended import known_routes
from relaygw.settings.model import Settings
from relaygw.store.holds import PAUSED, PROBE_LONGEST_S, RETRIED, STOPS, UNREACHABLE, Hold
from relaygw.store.home import home_elsewhere
from relaygw.store.instances import Instance
from relaygw.store.queue_entry import Way
from relaygw.store.store import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What may be in the way of mail at one moment; all times in ms."""

    settings: Settings
    now_ms: int
    holds: Sequence[Hold] = ()
    ends_ms: Mapping[str, int] = field(default_factory=dict)  # of standing holds that have an end
    instances: Sequence[Instance] = ()
    usages: Mapping[str, Usage] = field(default_factory=dict)  # by provider
    queued: Mapping[str, int] = field(default_factory=dict)  # deliveries that wait, by route
    home: str | None = None  # the machine of the queue, where this one sends nothing

    def providers_of(self, way: Way) -> tuple[str, ...]:
        """Return which providers may take a delivery, in their order."""
        if way.in_doubt_with is not None:
            return (way.in_doubt_with,)
        return providers_of(self.settings, way.route)

    def turn_of(self, way: Way) -> tuple[str, Usage] | None:
        """Return the provider whose rate a delivery waits for, None if it does not for long."""
        stopped = {hold.key for hold in self.holds if hold.scope in STOPS}
        free = [name for name in self.providers_of(way) if name not in stopped]
        usage = self.usages.get(free[0]) if free else None
        return (free[0], usage) if usage is not None and usage.is_behind else None


def look_around(store: Store, settings: Settings, *, now_ms: int) -> Surroundings:
    """Ask the store for all that may be in the way of mail."""
    holds, standing = store.holds.all_in_force()
    lanes = store.queue.counts()
    home = home_elsewhere(store.homes, settings)
    queued: Counter[str] = Counter()
    for lane in lanes:
        if lane.state is not DeliveryState.HELD:
            queued[lane.route] += lane.deliveries
    return Surroundings(
        settings=settings,
        now_ms=now_ms,
        holds=holds,
        ends_ms={hold.hold_id: hold.until_ms for hold in standing if hold.until_ms is not None},
        instances=store.instances.registered(),
        usages=read_usages(store, settings, holds, lanes),
        queued=dict(queued),
        home=None if home is None else printable(home.owner),
    )


def wait_words(store: Store, settings: Settings) -> Callable[[Way], str]:
    """A function that says what mail waits for beside its own time: see `Way`; "" for nothing.

    It knows the present moment only: a list is made with one. Raises StoreUnavailable.
    """
    around = look_around(store, settings, now_ms=clock_ms())

    @cache
    def words(way: Way) -> str:
        in_the_way = obstacles(around, way)
        if in_the_way:
            return join_obstacles(in_the_way)
        turn = around.turn_of(way) if way.is_due else None
        return "" if turn is None else turn_words(*turn)

    return words


def seen_from(at_ms: int, now_ms: int) -> str:
    """Return a time and how far it is from now."""
    if at_ms > now_ms:
        return f"{utc_text(at_ms)}, in {wait_span(at_ms - now_ms)}"
    return f"{utc_text(at_ms)}, {span(now_ms - at_ms)} ago"


@dataclass(frozen=True, slots=True)
class Obstacle:
    """Something in the way, and what to do about it."""

    text: str  # a clause
    advice: Advice
    notes: tuple[Note, ...] = ()
    ends_at_ms: int | None = None  # when it is looked at again


def join_obstacles(in_the_way: Sequence[Obstacle]) -> str:
    """Return obstacles as one clause."""
    return " and ".join(obstacle.text for obstacle in in_the_way)


def obstacles(around: Surroundings, way: Way, *, queue_id: str = "ID") -> list[Obstacle]:
    """Return the obstacles of a delivery that waits; none when it may go now."""
    if not any(instance.role == "delivery" for instance in around.instances):
        advice = Advice("Start the gateway; to see what runs:", "relaygw status")
        return [Obstacle("no delivery worker runs", advice)]
    if around.home is not None:
        advice = Advice("If this is the machine that sends, and not a copy:", "relaygw db adopt")
        what = f"the queue belongs to {around.home}"
        return [Obstacle(f"{what}, so nothing is sent from this one", advice)]
    names = around.providers_of(way)
    if not names or way.route not in known_routes(around.settings):
        moved_to = provider_of_route(way.route)
        what = f"route {way.route}" if moved_to is None else f"provider {moved_to}"
        advice = Advice(
            f"Add {what} to the configuration again and reload, or move the mail:",
            f"relaygw queue move --id {queue_id} --to PROVIDER",
        )
        return [Obstacle(f"{what} is not in the configuration, so no worker takes it", advice)]
    in_the_way = [next(_of_provider(around, way, name), None) for name in names]
    found = [obstacle for obstacle in in_the_way if obstacle is not None]
    return found if len(found) == len(names) else []


def _of_provider(around: Surroundings, way: Way, name: str) -> Iterator[Obstacle]:
    for hold in sorted(holds_of(around.holds, name), key=_weight):
        if hold.scope != Scope.SENDER_DOMAIN or hold.key == packed(name, way.sender_domain):
            yield _of_hold(name, hold, around.now_ms)
    usage = around.usages.get(name)  # None: mail may be in doubt with a provider that is gone
    quota = None if usage is None else usage.settings.daily_quota
    if usage is not None and quota is not None and usage.quota_used >= quota:
        advice = Advice(
            "Wait: the quota covers the last 24 hours. Or have it raised at the provider."
        )
        yield Obstacle(f"{name} has used its daily_quota of {quota}", advice)


def _weight(hold: Hold) -> tuple[bool, bool]:
    """Sort an operator's hold to the front and an outage, which ends by itself, to the end."""
    return hold.scope == UNREACHABLE, hold.probe_at_ms is not None


def _of_hold(name: str, hold: Hold, now_ms: int) -> Obstacle:
    since: tuple[Note, ...] = (Note("since", seen_from(hold.since_ms, now_ms)),)
    if hold.scope == UNREACHABLE:
        first = "Nothing, if it comes back:" if hold.remedy == RETRIED else f"{hold.remedy};"
        advice = Advice(
            f"{first} it is retried automatically. To see what is wrong:", "relaygw check --online"
        )
        text = f"{name} cannot be reached ({hold.reason})"
        ends_ms = (hold.probe_at_ms or 0) + int(PROBE_LONGEST_S * 1000)
        if (hold.probe_at_ms or 0) <= now_ms < ends_ms:
            since += (Note("its probe ends", f"{seen_from(ends_ms, now_ms)} at the latest"),)
        return Obstacle(text, advice, since, hold.probe_at_ms)
    release = f"relaygw provider release {name}"
    if hold.scope == PAUSED:
        advice = Advice(
            "Nothing: one message tries it at least once a minute. To try it now:", release
        )
        return Obstacle(f"{name} is paused ({hold.reason})", advice, since, hold.probe_at_ms)
    if hold.probe_at_ms is None:
        advice = Advice("Release the provider when the reason is resolved:", release)
        return Obstacle(f"an operator holds provider {name} ({hold.cause.key})", advice, since)
    what = f"{name} refuses this sender" if hold.scope == Scope.SENDER_DOMAIN else f"{name} is held"
    remedy = hold.remedy.strip()
    remedy = f"{remedy[:1].upper()}{remedy[1:].rstrip('.')}." if remedy else ""
    advice = Advice(f"{remedy} A probe finds out automatically; now:", release)
    return Obstacle(f"{what} ({hold.reason})", advice, since, hold.probe_at_ms)
