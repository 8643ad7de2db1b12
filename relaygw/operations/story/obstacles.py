"""Why a delivery is not sent now, in words, and what to do about it.

It is held, or something is in its way: holds, outages, quotas, no worker, the configuration.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from relaygw.mail.address import split
from relaygw.mail.hold import DOUBTFUL, OF_CONFIGURATION, HoldCause, HoldCode
from relaygw.mail.outcome import Scope
from relaygw.operations.providers import holds_of
from relaygw.operations.story.facts import Facts, seen_from
from relaygw.policy.router import provider_of_route
from relaygw.policy.story import Advice, Note
from relaygw.policy.untended import known_routes
from relaygw.store.holds import UNREACHABLE, Hold
from relaygw.store.queue_entry import DeliveryEntry

_WORKER = "delivery"
_WORDS = {
    HoldCode.MODE: "the mode or the allow list of the time of sending does not permit its "
    "recipients",
    HoldCode.POISON: "its worker died or failed with it three times, so it is kept from the others",
    HoldCode.RECOVERED: "the queue was recovered after damage, and this may have been sent already",
}


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
            text=f"an operator holds provider {name} ({hold.cause.key})",
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


# --- held by itself ------------------------------------------------------------------------


def held_words(cause: HoldCause) -> str:
    """Return why a delivery is held, as the end of a sentence."""
    if cause.code in DOUBTFUL:
        return "a provider may have taken it already, nobody knows; it is not tried again by itself"
    if cause.code is HoldCode.SENDER_REFUSED:
        return f"{' and '.join(sorted(cause.providers))} refused to send for {cause.domain}"
    if cause.code is HoldCode.OPERATOR:
        return f"an operator holds it ({cause.key})"
    return _WORDS.get(cause.code) or cause.sentence or "no reason is written down"


def held_advice(
    cause: HoldCause, queue_id: str, message_id: str, provider: str | None
) -> list[Advice]:
    """Return what to do about a held delivery."""
    release = f"relaygw queue release --id {queue_id}"
    if cause.code in DOUBTFUL:
        where = f"the log of {provider}" if provider else "the provider's log"
        return [
            Advice(
                f"Look into {where} for {message_id or queue_id}. If it was not taken:", release
            ),
            Advice("If it was:", f"relaygw queue delete --id {queue_id}"),
        ]
    if cause.code is HoldCode.MODE:
        return [
            Advice(
                "Set mode and recipients.allow as they should be, reload, then let it go:", release
            )
        ]
    if cause.code is HoldCode.POISON:
        return [
            Advice(
                f"Look into relaygw's own log for {queue_id}. If a worker died while sending it, "
                "the provider may have it: ask there before you let it try again:",
                release,
            )
        ]
    if cause.code is HoldCode.RECOVERED:
        return _advice_on_recovered(queue_id, message_id, release)
    return list(_advice_on_configuration(cause)) or [Advice("Let it go:", release)]


def _advice_on_recovered(queue_id: str, message_id: str, release: str) -> list[Advice]:
    return [
        Advice(
            f"Look into relaygw's mail log for {queue_id}, or into the provider's for "
            f"{message_id or queue_id}. If it was not sent:",
            release,
        ),
        Advice("If it was:", f"relaygw queue delete --id {queue_id}"),
    ]


def _advice_on_configuration(cause: HoldCause) -> Iterator[Advice]:
    if cause.code is HoldCode.SENDER_REFUSED:
        for name in sorted(cause.providers):
            yield Advice(
                f"Have {cause.domain} verified as a sender at {name}. "
                "A probe finds out by itself; now:",
                f"relaygw provider release {name}",
            )
    elif cause.code is HoldCode.HEADER:
        yield Advice(
            "A provider may send to whom the header names. Have the program that writes it leave "
            "the address out (of a header without end: make it shorter) and delete this mail; or "
            "take the address off recipients.block and reload: it is looked at again then."
        )
    elif cause.code is HoldCode.NEEDS_8BITMIME:
        yield Advice(
            "Give the route a provider with 8BITMIME and reload: it is looked at again then. Or "
            "have the program that writes it write ASCII."
        )
    elif cause.code in OF_CONFIGURATION:
        yield Advice(
            "Correct senders, daily_quota or the route in the configuration and reload: it is "
            "looked at again then."
        )
