"""Counts of classes of mail by hour, as policies judge them; pure."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple, Self

from relaygw.mail.clock import HOUR_MS
from relaygw.mail.mail_class import MailClass
from relaygw.settings.routes import Stream

RECIPIENTS_OF_ONE = 5  # an order to the buyer, the shop and archives is one message
_DIGITS = re.compile(r"\d+")


class HourCount(NamedTuple):
    """What came within an hour."""

    messages: int = 0
    recipients: int = 0
    refused: int = 0  # of the recipients, by this gateway

    @property
    def weight(self) -> float:
        """How much it is: messages, or a fifth of their recipients where that is more."""
        return max(self.messages, self.recipients / RECIPIENTS_OF_ONE)


NOTHING = HourCount()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Counted:
    """A class and its counts."""

    mail_class: MailClass
    first_seen_ms: int
    hours: Mapping[int, HourCount]  # by hours since the epoch; of 15 days, more does no harm
    is_known_mail: bool = False  # a day old from another source: its template, sender's domain
    is_moved: bool = False  # that source has another host or listener, nothing else
    elsewhere: Mapping[int, HourCount] = field(default_factory=dict)  # from there, as far as known

    @property
    def class_id(self) -> str:
        """Its id."""
        return self.mail_class.class_id

    @property
    def program(self) -> str:
        """What sends it."""
        mail_class = self.mail_class
        return program_of(mail_class.user, mail_class.uid, mail_class.script)

    @property
    def is_promotional(self) -> bool:
        """True for mail that people subscribe to."""
        return self.mail_class.stream == Stream.PROMOTIONAL

    @property
    def of_fleet(self) -> Counted:
        """The class with what came from its other hosts."""
        return replace(self, hours=sums((self.hours, self.elsewhere)))

    def weight(self, hour: int) -> float:
        """How much came in an hour; of promotional mail the messages."""
        count = self.hours.get(hour, NOTHING)
        return count.messages if self.is_promotional else count.weight


class Moment(NamedTuple):
    """An hour that is judged: one that is over, or the 60 minutes that end now."""

    at_ms: int
    hour: int
    earlier: float = 0.0  # how much of the hour before belongs to it
    is_now: bool = False


class Past(NamedTuple):
    """What came of a class in the days before an hour."""

    counted: Counted
    usual: float  # the most at this hour of the day, or an hour sooner or later
    most: float  # its busiest hour
    days: int  # on which something came

    @classmethod
    def of(cls, total: Counted, moment: Moment, begin: int, end: int) -> Self:
        """Look at the hours from one to another."""
        hours = [hour for hour in total.hours if begin <= hour < end]
        usual = (total.weight(hour) for hour in hours if (moment.hour - hour + 1) % 24 <= 2)
        most = max(map(total.weight, hours), default=0.0)
        days = len({(end - 1 - hour) // 24 for hour in hours})
        return cls(total, max(usual, default=0.0), most, days)


def moments(now_ms: int) -> Iterator[Moment]:
    """Yield this hour, and those of the last day."""
    hour, into_ms = divmod(now_ms, HOUR_MS)
    yield Moment(now_ms, hour, 1 - into_ms / HOUR_MS, is_now=True)
    for past in range(hour - 1, hour - 24, -1):
        yield Moment((past + 1) * HOUR_MS - 1, past)


def much(total: Counted, moment: Moment) -> float:
    """Return how much of a class came in an hour."""
    return total.weight(moment.hour) + total.weight(moment.hour - 1) * moment.earlier


def sums(several: Iterable[Mapping[int, HourCount]]) -> dict[int, HourCount]:
    """Add up counts of the same hours."""
    totals: dict[int, HourCount] = {}
    for hours in several:
        for hour, count in hours.items():
            before = totals.get(hour, NOTHING)
            totals[hour] = HourCount(
                before.messages + count.messages,
                before.recipients + count.recipients,
                before.refused + count.refused,
            )
    return totals


def weight_by_hour(classes: Iterable[Counted]) -> dict[int, float]:
    """Return how much came in each hour."""
    weights: dict[int, float] = defaultdict(float)
    for counted in classes:
        for hour in counted.hours:
            weights[hour] += counted.weight(hour)
    return dict(weights)


def new_by_hour(classes: Iterable[Counted]) -> dict[int, float]:
    """Return how much came in each hour of what was no day old then."""
    newness: dict[int, float] = defaultdict(float)
    for counted in classes:
        first = counted.first_seen_ms // HOUR_MS
        if not counted.is_promotional:
            for hour in range(first, first + 24):
                newness[hour] += counted.weight(hour)
    return newness


def program_of(user: str, uid: int | None, script: str) -> str:
    """Return the program that sends mail, on whatever host: in a fleet each has the same.

    Numbers in the name of a script do not count: a release may have a directory of its own.
    """
    return f"{user} {uid} {_DIGITS.sub('#', script)}".strip()
