"""The balance of a load: what became of each message that was answered 250. Pure.

Three witnesses: the client's samples, the journals of the providers, and the queue database.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from bench.rig.latency import Sample
from bench.rig.limited_provider import Event
from bench.rig.queue_fates import Fate
from bench.standing.figure import Figure


@dataclass(frozen=True)
class Balance:
    """Messages by bench id, each list in order."""

    lost: list[str]  # acknowledged, at no provider, and not in the queue any more
    bounced: list[str]
    twice: list[str]  # taken twice, though no doubt explains it
    twice_in_doubt: list[str]  # taken twice, the first time without an answer
    in_doubt: list[str]  # taken without an answer, and so not known to be delivered
    queued: list[str]  # still in the queue

    @property
    def figures(self) -> list[Figure]:
        """What must be nothing."""
        return [
            Figure("lost", len(self.lost), "", 0, 0),
            Figure("bounced", len(self.bounced), "", 0, 0),
            Figure("sent twice", len(self.twice), "", 0, 0),
        ]

    @property
    def notes(self) -> list[str]:
        """The rest in one line, and the first of each list that should be empty."""
        wrong = {"lost": self.lost, "bounced": self.bounced, "twice": self.twice}
        return [
            f"in doubt {len(self.in_doubt)}, of these sent twice {len(self.twice_in_doubt)}; "
            f"still queued {len(self.queued)}",
            *(f"{name}: {' '.join(ids[:4])}"[:74] for name, ids in wrong.items() if ids),
        ]


def balance(
    samples: Iterable[Sample], events: Iterable[Event], fates: Mapping[str, Fate]
) -> Balance:
    """Return the balance; `events` are those of all providers."""
    counts = Counter((event.bench_id, event.kind) for event in events)
    acknowledged = [each.bench_id for each in samples if each.code == 250]
    arrived = {one: counts[one, "taken"] - counts[one, "refused"] for one in acknowledged}
    unanswered = {one: arrived[one] - counts[one, "accepted"] for one in acknowledged}
    queued = [one for one in acknowledged if one in fates and fates[one].is_open]
    kept = set(queued)
    return Balance(
        lost=[one for one in acknowledged if not arrived[one] and one not in kept],
        bounced=[one for one in acknowledged if one in fates and fates[one].is_bounced],
        twice=[one for one in acknowledged if counts[one, "accepted"] > 1],
        twice_in_doubt=[one for one in acknowledged if unanswered[one] and arrived[one] > 1],
        in_doubt=[one for one in acknowledged if unanswered[one]],
        queued=queued,
    )


def first_at_s(events: Iterable[Event], kind: str) -> dict[str, float]:
    """Return when each message first had an event of one kind, by bench id."""
    found: dict[str, float] = {}
    for event in events:
        if event.kind == kind:
            found.setdefault(event.bench_id, event.at_s)
    return found
