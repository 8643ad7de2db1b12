"""Mail that is known of other sources: a host that sends it, too, may be one more of a fleet."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from relaygw.mail.mail_class import OTHER_SCRIPTS
from relaygw.policy.guard import DAY_MS, HISTORY_DAYS
from relaygw.policy.mail_counts import HOUR_MS, Counted, HourCount, sums
from relaygw.store.guard import MailSender
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

    def known(self, one: Counted, now_ms: int) -> Counted:
        """Return a class, and whether others sent such mail for a day or longer."""
        programs = self._programs(one, now_ms)
        is_moved = any(True for _ in _of_fleet(one, programs))
        return replace(one, is_known_mail=bool(programs), is_moved=is_moved)

    def with_fleet(self, one: Counted, now_ms: int) -> Counted:
        """Return a class with the hours of its other hosts."""
        key = one.class_id, now_ms // HOUR_MS
        if key not in self._elsewhere:
            its = sorted(
                _of_fleet(one, self._programs(one, now_ms)), key=lambda each: -each.last_ms
            )
            ids = [each.class_id for each in its[:_MOST_HOSTS]]
            self._elsewhere = {of: each for of, each in self._elsewhere.items() if of[1] == key[1]}
            self._elsewhere[key] = self._hours(ids, now_ms) if ids else {}
        return replace(one, elsewhere=self._elsewhere[key])

    def _programs(self, one: Counted, now_ms: int) -> dict[str, list[MailSender]]:
        if self._senders is None:
            self._senders = self._store.guard.known_mail(now_ms - DAY_MS)
        mine = one.mail_class
        found: dict[str, list[MailSender]] = defaultdict(list)  # whatever hosts a program has
        for sender in self._senders.get((mine.sender_domain, mine.template), ()):
            if sender.source_id != mine.source_id:
                found[sender.program].append(sender)
        # one day of spam makes nothing known
        return {program: its for program, its in found.items() if _lasted_ms(its) >= DAY_MS}

    def _hours(self, class_ids: Sequence[str], now_ms: int) -> dict[int, HourCount]:
        since_ms = now_ms - (HISTORY_DAYS + 2) * DAY_MS
        return sums(
            {round(one.hour_at_ms / HOUR_MS): HourCount(one.messages, one.recipients, one.refused)}
            for one in self._store.sources.class_hours(since_ms, class_ids=class_ids)
        )


def _of_fleet(one: Counted, programs: Mapping[str, Sequence[MailSender]]) -> Iterator[MailSender]:
    """Yield who is the same program on another host."""
    for program, its in programs.items():
        # which of the others moved nobody knows
        if one.program == program or one.mail_class.script == OTHER_SCRIPTS:
            yield from its


def _lasted_ms(its: Sequence[MailSender]) -> int:
    return max(one.last_ms for one in its) - min(one.first_ms for one in its)
