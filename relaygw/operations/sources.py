"""Who sends what, and what operators say to the guard of it: held, released, allowed; audited."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from math import ceil
from typing import Any

from relaygw.errors import RelaygwError
from relaygw.mail.clock import DAY_MS, rfc3339, rfc3339_or_none
from relaygw.mail.hold import HoldCode
from relaygw.mail.mail_class import MailClass, sender_words
from relaygw.mail.state import DeliveryState
from relaygw.mail.words import fields
from relaygw.operations.queue_actions import BATCH_MESSAGES, RELEASE, Order, change_queued
from relaygw.policy.mail_counts import HourCount, program_of
from relaygw.policy.new_sources import sender_id
from relaygw.settings.alerts import Rule
from relaygw.settings.guard import Guard
from relaygw.store.audit import AuditEntry
from relaygw.store.guard import GUARD, GuardAction, GuardEntry
from relaygw.store.guarded_mail import held_of_class, hold_waiting
from relaygw.store.selection import Selection
from relaygw.store.sources import SeenClass, SourceSum
from relaygw.store.store import Store
from relaygw.store.watch import Incident

BY = {
    **{"script": "script", "host": "host", "subject": "template", "sender": "sender_domain"},
    **{"uid": "uid", "user": "user"},
}
"""What classes are counted by, and what that is of a class; by nothing is each for itself."""
_CLASSES_AT_ONCE = 500
_PARTS = {  # of a class, as JSON names them
    **{"class": "class_id", "source": "source_id", "host": "host", "listener": "listener"},
    **{"user": "user", "uid": "uid", "script": "script", "sender_domain": "sender_domain"},
    **{"template": "template", "stream": "stream"},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceRow:
    """Mail that is counted together."""

    counted: SourceSum
    mail_class: MailClass | None  # None: of several, which have the key in common


def source_rows(
    store: Store, *, by: str | None, since_ms: int, limit: int
) -> tuple[list[SourceRow], int]:
    """Return the rows with most of the mail since the hour of a time, and how many there are."""
    found = store.sources.sum_mail("class_id" if by is None else BY[by], since_ms)
    shown = found[:limit]
    if by is not None:
        return [SourceRow(counted=total, mail_class=None) for total in shown], len(found)
    rows: list[SourceRow] = []
    for start in range(0, len(shown), _CLASSES_AT_ONCE):
        part = {str(total.key): total for total in shown[start : start + _CLASSES_AT_ONCE]}
        known = store.sources.known_classes(class_ids=part.keys())
        classes = {seen.mail_class.class_id: seen.mail_class for seen in known}
        # what was forgotten meanwhile is left out
        rows += [
            SourceRow(counted=total, mail_class=classes[key])
            for key, total in part.items()
            if key in classes
        ]
    return rows, len(found)


def source_object(row: SourceRow, *, by: str | None) -> dict[str, Any]:
    """Return a row for JSON; what its classes may not have in common is null."""
    mail_class, counted = row.mail_class, row.counted
    if mail_class is not None:
        parts = {name: getattr(mail_class, attribute) for name, attribute in _PARTS.items()}
    else:
        parts = {**dict.fromkeys(_PARTS), BY[by or ""]: counted.key}
    return {
        **parts,
        **fields(counted, "classes", "messages", "recipients", "refused", "busiest_hour", "total"),
        "first_seen": rfc3339(counted.first_seen_ms),
        "last_seen": rfc3339(counted.last_seen_ms),
    }


RULES = (Rule.SOURCE_NEW.value, Rule.SOURCE_VOLUME.value)
LEARNT_FACTOR = 4
"""What is allowed may send so many times the mail of its busiest hour of the last day."""
_HELD = frozenset({DeliveryState.HELD})


class UnknownTarget(RelaygwError):
    """An id is that of no class and of no source."""

    def __init__(self, target: str) -> None:
        super().__init__(
            f"{target[:40]!r} is the id of no class of mail and of no source; relaygw sources "
            "--json has the ids"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Guarded:
    """An entry, and how much mail is held for it."""

    entry: GuardEntry
    held: int


def guarded(store: Store) -> list[Guarded]:
    """Return the entries of the guard, the latest first."""
    entries = store.guard.guard_entries()
    held: Counter[str] = Counter()
    for group in store.holds.held_mail() if entries else ():
        if group.cause.code is HoldCode.GUARD:
            held[group.cause.target] += group.deliveries
    return [Guarded(entry=entry, held=held[entry.target]) for entry in entries]


def suspects(store: Store, now_ms: int) -> list[Incident]:
    """Return the alerts of the guard that last."""
    lasting = (
        incident for incident in store.watch.incidents(now_ms) if incident.recovered_at_ms is None
    )
    return [incident for incident in lasting if incident.rule in RULES]


def guarded_object(row: Guarded) -> dict[str, Any]:
    """Return an entry for JSON."""
    entry = row.entry
    return {
        "id": entry.target,
        "source": entry.source_id,
        "action": entry.action.value,
        **fields(entry, "label", "reason", "actor", "per_hour"),
        "held": row.held,
        "since": rfc3339(entry.at_ms),
        "new_since": rfc3339_or_none(entry.new_since_ms),
    }


def hold_mail(
    store: Store, target: str, *, is_all: bool, note: str, actor: str, now_ms: int
) -> tuple[GuardEntry, int]:
    """Hold a class, or of a source what is not a day old, or all of it; return how much waited.

    Raises UnknownTarget.
    """
    classes = _classes(store, target)
    source_id = classes[0].mail_class.source_id
    is_class = target != source_id
    new = GuardEntry(
        target=target,
        source_id=source_id,
        action=GuardAction.HOLD,
        label=_label(classes, target),
        reason=note or f"operator {actor}",
        actor=actor,
        at_ms=now_ms,
        new_since_ms=None if is_class or is_all else now_ms - DAY_MS,
    )
    entry = _audited("hold", new, note)
    store.guard.put_guard_entry(new, entry=entry, is_renewing=True)
    return new, hold_waiting(store, actor=actor, now_ms=now_ms, target=target)


def allow_mail(
    store: Store, target: str, guard: Guard, *, per_hour: int | None, actor: str, now_ms: int
) -> tuple[GuardEntry, int]:
    """Let a class or source send so much an hour; return how much of it is released.

    Without a number it is learnt: several times the busiest hour. Raises UnknownTarget.
    """
    classes = _classes(store, target)
    new = GuardEntry(
        target=target,
        source_id=classes[0].mail_class.source_id,
        action=GuardAction.ALLOW,
        label=_label(classes, target),
        reason="",
        actor=actor,
        at_ms=now_ms,
        per_hour=per_hour or _learnt(store, classes, guard, now_ms),
    )
    entry = _audited("allow", new, f"up to {new.per_hour} an hour")
    holds = _holds_within(store, target)
    store.guard.put_guard_entry(new, entry=entry, is_renewing=True)
    _end_holds(store, [hold for hold in holds if hold.target != target], actor, now_ms)
    released = _release(store, target, holds, actor=actor, now_ms=now_ms)
    if target != new.source_id:  # what is held with its source
        batches = held_of_class(store, classes[0].mail_class)
        released += _release_each(store, batches, target, actor=actor, now_ms=now_ms)
    return new, released


def release_mail(
    store: Store, target: str, guard: Guard, *, actor: str, now_ms: int
) -> tuple[GuardEntry | None, int]:
    """End the holds of a class, or of a source with its classes; return how much is released.

    What the guard held, alerts about, or holds with the source of the class is allowed from now
    on, as allow_mail does: else it were held again at once. Raises UnknownTarget.
    """
    holds = _holds_within(store, target)
    classes = store.guard.classes_of([target])
    if not classes and not holds:
        raise UnknownTarget(target)
    if classes and _is_to_allow(store, target, holds, classes, now_ms):
        return allow_mail(store, target, guard, per_hour=None, actor=actor, now_ms=now_ms)
    _end_holds(store, holds, actor, now_ms)
    return None, _release(store, target, holds, actor=actor, now_ms=now_ms)


def _holds_within(store: Store, target: str) -> list[GuardEntry]:
    """Return the holds of a class or source, and of the classes of a source."""
    entries = store.guard.guard_entries()
    return [
        entry
        for entry in entries
        if entry.action is GuardAction.HOLD and target in (entry.target, entry.source_id)
    ]


def _end_holds(store: Store, holds: Sequence[GuardEntry], actor: str, now_ms: int) -> None:
    for hold in holds:
        entry = _audited("release", hold, "", actor, now_ms)
        store.guard.drop_guard_entry(hold.target, entry=entry)


def _is_to_allow(
    store: Store,
    target: str,
    holds: Sequence[GuardEntry],
    classes: Sequence[SeenClass],
    now_ms: int,
) -> bool:
    source_id = classes[0].mail_class.source_id
    if not holds:  # of a class alone: is it held with its source?
        found = _entry_of(store, source_id)
        return target != source_id and found is not None and found.action is GuardAction.HOLD
    mail_class = classes[0].mail_class
    keys = {source_id, sender_id(mail_class)}
    if mail_class.script:
        keys.add(program_of(mail_class.user, mail_class.uid, mail_class.script))
    is_told = any(alert.key.startswith(key) for alert in suspects(store, now_ms) for key in keys)
    return is_told or any(hold.actor == GUARD for hold in holds)


def forget_allowed(store: Store, target: str, *, actor: str, now_ms: int) -> bool:
    """Judge what was allowed as everything else; False if it was not allowed."""
    found = _entry_of(store, target)
    if found is None or found.action is not GuardAction.ALLOW:
        return False
    entry = _audited("forget", found, "", actor, now_ms)
    return store.guard.drop_guard_entry(target, entry=entry)


def label_of(store: Store, target: str) -> str:
    """Return the source or class of an id, in words. Raises UnknownTarget."""
    found = _entry_of(store, target)
    return _label(_classes(store, target), target) if found is None else found.label


def _entry_of(store: Store, target: str) -> GuardEntry | None:
    return next(
        (
            guard_entry
            for guard_entry in store.guard.guard_entries()
            if guard_entry.target == target
        ),
        None,
    )


def _classes(store: Store, target: str) -> list[SeenClass]:
    found = store.guard.classes_of([target])
    if not found:
        raise UnknownTarget(target)
    return found


def _label(classes: Sequence[SeenClass], target: str) -> str:
    mail_class = classes[0].mail_class
    template = f" “{mail_class.template}”" if target == mail_class.class_id else ""
    return f"{sender_words(mail_class)}{template}"


def _learnt(store: Store, classes: Sequence[SeenClass], guard: Guard, now_ms: int) -> int:
    hours: Counter[int] = Counter()
    ids = [seen.mail_class.class_id for seen in classes]
    for class_hour in store.sources.class_hours(now_ms - DAY_MS, class_ids=ids):
        hours[class_hour.hour_at_ms] += ceil(
            HourCount(class_hour.messages, class_hour.recipients).weight
        )
    return max(LEARNT_FACTOR * max(hours.values(), default=0), guard.new_per_hour)


def _release(
    store: Store, target: str, holds: Sequence[GuardEntry], *, actor: str, now_ms: int
) -> int:
    """Release what is held for a class or source, and for other entries that are over."""
    targets = dict.fromkeys((target, *(hold.target for hold in holds)))
    batches = chain.from_iterable(_held_ids(store, held_target) for held_target in targets)
    return _release_each(store, batches, target, actor=actor, now_ms=now_ms)


def _release_each(
    store: Store, batches: Iterable[list[str]], target: str, *, actor: str, now_ms: int
) -> int:
    order = Order(actor=actor, detail=f"guard={target!r}")
    return sum(
        len(change_queued(store, RELEASE, batch, order, now_ms=now_ms).changed) for batch in batches
    )


def _held_ids(store: Store, target: str) -> Iterator[list[str]]:
    wanted = Selection(states=_HELD, reason=f"held by the guard, {target}:")
    after = ""
    while ids := store.queue.search_ids(wanted, limit=BATCH_MESSAGES, after=after):
        after = ids[-1]
        yield ids


def _audited(
    verb: str, entry: GuardEntry, detail: str, actor: str = "", now_ms: int = 0
) -> AuditEntry:
    return AuditEntry(
        at_ms=now_ms or entry.at_ms,
        actor=actor or entry.actor,
        action=f"guard.{verb}",
        target=f"{entry.target} {entry.label}",
        affected=1,
        detail=detail,
    )
