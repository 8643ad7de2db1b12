"""How long mail of a kind usually pauses. Pure."""

from __future__ import annotations

import re
from array import array
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from typing import NamedTuple

from relaygw.mail.clock import HOUR_MS
from relaygw.mail.mail_class import OTHER_SUBJECTS, MailClass

WEEK = 168  # hours
WEEKS = 8  # that a rhythm is made of
LEARNT_MS = 14 * 86_400_000  # nothing that is known for less has a rhythm
LEAST_MESSAGES = 8
LEAST_MS = 30 * 60_000
LOOK_MS = 60_000  # what is told a minute early is told in time
BACK = 3  # messages
_MOST_STOPS = 4  # of the weeks that a rhythm is made of
_FACTOR = 4.0
_REGULAR_FACTOR = 1.5  # where no week was much longer than another
_REGULAR = 0.8  # the shortest against the longest
_REGULAR_WEEKS = 4
_WEEKS_SHARE = 0.75  # mail that comes in fewer weeks is sent when somebody likes to
_RARE = 4  # messages a day: the rhythm of less takes twice as long to learn
_SELDOM = 0.5  # of the days: that of what comes on fewer takes three times as long
_REGULAR_MS = 12 * HOUR_MS  # of shorter pauses chance makes some look so
_DIGITS = re.compile(r"\d+")


class MailKind(NamedTuple):
    """What mail is alike."""

    sender_domain: str
    stream: str
    template: str | None = None  # None: all of that domain and stream

    @classmethod
    def of(cls, sender_domain: str, stream: str, template: str | None = None) -> MailKind:
        """Return a kind; domains of hosts with numbers are one."""
        return cls(_DIGITS.sub("#", sender_domain), stream, template)

    @property
    def whole(self) -> MailKind:
        """The kind of all mail of its domain and stream."""
        return self._replace(template=None)

    @property
    def key(self) -> str:
        """What tells it from others, in one line."""
        words = [self.sender_domain, self.stream]
        return " ".join(words if self.template is None else [*words, self.template])

    @property
    def kind_id(self) -> str:
        """16 hex digits, the same wherever they are made."""
        text = "\0".join([self.sender_domain, self.stream, *filter(None, [self.template])])
        is_whole = "whole" if self.template is None else "one"
        return blake2b(f"{is_whole} {text}".encode("utf-8", "replace"), digest_size=8).hexdigest()

    @classmethod
    def kinds_of(cls, mail_class: MailClass) -> tuple[MailKind, ...]:
        """Return the kinds that mail of a class is of, none of mail that is not counted apart."""
        if not mail_class.sender_domain or mail_class.template == OTHER_SUBJECTS:
            return ()
        kind = cls.of(mail_class.sender_domain, mail_class.stream, mail_class.template)
        return kind, kind.whole


class MailHour(NamedTuple):
    """What came of a kind in an hour in which something came."""

    hour: int  # since the epoch
    messages: int
    gap_ms: int  # the longest wait that ended in it; 0 where that is not known


class Rhythm:
    """For how long a kind of mail may pause, by hour of the week."""

    __slots__ = ("_may_s", "_usual_s", "stops")

    def __init__(
        self, usual_s: Sequence[int], may_s: Sequence[int], stops: Sequence[Pause] = ()
    ) -> None:
        self._usual_s = array("I", usual_s)
        self._may_s = array("I", may_s)
        self.stops = stops  # pauses that are not usual: somebody was told of them

    @classmethod
    def of(cls, hours: Sequence[MailHour], stops: Sequence[Pause] = ()) -> Rhythm | None:
        """Return the rhythm of hours in order; None: there is none, or not yet.

        `stops`: pauses of more mail than this, that somebody was told of.
        """
        if not hours or sum(hour.messages for hour in hours) < LEAST_MESSAGES:
            return None
        span = hours[-1].hour - hours[0].hour + 1
        if span * HOUR_MS < LEARNT_MS * _learning(hours, span) - HOUR_MS:
            return None
        if len({hour.hour // WEEK for hour in hours}) < span / WEEK * _WEEKS_SHARE:
            return None
        pauses = [pause for pause in _pauses(hours) if not any(map(pause.covers, stops))]
        return cls._of_pauses(*_usual_pauses(pauses))

    @classmethod
    def _of_pauses(cls, pauses: Sequence[Pause], stops: Sequence[Pause] = ()) -> Rhythm:
        # of an hour that no other week tells of any pause may be usual
        any_ms = [max((pause.gap_ms for pause in (*pauses, *stops)), default=0)]
        by_hour = [_usual(weeks) or any_ms for weeks in _by_hour(pauses)]
        usual = [weeks[-1] for weeks in by_hour]
        may = [
            max(LEAST_MS, int(longest * _factor(weeks)))
            for longest, weeks in zip(usual, by_hour, strict=True)
        ]
        return cls([gap_ms // 1000 for gap_ms in usual], [gap_ms // 1000 for gap_ms in may], stops)

    def broken(self, since_ms: int, now_ms: int) -> int | None:
        """Return the longest usual pause if nothing came since a time and that is too long.

        A pause in the busy hours counts by itself, however quiet the night before it was: what is
        usual is that of the hours it takes to be too long.
        """
        may_s = usual_s = 0
        for hour in range(now_ms // HOUR_MS, since_ms // HOUR_MS - 1, -1):
            may_s = max(may_s, self._may_s[hour % WEEK])
            usual_s = max(usual_s, self._usual_s[hour % WEEK])
            allowed_ms = may_s * 1000 - LOOK_MS
            if now_ms - max(since_ms, hour * HOUR_MS) >= allowed_ms:
                return usual_s * 1000
            if now_ms - since_ms < allowed_ms:
                return None
        return None


def _learning(hours: Sequence[MailHour], span: int) -> int:
    """Return how many times as long as usual a rhythm takes to learn."""
    days = span / 24
    if len({hour.hour // 24 for hour in hours}) < days * _SELDOM:
        return 3
    return 2 if sum(hour.messages for hour in hours) < days * _RARE else 1


class Pause(NamedTuple):
    """Time in which nothing came, and the hours since the epoch that it touched."""

    first: int
    last: int
    gap_ms: int

    def covers(self, other: Pause) -> bool:
        """True if nothing came all the time of another."""
        return self.first <= other.first and other.last <= self.last


def rhythms_of(hours: Mapping[MailKind, Sequence[MailHour]]) -> dict[MailKind, Rhythm]:
    """Return the rhythm of each kind that has one, by its hours in order.

    When all of a domain was silent, somebody was told of that, and of none of its kinds.
    """
    found: dict[MailKind, Rhythm] = {}
    for kind in sorted(hours, key=lambda hour: hour.template is not None):
        whole = found.get(kind.whole)
        rhythm = Rhythm.of(hours[kind], whole.stops if whole else ())
        if rhythm is not None:
            found[kind] = rhythm
    return found


def _pauses(hours: Sequence[MailHour]) -> list[Pause]:
    """Return the longest pause that ended in each hour in which something came."""
    found = []
    before = hours[0].hour
    for hour, _, gap_ms in hours:
        found.append(Pause(before, hour, max(gap_ms, (hour - before - 1) * HOUR_MS)))
        before = hour
    return found


def _usual_pauses(pauses: list[Pause]) -> tuple[list[Pause], list[Pause]]:
    """Return the pauses without the longest ones, of which somebody was told, and these.

    So say all the others, or those before: what came later may have been longer than usual, too.
    """
    stops: list[Pause] = []
    for _ in range(min(_MOST_STOPS, len(pauses))):
        longest = max(pauses, key=lambda pause: pause.gap_ms)
        others = [pause for pause in pauses if pause is not longest]
        before = [other for other in others if other.last <= longest.first]
        if not any(_is_broken_by(longest, its) for its in (others, before)):
            break
        pauses = others
        stops.append(longest)
    return pauses, stops


def _is_broken_by(longest: Pause, others: Sequence[Pause]) -> bool:
    if not others or others[-1].last - others[0].first < WEEK:
        return False
    # when it ended is known to the hour: at the earliest
    end_ms = max(longest.last * HOUR_MS, longest.first * HOUR_MS + longest.gap_ms)
    return Rhythm._of_pauses(others).broken(end_ms - longest.gap_ms, end_ms) is not None


def _by_hour(pauses: Sequence[Pause]) -> list[list[int]]:
    """Return the longest pause that touched each hour of the week, week by week."""
    longest: dict[int, int] = {}
    for first, last, gap_ms in pauses:
        for touched in range(first, last + 1):
            if gap_ms > longest.get(touched, 0):
                longest[touched] = gap_ms
    found: list[list[int]] = [[] for _ in range(WEEK)]
    for hour, pause_ms in longest.items():
        found[hour % WEEK].append(pause_ms)
    return [sorted(weeks) for weeks in found]


def _usual(weeks: Sequence[int]) -> Sequence[int]:
    """Return some pauses without the longest ones, of which somebody would have been told."""
    end = len(weeks)
    while end > max(4, len(weeks) * 3 / 4) and weeks[end - 1] > _told_after(weeks[end - 2]):
        end -= 1
    return weeks[:end]


def _told_after(pause_ms: int) -> float:
    return max(LEAST_MS, _FACTOR * pause_ms)


def _factor(weeks: Sequence[int]) -> float:
    is_known = len(weeks) >= _REGULAR_WEEKS and weeks[0] >= _REGULAR_MS
    return _REGULAR_FACTOR if is_known and weeks[0] >= _REGULAR * weeks[-1] else _FACTOR
