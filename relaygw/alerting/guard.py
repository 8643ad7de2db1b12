"""The guard at work: has sources judged, holds what is to be held, says what is wrong."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from relaygw.alerting.facts import Finding
from relaygw.alerting.guard_words import (
    GUARD_RULES,
    finding_of,
    learning_finding,
    more_findings,
    trouble_words,
)
from relaygw.alerting.known_mail import KnownMail, suspects_together
from relaygw.mail.clock import DAY_MS, HOUR_MS
from relaygw.mail.keys import unpacked
from relaygw.mail.mail_class import MailClass, sender_words
from relaygw.policy.guard import (
    FIRST_DAY,
    HISTORY_DAYS,
    Known,
    Suspect,
    Trouble,
    is_worth_a_look,
    judge,
)
from relaygw.policy.mail_counts import Counted, HourCount
from relaygw.settings.alerts import Rule
from relaygw.settings.model import Settings
from relaygw.store.audit import AuditEntry
from relaygw.store.guard import GUARD, GuardAction, GuardEntry, HeldMailScope
from relaygw.store.guarded_mail import hold_waiting, release_left
from relaygw.store.sources import SeenClass
from relaygw.store.store import Store
from relaygw.store.watch import Incident

MOST_SOURCES = 50  # that are looked at: those that send most
_MOST_TOLD = 20  # of them
_LONG_S, _LOAD, _REST_S = 0.25, 20, 15.0
_MAIL_EACH_MS = 30_000  # what waits, and what bounced, is looked at
_FRONT_MS = 3_000  # so late at the latest fronts go by entries that have changed


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
        self._known_mail = KnownMail(store)
        self._mail_due_ms = 0
        self._together: list[tuple[Suspect, dict[str, MailClass]]] = []
        self._entries: list[GuardEntry] = []
        self._scopes: Sequence[HeldMailScope] = ()  # what these hold
        self._domains: dict[str, Sequence[str]] = {}  # of recipients, by what is told
        self._found: list[Finding] = []
        self._is_learning = True  # until the first day of the queue is known to be over
        self._learnt_until_ms: int | None = None  # None: not known yet
        self._due_s = 0.0

    def look(self, incidents: Sequence[Incident], *, now_ms: int) -> list[Finding]:
        """Return the troubles of now, and hold the mail to be held. Raises StoreUnavailable.

        After a look that took long it is what was wrong then, for up to 15 s, unless an operator
        said something since.
        """
        begun_s = time.monotonic()
        if begun_s >= self._due_s or self._has_changed(self._store.guard.guard_entries()):
            self._found = self._look(incidents, now_ms)
            took_s = time.monotonic() - begun_s
            if took_s > _LONG_S:
                self._due_s = begun_s + min(_LOAD * took_s, _REST_S)
        return self._found

    def is_let_go(self, incident: Incident) -> bool:
        """Return whether an incident is of a source that was allowed since, or a class of it."""
        return incident.rule in GUARD_RULES and any(
            entry.action is GuardAction.ALLOW
            and entry.at_ms >= incident.since_ms
            and incident.key.startswith(entry.source_id)
            for entry in self._entries
        )

    def _look(self, incidents: Sequence[Incident], now_ms: int) -> list[Finding]:
        guard, is_mail_due = self._store.guard, now_ms >= self._mail_due_ms
        if is_mail_due or self._mail_due_ms > now_ms + 2 * _MAIL_EACH_MS:  # the clock was set
            self._mail_due_ms = now_ms + _MAIL_EACH_MS
            self._bounced = guard.bounced_since(now_ms - HOUR_MS)
            self._known_mail.forget()
            release_left(self._store)
        found: list[Finding] = []
        if self._guard.action != "off":
            alarmed = {
                incident.key: incident.since_ms
                for incident in incidents
                if incident.rule in GUARD_RULES and incident.recovered_at_ms is None
            }
            entries = guard.guard_entries()
            if is_mail_due:
                self._together = suspects_together(
                    self._store, self._guard, entries, self._known_mail.with_history, now_ms
                )
            suspects = [
                suspect
                for suspect in [*self._suspects(entries, alarmed, now_ms), *self._together]
                if not _is_settled(suspect[0], entries)
            ]
            new = [self._hold(*suspect, entries, now_ms) for suspect in suspects]
            is_mail_due |= any(new)
            if any(new):
                entries = guard.guard_entries()
            has_changed = self._has_changed(entries)
            if is_mail_due or has_changed:
                self._scopes = guard.held_scopes()
            if has_changed:
                self._entries = entries
                self._mail_due_ms = min(self._mail_due_ms, now_ms + _FRONT_MS)
            found = [*self._findings(suspects), *self._learning(incidents, now_ms)]
        if is_mail_due:
            hold_waiting(self._store, actor=GUARD, now_ms=now_ms)
        return found

    def _has_changed(self, entries: Sequence[GuardEntry]) -> bool:
        """Return whether entries are others than at the last look; clocks may drift."""
        known, now = (
            [replace(entry, at_ms=0, new_since_ms=entry.new_since_ms and 1) for entry in each]
            for each in (self._entries, entries)
        )
        return now != known

    # --- who is a suspect -------------------------------------------------------------------

    def _suspects(
        self, entries: Sequence[GuardEntry], alarmed: Mapping[str, int], now_ms: int
    ) -> list[tuple[Suspect, dict[str, MailClass]]]:
        is_first = any(key.endswith(FIRST_DAY) for key in alarmed)
        sums = self._store.guard.source_sums(now_ms - (DAY_MS if is_first else HOUR_MS))
        wanted = {unpacked(key)[0] for key in alarmed} - {""}
        busy = [
            source
            for source, count in sums.items()
            if is_worth_a_look(count, self._bounced.get(source, 0), self._guard)
        ]
        wanted |= {*sorted(busy, key=lambda source: -sums[source].weight)[:MOST_SOURCES]}
        if not wanted:
            return []
        self._histories = {
            source: kept for source, kept in self._histories.items() if source in wanted
        }
        counting_ms = self._store.guard.counting_since_ms() or now_ms
        is_first |= now_ms < counting_ms + 2 * DAY_MS
        learnt_ms = self._learnt_until(counting_ms, now_ms) if is_first else 0
        allowed = {
            entry.target: entry.per_hour or 0
            for entry in entries
            if entry.action is GuardAction.ALLOW
        }
        by_source: dict[str, list[SeenClass]] = defaultdict(list)
        for seen in self._store.guard.classes_of(wanted):
            by_source[seen.mail_class.source_id].append(seen)
        found: list[tuple[Suspect, dict[str, MailClass]]] = []
        for source_id, classes in by_source.items():
            history = self._history(
                source_id, [seen.mail_class.class_id for seen in classes], now_ms
            )
            known = Known(
                counting_since_ms=counting_ms,
                learnt_until_ms=learnt_ms,
                allowed=allowed,
                alarmed=alarmed,
                bounced=self._bounced.get(source_id, 0),
                busiest_hour=history.busiest,
            )
            suspects = self._judged(source_id, classes, history, known, now_ms)
            named = {seen.mail_class.class_id: seen.mail_class for seen in classes}
            found += [(suspect, named) for suspect in suspects]
        return sorted(found, key=lambda pair: -pair[0].per_hour)

    def _learnt_until(self, begun_ms: int, now_ms: int) -> int:
        """Return the end of the hour by which more came than may come of something new."""
        hour_ms = begun_ms // HOUR_MS * HOUR_MS
        for end_ms in range(hour_ms + HOUR_MS, begun_ms + DAY_MS, HOUR_MS):
            if self._learnt_until_ms is None and end_ms <= now_ms + HOUR_MS:
                sums = self._store.sources.sum_mail("host", begun_ms, until_ms=end_ms)
                if sum(total.messages for total in sums) > self._guard.new_per_hour:
                    self._learnt_until_ms = end_ms
        return self._learnt_until_ms or now_ms

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
            counted = [self._known_elsewhere(total, now_ms) for total in counted]
            suspects = judge(counted, self._guard, known, now_ms=now_ms, is_whole_day=is_whole_day)
        if is_whole_day:
            history.known = replace(known, bounced=0)
            history.earlier = [replace(suspect, held=None) for suspect in suspects]
            return suspects
        keys = {suspect.key for suspect in suspects}
        return [*suspects, *(suspect for suspect in history.earlier if suspect.key not in keys)]

    def _known_elsewhere(self, total: Counted, now_ms: int) -> Counted:
        known = self._known_mail.with_history(total, now_ms)
        # two hours make one that is judged
        is_much = any(total.weight(hour) > self._guard.new_per_hour / 2 for hour in total.hours)
        return self._known_mail.with_fleet(known, now_ms) if known.is_moved and is_much else known

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
        for class_hour in self._store.sources.class_hours(
            since_ms, until_ms=until_ms, class_ids=class_ids
        ):
            hour = round(class_hour.hour_at_ms / HOUR_MS)  # the queue's clock may be another one
            count = HourCount(class_hour.messages, class_hour.recipients, class_hour.refused)
            found[class_hour.class_id][hour] = count
        return found

    def _counted(
        self, classes: Sequence[SeenClass], history: _History, now_ms: int
    ) -> list[Counted]:
        ids = [seen.mail_class.class_id for seen in classes]
        recent = self._hours(ids, (now_ms // HOUR_MS - 1) * HOUR_MS, None)
        return [
            Counted(
                mail_class=seen.mail_class,
                first_seen_ms=seen.first_seen_ms,
                hours={
                    **history.hours.get(seen.mail_class.class_id, {}),
                    **recent.get(seen.mail_class.class_id, {}),
                },
            )
            for seen in classes
        ]

    # --- what is held -----------------------------------------------------------------------

    def _hold(
        self,
        suspect: Suspect,
        classes: Mapping[str, MailClass],
        entries: Sequence[GuardEntry],
        now_ms: int,
    ) -> bool:
        """Hold what is to be held and is not; return whether something is."""
        if suspect.held is None or self._guard.action != "hold":
            return False
        known = {entry.target for entry in entries}
        if any(
            entry.target == suspect.source_id and entry.action is GuardAction.ALLOW
            for entry in entries
        ):
            return False
        wanted = set(suspect.held.class_ids or (suspect.source_id,)) - known
        new = [self._put(target, suspect, classes, now_ms) for target in sorted(wanted)]
        return any(new)

    def _put(
        self, target: str, suspect: Suspect, classes: Mapping[str, MailClass], now_ms: int
    ) -> bool:
        wanted, mail_class = suspect.held, classes[suspect.class_ids[0]]
        label = sender_words(mail_class)
        if target != suspect.source_id:
            label = f"{label} “{classes[target].template}”"
        reason = f"{trouble_words(suspect)} of {sender_words(mail_class)}"
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
        scope = self._store.guard.scope_of(new)
        if not any(map(scope.holds_mail, classes.values())):
            return False  # all of it is what may flow on
        detail = f"{reason}: {suspect.per_hour} an hour, more than {suspect.limit}"
        audited = _entry("guard.hold", f"{target} {label}", 1, now_ms, detail)
        return self._store.guard.put_guard_entry(new, entry=audited)

    # --- what is told -----------------------------------------------------------------------

    def _learning(self, incidents: Sequence[Incident], now_ms: int) -> Iterator[Finding]:
        """Yield the notice of a queue's first day, once there is mail that would be told of."""
        store = self._store.guard
        if self._is_learning:
            begun_ms = store.counting_since_ms() or now_ms
            self._is_learning = now_ms < begun_ms + DAY_MS
        if not self._is_learning:
            return
        recent = store.source_sums(now_ms - HOUR_MS).values()
        is_told = any(incident.rule == Rule.GUARD_LEARNING for incident in incidents)
        if is_told or any(is_worth_a_look(count, 0, self._guard) for count in recent):
            sources = len(store.source_sums(now_ms - DAY_MS))
            yield learning_finding(sources, begun_ms, self._guard)

    def _findings(
        self, suspects: Sequence[tuple[Suspect, Mapping[str, MailClass]]]
    ) -> list[Finding]:
        """Return the findings to tell, with the mail that is held by now."""
        told: dict[str, Finding] = {}
        for suspect, classes in suspects:
            if suspect.key not in told and len(told) < _MOST_TOLD:
                told[suspect.key] = self._finding(suspect, classes)
        self._domains = {key: domains for key, domains in self._domains.items() if key in told}
        return [
            *told.values(),
            *more_findings(len({candidate.key for candidate, _ in suspects} - {*told})),
        ]

    def _finding(self, suspect: Suspect, classes: Mapping[str, MailClass]) -> Finding:
        named = [classes[class_id] for class_id in suspect.class_ids] or [*classes.values()]
        if suspect.key not in self._domains:
            self._domains[suspect.key] = self._store.guard.recipient_domains(
                named[0].source, suspect.class_ids, since_ms=suspect.since_ms
            )
        held: dict[str, str] = {}  # by class: for which entry
        for mail_class in named:
            scope = next((scope for scope in self._scopes if scope.holds_mail(mail_class)), None)
            if scope is not None:
                held[mail_class.class_id] = scope.target
        named.sort(key=lambda mail_class: mail_class.class_id not in held)
        allowed = {entry.target for entry in self._entries if entry.action is GuardAction.ALLOW}
        return finding_of(suspect, named, self._domains[suspect.key], held=held, allowed=allowed)


def _is_settled(suspect: Suspect, entries: Sequence[GuardEntry]) -> bool:
    """Return whether recipients of a source were refused before it was allowed.

    Its number of messages does not say how many of them may be refused.
    """
    return suspect.trouble is Trouble.REFUSED and any(
        entry.target == suspect.source_id
        and entry.action is GuardAction.ALLOW
        and entry.at_ms >= suspect.since_ms
        for entry in entries
    )


def _entry(action: str, target: str, number: int, now_ms: int, detail: str) -> AuditEntry:
    return AuditEntry(
        at_ms=now_ms, actor=GUARD, action=action, target=target, affected=number, detail=detail
    )
