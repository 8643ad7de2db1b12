"""Captured mail let out of the sandbox, to the one it was for or to somebody else.

What was captured stays captured. A release is a delivery of its own on the same message: routed
by the configuration of now, looked at again at each attempt (policy.releasing), retried, limited
and logged like any other. Nobody but the target hears of it: the provider is asked for no
delivery reports.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import replace

from relaygw.mail.dsn import NEVER
from relaygw.mail.envelope import NewRecipient, Released, ReleasedDelivery
from relaygw.operations.messages import LeftAlone, batches, entries_of
from relaygw.operations.release_plan import Copy, ReleasePlanner, ReleaseResult, Wish, joined
from relaygw.settings.model import Settings
from relaygw.store.protocol import AuditEntry, Release, Store


def plan_release(
    store: Store,
    settings: Settings,
    ids: Sequence[str],
    *,
    to: str | None,
    is_admin: bool,
    anyone: bool = False,
    only_for: Collection[str] = (),
) -> ReleaseResult:
    """Return what `release_captured` would do; changes nothing."""
    wish = Wish(to=to, only_for=only_for, is_admin=is_admin, anyone=anyone)
    planner = ReleasePlanner(store, settings, wish)
    return joined(planner.plan(entries_of(store, batch)) for batch in batches(ids))


def release_captured(
    store: Store,
    settings: Settings,
    ids: Sequence[str],
    *,
    to: str | None,
    is_admin: bool,
    anyone: bool = False,
    only_for: Collection[str] = (),
    confirmed: Collection[str] | None = None,
    actor: str,
    now_ms: int,
    detail: str = "",
) -> ReleaseResult:
    """Send captured messages to those who may have them, due now; each message is audited.

    `to`, `only_for`, `is_admin`, `anyone` and `confirmed` are those of `Wish`. Who was shown
    `plan_release(...).outside` passes it as `confirmed`: nobody else is reached outside of the
    list, whatever became of the list meanwhile. What cannot be released is in the result.
    """
    wish = Wish(to=to, only_for=only_for, is_admin=is_admin, anyone=anyone, confirmed=confirmed)
    planner = ReleasePlanner(store, settings, wish)

    def carry_out(batch: Sequence[str]) -> ReleaseResult:
        planned = planner.plan(entries_of(store, batch))
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
        return _done(planned, store.release_captured(releases) if releases else frozenset())

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
