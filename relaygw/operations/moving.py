"""Queued mail that an operator lets go by another provider.

From then on that provider alone is for it: it is no more on its route of the configuration. Mode
and recipient lists are looked at before each attempt as for all mail. What another provider may
have taken already is left alone unless the move is forced: it may be sent twice.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from relaygw.mail.state import DeliveryState
from relaygw.operations.messages import (
    BEING_SENT,
    LeftAlone,
    Result,
    batches,
    entries_of,
    left_alone,
)
from relaygw.policy.hold_reasons import REASON_IN_DOUBT, is_of_configuration, parked_for
from relaygw.policy.patterns import AddressPatterns
from relaygw.policy.routing import provider_of_route
from relaygw.settings.provider import Provider
from relaygw.store.protocol import AuditEntry, DeliveryEntry, QueueEntry, Store

_D = DeliveryState
MOVABLE = frozenset({_D.INCOMING, _D.DEFERRED, _D.HELD})
_IN_DOUBT = (REASON_IN_DOUBT, "in doubt with")


@dataclass(frozen=True, slots=True, kw_only=True)
class Moving:
    """Where mail is to go, and whether it may be sent twice."""

    provider: str
    settings: Provider
    is_forced: bool = False


def plan_move(moving: Moving, entry: QueueEntry) -> LeftAlone | None:
    """Return why a message is left alone; None: it may be moved."""
    states = {part.state for part in entry.deliveries}
    if _D.ACTIVE in states:
        return left_alone(entry, BEING_SENT, is_temporary=True)
    parts = [part for part in entry.deliveries if part.state in MOVABLE]
    if not parts:
        shown, wanted = " and ".join(sorted(states)), " or ".join(sorted(MOVABLE))
        return left_alone(entry, f"it is {shown}; move is for mail that is {wanted}")
    if not _may_send_as(moving.settings, entry.sender):
        why = f"provider {moving.provider} may not send as {entry.sender}: see its senders"
        return left_alone(entry, why)
    objections = [] if moving.is_forced else list(_objections(moving.provider, parts))
    return left_alone(entry, objections[0]) if objections else None


def _may_send_as(settings: Provider, sender: str) -> bool:
    if not settings.senders or not sender:
        return True
    return AddressPatterns(settings.senders).matches(sender)


def _objections(provider: str, parts: Iterable[DeliveryEntry]) -> Iterable[str]:
    for part in parts:
        if _is_elsewhere(provider, part):
            yield f"{part.provider} may have sent it already; with --force it may be sent twice"
        parked = parked_for(part.reason or "")
        if parked is not None and provider in parked[0]:
            yield (
                f"{provider} refuses sender domain {parked[1]}; with --force it is tried there "
                "all the same, and what was taken unseen may be sent twice"
            )


def _is_elsewhere(provider: str, part: DeliveryEntry) -> bool:
    return part.is_in_doubt and part.provider != provider


def move(
    store: Store,
    ids: Sequence[str],
    moving: Moving,
    *,
    actor: str,
    now_ms: int,
    detail: str = "",
) -> Result:
    """Let messages go by one provider alone.

    What waited for its next try is due now, and so is what was held on account of the providers
    it had; what an operator, the mode or a list holds stays held.
    """
    changed: list[str] = []
    left: list[LeftAlone] = []
    for batch in batches(ids):
        ready: list[QueueEntry] = []
        for entry in entries_of(store, batch):
            obstacle = plan_move(moving, entry)
            if obstacle is None:
                ready.append(entry)
            else:
                left.append(obstacle)
        if not ready:
            continue
        queue_ids = [entry.queue_id for entry in ready]
        moved = store.move(
            queue_ids,
            provider=moving.provider,
            ended_reasons=set(_ended_reasons(moving, ready)),
            is_forced=moving.is_forced,
            entry=AuditEntry(
                at_ms=now_ms,
                actor=actor,
                action="queue.move",
                target=" ".join(queue_ids),
                affected=len(queue_ids),
                detail=f"to={moving.provider!r} {detail}".strip(),
            ),
        )
        expected = sum(part.state in MOVABLE for one in ready for part in one.deliveries)
        taken = [] if moved >= expected else _taken_meanwhile(store, moving.provider, queue_ids)
        left += taken
        lost = {one.queue_id for one in taken}
        changed += [queue_id for queue_id in queue_ids if queue_id not in lost]
    return Result(changed=tuple(changed), left=tuple(left))


def _ended_reasons(moving: Moving, ready: Iterable[QueueEntry]) -> Iterable[str]:
    """Yield the reasons of holds that are over where another provider is to send."""
    for entry in ready:
        for part in entry.deliveries:
            if part.state is not _D.HELD or part.reason is None:
                continue
            is_doubt = moving.is_forced and part.reason.startswith(_IN_DOUBT)
            if is_doubt or is_of_configuration(part.reason):
                yield part.reason


def _taken_meanwhile(store: Store, provider: str, queue_ids: Sequence[str]) -> list[LeftAlone]:
    """Return the messages that a worker took between the look and the change."""
    return [
        left_alone(entry, "a worker took it at this moment", is_temporary=True)
        for entry in entries_of(store, queue_ids)
        if provider not in {provider_of_route(part.route) for part in entry.deliveries}
    ]
