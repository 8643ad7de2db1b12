"""What the logs and the queue of a campaign prove. Nothing else is asked.

1. Acknowledged messages were delivered or are queued: nothing is lost.
2. Delivered messages were sent by a client, and are whole: nothing is invented or damaged.
3. A message arrives once more only if it was in doubt when its worker was killed, and once for
   that kill: extras of a kill are at most what was in doubt at it.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import pairwise

from bench.killing.doubts import Blow, Lives
from bench.killing.evidence import Evidence, Take


@dataclass(slots=True)
class Findings:
    """The result; the campaign is passed when every list is empty."""

    blows: list[Blow]
    lost: list[str] = field(default_factory=list)
    invented: list[Take] = field(default_factory=list)
    damaged: list[Take] = field(default_factory=list)
    beyond: list[Take] = field(default_factory=list)  # arrived again without having been in doubt
    over_bound: list[Blow] = field(default_factory=list)
    sent: int = 0  # content begun
    acknowledged: int = 0
    delivered: int = 0  # different messages
    queued: int = 0
    unacknowledged: int = 0  # delivered though the client heard no 250
    refused: int = 0  # of these, those whose client heard a refusal
    acknowledged_before: dict[int, int] = field(default_factory=dict)  # by number of the next blow
    lost_before: dict[int, int] = field(default_factory=dict)
    invented_after: dict[int, int] = field(default_factory=dict)  # by number of the last blow

    @property
    def is_passed(self) -> bool:
        """True when nothing is lost, invented or damaged, and every extra is explained."""
        return not (self.lost or self.invented or self.damaged or self.beyond or self.over_bound)

    @property
    def extras(self) -> int:
        """All second and further arrivals, explained or not."""
        return sum(blow.extras.total() for blow in self.blows) + len(self.beyond)


def verify(evidence: Evidence) -> Findings:
    """Return what the facts of a campaign prove."""
    findings = Findings(blows=[Blow(kill) for kill in evidence.kills])
    arrivals: dict[str, list[Take]] = defaultdict(list)
    for take in evidence.takes:
        arrivals[take.message_id].append(take)
    _count(evidence, arrivals.keys(), findings)
    _find_lost(evidence, arrivals.keys(), findings)
    _find_foreign(evidence, findings)
    lives = Lives(findings.blows, evidence.takes)
    for takes in arrivals.values():
        _explain_extras(takes, lives, findings)
    findings.over_bound = [b for b in findings.blows if b.extras.total() > len(b.doubts)]
    return findings


def _count(evidence: Evidence, delivered: Iterable[str], findings: Findings) -> None:
    sent = evidence.sent
    findings.sent = sum(message.digest is not None for message in sent.values())
    findings.delivered = len(set(delivered))
    findings.queued = len(evidence.queued)
    unheard = [sent[i] for i in delivered if i in sent and sent[i].acknowledged_ns is None]
    findings.unacknowledged = len(unheard)
    findings.refused = sum(message.is_refused for message in unheard)


def _find_lost(evidence: Evidence, delivered: Iterable[str], findings: Findings) -> None:
    """Each acknowledged message is laid to the first blow after its 250."""
    safe = evidence.queued | set(delivered)
    stamps_ns = [kill.at_ns for kill in evidence.kills]
    acknowledged: dict[int, int] = defaultdict(int)
    lost: dict[int, int] = defaultdict(int)
    for message_id, message in evidence.sent.items():
        if message.acknowledged_ns is None:
            continue
        findings.acknowledged += 1
        number = bisect_left(stamps_ns, message.acknowledged_ns)
        acknowledged[number] += 1
        if message_id not in safe:
            findings.lost.append(message_id)
            lost[number] += 1
    findings.acknowledged_before, findings.lost_before = acknowledged, lost


def _find_foreign(evidence: Evidence, findings: Findings) -> None:
    """Find what no client sent, and what is not as its client sent it."""
    stamps_ns = [kill.at_ns for kill in evidence.kills]
    after: dict[int, int] = defaultdict(int)
    for take in evidence.takes:
        message = evidence.sent.get(take.message_id)
        if message is None or message.digest is None:
            findings.invented.append(take)
            after[bisect_right(stamps_ns, take.taken_ns) - 1] += 1
        elif message.digest != take.digest:
            findings.damaged.append(take)
    findings.invented_after = after


def _explain_extras(takes: list[Take], lives: Lives, findings: Findings) -> None:
    """Lay each arrival after the first to the kill that left the one before it in doubt."""
    for earlier, later in pairwise(takes):
        blow = lives.end_of(earlier)
        if blow is None or blow is lives.end_of(later) or later.message_id not in blow.doubts:
            findings.beyond.append(later)
        else:
            blow.extras[blow.doubts[later.message_id]] += 1
