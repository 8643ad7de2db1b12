"""Mail that entries of the guard hold."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from relaygw.mail.hold import HoldCause, HoldCode
from relaygw.mail.keys import packed
from relaygw.mail.mail_class import MailClass
from relaygw.mail.state import CLAIMABLE, DeliveryState
from relaygw.store.audit import AuditEntry
from relaygw.store.guard import GuardAction, GuardEntry
from relaygw.store.holds import release_all
from relaygw.store.queue_tables import Key
from relaygw.store.store import Store


def release_left(store: Store) -> None:
    """Release mail whose entry is gone, and that of a class that is allowed.

    A front holds on for two seconds after a release.
    """
    causes = [
        held_cause for held_cause in store.holds.held_causes() if held_cause.code is HoldCode.GUARD
    ]
    if not causes:
        return
    # read behind it: what is held for an entry has one by now
    entries = store.guard.guard_entries()
    held = {entry.target for entry in entries if entry.action is GuardAction.HOLD}
    for cause in causes:
        if cause.target not in held:
            release_all(store.holds, cause)
    of_held = [hold_cause for hold_cause in causes if hold_cause.target in held]
    for ids in _allowed_of_held(store, entries, held):
        keys = delivery_keys(store, ids)
        for cause in of_held:
            store.holds.let_go(keys, cause)


def delivery_keys(store: Store, queue_ids: Sequence[str]) -> list[Key]:
    """Return all deliveries of messages."""
    entries = store.queue.entries(queue_ids)
    return [(entry.queue_id, part.delivery_no) for entry in entries for part in entry.deliveries]


def _allowed_of_held(
    store: Store, entries: Sequence[GuardEntry], held: set[str]
) -> Iterator[list[str]]:
    """Yield messages of classes that are allowed, held for their source."""
    allowed = [
        entry.target
        for entry in entries
        if entry.action is GuardAction.ALLOW
        and entry.target != entry.source_id
        and entry.source_id in held
    ]
    for seen in store.guard.classes_of(allowed) if allowed else ():
        yield from held_of_class(store, seen.mail_class)


def held_of_class(store: Store, mail_class: MailClass) -> Iterator[list[str]]:
    """Yield messages of a class that are held for its source."""
    after, goes_on = "", True
    while goes_on:
        found, after = store.guard.held_of(mail_class, after=after)
        goes_on = bool(after)
        if found:
            yield found


def hold_waiting(store: Store, *, actor: str, now_ms: int, target: str = "") -> int:
    """Hold the waiting mail that the entries cover, or that of one target; return how much.

    Audited, as an operator's holds are; what else holds it is no matter. What is being sent stays
    as it is, and so does what somebody released, unless it is asked for by its target.
    """
    scopes = [
        held_scope for held_scope in store.guard.held_scopes() if target in ("", held_scope.target)
    ]
    ids = {held_scope.source_id for held_scope in scopes}
    classes = store.guard.classes_of(ids) if ids else []
    sources = {seen.mail_class.source_id: seen.mail_class.source for seen in classes}
    held = 0
    for scope in scopes:
        after, goes_on = "", scope.source_id in sources
        while goes_on:
            found, after = store.guard.waiting_of(
                scope, sources[scope.source_id], is_any=bool(target), after=after
            )
            goes_on = bool(after)
            if found:
                held += store.queue.change_state(
                    found,
                    from_states=CLAIMABLE | {DeliveryState.HELD},
                    to=DeliveryState.HELD,
                    hold=HoldCause(HoldCode.GUARD, packed(scope.target, scope.reason)),
                    entry=AuditEntry(
                        at_ms=now_ms,
                        actor=actor,
                        action="queue.hold",
                        target=" ".join(found),
                        affected=len(found),
                        detail=f"guard={scope.target!r}",
                    ),
                )
    return held
