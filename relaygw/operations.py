"""What operators do: retry, hold, release, delete mail, clear the sandbox, hold a provider.

The only code that changes mail on somebody's behalf; every change leaves a line in the audit
trail. Only deliveries in the states that an action is meant for move; a message is left alone,
and named, when it has none or a worker is sending it. Raises StoreUnavailable.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from relaygw.mail.outcome import Scope
from relaygw.mail.state import DeliveryState
from relaygw.policy.retry import parked_for
from relaygw.store.protocol import UNREACHABLE, AuditEntry, Hold, QueueEntry, Selection, Store

BATCH_MESSAGES = 500
"""Messages changed in one transaction, so that the front never waits long for the store."""

ANY_STATE = frozenset(DeliveryState)

_D = DeliveryState


_OF_THE_PROVIDER = (Scope.PROVIDER, Scope.CREDENTIAL, UNREACHABLE)


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
class LeftAlone:
    """A message that an action does not touch, and why."""

    queue_id: str
    why: str
    is_temporary: bool  # True: trying again later may work


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What an action would do."""

    action: Action
    ready: tuple[QueueEntry, ...]
    left: tuple[LeftAlone, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What an action did."""

    changed: tuple[str, ...]  # queue ids
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
    for batch in _batches(ids):
        planned = plan(action, _entries(store, batch))
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
    now = _entries(store, [entry.queue_id for entry in planned.ready])
    return [
        LeftAlone(queue_id=entry.queue_id, why="a worker took it at this moment", is_temporary=True)
        for entry in now
        if _TARGET[planned.action] not in {part.state for part in entry.deliveries}
    ]


def delete_captured(
    store: Store, ids: Sequence[str], *, actor: str, now_ms: int, detail: str = ""
) -> Result:
    """Delete captured messages for good.

    One that still waits to be sent to somebody else only leaves the sandbox. Messages that
    are not captured are left alone.
    """
    changed: list[str] = []
    left: list[LeftAlone] = []
    for batch in _batches(ids):
        entries = _entries(store, batch)
        captured = [entry.queue_id for entry in entries if entry.captured_at_ms is not None]
        left += [
            LeftAlone(queue_id=entry.queue_id, why="it is not captured", is_temporary=False)
            for entry in entries
            if entry.captured_at_ms is None
        ]
        if captured:
            entry = AuditEntry(
                at_ms=now_ms,
                actor=actor,
                action="sandbox.delete",
                target=" ".join(captured),
                affected=len(captured),
                detail=detail,
            )
            store.delete_captured(captured, entry=entry)
            changed += captured
    return Result(changed=tuple(changed), left=tuple(left))


def _batches(ids: Sequence[str]) -> Iterator[Sequence[str]]:
    unique = tuple(dict.fromkeys(ids))
    for start in range(0, len(unique), BATCH_MESSAGES):
        yield unique[start : start + BATCH_MESSAGES]


def _entries(store: Store, ids: Sequence[str]) -> list[QueueEntry]:
    selection = Selection(queue_ids=tuple(ids), states=ANY_STATE)
    return store.search(selection, limit=len(ids))


def hold_provider(store: Store, name: str, *, actor: str, now_ms: int, note: str = "") -> bool:
    """Send nothing by a provider until somebody releases it; False when it was held so before.

    Mail waits, or goes by the next provider of its route.
    """
    was_held = any(
        hold.scope == Scope.PROVIDER and hold.probe_at_ms is None
        for hold in holds_of(store.holds(), name)
    )
    hold = Hold(
        scope=Scope.PROVIDER.value,
        key=name,
        reason=f"operator: {note or actor}",
        remedy=f"run: relaygw provider release {name}",
        since_ms=now_ms,
        probe_at_ms=None,  # no probe ends it
    )
    entry = _provider_entry("hold", name, actor=actor, now_ms=now_ms, detail=note)
    store.put_hold(hold, entry=entry)
    return not was_held


def release_provider(store: Store, name: str, *, actor: str, now_ms: int) -> list[Hold]:
    """End all holds of a provider, its key and its sender domains; return those it ended.

    Mail that was set aside for a refused sender domain is due now.
    """
    ended = []
    for hold in holds_of(store.holds(), name):
        detail = f"{hold.scope} {hold.key}: {hold.reason}"
        entry = _provider_entry("release", name, actor=actor, now_ms=now_ms, detail=detail)
        if store.drop_hold(hold.scope, hold.key, now_ms=now_ms, entry=entry):
            ended.append(hold)
        if hold.scope == Scope.SENDER_DOMAIN:
            _release_parked(store, name, hold.key.removeprefix(f"{name} "), now_ms)
    return ended


def _release_parked(store: Store, provider: str, domain: str, now_ms: int) -> None:
    for reason in store.held_reasons():
        parked = parked_for(reason)
        if parked is None or provider not in parked[0] or parked[1] != domain:
            continue
        while store.release_held(reason, limit=BATCH_MESSAGES, now_ms=now_ms):
            pass


def holds_of(holds: Iterable[Hold], provider: str) -> list[Hold]:
    """Return the holds that concern a provider; a sender domain's key is `PROVIDER DOMAIN`."""
    return [
        hold
        for hold in holds
        if (hold.scope in _OF_THE_PROVIDER and hold.key == provider)
        or (hold.scope == Scope.SENDER_DOMAIN and hold.key.partition(" ")[0] == provider)
    ]


def _provider_entry(verb: str, name: str, *, actor: str, now_ms: int, detail: str) -> AuditEntry:
    return AuditEntry(
        at_ms=now_ms, actor=actor, action=f"provider.{verb}", target=name, affected=1, detail=detail
    )
