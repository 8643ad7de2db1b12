"""The guard: which sources send as a compromised host does. Pure; docs/guard.md has the rules.

A source is judged by what it sent in the last hour, and in each hour of the last day: what went
wrong once stays told of for a day. What a source or class did before is its history.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from functools import cached_property
from itertools import islice, pairwise

from relaygw.mail.clock import DAY_MS, HOUR_MS
from relaygw.mail.mail_class import OTHER_SOURCES
from relaygw.policy.mail_counts import (
    NOTHING,
    Counted,
    HourCount,
    Moment,
    Past,
    moments,
    much,
    new_by_hour,
    sums,
    weight_by_hour,
)
from relaygw.settings.guard import Guard

HISTORY_DAYS = 14
_USUAL_FACTOR = 4.0  # times what is usual at this hour
_BUSIEST_FACTOR = 1.5  # and times the busiest hour
_NEWNESS_FACTOR = 2.0  # times what a source usually sends of new templates
_HELD_FACTOR = 25.0  # what is known is held beyond so many times its busiest hour
_REFUSED_LEAST = 10  # recipients
FIRST_DAY_FACTOR = 4
"""On the first day of a queue, when all is new, a flood is more than so many limits."""
_ZONES_H = (-3, 0, 3)  # a sale may begin by a shop's clock
FIRST_DAY = "first day"
"""Ends the key of an incident about what came late on the first day of a queue."""


class Trouble(StrEnum):
    """What a source does."""

    NEW = "new"  # much mail of templates that it did not send before
    BURST = "burst"  # much more of what is known than is usual
    FLOOD = "flood"  # much mail in all
    REFUSED = "refused"  # many of its recipients are refused


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """What of a source is to be held: some classes, or all that is new since a time, or all."""

    class_ids: tuple[str, ...] = ()
    new_since_ms: int | None = None  # transactional classes that were first seen since then


@dataclass(frozen=True, slots=True, kw_only=True)
class Suspect:
    """A source, and what is wrong with its mail."""

    trouble: Trouble
    key: str  # of its incident
    source_id: str
    class_ids: tuple[str, ...]  # whose mail it is, the most first
    per_hour: int  # messages, or a fifth of their recipients; of REFUSED recipients
    limit: int
    since_ms: int
    held: Held | None = None  # what is parked where guard.action says hold
    sources: int = 1  # that send it together
    messages: int = 0  # where their recipients count for more


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What is known beside the counts of a source."""

    counting_since_ms: int  # when this queue first counted anything
    learnt_until_ms: int = 0  # what came before, on its first day, is nobody's flood
    allowed: Mapping[str, int] = field(default_factory=dict)  # source or class: messages an hour
    alarmed: Mapping[str, int] = field(default_factory=dict)  # keys of open incidents: since when
    bounced: int = 0  # of its recipients, at providers within the last hour
    busiest_hour: int = 0  # of the source, longer ago than the counts tell


def is_worth_a_look(two_hours: HourCount, bounced: int, guard: Guard) -> bool:
    """Return whether a source can be a suspect, by what it sent in this hour and the one before."""
    is_much = two_hours.weight > guard.new_per_hour
    return is_much or two_hours.refused + bounced >= _REFUSED_LEAST


def judge(
    classes: Sequence[Counted],
    guard: Guard,
    known: Known,
    *,
    now_ms: int,
    is_whole_day: bool = True,
) -> list[Suspect]:
    """Return the suspicion against one source; `classes` are all of it.

    Not of a whole day: for who looks often, and has no incident that lasts.
    """
    if not classes:
        return []
    judging = _Judging(classes, guard, known)
    found: dict[str, Suspect] = {}
    for moment in islice(moments(now_ms), None if is_whole_day else 1):
        for suspect in judging.at(moment):
            found.setdefault(suspect.key, suspect)
    return list(found.values())


class _Judging:
    """One source while it is judged."""

    def __init__(self, classes: Sequence[Counted], guard: Guard, known: Known) -> None:
        self._classes = classes
        self._guard = guard
        self._known = known
        self._source_id = classes[0].mail_class.source_id
        self._may_hold = classes[0].mail_class.host != OTHER_SOURCES  # else several are one
        self._first_ms = min(counted.first_seen_ms for counted in classes)

    @cached_property
    def _totals(self) -> Mapping[int, HourCount]:
        return sums(counted.hours for counted in self._classes)

    @cached_property
    def _weights(self) -> Mapping[int, float]:
        return weight_by_hour(self._classes)

    @cached_property
    def _newness(self) -> Mapping[int, float]:
        return new_by_hour(self._classes)

    def at(self, moment: Moment) -> Iterator[Suspect]:
        """Find what was wrong in that hour."""
        hours = (hour for counted in self._classes for hour in _hours(counted, moment))
        two_hours = HourCount(*(sum(counts) for counts in zip(*hours, strict=True)))
        bounced = self._known.bounced * moment.is_now
        if not is_worth_a_look(two_hours, bounced, self._guard):
            return
        new = [*self._much_new(moment)]
        volume = self._burst(moment) or (None if new else self._flood(moment))
        refused = self._much_refused(moment, bounced)
        yield from filter(None, [*new, volume, refused])

    def _is_quiet(self, moment: Moment) -> bool:
        at = datetime.fromtimestamp(moment.at_ms / 1000)
        days = {(at + timedelta(hours=late)).date() for late in _ZONES_H}
        return any(day in quiet for quiet in self._guard.quiet for day in days)

    def _is_new_source(self, moment: Moment) -> bool:
        return self._first_ms > moment.at_ms - DAY_MS

    # --- what is new ------------------------------------------------------------------------

    def _much_new(self, moment: Moment) -> Iterator[Suspect]:
        """Look for mail of templates that are new, together: subjects may be random."""
        usual = max(self._guard.new_per_hour, self._known.allowed.get(self._source_id, 0))
        for key, members in self._cohorts(moment).items():
            least = usual * (FIRST_DAY_FACTOR if key.endswith(FIRST_DAY) else 1)
            counts = {member: much(member, moment) for member in members}
            if sum(counts.values()) <= least:
                continue
            limit = max(least, self._usual_newness(moment))
            if sum(counts.values()) > limit:
                held = self._held_new(counts, limit, moment)
                yield self._suspect(Trouble.NEW, key, moment, counts, limit, held)

    def _cohorts(self, moment: Moment) -> dict[str, list[Counted]]:
        """Return classes that are new, each with its incident, by the day of their first mail.

        They are new for a day, and as long as that incident lasts. On the first day of a queue
        all is new: what is there early is learnt, and what comes late has an incident for each
        program, whatever hosts it runs on.
        """
        cohorts: dict[str, list[Counted]] = {}
        for counted in self._classes:
            if (
                counted.is_promotional
                or counted.is_moved
                or counted.class_id in self._known.allowed
            ):
                continue
            if not self._came_late(counted, moment):
                continue
            key = self._cohort(counted)
            if counted.first_seen_ms > moment.at_ms - DAY_MS or self._lasts(key, moment):
                cohorts.setdefault(key, []).append(counted)
        return cohorts

    def _cohort(self, total: Counted) -> str:
        if total.first_seen_ms < self._known.counting_since_ms + DAY_MS:
            return f"{total.program if total.mail_class.script else self._source_id} {FIRST_DAY}"
        return f"{self._source_id} {total.first_seen_ms // DAY_MS}"

    def _lasts(self, key: str, moment: Moment) -> bool:
        alarmed_ms = self._known.alarmed.get(key)
        return alarmed_ms is not None and moment.at_ms - alarmed_ms < HISTORY_DAYS * DAY_MS

    def _held_new(
        self, counts: Mapping[Counted, float], limit: float, moment: Moment
    ) -> Held | None:
        """Select the mail to hold: this hour's, older mail only if that is not enough.

        What a release brought some hours before an attack flows on.
        """
        later = self._later(counts, moment)
        since_ms, much = moment.at_ms, 0.0
        for total in sorted(later, key=lambda total: -total.first_seen_ms):
            if much > limit and total.first_seen_ms < moment.at_ms - HOUR_MS:
                break
            since_ms, much = total.first_seen_ms, much + later[total]
        return Held(new_since_ms=since_ms) if much > limit else None

    def _later(self, counts: Mapping[Counted, float], moment: Moment) -> dict[Counted, float]:
        """Return the counts of classes that may be held."""
        if self._is_quiet(moment) and not self._is_new_source(moment):
            return {}
        return {
            total: count
            for total, count in counts.items()
            if count and self._came_late(total, moment) and not total.is_known_mail
        }

    def _came_late(self, total: Counted, moment: Moment) -> bool:
        """Return whether a class came after the first half of what was counted of a first day.

        What was there before is learnt, and so is the begin, when a test mail may have been all
        there was. Nothing changes once it is told of, or the day is over.
        """
        begun_ms = self._known.counting_since_ms
        if total.first_seen_ms >= begun_ms + DAY_MS:
            return True
        told_ms = self._known.alarmed.get(self._cohort(total), moment.at_ms)
        counted_ms = min(moment.at_ms, told_ms, begun_ms + DAY_MS) - begun_ms
        return total.first_seen_ms > max(begun_ms + counted_ms // 2, self._known.learnt_until_ms)

    def _usual_newness(self, moment: Moment) -> int:
        """Return a limit by what is usual: some sources write each subject anew.

        By the third of the busiest days: an attack makes nothing usual. The first day of a source
        tells nothing, all of it is new then.
        """
        first, end = self._first_ms // HOUR_MS + 24, moment.hour - 22
        days: dict[int, float] = {}
        for hour, weight in self._newness.items():
            if max(first, end - HISTORY_DAYS * 24) <= hour < end:
                day = (end - 1 - hour) // 24
                days[day] = max(days.get(day, 0), weight)
        busiest = sorted(days.values(), reverse=True)
        return int(_NEWNESS_FACTOR * busiest[2]) if len(busiest) > 2 else 0

    # --- what is much -----------------------------------------------------------------------

    def _history_end(self, moment: Moment) -> int:
        """Return the hour that ends what is known: a day ago, or when an incident began."""
        end = moment.hour - 22
        if self._lasts(self._source_id, moment):
            end = min(end, self._known.alarmed[self._source_id] // HOUR_MS)
        return end

    def _burst(self, moment: Moment) -> Suspect | None:
        """Look for classes that are known, and come much more often than at this hour before."""
        counts: dict[Counted, float] = {}
        limits: list[float] = []
        held: list[str] = []
        for total in () if self._is_quiet(moment) else self._classes:
            count = much(total, moment)
            is_known = total.is_moved or total.first_seen_ms <= moment.at_ms - DAY_MS
            if count <= self._guard.new_per_hour or total.is_promotional or not is_known:
                continue
            if self._came_late(total, moment) and self._lasts(self._cohort(total), moment):
                continue
            limit, past = self._usual(total, moment)
            if count > limit:
                counts[total] = count
                limits.append(limit)
                beyond = past.most * _HELD_FACTOR + self._missed(past.counted, moment)
                if count > max(self._guard.source_per_hour, beyond):
                    held.append(total.class_id)
        if not counts:
            return None
        parked = Held(class_ids=tuple(held)) if held else None
        return self._suspect(Trouble.BURST, self._source_id, moment, counts, sum(limits), parked)

    def _missed(self, total: Counted, moment: Moment) -> float:
        """Return the amount that may wait elsewhere: the usual one of a silence of the last day.

        It counts where it was longer than any before: a thin spool that comes back has the mail of
        an outage, and takes hours to hand it over.
        """
        begin = moment.hour - (HISTORY_DAYS + 1) * 24
        seen = sorted(hour for hour in total.hours if begin <= hour <= moment.hour)
        silences = [(after - before - 1, before, after) for before, after in pairwise(seen)]
        silent, last, ended = max(silences, key=lambda silence: silence[0], default=(0, 0, 0))
        if not silent or ended <= moment.hour - 24:
            return 0.0
        usual = sum(total.weight(hour) for hour in seen if hour <= last) / (last - seen[0] + 1)
        return usual * silent

    def _usual(self, total: Counted, moment: Moment) -> tuple[float, Past]:
        """Return the limit of a class at an hour, and the history that it goes by.

        Where hosts come and go, the share of one that is not there each day says little: it may
        send what all of them usually send.
        """
        end = self._history_end(moment)
        past = Past.of(total, moment, end - HISTORY_DAYS * 24, end)
        limit = _limit(past)
        if total.is_moved and past.days < HISTORY_DAYS // 2:
            past = Past.of(total.of_fleet, moment, end - HISTORY_DAYS * 24, end)
            limit = max(limit, min(_limit(past), self._guard.source_per_hour))
        allowed = self._known.allowed
        least = allowed.get(total.class_id, allowed.get(self._source_id, 0))
        return max(limit, least, self._guard.new_per_hour), past

    def _flood(self, moment: Moment) -> Suspect | None:
        """Look at all mail of a source, of both streams."""
        is_new = self._is_new_source(moment)
        if self._is_quiet(moment) and not is_new:
            return None
        counts = {counted: much(counted, moment) for counted in self._classes}
        ids = [self._source_id, *(counted.class_id for counted in self._classes)]
        allowed = sum(self._known.allowed.get(key, 0) for key in ids)
        least = max(self._guard.source_per_hour, allowed)
        if moment.at_ms < self._known.counting_since_ms + DAY_MS:
            least *= FIRST_DAY_FACTOR
        if sum(counts.values()) <= least:
            return None
        end = self._history_end(moment)
        most = max((weight for hour, weight in self._weights.items() if hour < end), default=0.0)
        most = max(most, self._known.busiest_hour)
        limit = max(least, most * _USUAL_FACTOR)
        if sum(counts.values()) <= limit:
            return None
        held = is_new and self._held_new(counts, limit, moment) is not None
        parked = Held() if held else None
        return self._suspect(Trouble.FLOOD, self._source_id, moment, counts, limit, parked)

    # --- what is refused --------------------------------------------------------------------

    def _much_refused(self, moment: Moment, bounced: int) -> Suspect | None:
        recipients: dict[Counted, float] = {}
        refused: dict[Counted, float] = {}
        for counted in self._classes:
            now, before = _hours(counted, moment)
            recipients[counted] = now.recipients + before.recipients * moment.earlier
            refused[counted] = now.refused + before.refused * moment.earlier
        total, count = sum(recipients.values()), sum(refused.values()) + bounced
        if count < _REFUSED_LEAST:
            return None
        share = max(self._guard.refused_share, 2 * self._usual_refused(moment))
        if count <= share * total:
            return None
        whose = refused if any(refused.values()) else recipients
        later = self._later(recipients, moment) if self._is_new_source(moment) else ()
        held = Held(new_since_ms=min(counted.first_seen_ms for counted in later)) if later else None
        key, limit = f"{self._source_id} refused", share * total
        return self._suspect(Trouble.REFUSED, key, moment, whose, limit, held, per_hour=count)

    def _usual_refused(self, moment: Moment) -> float:
        end = self._history_end(moment)
        earlier = [count for hour, count in self._totals.items() if hour < end]
        refused = sum(count.refused for count in earlier)
        return refused / sum(count.recipients for count in earlier) if refused else 0.0

    def _suspect(
        self,
        trouble: Trouble,
        key: str,
        moment: Moment,
        counts: Mapping[Counted, float],
        limit: float,
        held: Held | None,
        *,
        per_hour: float | None = None,
    ) -> Suspect:
        ordered = sorted(filter(counts.__getitem__, counts), key=counts.__getitem__, reverse=True)
        begun_ms = (moment.hour - (moment.earlier > 0)) * HOUR_MS
        first_ms = min((total.first_seen_ms for total in ordered), default=begun_ms)
        return Suspect(
            trouble=trouble,
            key=key,
            source_id=self._source_id,
            class_ids=tuple(total.class_id for total in ordered),
            per_hour=int(sum(counts.values()) if per_hour is None else per_hour),
            messages=int(sum(_messages(total, moment) for total in counts)),
            limit=int(limit),
            since_ms=max(begun_ms, first_ms),
            held=held if moment.is_now and self._may_hold else None,
        )


# --- counts -----------------------------------------------------------------------------------


def _hours(total: Counted, moment: Moment) -> tuple[HourCount, HourCount]:
    return total.hours.get(moment.hour, NOTHING), total.hours.get(moment.hour - 1, NOTHING)


def _messages(total: Counted, moment: Moment) -> float:
    now, before = _hours(total, moment)
    return now.messages + before.messages * moment.earlier


def _limit(past: Past) -> float:
    return max(past.usual * _USUAL_FACTOR, past.most * _BUSIEST_FACTOR)
