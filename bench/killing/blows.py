"""What each kill met, and what came of it; the checker has judged it already.

A message is in doubt at a kill when the sink had its final dot from the killed worker and the
queue did not have it recorded: whoever comes next must send it again (RFC 1047). The dot counts
also when it was still in a socket's buffer: the worker had sent it.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from bench.checking.facts import Delivery, Facts, Kill
from bench.checking.report import Report

END_WORKERS = frozenset({"delivery", "supervisor", "all", "stop"})
"""Blows after which other deliverers work."""


class Doubt(StrEnum):
    """How far a message in doubt had come at the kill."""

    UNREAD = "dot sent, not yet read by the sink"
    UNANSWERED = "read by the sink, not yet answered"
    UNRECORDED = "answered, not yet recorded"


@dataclass(slots=True)
class Blow:
    """A kill with what was in doubt at it and what arrived again because of it."""

    kill: Kill
    acknowledged: int = 0  # between the blow before and this one
    lost: int = 0  # of these
    unexpected: int = 0  # between this one and the next
    doubts: dict[str, Doubt] = field(default_factory=dict)
    answer_ages_ms: list[float] = field(default_factory=list)  # of those UNRECORDED
    extras: Counter[Doubt] = field(default_factory=Counter)

    def slots(self) -> Counter[str]:
        """Sort the slots of the killed worker by how far their messages had come."""
        still_open = self.kill.open or ()
        found: Counter[str] = Counter()
        for message in self.kill.begun:
            if message in self.doubts:
                found[self.doubts[message].value] += 1
            elif message in still_open:
                found["final dot not yet sent"] += 1
            else:
                found["recorded, slot about to be freed"] += 1
        return found

    def weigh(self, delivery: Delivery) -> None:
        """Put a message among the doubts if it belongs there."""
        if delivery.dot_ns is None or delivery.message not in (self.kill.open or ()):
            return
        at_ns, answered_ns = self.kill.at_ns, delivery.answered_ns
        if delivery.dot_ns > at_ns:
            doubt = Doubt.UNREAD
        elif answered_ns is None or answered_ns > at_ns:
            doubt = Doubt.UNANSWERED
        else:
            doubt = Doubt.UNRECORDED
            self.answer_ages_ms.append((at_ns - answered_ns) / 1e6)
        self.doubts[delivery.message] = doubt


def find_blows(facts: Facts, report: Report) -> list[Blow]:
    """Return the kills of a campaign, and at last one that never fell, with what came after all."""
    blows = [Blow(kill) for kill in [*facts.kills, Kill(1 << 63, "none")]]
    ends = [blow for blow in blows if blow.kill.role in END_WORKERS]
    for delivery in facts.deliveries:
        if (blow := _next(ends, delivery.connection.opened_ns)) is not None:
            blow.weigh(delivery)
    for extra in report.extras:
        if extra.kill is not None:
            blow = next(one for one in blows if one.kill is extra.kill)
            blow.extras[blow.doubts.get(extra.key[0], Doubt.UNRECORDED)] += 1
    _lay(blows, facts, report)
    return blows


def _lay(blows: Sequence[Blow], facts: Facts, report: Report) -> None:
    """Lay what was acknowledged or lost to the next blow, what nobody sent to the last one."""
    stamps_ns = [blow.kill.at_ns for blow in blows]
    for at_ns in _times(sent.acknowledged_ns for sent in facts.sent.values()):
        blows[bisect_left(stamps_ns, at_ns)].acknowledged += 1
    for at_ns in _times(one.at_ns for one in report.anomalies if one.kind == "lost"):
        blows[bisect_left(stamps_ns, at_ns)].lost += 1
    for at_ns in _times(one.at_ns for one in report.anomalies if one.kind == "unexpected"):
        blows[max(0, bisect_right(stamps_ns, at_ns) - 1)].unexpected += 1


def _times(times: Iterable[int | None]) -> Iterable[int]:
    return (at_ns for at_ns in times if at_ns is not None)


def _next(blows: Sequence[Blow], at_ns: int) -> Blow | None:
    number = bisect_right(blows, at_ns, key=lambda blow: blow.kill.at_ns)
    return blows[number] if number < len(blows) else None
