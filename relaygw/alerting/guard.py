"""The guard at work: has sources judged, holds what is to be held, says what is wrong."""

from __future__ import annotations

import shlex
import time
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence, Set
from dataclasses import dataclass, replace

from relaygw.alerting.finding import Finding
from relaygw.mail.mail_class import MailClass, sender_words
from relaygw.mail.words import counted, some_of
from relaygw.policy.guard import (
    DAY_MS,
    FIRST_DAY,
    HISTORY_DAYS,
    Known,
    Suspect,
    Trouble,
    is_worth_a_look,
    judge,
)
from relaygw.policy.mail_counts import HOUR_MS, Counted, HourCount
from relaygw.settings.alerts import Rule
from relaygw.settings.model import Settings
from relaygw.store.audit import AuditEntry
from relaygw.store.guard import (
    GUARD,
    GuardAction,
    GuardEntry,
    MailSender,
    hold_waiting,
    release_left,
)
from relaygw.store.sources import SeenClass
from relaygw.store.store import Store
from relaygw.store.watch import Incident

MOST_SOURCES = 50  # that are looked at: those that send most
_MOST_TOLD = 20  # of them
_EXAMPLES = 3
_LONG_S, _LOAD, _REST_S = 0.25, 20, 15.0
_MAIL_EACH_MS = 30_000  # what waits, and what bounced, is looked at
_RULES = {
    Trouble.NEW: Rule.SOURCE_NEW,
    Trouble.BURST: Rule.SOURCE_VOLUME,
    Trouble.FLOOD: Rule.SOURCE_VOLUME,
    Trouble.REFUSED: Rule.SOURCE_VOLUME,
}


@dataclass(slots=True)
class _History:
    """What is known of a source; it is read once an hour."""

    hour: int
    hours: Mapping[str, Mapping[int, HourCount]]  # by class, before the hour before this one
    busiest: int
    known: Known | None = None  # by which its hours of the last day were judged
    earlier: Sequence[Suspect] = ()  # what was wrong in these


class GuardWatch:
    """Looks at sources for the one instance that has the duty."""

    def __init__(self, store: Store, settings: Settings) -> None:
        self._store = store
        self._guard = settings.guard
        self._histories: dict[str, _History] = {}
        self._bounced: Mapping[str, int] = {}
        self._known_mail: Mapping[tuple[str, str], Sequence[MailSender]] | None = None
        self._mail_due_ms = 0
        self._found: list[Finding] = []
        self._due_s = 0.0

    def look(self, incidents: Sequence[Incident], *, now_ms: int) -> list[Finding]:
        """Return what is wrong now, and hold what is to be held. Raises StoreUnavailable.

        After a look that took long it is what was wrong then, for up to 15 s.
        """
        begun_s = time.monotonic()
        if begun_s >= self._due_s:
            self._found = self._look(incidents, now_ms)
            took_s = time.monotonic() - begun_s
            if took_s > _LONG_S:
                self._due_s = begun_s + min(_LOAD * took_s, _REST_S)
        return self._found

    def _look(self, incidents: Sequence[Incident], now_ms: int) -> list[Finding]:
        guard, is_mail_due = self._store.guard, now_ms >= self._mail_due_ms
        if is_mail_due or self._mail_due_ms > now_ms + 2 * _MAIL_EACH_MS:  # the clock was set
            self._mail_due_ms = now_ms + _MAIL_EACH_MS
            self._bounced = guard.bounced_since(now_ms - HOUR_MS)
            self._known_mail = None
            release_left(self._store)
        found: list[Finding] = []
        if self._guard.action != "off":
            alarmed = {
                one.key: one.since_ms
                for one in incidents
                if one.rule in _RULES.values() and one.recovered_at_ms is None
            }
            entries = guard.guard_entries()
            held = {one.target for one in entries if one.action is GuardAction.HOLD}
            suspects = self._suspects(entries, alarmed, now_ms)
            told: dict[str, Finding] = {}
            for suspect, classes in suspects:
                is_held, is_new = self._hold(suspect, classes, held, now_ms)
                is_mail_due |= is_new
                if suspect.key not in told and len(told) < _MOST_TOLD:
                    told[suspect.key] = self._finding(suspect, classes, alarmed, is_held=is_held)
            more = len({suspect.key for suspect, _ in suspects} - {*told})
            found = [*told.values(), *_more(more)]
        if is_mail_due:
            hold_waiting(self._store, actor=GUARD, now_ms=now_ms)
        return found

    # --- who is a suspect -------------------------------------------------------------------

    def _suspects(
        self, entries: Sequence[GuardEntry], alarmed: Mapping[str, int], now_ms: int
    ) -> list[tuple[Suspect, dict[str, MailClass]]]:
        is_first = any(key.endswith(FIRST_DAY) for key in alarmed)
        sums = self._store.guard.source_sums(now_ms - (DAY_MS if is_first else HOUR_MS))
        wanted = {key.partition(" ")[0] for key in alarmed} - {""}
        busy = [
            one
            for one, count in sums.items()
            if is_worth_a_look(count, self._bounced.get(one, 0), self._guard)
        ]
        wanted |= {*sorted(busy, key=lambda one: -sums[one].messages)[:MOST_SOURCES]}
        if not wanted:
            return []
        self._histories = {one: kept for one, kept in self._histories.items() if one in wanted}
        counting_ms = self._store.guard.counting_since_ms() or now_ms
        allowed = {
            one.target: one.per_hour or 0 for one in entries if one.action is GuardAction.ALLOW
        }
        by_source: dict[str, list[SeenClass]] = defaultdict(list)
        for one in self._store.guard.classes_of(wanted):
            by_source[one.mail_class.source_id].append(one)
        found: list[tuple[Suspect, dict[str, MailClass]]] = []
        for source_id, classes in by_source.items():
            history = self._history(source_id, [one.mail_class.class_id for one in classes], now_ms)
            known = Known(
                counting_since_ms=counting_ms,
                allowed=allowed,
                alarmed=alarmed,
                bounced=self._bounced.get(source_id, 0),
                busiest_hour=history.busiest,
            )
            suspects = self._judged(source_id, classes, history, known, now_ms)
            named = {one.mail_class.class_id: one.mail_class for one in classes}
            found += [(suspect, named) for suspect in suspects]
        return sorted(found, key=lambda one: -one[0].per_hour)

    def _judged(
        self,
        source_id: str,
        classes: Sequence[SeenClass],
        history: _History,
        known: Known,
        now_ms: int,
    ) -> list[Suspect]:
        """Judge a source; the hours that are over once an hour, or when something has changed."""
        is_whole_day = history.known != replace(known, bounced=0)
        counted = self._counted(classes, history, now_ms)
        suspects = judge(counted, self._guard, known, now_ms=now_ms, is_whole_day=is_whole_day)
        if suspects:
            counted = [self._known_elsewhere(one, now_ms) for one in counted]
            suspects = judge(counted, self._guard, known, now_ms=now_ms, is_whole_day=is_whole_day)
        if is_whole_day:
            history.known = replace(known, bounced=0)
            history.earlier = [replace(one, held=None) for one in suspects]
            return suspects
        keys = {one.key for one in suspects}
        return [*suspects, *(one for one in history.earlier if one.key not in keys)]

    def _known_elsewhere(self, one: Counted, now_ms: int) -> Counted:
        if self._known_mail is None:
            self._known_mail = self._store.guard.known_mail(now_ms - DAY_MS)
        mine = one.mail_class
        times: dict[str, list[int]] = defaultdict(list)  # by program, whatever hosts it has
        for sender in self._known_mail.get((mine.sender_domain, mine.template), ()):
            if sender.source_id != mine.source_id:
                times[sender.program] += (sender.first_ms, sender.last_ms)
        # one day of spam makes nothing known
        programs = {one for one, seen in times.items() if max(seen) - min(seen) >= DAY_MS}
        return replace(one, is_known_mail=bool(programs), is_moved=one.program in programs)

    def _history(self, source_id: str, class_ids: Sequence[str], now_ms: int) -> _History:
        hour = now_ms // HOUR_MS
        history = self._histories.get(source_id)
        if history is None or history.hour != hour:
            since_ms = now_ms - (HISTORY_DAYS + 2) * DAY_MS
            end_ms = (hour - 1) * HOUR_MS
            history = self._histories[source_id] = _History(
                hour=hour,
                hours=self._hours(class_ids, since_ms, end_ms),
                busiest=self._store.guard.busiest_hour(source_id, now_ms - DAY_MS),
            )
        return history

    def _hours(
        self, class_ids: Sequence[str], since_ms: int, until_ms: int | None
    ) -> dict[str, dict[int, HourCount]]:
        found: dict[str, dict[int, HourCount]] = defaultdict(dict)
        for one in self._store.sources.class_hours(
            since_ms, until_ms=until_ms, class_ids=class_ids
        ):
            hour = round(one.hour_at_ms / HOUR_MS)  # the queue's clock may be another one
            count = HourCount(one.messages, one.recipients, one.refused)
            found[one.class_id][hour] = count
        return found

    def _counted(
        self, classes: Sequence[SeenClass], history: _History, now_ms: int
    ) -> list[Counted]:
        ids = [one.mail_class.class_id for one in classes]
        recent = self._hours(ids, (now_ms // HOUR_MS - 1) * HOUR_MS, None)
        return [
            Counted(
                mail_class=one.mail_class,
                first_seen_ms=one.first_seen_ms,
                hours={
                    **history.hours.get(one.mail_class.class_id, {}),
                    **recent.get(one.mail_class.class_id, {}),
                },
            )
            for one in classes
        ]

    # --- what is held -----------------------------------------------------------------------

    def _hold(
        self,
        suspect: Suspect,
        classes: Mapping[str, MailClass],
        held: Set[str],
        now_ms: int,
    ) -> tuple[bool, bool]:
        """Hold what is to be held; return whether it is, and whether that is new."""
        wanted = suspect.held
        targets = (suspect.source_id,) if wanted is None else wanted.class_ids
        if wanted is None or self._guard.action != "hold":
            is_held = not held.isdisjoint({suspect.source_id, *suspect.class_ids})
            return is_held, False
        are_new = [
            self._put(target, suspect, classes, now_ms)
            for target in targets or (suspect.source_id,)
            if target not in held
        ]
        return True, any(are_new)

    def _put(
        self, target: str, suspect: Suspect, classes: Mapping[str, MailClass], now_ms: int
    ) -> bool:
        wanted, one = suspect.held, classes[suspect.class_ids[0]]
        label = sender_words(one)
        if target != suspect.source_id:
            label = f"{label} “{classes[target].template}”"
        reason = f"{_what(suspect)} of {sender_words(one)}"
        new = GuardEntry(
            target=target,
            source_id=suspect.source_id,
            action=GuardAction.HOLD,
            label=label,
            reason=reason,
            actor=GUARD,
            at_ms=now_ms,
            new_since_ms=wanted.new_since_ms if wanted else None,
        )
        detail = f"{reason}: {suspect.per_hour} an hour, more than {suspect.limit}"
        audited = _entry("guard.hold", f"{target} {label}", 1, now_ms, detail)
        return self._store.guard.put_guard_entry(new, entry=audited)

    # --- what is told -----------------------------------------------------------------------

    def _finding(
        self,
        suspect: Suspect,
        classes: Mapping[str, MailClass],
        alarmed: Collection[str],
        *,
        is_held: bool,
    ) -> Finding:
        named = [classes[one] for one in suspect.class_ids] or [*classes.values()]
        domains: Sequence[str] = ()
        if suspect.key not in alarmed:  # else it is told already
            domains = self._store.guard.recipient_domains(
                named[0].source, suspect.class_ids, since_ms=suspect.since_ms
            )
        return finding_of(suspect, named, domains, is_held=is_held)


def finding_of(
    suspect: Suspect, named: Sequence[MailClass], domains: Sequence[str], *, is_held: bool
) -> Finding:
    """Return what is told of a suspect, whose mail is of these classes and went there."""
    return Finding(
        _RULES[suspect.trouble],
        suspect.key,
        _summary(suspect, named, domains),
        _remedy(suspect, is_held=is_held),
        since_ms=suspect.since_ms,
        is_certain=True,
    )


def _entry(action: str, target: str, number: int, now_ms: int, detail: str) -> AuditEntry:
    return AuditEntry(
        at_ms=now_ms, actor=GUARD, action=action, target=target, affected=number, detail=detail
    )


def _what(suspect: Suspect) -> str:
    return {
        Trouble.NEW: "new templates",
        Trouble.BURST: "more mail than usual",
        Trouble.FLOOD: "much mail",
        Trouble.REFUSED: "refused recipients",
    }[suspect.trouble]


def _summary(suspect: Suspect, named: Sequence[MailClass], domains: Sequence[str]) -> str:
    number, limit, one = suspect.per_hour, suspect.limit, named[0]
    templates = [f"“{each.template}”" for each in named]
    told = {
        Trouble.NEW: f"{number} messages of {counted(len(named), 'new template')} within an hour, "
        f"more than {limit}",
        Trouble.BURST: f"{number} messages within an hour, usual is less than {limit}",
        Trouble.FLOOD: f"{number} messages within an hour, more than {limit}",
        Trouble.REFUSED: f"{number} recipients refused within an hour, more than {limit}",
    }[suspect.trouble]
    to = f", to recipients at {some_of(domains, _EXAMPLES)}" if domains else ""
    return f"{_who(one)}: {told}: {some_of(templates, _EXAMPLES)}{to}"


def _who(one: MailClass) -> str:
    """Return script, uid and host, each by its name."""
    parts = [
        f"script {one.script}" if one.script else "no script",
        *([f"uid {one.uid}"] if one.uid is not None else []),
        *([f"login {one.user}"] if one.user else []),
        f"host {one.host}",
    ]
    return ", ".join(parts)


def _remedy(suspect: Suspect, *, is_held: bool) -> str:
    target = suspect.source_id
    if len(suspect.class_ids) == 1:
        target = suspect.class_ids[0]
    if is_held:
        held = suspect.held.class_ids[0] if suspect.held and suspect.held.class_ids else None
        held = held or suspect.source_id
        return (
            f"it is held, other mail flows on: relaygw queue list --reason {held} shows it, "
            f"relaygw guard release {held} sends it, relaygw queue delete --reason {held} deletes "
            "it; look at that script and host"
        )
    return (
        "if nobody knows of it that host was broken into: relaygw guard hold "
        f"{shlex.quote(target)} holds it; else relaygw guard allow {shlex.quote(target)}"
    )


def _more(number: int) -> list[Finding]:
    """Return one finding of all that there are too many of."""
    if not number:
        return []
    summary = f"{number} more sources send much more than before"
    remedy = "relaygw sources --since 1h shows them"
    return [Finding(Rule.SOURCE_VOLUME, "", summary, remedy, is_certain=True)]
