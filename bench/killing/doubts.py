"""What was in doubt at each kill, and which second arrivals that explains.

A message is in doubt at a kill when the sink had its final dot from the killed worker and the
queue did not have it recorded: whoever comes next must send it again (RFC 1047). The dot counts
also when it was still in a socket's buffer: the worker had sent it.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from bench.killing.evidence import END_WORKERS, Kill, Take


class Doubt(StrEnum):
    """How far a message in doubt had come at the kill."""

    UNREAD = "dot sent, not yet read by the sink"
    UNANSWERED = "read by the sink, not yet answered"
    UNRECORDED = "answered, not yet recorded"


@dataclass(slots=True)
class Blow:
    """A kill with what was in doubt at it and what arrived again because of it."""

    kill: Kill
    doubts: dict[str, Doubt] = field(default_factory=dict)
    answer_ages_ms: list[float] = field(default_factory=list)  # of those UNRECORDED
    extras: Counter[Doubt] = field(default_factory=Counter)

    def slots(self) -> Counter[str]:
        """Sort the slots of the killed worker by how far their messages had come."""
        still_open = set(self.kill.open_ids)
        found: Counter[str] = Counter()
        for message_id in self.kill.begun_ids:
            if message_id in self.doubts:
                found[self.doubts[message_id].value] += 1
            elif message_id in still_open:
                found["final dot not yet sent"] += 1
            else:
                found["recorded, slot about to be freed"] += 1
        return found


class Lives:
    """The lives of the delivery workers, each ended by a blow."""

    def __init__(self, blows: Sequence[Blow], takes: Sequence[Take]) -> None:
        self._ends = [blow for blow in blows if blow.kill.role in END_WORKERS]
        self._ends_ns = [blow.kill.at_ns for blow in self._ends]
        for take in takes:
            self._weigh(take)

    def end_of(self, take: Take) -> Blow | None:
        """Return the blow that ended the worker whose connection brought a message."""
        number = bisect_right(self._ends_ns, take.opened_ns)
        return self._ends[number] if number < len(self._ends) else None

    def _weigh(self, take: Take) -> None:
        """Put a message among the doubts of the blow that ended its worker if it belongs there."""
        blow = self.end_of(take)
        if blow is None or take.message_id not in blow.kill.open_ids:
            return
        at_ns = blow.kill.at_ns
        if take.taken_ns > at_ns:
            doubt = Doubt.UNREAD
        elif take.answered_ns is None or take.answered_ns > at_ns:
            doubt = Doubt.UNANSWERED
        else:
            doubt = Doubt.UNRECORDED
            blow.answer_ages_ms.append((at_ns - take.answered_ns) / 1e6)
        blow.doubts[take.message_id] = doubt
