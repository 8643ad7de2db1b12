"""The counts of a gateway as its queue keeps them, in memory, for times that are only simulated."""

from __future__ import annotations

from collections import defaultdict
from itertools import takewhile

from bench.shops.traffic import Mail
from relaygw.mail.clock import HOUR_MS
from relaygw.mail.mail_class import MailClass
from relaygw.policy.mail_counts import HourCount
from relaygw.policy.rhythm import (
    LEARNT_MS,
    LEAST_MESSAGES,
    WEEK,
    WEEKS,
    MailHour,
    MailKind,
    Rhythm,
    rhythms_of,
)
from relaygw.policy.silence import LastMail

_NOTHING = HourCount()


class _Class:
    __slots__ = ("first_ms", "hours", "kinds", "last_ms", "mail_class")

    def __init__(self, mail: Mail) -> None:
        self.mail_class: MailClass = mail.mail_class
        self.kinds = MailKind.kinds_of(mail.mail_class)
        self.first_ms = self.last_ms = mail.at_ms
        self.hours: dict[int, HourCount] = {}


class _KindCount:
    __slots__ = ("hours", "seen")

    def __init__(self, at_ms: int) -> None:
        self.seen = LastMail(at_ms, at_ms, 0)
        self.hours: list[MailHour] = []

    def count(self, mail: Mail) -> None:
        hour, gap_ms = mail.at_ms // HOUR_MS, mail.at_ms - self.seen.last_ms
        if self.hours and self.hours[-1].hour == hour:
            last = self.hours[-1]
            one = MailHour(hour, last.messages + mail.messages, max(last.gap_ms, gap_ms))
            self.hours[-1] = one
        else:
            self.hours.append(MailHour(hour, mail.messages, gap_ms))
        self.seen = LastMail(self.seen.first_ms, mail.at_ms, self.seen.messages + mail.messages)


class Ledger:
    """Classes of mail with their hours, and kinds with their rhythms."""

    def __init__(self) -> None:
        self.classes: dict[str, _Class] = {}
        self.of_source: defaultdict[str, list[_Class]] = defaultdict(list)
        self.of_mail: defaultdict[tuple[str, str], list[_Class]] = defaultdict(list)
        self.source_hours: defaultdict[str, dict[int, HourCount]] = defaultdict(dict)
        self.rhythms: dict[MailKind, Rhythm] = {}
        self._kinds: dict[MailKind, _KindCount] = {}

    @property
    def last(self) -> dict[MailKind, LastMail]:
        """What is known of kinds that have a rhythm."""
        return {kind: self._kinds[kind].seen for kind in self.rhythms}

    def count(self, mail: Mail) -> None:
        """Count a message, as `store.sources` and `store.rhythms` do."""
        class_id, at_ms = mail.mail_class.class_id, mail.at_ms
        one = self.classes.get(class_id)
        if one is None:
            one = self.classes[class_id] = _Class(mail)
            self.of_source[mail.mail_class.source_id].append(one)
            self.of_mail[mail.mail_class.sender_domain, mail.mail_class.template].append(one)
        hour = at_ms // HOUR_MS
        of_source = self.source_hours[mail.mail_class.source_id]
        for hours in (one.hours, of_source):
            before = hours.get(hour, _NOTHING)
            hours[hour] = HourCount(
                before.messages + mail.messages,
                before.recipients + mail.recipients,
                before.refused + mail.refused,
            )
        one.last_ms = at_ms
        for kind in one.kinds:
            if kind not in self._kinds:
                self._kinds[kind] = _KindCount(at_ms)
            self._kinds[kind].count(mail)

    def messages_by_template(self, since_ms: int) -> dict[str, int]:
        """Return how many messages came since the hour of a time."""
        found: dict[str, int] = {}
        for kind, count in self._kinds.items():
            if kind.template is not None:
                recent = takewhile(
                    lambda one: one.hour >= since_ms // HOUR_MS, reversed(count.hours)
                )
                came = sum(one.messages for one in recent)
                found[kind.template] = found.get(kind.template, 0) + came
        return found

    def forget_hours(self, before: int) -> None:
        """Forget old hours of classes; those of sources and kinds stay."""
        for one in self.classes.values():
            if one.hours and next(iter(one.hours)) < before:
                one.hours = {hour: count for hour, count in one.hours.items() if hour >= before}

    def learn(self, now_ms: int) -> None:
        """Make the rhythms anew, as the watch does a few times a day."""
        since = now_ms // HOUR_MS - WEEKS * WEEK
        known = (
            (kind, count.hours)
            for kind, count in self._kinds.items()
            if count.seen.first_ms <= now_ms - LEARNT_MS and count.seen.messages >= LEAST_MESSAGES
        )
        self.rhythms = rhythms_of(
            {kind: [one for one in hours if one.hour >= since] for kind, hours in known}
        )
