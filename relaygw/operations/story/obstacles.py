"""Why a delivery is not sent now, in words, and what to do about it.

It is held, or something is in its way: holds, outages, quotas, no worker, the configuration.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from relaygw.mail.address import split
from relaygw.mail.hold import DOUBTFUL, HoldCause, HoldCode
from relaygw.mail.outcome import Scope
from relaygw.operations.providers import holds_of
from relaygw.operations.story.facts import Facts, seen_from
from relaygw.policy.router import provider_of_route
from relaygw.policy.story import Advice, Note
from relaygw.policy.untended import known_routes
from relaygw.store.holds import UNREACHABLE, Hold
from relaygw.store.queue_entry import DeliveryEntry

_WORDS = {
    HoldCode.MODE: "the mode or the allow list of the time of sending does not permit its "
    "recipients",
    HoldCode.POISON: "its worker died or failed with it three times, so it is kept from the others",
    HoldCode.RECOVERED: "the queue was recovered after damage, and this may have been sent already",
}
_RELEASE = "relaygw queue release --id {id}"
_DELETE = ("If it was:", "relaygw queue delete --id {id}")
_DOUBT = (("Look into {log} for {message}. If it was not taken:", _RELEASE), _DELETE)
_RELOAD = "Correct senders, daily_quota or the route in the configuration and reload: it is "
_CONFIGURATION = ((f"{_RELOAD}looked at again then.", ""),)
_ADVICE: dict[HoldCode, tuple[tuple[str, str], ...]] = {
    HoldCode.IN_DOUBT: _DOUBT,
    HoldCode.LOST_PROVIDER: _DOUBT,
    HoldCode.MODE: (
        ("Set mode and recipients.allow as they should be, reload, then let it go:", _RELEASE),
    ),
    HoldCode.POISON: (
        (
            "Look into relaygw's own log for {id}. If a worker died while sending it, the provider "
            "may have it: ask there before you let it try again:",
            _RELEASE,
        ),
    ),
    HoldCode.RECOVERED: (
        (
            "Look into relaygw's mail log for {id}, or into the provider's for {message}. If it "
            "was not sent:",
            _RELEASE,
        ),
        _DELETE,
    ),
    HoldCode.HEADER: (
        (
            "A provider may send to whom the header names. Have the program that writes it leave "
            "the address out (of a header without end: make it shorter) and delete this mail; or "
            "take the address off recipients.block and reload: it is looked at again then.",
            "",
        ),
    ),
    HoldCode.NEEDS_8BITMIME: (
        (
            "Give the route a provider with 8BITMIME and reload: it is looked at again then. Or "
            "have the program that writes it write ASCII.",
            "",
        ),
    ),
    HoldCode.NO_SENDER: _CONFIGURATION,
    HoldCode.OVER_QUOTA: _CONFIGURATION,
}
"""What to do about held mail, and the command that does it."""


@dataclass(frozen=True, slots=True)
class Obstacle:
    """Something in the way, and what to do about it."""

    text: str  # a clause
    advice: Advice
    notes: tuple[Note, ...] = ()
    ends_at_ms: int | None = None  # when it is looked at again


def obstacles(facts: Facts, part: DeliveryEntry) -> list[Obstacle]:
    """Return what is in the way of a delivery that waits; none when it may go now."""
    if not any(one.role == "delivery" for one in facts.instances):
        advice = Advice("Start the gateway; what runs is told by:", "relaygw status")
        return [Obstacle("no delivery worker runs", advice)]
    names = facts.providers(part)
    if not names or part.route not in known_routes(facts.settings):
        moved_to = provider_of_route(part.route)
        what = f"route {part.route}" if moved_to is None else f"provider {moved_to}"
        advice = Advice(
            f"Put {what} into the configuration again and reload, or move the mail:",
            f"relaygw queue move --id {facts.entry.queue_id} --to PROVIDER",
        )
        return [Obstacle(f"{what} is not in the configuration, so no worker takes it", advice)]
    in_the_way = [next(_of_provider(facts, name), None) for name in names]
    found = [one for one in in_the_way if one is not None]
    return found if len(found) == len(names) else []


def _of_provider(facts: Facts, name: str) -> Iterator[Obstacle]:
    domain = split(facts.entry.sender)[1] or ""
    for hold in sorted(holds_of(facts.holds, name), key=_weight):
        if hold.scope != Scope.SENDER_DOMAIN or hold.key == f"{name} {domain}":
            yield _of_hold(name, hold, facts.now_ms)
    quota = facts.settings.providers[name].daily_quota
    usage = facts.usages.get(name)
    if quota is not None and usage is not None and usage.quota_used >= quota:
        advice = Advice("Wait: the quota is of the last 24 hours. Or have it raised there.")
        yield Obstacle(f"{name} has used its daily_quota of {quota}", advice)


def _weight(hold: Hold) -> tuple[bool, bool]:
    """Sort an operator's hold to the front and an outage, which ends by itself, to the end."""
    return hold.scope == UNREACHABLE, hold.probe_at_ms is not None


def _of_hold(name: str, hold: Hold, now_ms: int) -> Obstacle:
    since = (Note("since", seen_from(hold.since_ms, now_ms)),)
    if hold.scope == UNREACHABLE:
        advice = Advice(
            "Nothing, if it comes back: it is tried again by itself. What is wrong is told by:",
            "relaygw check --online",
        )
        return Obstacle(f"{name} cannot be reached ({hold.reason})", advice, since)
    release = f"relaygw provider release {name}"
    if hold.probe_at_ms is None:
        advice = Advice("Let the provider go when the reason is over:", release)
        return Obstacle(f"an operator holds provider {name} ({hold.cause.key})", advice, since)
    what = f"{name} refuses this sender" if hold.scope == Scope.SENDER_DOMAIN else f"{name} is held"
    remedy = hold.remedy.strip()
    remedy = f"{remedy[:1].upper()}{remedy[1:].rstrip('.')}." if remedy else ""
    advice = Advice(f"{remedy} A probe finds out by itself; now:", release)
    return Obstacle(f"{what} ({hold.reason})", advice, since, hold.probe_at_ms)


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
    if cause.code is HoldCode.SENDER_REFUSED:
        what = f"Have {cause.domain} verified as a sender at"
        return [
            Advice(
                f"{what} {name}. A probe finds out by itself; now:",
                f"relaygw provider release {name}",
            )
            for name in sorted(cause.providers)
        ]
    where = f"the log of {provider}" if provider else "the provider's log"
    of = {"id": queue_id, "message": message_id or queue_id, "log": where}
    rows = _ADVICE.get(cause.code, (("Let it go:", _RELEASE),))
    return [Advice(text.format_map(of), command.format_map(of)) for text, command in rows]
