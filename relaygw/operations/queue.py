"""Queued mail: retry, hold, release, delete.

Only deliveries in the states that an action is meant for move; a message is left alone, and
named, when it has none or a worker is sending it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from relaygw.mail.state import DeliveryState
from relaygw.operations.messages import LeftAlone, Result, batches, entries_of
from relaygw.store.protocol import AuditEntry, QueueEntry, Store

_D = DeliveryState


class Action(StrEnum):
    """A change of queued mail."""

    RETRY = "retry"  # deferred mail is due now
    HOLD = "hold"  # stays until somebody releases it
    RELEASE = "release"  # held mail is due now
    DELETE = "delete"  # into the trash for seven days


_TARGET = {
    Action.RETRY: _D.DEFERRED,
    Action.HOLD: _D.HELD,
    Action.RELEASE: _D.DEFERRED,
    Action.DELETE: _D.DELETED,
}
MOVES = {
    Action.RETRY: frozenset({_D.DEFERRED}),
    Action.HOLD: frozenset({_D.INCOMING, _D.DEFERRED}),
    Action.RELEASE: frozenset({_D.HELD}),
    Action.DELETE: frozenset({_D.INCOMING, _D.DEFERRED, _D.HELD}),
}
"""The states that an action is meant for."""

_NEEDS_THE_WHOLE = frozenset({Action.HOLD, Action.DELETE})


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What an action would do."""

    action: Action
    ready: tuple[QueueEntry, ...]
    left: tuple[LeftAlone, ...]


def plan(action: Action, entries: Sequence[QueueEntry]) -> Plan:
    """Part messages into those that `action` may change and those it leaves alone."""
    ready: list[QueueEntry] = []
    left: list[LeftAlone] = []
    for entry in entries:
        obstacle = _obstacle(action, entry)
        if obstacle is None:
            ready.append(entry)
        else:
            left.append(obstacle)
    return Plan(action=action, ready=tuple(ready), left=tuple(left))


def _obstacle(action: Action, entry: QueueEntry) -> LeftAlone | None:
    states = {part.state for part in entry.deliveries}
    is_active = _D.ACTIVE in states
    if is_active and (action in _NEEDS_THE_WHOLE or not states & MOVES[action]):
        return LeftAlone(
            queue_id=entry.queue_id, why="a worker is sending it right now", is_temporary=True
        )
    if not states & MOVES[action]:
        shown, wanted = " and ".join(sorted(states)), " or ".join(sorted(MOVES[action]))
        why = f"it is {shown}; {action} is for mail that is {wanted}"
        return LeftAlone(queue_id=entry.queue_id, why=why, is_temporary=False)
    return None


def retry(store: Store, ids: Sequence[str], *, actor: str, now_ms: int, detail: str = "") -> Result:
    """Make deferred messages due now; the attempts made so far still count."""
    return _change(store, Action.RETRY, ids, actor=actor, now_ms=now_ms, detail=detail)


def hold(
    store: Store, ids: Sequence[str], *, actor: str, now_ms: int, detail: str = "", note: str = ""
) -> Result:
    """Stop messages until they are released; `note` says why and is shown with them."""
    reason = f"operator: {note or actor}"
    return _change(
        store, Action.HOLD, ids, actor=actor, now_ms=now_ms, detail=detail, reason=reason
    )


def release(
    store: Store, ids: Sequence[str], *, actor: str, now_ms: int, detail: str = ""
) -> Result:
    """Let held messages go; they are due now and start afresh."""
    return _change(store, Action.RELEASE, ids, actor=actor, now_ms=now_ms, detail=detail)


def delete(
    store: Store, ids: Sequence[str], *, actor: str, now_ms: int, detail: str = ""
) -> Result:
    """Put messages into the trash; they are gone for good after seven days."""
    return _change(store, Action.DELETE, ids, actor=actor, now_ms=now_ms, detail=detail)


def _change(
    store: Store,
    action: Action,
    ids: Sequence[str],
    *,
    actor: str,
    now_ms: int,
    detail: str,
    reason: str | None = None,
) -> Result:
    """Look at the messages as they are now, change what may be changed, see what came of it."""
    changed: list[str] = []
    left: list[LeftAlone] = []
    for batch in batches(ids):
        planned = plan(action, entries_of(store, batch))
        left += planned.left
        ready = [entry.queue_id for entry in planned.ready]
        if not ready:
            continue
        moved = store.change_state(
            ready,
            from_states=MOVES[action],
            to=_TARGET[action],
            reason=reason,
            due_at_ms=now_ms,
            entry=AuditEntry(
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
        LeftAlone(queue_id=entry.queue_id, why="a worker took it at this moment", is_temporary=True)
        for entry in now
        if _TARGET[planned.action] not in {part.state for part in entry.deliveries}
    ]
