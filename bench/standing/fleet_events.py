"""What the journal of a provider says of a fleet that sends to it. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from bench.rig.limited_provider import Event

_ENDED_WITHIN_S = 0.5  # so soon the connections of what was killed are seen to end


def count(events: Iterable[Event], kind: str, from_s: float, to_s: float) -> int:
    """Count the events of one kind in a span, its end excluded."""
    return sum(event.kind == kind and from_s <= event.at_s < to_s for event in events)


def busiest(events: Iterable[Event], kind: str, window_s: float) -> int:
    """Return the most events of one kind in any window of a length, its end excluded."""
    times = sorted(event.at_s for event in events if event.kind == kind)
    first = most = 0
    for last, at_s in enumerate(times):
        while times[first] <= at_s - window_s:
            first += 1
        most = max(most, last - first + 1)
    return most


def most_open(events: Iterable[Event]) -> int:
    """Return how many connections were open at once at most."""
    steps = {"open": 1, "closed": -1}
    count = most = 0
    for event in sorted(events, key=lambda event: event.at_s):
        count += steps.get(event.kind, 0)
        most = max(most, count)
    return most


def in_hands(events: Sequence[Event], killed_s: float) -> set[str]:
    """Return the mail that was in flight at a kill, by bench id.

    It is what came last on each connection that ended then: without an answer, or answered a
    moment before.
    """
    ended = {
        event.connection
        for event in events
        if event.kind == "closed" and killed_s <= event.at_s < killed_s + _ENDED_WITHIN_S
    }
    last = {
        event.connection: event.bench_id
        for event in events
        if event.kind == "taken" and event.connection in ended
    }
    return set(last.values())


def extras(events: Iterable[Event]) -> Counter[str]:
    """Return how often each message arrived beyond the first time, without what was refused."""
    counts = Counter((event.bench_id, event.kind) for event in events)
    found: Counter[str] = Counter()
    for (bench_id, kind), taken in counts.items():
        extra = taken - counts[bench_id, "refused"] - 1
        if kind == "taken" and extra > 0:
            found[bench_id] = extra
    return found
