"""The guard over simulated counts: a ledger has what `alerting.guard` reads from the queue."""

from __future__ import annotations

import random
from bisect import bisect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from bench.shops.ledger import Ledger
from bench.shops.profiles import Shop
from bench.shops.simulation import Alarm, Simulation
from bench.shops.traffic import BEGIN_MS, DAY_MS, HOUR_MS, Compromise, compromise
from relaygw.mail.clock import utc_time
from relaygw.mail.mail_class import MailClass
from relaygw.policy.guard import FIRST_DAY, Known, Suspect, is_worth_a_look, judge
from relaygw.policy.mail_counts import Counted, HourCount, sums
from relaygw.settings.guard import Days, Guard

FOUND_WITHIN_MS = HOUR_MS
_LOOKED_AT_MS = 9 * HOUR_MS
_RULES = {"new": "source_new"}


class GuardJudge:
    """Judges the sources of one shop: always, or for some hours behind some times."""

    def __init__(self, shop: Shop, *, behind_ms: Sequence[int] | None = None) -> None:
        self._behind_ms = None if behind_ms is None else sorted(behind_ms)
        self._busiest: dict[tuple[str, int], int] = {}
        days = [utc_time(BEGIN_MS + day * DAY_MS).date() for day in shop.sale_days]
        self._guard = Guard(quiet=tuple(Days(day, day) for day in days if shop.quiet_told))
        self._looked: dict[str, int] = {}
        self.held: set[str] = set()  # what an action of hold parks, by incident and day

    def __call__(
        self, ledger: Ledger, now_ms: int, lasting: Mapping[tuple[str, str], Alarm]
    ) -> Iterator[Alarm]:
        if self._behind_ms is not None:
            since_ms = now_ms - _LOOKED_AT_MS
            if bisect(self._behind_ms, now_ms) == bisect(self._behind_ms, since_ms):
                return
        alarmed = {
            key: one.at_ms for (rule, key), one in lasting.items() if rule.startswith("source")
        }
        wanted = {key.partition(" ")[0] for key in alarmed}
        is_first = any(key.endswith(FIRST_DAY) for key in alarmed)
        for source_id, hours in ledger.source_hours.items():
            if source_id in wanted or self._is_busy(hours, now_ms, 24 if is_first else 1):
                for one in self._suspects(ledger, source_id, alarmed, now_ms):
                    rule = _RULES.get(one.trouble.value, "source_volume")
                    first = ledger.classes[one.class_ids[0]].mail_class
                    what = f"“{first.template}” of {first.script} on {first.host}"
                    words = f"{one.trouble}: {one.per_hour} > {one.limit}, {what}"
                    if one.held is not None:
                        self.held.add(f"{one.key} {now_ms // DAY_MS} {words}")
                    yield Alarm(now_ms, rule, one.key, words, source_id)

    def _is_busy(self, hours: Mapping[int, HourCount], now_ms: int, back: int) -> bool:
        hour = now_ms // HOUR_MS
        recent = [hours[each] for each in range(hour - back, hour + 1) if each in hours]
        if not recent:
            return False
        both = HourCount(*(sum(column) for column in zip(*recent, strict=True)))
        return is_worth_a_look(both, 0, self._guard)

    def _suspects(
        self, ledger: Ledger, source_id: str, alarmed: Mapping[str, int], now_ms: int
    ) -> list[Suspect]:
        hour = now_ms // HOUR_MS
        is_whole_day = bool(alarmed) or self._looked.get(source_id) != hour
        self._looked[source_id] = hour
        counted = [
            Counted(mail_class=one.mail_class, first_seen_ms=one.first_ms, hours=one.hours)
            for one in ledger.of_source[source_id]
        ]
        known = Known(
            counting_since_ms=BEGIN_MS,
            alarmed=alarmed,
            busiest_hour=self._busiest_hour(ledger, source_id, hour),
        )
        found = judge(counted, self._guard, known, now_ms=now_ms, is_whole_day=is_whole_day)
        if not found:
            return []
        counted = [self._known_elsewhere(ledger, one, now_ms - DAY_MS) for one in counted]
        return judge(counted, self._guard, known, now_ms=now_ms, is_whole_day=is_whole_day)

    def _busiest_hour(self, ledger: Ledger, source_id: str, hour: int) -> int:
        key = source_id, hour
        if key not in self._busiest:
            hours = ledger.source_hours[source_id].items()
            earlier = (one.messages for at, one in hours if at < hour - 24)
            self._busiest = {one: most for one, most in self._busiest.items() if one[1] == hour}
            self._busiest[key] = max(earlier, default=0)
        return self._busiest[key]

    def _known_elsewhere(self, ledger: Ledger, counted: Counted, before_ms: int) -> Counted:
        mine = counted.mail_class
        others = [
            one
            for one in ledger.of_mail[mine.sender_domain, mine.template]
            if one.first_ms < before_ms and one.mail_class.source_id != mine.source_id
        ]
        its = [one for one in others if _is_of_fleet(one.mail_class, mine)]
        is_much = any(
            count.weight > self._guard.new_per_hour / 2 for count in counted.hours.values()
        )
        elsewhere = sums(one.hours for one in its) if is_much else {}
        return replace(counted, is_known_mail=bool(others), is_moved=bool(its), elsewhere=elsewhere)


def _is_of_fleet(one: MailClass, mine: MailClass) -> bool:
    its, own = ((each.user, each.uid, each.script, each.stream) for each in (one, mine))
    return its == own


def held_in_sales(shop: Shop, seed: int, days: int) -> set[str]:
    """Return what is held on sale days of which the guard was not told."""
    begins = (BEGIN_MS + day * DAY_MS for day in shop.sale_days)
    behind = [at_ms + part * _LOOKED_AT_MS for at_ms in begins for part in range(3)]
    judge = GuardJudge(replace(shop, quiet_told=False), behind_ms=behind)
    if behind:
        Simulation(shop, seed, days, judges=[judge], is_silence_told=False).run()
    return judge.held


# --- planted compromises ----------------------------------------------------------------------


@dataclass(frozen=True)
class Caught:
    """A planted compromise and what became of it."""

    planted: Compromise
    told_ms: int | None
    sent: int  # by then

    @property
    def is_found(self) -> bool:
        """True when somebody was told in time."""
        return self.told_ms is not None and self.told_ms - self.planted.at_ms <= FOUND_WITHIN_MS


def plan_compromises(shop: Shop, seed: int, number: int, days: int) -> list[Compromise]:
    """Return compromises at any hour of different weeks, each of another kind.

    None on a day of which the guard is told that much of what is known comes.
    """
    rng = random.Random(f"compromises {shop.name} {seed}")
    first, each = 21, (days - 21 - 2) // number
    kind = rng.randrange(6)
    planned = []
    for one in range(number):
        while True:
            day = first + one * each + rng.randrange(each - 3)
            at_ms = BEGIN_MS + day * DAY_MS + rng.randrange(DAY_MS)
            if not shop.quiet_told or not {day - 1, day, day + 1} & {*shop.sale_days}:
                break
        planned.append(compromise(shop, kind + one, at_ms, rng))
    return planned


def caught(sim: Simulation, planted: list[Compromise]) -> list[Caught]:
    """Return what became of each."""
    found = []
    for one in planted:
        sources = {mail.mail_class.source_id for mail in one.mails}
        told = min(
            (
                alarm.at_ms
                for alarm in sim.alarms
                if alarm.source_id in sources
                and one.at_ms <= alarm.at_ms <= one.mails[-1].at_ms + DAY_MS
            ),
            default=None,
        )
        end_ms = told or one.mails[-1].at_ms
        found.append(Caught(one, told, sum(mail.at_ms <= end_ms for mail in one.mails)))
    return found
