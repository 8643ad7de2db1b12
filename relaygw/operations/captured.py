"""Captured mail: deleted for good, or let out of the sandbox to whom it was for or somebody else.

What was captured stays captured. A release is a delivery of its own on the same message: routed
by the configuration of now, looked at again at each attempt (policy.recipients), retried, limited
and logged like any other. Nobody but the target hears of it: the provider is asked for no
delivery reports.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import replace

from relaygw.mail.envelope import NEVER, NewRecipient, Released, ReleasedDelivery
from relaygw.operations.queue_actions import LeftAlone, Result, batches
from relaygw.operations.release_plan import (
    Copy,
    ReleasePlanner,
    ReleaseRequest,
    ReleaseResult,
    joined,
)
from relaygw.settings.model import Settings
from relaygw.store.audit import AuditEntry
from relaygw.store.queue_entry import QueueEntry
from relaygw.store.release import Release
from relaygw.store.store import Store


def objection_to_delete(entry: QueueEntry) -> LeftAlone | None:
    """Return why a message is not deleted from the sandbox; None: it is captured."""
    if entry.captured_at_ms is not None:
        return None
    return LeftAlone(queue_id=entry.queue_id, why="it is not captured")


def delete_captured(
    store: Store, ids: Sequence[str], *, actor: str, now_ms: int, detail: str = ""
) -> Result:
    """Delete captured messages for good.

    One that still waits to be sent to somebody else only leaves the sandbox. Messages that
    are not captured are left alone.
    """
    changed: list[str] = []
    left: list[LeftAlone] = []
    for batch in batches(ids):
        entries = store.queue.entries(batch)
        left += filter(None, map(objection_to_delete, entries))
        captured = [one.queue_id for one in entries if one.captured_at_ms is not None]
        if captured:
            entry = AuditEntry(
                at_ms=now_ms,
                actor=actor,
                action="sandbox.delete",
                target=" ".join(captured),
                affected=len(captured),
                detail=detail,
            )
            store.sandbox.delete_captured(captured, entry=entry)
            changed += captured
    return Result(changed=tuple(changed), left=tuple(left))


def plan_release(
    store: Store, settings: Settings, ids: Sequence[str], request: ReleaseRequest
) -> ReleaseResult:
    """Return what `release_captured` would do; changes nothing."""
    planner = ReleasePlanner(store, settings, request)
    return joined(planner.plan(store.queue.entries(batch)) for batch in batches(ids))


def release_captured(
    store: Store,
    settings: Settings,
    ids: Sequence[str],
    request: ReleaseRequest,
    *,
    actor: str,
    now_ms: int,
    detail: str = "",
) -> ReleaseResult:
    """Send captured messages to those who may have them, due now; each message is audited.

    Who was shown `plan_release(...).outside` passes it as `request.confirmed`: nobody else is
    reached outside of the list, whatever became of the list meanwhile. What cannot be released
    is in the result.
    """
    planner = ReleasePlanner(store, settings, request)

    def carry_out(batch: Sequence[str]) -> ReleaseResult:
        planned = planner.plan(store.queue.entries(batch))
        releases = [
            Release(
                queue_id=queue_id,
                deliveries=tuple(_deliveries(copies)),
                entry=AuditEntry(
                    at_ms=now_ms,
                    actor=actor,
                    action="sandbox.release",
                    target=queue_id,
                    affected=len(copies),
                    detail=_words(copies, detail),
                ),
            )
            for queue_id, copies in _by_message(planned.copies)
        ]
        return _done(planned, store.sandbox.release_captured(releases) if releases else frozenset())

    return joined(map(carry_out, batches(ids)))


def _by_message(copies: Iterable[Copy]) -> Iterable[tuple[str, list[Copy]]]:
    found: defaultdict[str, list[Copy]] = defaultdict(list)
    for one in copies:
        found[one.queue_id].append(one)
    return found.items()


def _deliveries(copies: Iterable[Copy]) -> Iterator[ReleasedDelivery]:
    """Yield a delivery for each route and each kind of release: one opens no list for another."""
    groups: defaultdict[tuple[Released, str, str], list[Copy]] = defaultdict(list)
    for one in copies:
        groups[one.released, one.route, one.stream].append(one)
    for (released, route, stream), members in groups.items():
        yield ReleasedDelivery(
            released=released,
            route=route,
            stream=stream,
            recipients=tuple(
                NewRecipient(
                    address=one.address,
                    original=one.captured if one.captured != one.address else None,
                    dsn_notify=NEVER,
                )
                for one in members
            ),
        )


def _words(copies: Iterable[Copy], detail: str) -> str:
    """Return who gets it, for the audit trail."""
    who = (
        f"to {one.address} ({one.released})"
        if one.address == one.captured
        else f"to {one.address} ({one.released}) for {one.captured}"
        for one in copies
    )
    return "; ".join([*who, *([detail] if detail else [])])


def _done(planned: ReleaseResult, done: Collection[str]) -> ReleaseResult:
    """Return what came of a plan when only the messages `done` were changed."""
    missed = (one for one in planned.changed if one not in done)
    why = "it changed at this moment; look again"
    return replace(
        planned,
        copies=tuple(one for one in planned.copies if one.queue_id in done),
        left=planned.left
        + tuple(LeftAlone(queue_id=one, why=why, is_temporary=True) for one in missed),
    )
