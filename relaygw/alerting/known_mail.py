"""What the guard is told beside counts: mail known of other sources, and sources that are new.

A host that sends mail which another one sends may be one more of a fleet.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

from relaygw.mail.clock import DAY_MS, HOUR_MS
from relaygw.mail.mail_class import OTHER_SCRIPTS, MailClass
from relaygw.policy.guard import HISTORY_DAYS, Known, Suspect
from relaygw.policy.mail_counts import Counted, HourCount, sums
from relaygw.policy.new_sources import by_sender, judge_together
from relaygw.settings.guard import Guard
from relaygw.store.guard import GuardAction, GuardEntry, MailSender
from relaygw.store.store import Store

_MOST_HOSTS = 200  # of a fleet: those that sent last


class KnownMail:
    """Who else sends a class of mail; it is read when somebody asks."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._senders: Mapping[tuple[str, str], Sequence[MailSender]] | None = None
        self._elsewhere: dict[tuple[str, int], Mapping[int, HourCount]] = {}

    def forget(self) -> None:
        """Have it read anew, but for the hours of other hosts: these once an hour."""
        self._senders = None

    def with_history(self, total: Counted, now_ms: int) -> Counted:
        """Return a class, and whether others sent such mail for a day or longer."""
        programs = self._programs(total, now_ms)
        is_moved = any(True for _ in _of_fleet(total, programs))
        return replace(total, is_known_mail=bool(programs), is_moved=is_moved)

    def with_fleet(self, total: Counted, now_ms: int) -> Counted:
        """Return a class with the hours of its other hosts."""
        key = total.class_id, now_ms // HOUR_MS
        if key not in self._elsewhere:
            its = sorted(
                _of_fleet(total, self._programs(total, now_ms)), key=lambda each: -each.last_ms
            )
            ids = [each.class_id for each in its[:_MOST_HOSTS]]
            self._elsewhere = {of: each for of, each in self._elsewhere.items() if of[1] == key[1]}
            self._elsewhere[key] = self._hours(ids, now_ms) if ids else {}
        return replace(total, elsewhere=self._elsewhere[key])

    def _programs(self, total: Counted, now_ms: int) -> dict[str, list[MailSender]]:
        if self._senders is None:
            self._senders = self._store.guard.known_mail(now_ms - DAY_MS)
        mine = total.mail_class
        found: dict[str, list[MailSender]] = defaultdict(list)  # whatever hosts a program has
        for sender in self._senders.get((mine.sender_domain, mine.template), ()):
            if sender.source_id != mine.source_id:
                found[sender.program].append(sender)
        # one day of spam makes nothing known
        return {program: its for program, its in found.items() if _lasted_ms(its) >= DAY_MS}

    def _hours(self, class_ids: Sequence[str], now_ms: int) -> dict[int, HourCount]:
        since_ms = now_ms - (HISTORY_DAYS + 2) * DAY_MS
        return sums(
            {
                round(class_hour.hour_at_ms / HOUR_MS): HourCount(
                    class_hour.messages, class_hour.recipients, class_hour.refused
                )
            }
            for class_hour in self._store.sources.class_hours(since_ms, class_ids=class_ids)
        )


def _of_fleet(total: Counted, programs: Mapping[str, Sequence[MailSender]]) -> Iterator[MailSender]:
    """Yield who is the same program on another host."""
    for program, its in programs.items():
        # which of the others moved nobody knows
        if total.program == program or total.mail_class.script == OTHER_SCRIPTS:
            yield from its


def _lasted_ms(its: Sequence[MailSender]) -> int:
    return max(sender.last_ms for sender in its) - min(sender.first_ms for sender in its)


# --- new sources ------------------------------------------------------------------------


def suspects_together(
    store: Store,
    guard: Guard,
    entries: Sequence[GuardEntry],
    known_elsewhere: Callable[[Counted, int], Counted],
    now_ms: int,
) -> list[tuple[Suspect, dict[str, MailClass]]]:
    """Return who sends too much with others, and the classes. Raises StoreUnavailable.

    Sources of the first day of a queue are left out: then all is new.
    """
    counting_ms = store.guard.counting_since_ms() or now_ms
    classes = store.sources.new_classes(max(now_ms - 2 * DAY_MS, counting_ms + DAY_MS))
    if sum(seen.messages for seen in classes) <= guard.new_per_hour:
        return []
    ids = [seen.mail_class.class_id for seen in classes]
    hours: dict[str, dict[int, HourCount]] = defaultdict(dict)
    for each in store.sources.class_hours(now_ms - 2 * DAY_MS, class_ids=ids):
        count = HourCount(each.messages, each.recipients, each.refused)
        hours[each.class_id][round(each.hour_at_ms / HOUR_MS)] = count
    counted = [
        Counted(
            mail_class=seen.mail_class,
            first_seen_ms=seen.first_seen_ms,
            hours=hours[seen.mail_class.class_id],
        )
        for seen in classes
    ]
    allowed = {entry.target: 0 for entry in entries if entry.action is GuardAction.ALLOW}
    known = Known(counting_since_ms=counting_ms, allowed=allowed)
    named = {seen.mail_class.class_id: seen.mail_class for seen in classes}
    found: list[tuple[Suspect, dict[str, MailClass]]] = []
    for its in by_sender(counted):
        if judge_together(its, guard, known, now_ms=now_ms):
            its = [known_elsewhere(total, now_ms) for total in its]
            suspects = judge_together(its, guard, known, now_ms=now_ms)
            found += [(suspect, named) for suspect in suspects]
    return found
