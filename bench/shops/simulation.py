"""A gateway of a shop through many days, judged by a clock that is an argument."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from heapq import merge
from itertools import chain, pairwise

from bench.shops.ledger import Ledger
from bench.shops.profiles import Shop
from bench.shops.traffic import BEGIN_MS, DAY_MS, HOUR_MS, Mail, Stop, Traffic, template_of
from relaygw.policy.expected_mail import Expect, unmet
from relaygw.policy.rhythm import LEAST_MS, WEEKS, MailKind
from relaygw.policy.silence import Silent, silent_kinds

LOOK_MS = 5 * 60_000
_KEPT_MS = 17 * DAY_MS
_ZONES_MS = 3 * HOUR_MS
_STOPPED_FOR_MS = 6 * DAY_MS  # or a day longer than it may be before somebody is told


@dataclass(frozen=True)
class Alarm:
    """Somebody is told."""

    at_ms: int
    rule: str
    key: str
    words: str = ""
    source_id: str = ""

    def __str__(self) -> str:
        day, into_ms = divmod(self.at_ms - BEGIN_MS, DAY_MS)
        hour, minute = divmod(into_ms // 60_000, 60)
        return f"day {day:2} {hour:02}:{minute:02}  {self.rule}  {self.key}  {self.words}".rstrip()


@dataclass(frozen=True)
class Missed:
    """A planted stop and what became of it."""

    stop: Stop
    kind: MailKind
    last_ms: int
    longest_ms: int  # the longest pause of this mail in the weeks before
    told_ms: int | None = None

    @property
    def limit_ms(self) -> int:
        """By when somebody has to be told, after the last mail."""
        return max(LEAST_MS, 4 * self.longest_ms)

    @property
    def until_ms(self) -> int:
        """When the mail comes again: not before somebody has to be told."""
        return max(self.stop.until_ms, self.last_ms + self.limit_ms + DAY_MS)

    @property
    def is_found(self) -> bool:
        """True when somebody was told in time; looks are minutes apart here."""
        limit_ms = self.limit_ms + LOOK_MS
        return self.told_ms is not None and self.told_ms - self.last_ms <= limit_ms


Judge = Callable[[Ledger, int, Mapping[tuple[str, str], Alarm]], Iterator[Alarm]]
"""Another policy that looks at the counts, at a time, and at the alarms that last."""


@dataclass
class Simulation:
    """One shop, its mail, and who is told of what."""

    shop: Shop
    seed: int
    days: int = 90
    stops: Sequence[Stop] = ()
    planted: Sequence[Mail] = ()  # by time
    judges: Sequence[Judge] = ()
    look_ms: int = LOOK_MS
    is_silence_told: bool = True
    alarms: list[Alarm] = field(default_factory=list)
    mails: int = 0
    times: defaultdict[MailKind, list[int]] = field(default_factory=lambda: defaultdict(list))
    ledger: Ledger = field(default_factory=Ledger)
    begun: dict[Stop, Missed] = field(default_factory=dict)
    _open: dict[tuple[str, str], Alarm] = field(default_factory=dict)
    _silent: dict[str, Silent | None] = field(default_factory=dict)

    def run(self) -> None:
        """Let all days pass."""
        traffic, look_ms = Traffic(self.shop, self.seed), BEGIN_MS
        coming = chain.from_iterable(traffic.of_day(day) for day in range(self.days))
        for mail in merge(coming, self.planted, key=lambda one: one.at_ms):
            while mail.at_ms >= look_ms:
                self._look(look_ms)
                look_ms += self.look_ms
            if self._is_stopped(mail):
                continue
            self.ledger.count(mail)
            self.mails += mail.messages
            if self.stops:
                self._note_time(mail)
        while look_ms < BEGIN_MS + self.days * DAY_MS - _ZONES_MS:  # elsewhere the last day ended
            self._look(look_ms)
            look_ms += self.look_ms

    def _note_time(self, mail: Mail) -> None:
        kind = MailKind.of(
            mail.mail_class.sender_domain, mail.mail_class.stream, mail.mail_class.template
        )
        self.times[kind].append(mail.at_ms)
        self.times[kind.whole].append(mail.at_ms)

    def _is_stopped(self, mail: Mail) -> bool:
        for stop in self.stops:
            if stop.begins_before(mail.mail_class.template, mail.at_ms):
                if stop not in self.begun:
                    self.begun[stop] = self._begin(stop)
                if mail.at_ms < self.begun[stop].until_ms:
                    return True
        return False

    def _begin(self, stop: Stop) -> Missed:
        kinds = [
            kind
            for kind in self.times
            if (kind.template is None if stop.flow is None else kind.template == stop.flow)
        ]
        kind = max(kinds, key=lambda one: len(self.times[one]))
        since_ms = stop.from_ms - WEEKS * 7 * DAY_MS
        recent = [at_ms for at_ms in self.times[kind] if at_ms > since_ms]
        pauses = (
            b - a for a, b in pairwise(recent) if not any(a < one.from_ms < b for one in self.stops)
        )
        return Missed(stop, kind, recent[-1], max(pauses, default=0))

    def _look(self, now_ms: int) -> None:
        if (now_ms - BEGIN_MS) % DAY_MS == 0:
            if self.is_silence_told:
                self.ledger.learn(now_ms)
            self.ledger.forget_hours((now_ms - _KEPT_MS) // HOUR_MS)
        found = list(self._quiet(now_ms)) if self.is_silence_told else []
        for judge in self.judges:
            found.extend(judge(self.ledger, now_ms, self._open))
        kinds = {(one.rule, one.key): one for one in found}
        self.alarms.extend(one for kind, one in kinds.items() if kind not in self._open)
        self._open = {kind: self._open.get(kind, one) for kind, one in kinds.items()}

    def _quiet(self, now_ms: int) -> Iterator[Alarm]:
        silent = silent_kinds(
            self.ledger.rhythms,
            self.ledger.last,
            now_ms=now_ms,
            up_since_ms=BEGIN_MS,
            told=self._silent,
        )
        self._silent = {one.kind.key: one for one in silent}
        for one in silent:
            words = f"{_minutes(now_ms - one.last_ms)}, usually up to {_minutes(one.usual_ms)}"
            yield Alarm(now_ms, "silence", one.kind.key, words)
        if self.shop.expects and now_ms >= BEGIN_MS + DAY_MS:
            expects = [Expect(*one) for one in self.shop.expects]
            for expect, came in unmet(expects, self.ledger.messages_by_template(now_ms - DAY_MS)):
                yield Alarm(now_ms, "silence", f"expect {expect.subject}", f"{came} came")


def _minutes(span_ms: int) -> str:
    minutes = span_ms // 60_000
    return f"{minutes} min" if minutes < 180 else f"{minutes / 60:.1f} h"


# --- planted stops --------------------------------------------------------------------------


def plan_stops(shop: Shop, seed: int, number: int, days: int) -> list[Stop]:
    """Return stops of mail with a rhythm, at any hour of different weeks; one in three of all.

    Between them is the time that the longest takes.
    """
    rng = random.Random(f"stops {shop.name} {seed}")
    promised = [template_of(one.subject) for one in shop.flows if one.is_promised]
    first, each = 30, (days - 30 - 8) // number
    stops = []
    for one in range(number):
        day = first + one * each + rng.randrange(max(1, each - 16))
        from_ms = BEGIN_MS + day * DAY_MS + rng.randrange(DAY_MS)
        flow = None if rng.random() < 1 / 3 else rng.choice(promised)
        stops.append(Stop(flow, from_ms, from_ms + _STOPPED_FOR_MS))
    return stops


def missed(sim: Simulation) -> list[Missed]:
    """Return what became of each planted stop."""
    found = []
    for one in sim.begun.values():
        told = [
            alarm.at_ms
            for alarm in sim.alarms
            if alarm.rule == "silence"
            and one.last_ms < alarm.at_ms <= one.until_ms
            and alarm.key in (one.kind.key, one.kind.whole.key)
        ]
        found.append(replace(one, told_ms=min(told, default=None)))
    return found
