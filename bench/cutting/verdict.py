"""What an image proves: its history up to the cut, and what is on it, for the checker of all.

What is still to be sent is written down as if the next worker had sent it, so that the checker
sees whether it is known, whole, and there at all; the cut itself is a kill of everybody.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from operator import attrgetter

from bench.checking.checker import check
from bench.checking.report import Report
from bench.cutting.cuts import Cut
from bench.cutting.look import Found
from bench.history import INFO, INVOKE, OK, Event

LOSSES = ("lost", "given up")


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the checker found, and what was wrong with database and files."""

    cut: Cut
    report: Report
    problems: list[str]
    again: int  # messages that the provider has, and would be sent again

    @property
    def is_survived(self) -> bool:
        """True when nothing is as it must not be."""
        return self.report.is_clean and not self.problems

    def count(self, *kinds: str) -> int:
        """Return how much of some kinds there is that must not be."""
        counts = self.report.counts()
        return sum(counts[kind] for kind in kinds)


def history_at(cut: Cut, history: Sequence[Event], found: Found) -> list[Event]:
    """Return what happened before a cut, and what is there after it; `history` is in order."""
    past = history[: bisect_left(history, cut.at_ns, key=attrgetter("time"))]
    return [*past, *_afterwards(cut, found)]


def judge(cut: Cut, history: Sequence[Event], found: Found) -> Verdict:
    """Judge an image by the history up to it."""
    report = check(history)
    problems = [*found.problems, *(f"{one}: in the queue twice" for one in sorted(found.twice))]
    return Verdict(cut, report, problems, report.duplicated.total())


def _afterwards(cut: Cut, found: Found) -> list[Event]:
    """Return the cut, and what comes of the image."""
    # a file whose message is stored is only removed: its name is known
    left = {one: digest for one, digest in found.dropped.items() if one not in found.delivered}
    waiting = {**left, **found.queued}
    at_ns = cut.at_ns
    events = [
        Event(at_ns, "power", INVOKE, "kill", {"role": "all"}),
        Event(at_ns, "power", INFO, "kill", {"open": sorted(waiting)}),
    ]
    events += [
        Event(at_ns, "queue", INFO, "fate", {"message": one, "state": "delivered"})
        for one in found.delivered
    ]
    for number, (message_id, digest) in enumerate(waiting.items(), 1):
        value = {"message": message_id, "digest": digest}
        name, sent_ns = f"image/{number}", at_ns + number
        events += [
            Event(sent_ns, name, INVOKE, "deliver", value),
            Event(sent_ns, name, INFO, "dot", value),
            Event(sent_ns, name, OK, "deliver", {}),
        ]
    return events
