"""Sources and classes of mail in the hands of operators: held, allowed and released; audited."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any

from relaygw.mail.clock import DAY_MS, rfc3339, rfc3339_or_none
from relaygw.mail.hold import HoldCode
from relaygw.mail.mail_class import sender_words
from relaygw.mail.state import DeliveryState
from relaygw.mail.words import counted, fields
from relaygw.operations import queue_actions
from relaygw.operations.readers import read_line, read_number
from relaygw.operations.verb import Asked, Done, Kind, Mistake, Parameter, Verb
from relaygw.policy.mail_counts import HourCount, program_of
from relaygw.policy.new_sources import sender_id
from relaygw.settings.alerts import Rule
from relaygw.store.audit import AuditEntry
from relaygw.store.guard import GUARD, GuardAction, GuardEntry
from relaygw.store.guarded_mail import delivery_keys, held_of_class, hold_waiting
from relaygw.store.holds import release_all
from relaygw.store.sources import SeenClass
from relaygw.store.store import Store
from relaygw.store.watch import Incident

RULES = (Rule.SOURCE_NEW.value, Rule.SOURCE_VOLUME.value)
LEARNT_FACTOR = 4
"""What is allowed may send so many times the mail of its busiest hour of the last day."""
_HELD = frozenset({DeliveryState.HELD})


class UnknownTarget(Mistake):
    """An id is that of no class and of no source."""

    def __init__(self, target: str) -> None:
        what = f"{target[:40]!r} is the id of no class of mail and of no source"
        super().__init__(f"{what}; relaygw sources --json has the ids", name="id")


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


def _holds_within(store: Store, target: str) -> list[GuardEntry]:
    """Return the holds of a class or source, and of the classes of a source."""
    entries = store.guard.guard_entries()
    return [
        entry
        for entry in entries
        if entry.action is GuardAction.HOLD and target in (entry.target, entry.source_id)
    ]


def _end_holds(asked: Asked, holds: Sequence[GuardEntry]) -> None:
    for hold in holds:
        entry = _audited("release", hold, asked)
        asked.store.guard.drop_guard_entry(hold.target, entry=entry)


def _is_to_allow(
    asked: Asked, target: str, holds: Sequence[GuardEntry], classes: Sequence[SeenClass]
) -> bool:
    source_id = classes[0].mail_class.source_id
    if not holds:  # of a class alone: is it held with its source?
        found = _entry_of(asked.store, source_id)
        return target != source_id and found is not None and found.action is GuardAction.HOLD
    mail_class = classes[0].mail_class
    keys = {source_id, sender_id(mail_class)}
    if mail_class.script:
        keys.add(program_of(mail_class.user, mail_class.uid, mail_class.script))
    alerts = suspects(asked.store, asked.now_ms)
    is_told = any(alert.key.startswith(key) for alert in alerts for key in keys)
    return is_told or any(hold.actor == GUARD for hold in holds)


def _label_of(store: Store, target: str) -> str:
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


def _learnt(asked: Asked, classes: Sequence[SeenClass]) -> int:
    hours: Counter[int] = Counter()
    ids = [seen.mail_class.class_id for seen in classes]
    for class_hour in asked.store.sources.class_hours(asked.now_ms - DAY_MS, class_ids=ids):
        hours[class_hour.hour_at_ms] += ceil(
            HourCount(class_hour.messages, class_hour.recipients).weight
        )
    return max(LEARNT_FACTOR * max(hours.values(), default=0), asked.settings.guard.new_per_hour)


def _release_held(asked: Asked, target: str, holds: Sequence[GuardEntry]) -> int:
    """Release what is held for a class or source, and for other entries that are over."""
    targets, store = {target, *(hold.target for hold in holds)}, asked.store.holds
    return sum(
        release_all(store, cause, lifting=_lifting(asked, target)).due
        for cause in store.held_causes()
        if cause.code is HoldCode.GUARD and cause.target in targets
    )


def _release_of_class(asked: Asked, seen: SeenClass) -> int:
    """Release mail of a class that is held with its source."""
    mail, store, number = seen.mail_class, asked.store, 0
    causes = [cause for cause in store.holds.held_causes() if cause.code is HoldCode.GUARD]
    of_source = [cause for cause in causes if cause.target == mail.source_id]
    for ids in held_of_class(store, mail) if of_source else ():
        keys = delivery_keys(store, ids)
        for cause in of_source:
            lifting = _lifting(asked, mail.class_id)
            number += store.holds.let_go(keys, cause, lifting=lifting).due
    return number


def _lifting(asked: Asked, target: str) -> AuditEntry:
    action = f"queue.{queue_actions.RELEASE.name}"
    return asked.audited(action, "", detail=f"guard={target!r}")


def _audited(verb: str, entry: GuardEntry, asked: Asked, detail: str = "") -> AuditEntry:
    return asked.audited(f"guard.{verb}", f"{entry.target} {entry.label}", detail=detail)


# --- verbs --------------------------------------------------------------------------------


def _hold(asked: Asked, given: Mapping[str, Any]) -> Done:
    if not asked.settings.counts_sources:
        raise Mistake(
            "nothing is counted, so no class of mail is known; set guard.action to alert or hold",
            name="id",
        )
    target, store, note = given["id"], asked.store, given.get("note", "")
    if given.get("dry_run"):
        return _shown(store, target)
    classes = _classes(store, target)
    source_id = classes[0].mail_class.source_id
    is_whole = target != source_id or given.get("all", False)
    new = GuardEntry(
        target=target,
        source_id=source_id,
        action=GuardAction.HOLD,
        label=_label(classes, target),
        reason=note or f"operator {asked.actor}",
        actor=asked.actor,
        at_ms=asked.now_ms,
        new_since_ms=None if is_whole else asked.now_ms - DAY_MS,
    )
    store.guard.put_guard_entry(new, entry=_audited("hold", new, asked, note), is_renewing=True)
    held = hold_waiting(store, actor=asked.actor, now_ms=asked.now_ms, target=target)
    whose = "" if is_whole else ", templates of the last day"
    waiting = f"{counted(held, 'message')} that waited held, too"
    return Done(
        answer={"id": target, "label": new.label, "held": held},
        lines=[f"{target}: held from now on: {new.label}{whose}; {waiting}"],
        number=held,
    )


def _allow(asked: Asked, given: Mapping[str, Any]) -> Done:
    target, store = given["id"], asked.store
    if given.get("dry_run"):
        return _shown(store, target)
    if given.get("remove"):
        return _forget(asked, target)
    entry, released = _let_send(asked, target, given.get("per_hour") or None)
    what = f"may send {entry.per_hour} messages an hour: {entry.label}"
    return Done(
        answer={
            "id": target,
            "label": entry.label,
            "per_hour": entry.per_hour,
            "released": released,
        },
        lines=[f"{target}: {what}; {counted(released, 'message')} released"],
        number=released,
    )


def _let_send(asked: Asked, target: str, per_hour: int | None) -> tuple[GuardEntry, int]:
    """Let a class or source send so much an hour; return how much of it is released.

    Without a number it is learnt: several times the busiest hour. Raises UnknownTarget.
    """
    store = asked.store
    classes = _classes(store, target)
    new = GuardEntry(
        target=target,
        source_id=classes[0].mail_class.source_id,
        action=GuardAction.ALLOW,
        label=_label(classes, target),
        reason="",
        actor=asked.actor,
        at_ms=asked.now_ms,
        per_hour=per_hour or _learnt(asked, classes),
    )
    entry = _audited("allow", new, asked, f"up to {new.per_hour} an hour")
    holds = _holds_within(store, target)
    store.guard.put_guard_entry(new, entry=entry, is_renewing=True)
    _end_holds(asked, [hold for hold in holds if hold.target != target])
    released = _release_held(asked, target, holds)
    if target != new.source_id:  # what is held with its source
        released += _release_of_class(asked, classes[0])
    return new, released


def _forget(asked: Asked, target: str) -> Done:
    """Judge what was allowed as everything else."""
    found, what = _entry_of(asked.store, target), "was not allowed"
    if found is not None and found.action is GuardAction.ALLOW:
        entry = _audited("forget", found, asked)
        if asked.store.guard.drop_guard_entry(target, entry=entry):
            what = "is judged as others again"
    return Done(answer={}, lines=[f"{target}: {what}"], number=0)


def _release(asked: Asked, given: Mapping[str, Any]) -> Done:
    """End the holds of a class, or of a source with its classes.

    What the guard held, alerts about, or holds with the source of the class is allowed from now
    on: else it were held again at once.
    """
    target, store = given["id"], asked.store
    if given.get("dry_run"):
        return _shown(store, target)
    holds, classes = _holds_within(store, target), store.guard.classes_of([target])
    if not classes and not holds:
        raise UnknownTarget(target)
    per_hour, learnt = None, ""
    if classes and _is_to_allow(asked, target, holds, classes):
        entry, released = _let_send(asked, target, None)
        per_hour, learnt = entry.per_hour, f"; it may send {entry.per_hour} an hour from now on"
    else:
        _end_holds(asked, holds)
        released = _release_held(asked, target, holds)
    return Done(
        answer={"id": target, "released": released, "per_hour": per_hour},
        lines=[f"{target}: {counted(released, 'message')} released{learnt}"],
        number=released,
    )


def _shown(store: Store, target: str) -> Done:
    """Return how much is held of what a verb would change."""
    label = _label_of(store, target)
    held = sum(row.held for row in guarded(store) if row.entry.target == target)
    return Done(answer={}, lines=[f"{target}: {label}; {counted(held, 'message')} held"])


_ID = Parameter(
    name="id", metavar="ID...", example="an id of: relaygw sources --json",
    is_target=True, is_repeatable=True,
)  # fmt: skip
_DRY_RUN = Parameter(
    name="dry_run", kind=Kind.FLAG, help="Only show how much mail.", is_for_commands=True
)
HOLD = Verb(
    name="hold",
    help="Hold mail of classes, or of sources their templates that are not a day old.",
    endpoint_help="Hold a class of mail or a source.\n"
    "Of a source its templates that are not a day old, or all.",
    parameters=(
        _ID,
        Parameter(name="all", kind=Kind.FLAG,
                  help="All mail of a source, not only what is new.",
                  field_help="all mail of a source, not only what is new"),
        Parameter(name="note", option="reason", metavar="TEXT", example="a shorter one",
                  help="The reason, shown with the mail.", field_help="shown with the mail",
                  read=read_line, takes_empty=True),
        _DRY_RUN,
    ),
    run=_hold,
    has_json=False,
)  # fmt: skip
ALLOW = Verb(
    name="allow",
    help="Let sources or classes send more than others; what is held of them is released.",
    endpoint_help="Let a class or source send more.\nWhat is held of it is released.",
    parameters=(
        _ID,
        Parameter(name="per_hour", kind=Kind.NUMBER, metavar="N", example="200",
                  help="At most N; else four times the busiest hour of the last day.",
                  field_help="messages; empty: four times the busiest hour",
                  read=read_number, takes_empty=True),
        Parameter(name="remove", kind=Kind.FLAG, help="Judge it as others again.",
                  is_for_commands=True),
        _DRY_RUN,
    ),
    run=_allow,
    has_json=False,
)  # fmt: skip
RELEASE = Verb(
    name="release",
    help="Release what is held; what the guard held or alerts about is allowed from now on.",
    endpoint_help="Release a class or source.\n"
    "What the guard held by itself is allowed from then on.",
    parameters=(_ID, _DRY_RUN),
    run=_release,
    has_json=False,
)
