"""What keeps a delivery from being sent now: holds, outages, quotas, workers, the configuration."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from relaygw.mail.address import split
from relaygw.mail.outcome import Scope
from relaygw.operations.providers import holds_of
from relaygw.operations.story.facts import Facts
from relaygw.operations.story.words import seen_from
from relaygw.policy.routing import provider_of_route
from relaygw.policy.story import Advice, Note
from relaygw.policy.untended import known_routes
from relaygw.store.protocol import UNREACHABLE, DeliveryEntry, Hold

_WORKER = "delivery"


@dataclass(frozen=True, slots=True, kw_only=True)
class Obstacle:
    """Something in the way, and what to do about it."""

    text: str  # a clause
    advice: Advice
    ends_at_ms: int | None = None  # when it is looked at again
    notes: tuple[Note, ...] = ()


def obstacles(facts: Facts, part: DeliveryEntry) -> list[Obstacle]:
    """Return what is in the way of a delivery that waits; none when it may go now."""
    if not any(one.role == _WORKER for one in facts.instances):
        advice = Advice("Start the gateway; what runs is told by:", "relaygw status")
        return [Obstacle(text="no delivery worker runs", advice=advice)]
    names = facts.providers(part)
    if not names or part.route not in known_routes(facts.settings):
        return [_of_route(facts, part)]
    in_the_way = [next(_of_provider(facts, part, name), None) for name in names]
    found = [one for one in in_the_way if one is not None]
    return found if len(found) == len(names) else []


def _of_route(facts: Facts, part: DeliveryEntry) -> Obstacle:
    moved_to = provider_of_route(part.route)
    what = f"route {part.route}" if moved_to is None else f"provider {moved_to}"
    return Obstacle(
        text=f"{what} is not in the configuration, so no worker takes it",
        advice=Advice(
            f"Put {what} into the configuration again and reload, or move the mail:",
            f"relaygw queue move --id {facts.entry.queue_id} --to PROVIDER",
        ),
    )


def _of_provider(facts: Facts, part: DeliveryEntry, name: str) -> Iterator[Obstacle]:
    domain = split(facts.entry.sender)[1] or ""
    for hold in sorted(holds_of(facts.holds, name), key=_weight):
        if hold.scope == Scope.SENDER_DOMAIN and hold.key != f"{name} {domain}":
            continue
        yield _of_hold(facts, name, hold)
    quota = facts.settings.providers[name].daily_quota
    usage = facts.usages.get(name)
    if quota is not None and usage is not None and usage.quota_used >= quota:
        yield Obstacle(
            text=f"{name} has used its daily_quota of {quota}",
            advice=Advice("Wait: the quota is of the last 24 hours. Or have it raised there."),
        )


def _weight(hold: Hold) -> tuple[bool, bool]:
    """Sort an operator's hold to the front and an outage, which ends by itself, to the end."""
    return hold.scope == UNREACHABLE, hold.probe_at_ms is not None


def _of_hold(facts: Facts, name: str, hold: Hold) -> Obstacle:
    since = Note("since", seen_from(hold.since_ms, facts.now_ms))
    if hold.scope == UNREACHABLE:
        return Obstacle(
            text=f"{name} cannot be reached ({hold.reason})",
            advice=Advice(
                "Nothing, if it comes back: it is tried again by itself. What is wrong is told by:",
                "relaygw check --online",
            ),
            notes=(since,),
        )
    release = f"relaygw provider release {name}"
    if hold.probe_at_ms is None:
        return Obstacle(
            text=f"an operator holds provider {name} ({hold.reason.removeprefix('operator: ')})",
            advice=Advice("Let the provider go when the reason is over:", release),
            notes=(since,),
        )
    what = f"{name} refuses this sender" if hold.scope == Scope.SENDER_DOMAIN else f"{name} is held"
    return Obstacle(
        text=f"{what} ({hold.reason})",
        advice=Advice(f"{_sentence(hold.remedy)} A probe finds out by itself; now:", release),
        ends_at_ms=hold.probe_at_ms,
        notes=(since,),
    )


def _sentence(text: str) -> str:
    text = text.strip()
    return f"{text[:1].upper()}{text[1:].rstrip('.')}." if text else ""
