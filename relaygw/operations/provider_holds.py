"""Providers in the hands of operators: held, and released with all that waits for them; audited."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from relaygw.mail.hold import HoldCause, HoldCode, provider_down
from relaygw.mail.outcome import Scope
from relaygw.mail.search import Field, make_term
from relaygw.mail.state import DeliveryState
from relaygw.operations.providers import hold_object, holds_of
from relaygw.operations.queue_actions import RETRY, Order, change_queued, found_batches
from relaygw.operations.readers import read_line
from relaygw.operations.verb import Asked, Done, Mistake, Parameter, Verb
from relaygw.store.holds import PAUSED, Hold, release_all
from relaygw.store.queue_entry import DeliveryEntry
from relaygw.store.selection import Selection
from relaygw.store.store import Store


def _hold(asked: Asked, given: Mapping[str, Any]) -> Done:
    name, note = given["name"], given.get("note", "")
    was_held = any(
        hold.scope == Scope.PROVIDER and hold.probe_at_ms is None
        for hold in holds_of(asked.store.holds.in_force(), name)
    )
    cause = HoldCause(HoldCode.OPERATOR, note or asked.actor)
    hold = Hold(
        scope=Scope.PROVIDER.value,
        key=name,
        reason=cause.sentence,
        remedy=f"run: relaygw provider release {name}",
        since_ms=asked.now_ms,
        probe_at_ms=None,  # no probe ends it
        cause=cause,
    )
    asked.store.holds.put_hold(hold, entry=asked.audited("provider.hold", name, detail=note))
    lines = [
        f"{name}: held until: relaygw provider release {name}",
        "workers start no new message through it after about a second; messages being sent "
        "then are completed",
    ]
    if was_held:
        lines = [f"{name}: was already held; the reason is updated"]
    waiting = [route.name for route in asked.settings.routes if route.providers == (name,)]
    if waiting:
        lines.append(f"mail waits on routes without another provider: {', '.join(waiting)}")
    return Done(answer={"provider": name, "was_held": was_held}, lines=lines)


def _release(asked: Asked, given: Mapping[str, Any]) -> Done:
    """End all holds and the pause of a provider, its key and its sender domains.

    What waits because of them is due now: mail that was set aside for a refused sender domain,
    and what was put off when the provider refused it. Mail in doubt keeps its own time.
    """
    name, store, ended = given["name"], asked.store, []
    for hold in holds_of(store.holds.in_force(), name):
        detail = f"{hold.scope} {hold.key}: {hold.reason}"
        entry = asked.audited("provider.release", name, detail=detail)
        if store.holds.drop_hold(hold.scope, hold.key, entry=entry):
            ended.append(hold)
        if hold.scope == Scope.SENDER_DOMAIN:
            _release_parked(store, name, hold.sender_domain)
    if ended:
        _make_due(asked, name, ended)
    lines = [f"{name}: {_ended_words(hold)}" for hold in ended]
    return Done(
        answer={"provider": name, "ended": list(map(hold_object, ended))},
        lines=lines or [f"{name}: nothing to release, it is neither held nor paused"],
    )


def _release_parked(store: Store, provider: str, domain: str) -> None:
    for cause in store.holds.held_causes():
        if cause.is_refused(provider, domain):
            release_all(store.holds, cause)


def _make_due(asked: Asked, name: str, ended: Sequence[Hold]) -> None:
    order = Order(actor=asked.actor, detail=f"provider {name} was released")
    said = [hold.cause.words for hold in ended]
    for reason in dict.fromkeys((*said, provider_down(name).sentence)):
        waiting = Selection(
            states=frozenset({DeliveryState.DEFERRED}),
            terms=(make_term(Field.WAIT_REASON, reason),),
        )
        for ids in found_batches(asked.store, waiting):
            waits = [
                entry.queue_id
                for entry in asked.store.queue.entries(ids)
                if any(_waits_for(name, reason, part) for part in entry.deliveries)
            ]
            change_queued(asked.store, RETRY, waits, order, now_ms=asked.now_ms)


def _waits_for(provider: str, reason: str, part: DeliveryEntry) -> bool:
    """Return whether this very provider is the reason, not one with a like name or words."""
    if reason == provider_down(provider).sentence:
        return part.reason == reason
    return part.provider == provider


def _ended_words(hold: Hold) -> str:
    what = "" if hold.scope in (Scope.PROVIDER, PAUSED) else f" ({hold.scope} {hold.key})"
    was = PAUSED if hold.scope == PAUSED else "held"
    return f"released{what}; it was {was}: {hold.reason}"


def _configured(name: str, asked: Asked) -> str:
    known = asked.settings.providers
    if name not in known:
        expected = f"one of {', '.join(known)}" if known else ""
        raise Mistake(f"there is no provider {name[:40]!r}", expected, "name")
    return name


def _configured_or_held(name: str, asked: Asked) -> str:
    """Return the name also of a provider that has gone from the settings and left holds."""
    is_held = bool(holds_of(asked.store.holds.in_force(), name))
    return name if is_held else _configured(name, asked)


_EXAMPLE = "one as relaygw provider list shows it"
HOLD = Verb(
    name="hold",
    help="Hold a provider: send nothing through it until it is released.",
    endpoint_help="Hold a provider.\nNothing is sent by it until somebody releases it.",
    parameters=(
        Parameter(name="name", metavar="NAME", example=_EXAMPLE, is_target=True,
                  look_up=_configured),
        Parameter(name="note", option="reason", metavar="TEXT", example="a shorter one",
                  help="The reason, shown with the hold.", field_help="why; shown beside it",
                  read=read_line, takes_empty=True),
    ),
    run=_hold,
    has_json=False,
)  # fmt: skip
RELEASE = Verb(
    name="release",
    help="End the pause and all holds of a provider, its key and sender domains; its mail is due.",
    endpoint_help="Release a provider.\n"
    "Ends its holds, those of its key and of its sender domains.",
    parameters=(
        Parameter(name="name", metavar="NAME", example=_EXAMPLE, is_target=True,
                  look_up=_configured_or_held),
    ),
    run=_release,
    has_json=False,
)  # fmt: skip
