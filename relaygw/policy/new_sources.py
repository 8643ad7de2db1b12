"""What new sources of one host and user send together: who names a script can name many. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from relaygw.mail.clock import DAY_MS, HOUR_MS
from relaygw.mail.mail_class import OTHER_SOURCES, MailClass, source_id
from relaygw.policy.guard import Held, Known, Suspect, Trouble
from relaygw.policy.mail_counts import Counted, Moment, moments, much
from relaygw.settings.guard import Guard


def sender_id(mail_class: MailClass) -> str:
    """Return the id of the host, login and uid of a class; it begins the key of an incident."""
    return source_id((mail_class.host, "", mail_class.user, mail_class.uid, ""))


def by_sender(classes: Iterable[Counted]) -> list[list[Counted]]:
    """Return classes by host, login and uid, where these have several sources."""
    found: dict[str, list[Counted]] = defaultdict(list)
    for counted in classes:
        if counted.mail_class.host != OTHER_SOURCES:
            found[sender_id(counted.mail_class)].append(counted)
    return [its for its in found.values() if len({total.mail_class.source_id for total in its}) > 1]


def judge_together(
    classes: Sequence[Counted], guard: Guard, known: Known, *, now_ms: int
) -> list[Suspect]:
    """Judge sources of one host, login and uid together that are younger than a day.

    `classes` are all of these sources, which came after the first day of a queue. A source that
    sends so much alone is left to `judge`.
    """
    first_ms: dict[str, int] = {}
    for counted in classes:
        its = counted.mail_class.source_id
        first_ms[its] = min(first_ms.get(its, counted.first_seen_ms), counted.first_seen_ms)
    for moment in moments(now_ms):
        new = [
            counted
            for counted in classes
            if first_ms[counted.mail_class.source_id] > moment.at_ms - DAY_MS
        ]
        counts = _by_source(new, guard, known, moment)
        total = sum(sum(each.values()) for each in counts.values())
        if len(counts) > 1 and total > guard.new_per_hour:
            return [*_suspects(counts, total, guard, moment, first_ms)]
    return []


def _by_source(
    classes: Sequence[Counted], guard: Guard, known: Known, moment: Moment
) -> dict[str, dict[Counted, float]]:
    counts: dict[str, dict[Counted, float]] = defaultdict(dict)
    for counted in classes:
        is_allowed = not known.allowed.keys().isdisjoint(
            (counted.class_id, counted.mail_class.source_id)
        )
        if counted.is_promotional or counted.is_known_mail or counted.is_moved or is_allowed:
            continue
        count = much(counted, moment)
        if count:
            counts[counted.mail_class.source_id][counted] = count
    limit = guard.new_per_hour
    return {its: each for its, each in counts.items() if sum(each.values()) <= limit}


def _suspects(
    counts: Mapping[str, Mapping[Counted, float]],
    total: float,
    guard: Guard,
    moment: Moment,
    first_ms: Mapping[str, int],
) -> Iterator[Suspect]:
    ordered = sorted(counts, key=lambda its: -sum(counts[its].values()))
    ids = {its: tuple(counted.class_id for counted in counts[its]) for its in ordered}
    mail_class = next(iter(counts[ordered[0]])).mail_class
    suspect = Suspect(
        trouble=Trouble.NEW,
        key=f"{sender_id(mail_class)} together",
        source_id=ordered[0],
        class_ids=(),
        per_hour=int(total),
        limit=guard.new_per_hour,
        since_ms=max(min(first_ms[its] for its in ordered), moment.at_ms - HOUR_MS),
        sources=len(ordered),
    )
    for its in ordered:
        others = (each for other in ordered if other != its for each in ids[other])
        held = Held(new_since_ms=first_ms[its]) if moment.is_now else None
        yield replace(suspect, source_id=its, class_ids=(*ids[its], *others), held=held)
