"""What an image proves: pure, on what is known of each message and what was found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from bench.checking.facts import Sent
from bench.cutting.cuts import Cut
from bench.cutting.look import Found


@dataclass(slots=True)
class Verdict:
    """The cut is survived when all lists but `again` are empty."""

    cut: Cut
    acknowledged: int = 0  # before the cut
    lost: list[str] = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)
    invented: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    again: list[str] = field(default_factory=list)  # the provider has them; still to be sent

    @property
    def is_survived(self) -> bool:
        """True when nothing is lost, damaged or invented, and database and files are whole."""
        return not (self.lost or self.damaged or self.invented or self.problems)


def judge(cut: Cut, sent: Mapping[str, Sent], taken_ns: Mapping[str, int], found: Found) -> Verdict:
    """Compare what was promised before a cut with what is there after it."""
    verdict = Verdict(cut, problems=found.problems)
    waiting = {**found.dropped, **found.queued}
    taken = {one for one, at_ns in taken_ns.items() if at_ns < cut.at_ns}
    for message_id, message in sent.items():
        if message.acknowledged_ns is None or message.acknowledged_ns >= cut.at_ns:
            continue
        verdict.acknowledged += 1
        is_there = message_id in waiting or message_id in found.delivered & taken
        if not is_there:
            verdict.lost.append(message_id)
    for message_id, digest in waiting.items():
        message = sent.get(message_id, Sent(0))
        if message.digest is None:
            verdict.invented.append(message_id)
        elif message.digest != digest:
            verdict.damaged.append(message_id)
    verdict.invented += [*(found.delivered - taken), *found.twice]
    verdict.again = [message_id for message_id in waiting if message_id in taken]
    return verdict
