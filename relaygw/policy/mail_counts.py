"""Counts of classes of mail by hour, as policies judge them; pure."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from relaygw.mail.mail_class import MailClass
from relaygw.settings.routes import Stream

HOUR_MS = 3_600_000
_DIGITS = re.compile(r"\d+")


class HourCount(NamedTuple):
    """What came within an hour."""

    messages: int = 0
    recipients: int = 0
    refused: int = 0  # of the recipients, by this gateway


NOTHING = HourCount()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Counted:
    """A class and its counts."""

    mail_class: MailClass
    first_seen_ms: int
    hours: Mapping[int, HourCount]  # by hours since the epoch; of 15 days, more does no harm
    is_known_mail: bool = False  # a day old from another source: its template, sender's domain
    is_moved: bool = False  # that source has another host or listener, nothing else

    @property
    def class_id(self) -> str:
        """Its id."""
        return self.mail_class.class_id

    @property
    def program(self) -> str:
        """What sends it."""
        one = self.mail_class
        return program_of(one.source_id, one.user, one.uid, one.script)

    @property
    def is_promotional(self) -> bool:
        """True for mail that people subscribe to."""
        return self.mail_class.stream == Stream.PROMOTIONAL


def total_by_hour(classes: Iterable[Counted]) -> dict[int, HourCount]:
    """Return what came in each hour."""
    totals: dict[int, HourCount] = {}
    for one in classes:
        for hour, count in one.hours.items():
            before = totals.get(hour, NOTHING)
            totals[hour] = HourCount(*(a + b for a, b in zip(before, count, strict=True)))
    return totals


def new_by_hour(classes: Iterable[Counted]) -> Counter[int]:
    """Return how much came in each hour of what was no day old then."""
    newness: Counter[int] = Counter()
    for one in classes:
        first = one.first_seen_ms // HOUR_MS
        if not one.is_promotional:
            for hour in range(first, first + 24):
                newness[hour] += one.hours.get(hour, NOTHING).messages
    return newness


def program_of(source_id: str, user: str, uid: int | None, script: str) -> str:
    """Return what sends mail, on whatever host; without a script it is the source itself.

    Numbers in the name of a script do not count: a release may have a directory of its own.
    """
    return f"{user} {uid} {_DIGITS.sub('#', script)}".strip() if script else source_id
