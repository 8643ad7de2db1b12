"""Queued mail: retry, hold, release, delete, undelete, expire.

Only deliveries in the states that an action is meant for move; a message is left alone, and
named, when it has none or a worker is sending it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from relaygw.mail.state import DeliveryState
from relaygw.operations.messages import (
    BEING_SENT,
    LeftAlone,
    Result,
    batches,
    entries_of,
    left_alone,
)
from relaygw.policy.hold_reasons import operator_reason
from relaygw.policy.untended import gone_remedy, gone_words, known_routes
from relaygw.settings.model import Settings
from relaygw.settings.show import fingerprint
from relaygw.store.protocol import AuditEntry, QueueEntry, Store

_D = DeliveryState


class Action(StrEnum):
    """A change of queued mail."""

    RETRY = "retry"  # what waits is due now
    HOLD = "hold"  # stays until somebody releases it
    RELEASE = "release"  # held mail is due now
    DELETE = "delete"  # into the trash for seven days
    UNDELETE = "undelete"  # out of the trash: due now, or held as before
    EXPIRE = "expire"  # over now, as if its lifetime were


MOVES = {
    Action.RETRY: frozenset({_D.INCOMING, _D.DEFERRED}),
    Action.HOLD: frozenset({_D.INCOMING, _D.DEFERRED}),
    Action.RELEASE: frozenset({_D.HELD}),
    Action.DELETE: frozenset({_D.INCOMING, _D.DEFERRED, _D.HELD}),
    Action.UNDELETE: frozenset({_D.DELETED}),
    Action.EXPIRE: frozenset({_D.INCOMING, _D.DEFERRED, _D.HELD}),
}
"""The states that an action is meant for."""

_REACHED = {
    Action.RETRY: frozenset({_D.DEFERRED}),
    Action.HOLD: frozenset({_D.HELD}),
    Action.RELEASE: frozenset({_D.DEFERRED}),
    Action.DELETE: frozenset({_D.DELETED}),
    Action.UNDELETE: frozenset({_D.DEFERRED, _D.HELD}),
    Action.EXPIRE: frozenset({_D.FINISHED}),
}
_NEEDS_THE_WHOLE = frozenset({Action.HOLD, Action.DELETE, Action.EXPIRE})


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What an action would do."""

    action: Action
    ready: tuple[QueueEntry, ...]
    left: tuple[LeftAlone, ...]


def routes_taken(store: Store, settings: Settings) -> frozenset[str] | None:
    """Return the routes that mail is sent of, None: a worker with other settings may know more."""
    mine = fingerprint(settings)
    is_other = any(
        one.role == "delivery" and one.state != "draining" and one.fingerprint != mine
        for one in store.instances()
    )
    return None if is_other else known_routes(settings)


def plan(
    action: Action,
    entries: Sequence[QueueEntry],
    *,
    is_forced: bool = False,
    routes: frozenset[str] | None = None,
) -> Plan:
    """Part messages into those that `action` may change and those it leaves alone.

    What a provider may have taken already is retried only when `is_forced`; what is on none of
    `routes` is not retried: nobody would send it.
    """
    ready: list[QueueEntry] = []
    left: list[LeftAlone] = []
    for entry in entries:
        obstacle = _obstacle(action, entry, is_forced)
        if obstacle is None and action is Action.RETRY and routes is not None:
            obstacle = _without_route(entry, routes)
        if obstacle is None:
            ready.append(entry)
        else:
            left.append(obstacle)
    return Plan(action=action, ready=tuple(ready), left=tuple(left))


def _obstacle(action: Action, entry: QueueEntry, is_forced: bool) -> LeftAlone | None:
    states = {part.state for part in entry.deliveries}
    is_active = _D.ACTIVE in states
    if is_active and (action in _NEEDS_THE_WHOLE or not states & MOVES[action]):
        return left_alone(entry, BEING_SENT, is_temporary=True)
    if not states & MOVES[action]:
        shown, wanted = " and ".join(sorted(states)), " or ".join(sorted(MOVES[action]))
        why = f"it is {shown}; {action} is for mail that is {wanted}"
        return left_alone(entry, why)
    if action is Action.UNDELETE and not entry.chunk_count:
        why = "its content is gone: the rest of the message was finished meanwhile"
        return left_alone(entry, why)
    if action is Action.RETRY and not is_forced:
        return _doubt(entry)
    return None


def _doubt(entry: QueueEntry) -> LeftAlone | None:
    """Return that a message waits longer, because a provider may have it: it knows when."""
    for part in entry.deliveries:
        if part.state in MOVES[Action.RETRY] and part.is_in_doubt:
            why = f"{part.provider} may have sent it already; with --force it may be sent twice"
            return left_alone(entry, why, is_temporary=True)
    return None


def _without_route(entry: QueueEntry, routes: frozenset[str]) -> LeftAlone | None:
    """Return that nobody sends what is deferred of a message, whenever it is due."""
    mine = [part.route for part in entry.deliveries if part.state is _D.DEFERRED]
    if any(route in routes for route in mine):
        return None
    why = f"nobody sends mail of {gone_words(mine[0])}; {gone_remedy(mine[0])}"
    return left_alone(entry, why)


def retry(
    store: Store,
    ids: Sequence[str],
    *,
    actor: str,
    now_ms: int,
    detail: str = "",
    is_forced: bool = False,
    routes: frozenset[str] | None = None,
) -> Result:
    """Make messages that wait due now; the attempts made so far still count.

    What a provider may have taken already is left to its own ladder unless `is_forced`; for
    `routes` see `plan`.
    """
    write = _to(store, Action.RETRY, _D.DEFERRED)
    return _change(
        store,
        Action.RETRY,
        ids,
        write,
        actor=actor,
        now_ms=now_ms,
        detail=detail,
        is_forced=is_forced,
        routes=routes,
    )


def hold(
    store: Store, ids: Sequence[str], *, actor: str, now_ms: int, detail: str = "", note: str = ""
) -> Result:
    """Stop messages until they are released; `note` says why and is shown with them."""
    write = _to(store, Action.HOLD, _D.HELD, reason=operator_reason(note or actor))
    return _change(store, Action.HOLD, ids, write, actor=actor, now_ms=now_ms, detail=detail)


def release(
    store: Store, ids: Sequence[str], *, actor: str, now_ms: int, detail: str = ""
) -> Result:
    """Let held messages go; they are due now and start afresh."""
    write = _to(store, Action.RELEASE, _D.DEFERRED)
    return _change(store, Action.RELEASE, ids, write, actor=actor, now_ms=now_ms, detail=detail)


def delete(
    store: Store, ids: Sequence[str], *, actor: str, now_ms: int, detail: str = ""
) -> Result:
    """Put messages into the trash; they are gone for good after seven days."""
    write = _to(store, Action.DELETE, _D.DELETED)
    return _change(store, Action.DELETE, ids, write, actor=actor, now_ms=now_ms, detail=detail)


def undelete(
    store: Store, ids: Sequence[str], *, actor: str, now_ms: int, detail: str = ""
) -> Result:
    """Take messages out of the trash: held ones are held again, the rest is due now."""

    def write(ready: Sequence[str], entry: AuditEntry) -> int:
        return store.undelete(ready, entry=entry)

    return _change(store, Action.UNDELETE, ids, write, actor=actor, now_ms=now_ms, detail=detail)


def expire(
    store: Store, ids: Sequence[str], *, actor: str, now_ms: int, detail: str = "", note: str = ""
) -> Result:
    """End messages as if their lifetime were over; `note` says why and is kept with them."""
    reason = f"expired by {actor}: {note}" if note else f"expired by {actor}"

    def write(ready: Sequence[str], entry: AuditEntry) -> int:
        return store.expire(ready, reason=reason, entry=entry)

    return _change(store, Action.EXPIRE, ids, write, actor=actor, now_ms=now_ms, detail=detail)


Write = Callable[[Sequence[str], AuditEntry], int]
"""Changes messages, audited; returns how many deliveries changed."""


def _to(store: Store, action: Action, state: DeliveryState, *, reason: str | None = None) -> Write:
    def write(ready: Sequence[str], entry: AuditEntry) -> int:
        return store.change_state(
            ready,
            from_states=MOVES[action],
            to=state,
            reason=reason,
            due_at_ms=entry.at_ms,
            entry=entry,
        )

    return write


def _change(
    store: Store,
    action: Action,
    ids: Sequence[str],
    write: Write,
    *,
    actor: str,
    now_ms: int,
    detail: str,
    is_forced: bool = False,
    routes: frozenset[str] | None = None,
) -> Result:
    """Look at the messages as they are now, change what may be changed, see what came of it."""
    changed: list[str] = []
    left: list[LeftAlone] = []
    for batch in batches(ids):
        entries = entries_of(store, batch)
        planned = plan(action, entries, is_forced=is_forced, routes=routes)
        left += planned.left
        ready = [entry.queue_id for entry in planned.ready]
        if not ready:
            continue
        moved = write(
            ready,
            AuditEntry(
                at_ms=now_ms,
                actor=actor,
                action=f"queue.{action}",
                target=" ".join(ready),
                affected=len(ready),
                detail=detail,
            ),
        )
        taken = [] if moved >= _expected(planned) else _taken_meanwhile(store, planned)
        left += taken
        lost = {entry.queue_id for entry in taken}
        changed += [queue_id for queue_id in ready if queue_id not in lost]
    return Result(changed=tuple(changed), left=tuple(left))


def _expected(planned: Plan) -> int:
    moves = MOVES[planned.action]
    return sum(part.state in moves for entry in planned.ready for part in entry.deliveries)


def _taken_meanwhile(store: Store, planned: Plan) -> list[LeftAlone]:
    """Return the messages that a worker took between the look and the change."""
    now = entries_of(store, [entry.queue_id for entry in planned.ready])
    return [
        left_alone(entry, "a worker took it at this moment", is_temporary=True)
        for entry in now
        if not _REACHED[planned.action] & {part.state for part in entry.deliveries}
    ]
