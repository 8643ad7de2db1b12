"""What must hold at every moment: leases, limits of providers, staging."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby, pairwise

from bench.checking.facts import Delivery, Facts, Key, Lease, Limit, Mode
from bench.checking.report import Anomaly, Report
from bench.checking.twice import may_have_ended

TOLERANCE = 0.05
_NS = 1e9
_PRODUCTION = "production"


def find_two_leases(leases: Iterable[Lease]) -> list[Anomaly]:
    """Return where two workers held one recipient at once."""
    by_key: dict[Key, list[Lease]] = defaultdict(list)
    for lease in leases:
        by_key[lease.key].append(lease)
    return [
        Anomaly("two leases", key, f"{later.worker} took what {earlier.worker} held", later.from_ns)
        for key, held in by_key.items()
        for earlier, later in pairwise(sorted(held, key=lambda lease: lease.from_ns))
        if earlier.worker != later.worker and later.from_ns < earlier.until_ns
    ]


def find_at_once(facts: Facts) -> list[Anomaly]:
    """Return where one recipient's mail was sent to its final dot on two connections at once.

    Not so where its worker had died, or a doubt was recorded, before it was begun again.
    """
    by_key: dict[Key, list[Delivery]] = defaultdict(list)
    for delivery in facts.deliveries:
        if delivery.dot_ns is not None:
            for key in delivery.keys:
                by_key[key].append(delivery)
    return [
        Anomaly("at once", key, "sent on two connections at once", later.begun_ns)
        for key, deliveries in by_key.items()
        for earlier, later in pairwise(sorted(deliveries, key=lambda one: one.begun_ns))
        if earlier.ended_ns is not None
        and later.begun_ns < earlier.ended_ns
        and not _is_excused(facts, key, earlier, later)
    ]


def _is_excused(facts: Facts, key: Key, earlier: Delivery, later: Delivery) -> bool:
    fate = facts.fates.get(key)
    if fate is not None and fate.doubts:
        return True
    from_ns, to_ns = earlier.begun_ns, later.begun_ns
    if any(from_ns <= at_ns <= to_ns for at_ns in facts.doubts.get(key, ())):
        return True
    return any(
        from_ns < kill.at_ns < to_ns
        and may_have_ended(kill, earlier)
        and (kill.open is None or key[0] in kill.open)
        for kill in facts.kills
    )


def find_over_limits(facts: Facts, report: Report) -> list[Anomaly]:
    """Return which limits were exceeded by more than 5 %; notes how much was used of each."""
    found = []
    for provider, limits in facts.limits.items():
        dots_ns = sorted(
            one.dot_ns
            for one in facts.deliveries
            if one.dot_ns is not None and one.connection.provider == provider
        )
        for limit, until_ns in _periods(limits):
            if limit.rate_per_s is not None:
                most, at_ns = _busiest(dots_ns, limit.at_ns, until_ns, limit.window_s)
                allowed = limit.rate_per_s * limit.window_s
                over = most / allowed - 1
                over = max(over, report.overshoots.get(provider, over))
                report.overshoots[provider] = over
                if most > max(allowed * (1 + TOLERANCE), allowed + 1):
                    what = f"{most} in {limit.window_s:g} s, {allowed:g} are allowed"
                    found.append(Anomaly("over limit", (provider, ""), what, at_ns))
            if limit.connections is not None:
                most, at_ns = _most_open(facts, provider, limit.at_ns, until_ns)
                report.most_open[provider] = max(most, report.most_open.get(provider, 0))
                if most > limit.connections * (1 + TOLERANCE):
                    what = f"{most} connections, {limit.connections} are allowed"
                    found.append(Anomaly("over limit", (provider, ""), what, at_ns))
    return found


def _periods(limits: Sequence[Limit]) -> Iterator[tuple[Limit, float]]:
    ends = [later.at_ns for later in limits[1:]]
    return zip(limits, [*ends, float("inf")], strict=True)


def _busiest(
    times_ns: Sequence[int], from_ns: float, until_ns: float, window_s: float
) -> tuple[int, int]:
    """Return the most in any window, its end excluded, and when that ended."""
    inside = [at_ns for at_ns in times_ns if from_ns <= at_ns < until_ns]
    first = most = when = 0
    for last, at_ns in enumerate(inside):
        while inside[first] <= at_ns - window_s * _NS:
            first += 1
        if last - first + 1 > most:
            most, when = last - first + 1, at_ns
    return most, when


def _most_open(facts: Facts, provider: str, from_ns: float, until_ns: float) -> tuple[int, int]:
    """Return how many connections were open at once at most within a span, and when."""
    steps = [
        step
        for one in facts.connections
        if one.provider == provider and not one.is_turned_away
        for step in ((one.opened_ns, 1), (one.closed_ns, -1))
    ]
    count = most = when = 0
    for at_ns, step in sorted((at_ns, step) for at_ns, step in steps if at_ns is not None):
        count += step
        if from_ns <= at_ns < until_ns and count > most:
            most, when = count, at_ns
    return most, when


def find_leaks(facts: Facts) -> list[Anomaly]:
    """Return what left for a recipient whom staging forbids, at its acceptance or now."""
    if not facts.modes:
        return []
    gateways = [list(modes) for _, modes in groupby(sorted(facts.modes, key=_gateway), _gateway)]
    found = []
    for delivery in facts.deliveries:
        sent = facts.sent.get(delivery.message)
        spans = [(delivery.begun_ns, delivery.begun_ns)]
        if sent is not None and sent.acknowledged_ns is not None:
            spans.append((sent.begun_ns, sent.acknowledged_ns))
        for key in delivery.keys:
            if key[1] and any(_is_forbidden(gateways, span, key[1]) for span in spans):
                what = "left though staging does not list it"
                found.append(Anomaly("leak", key, what, delivery.begun_ns))
    return found


def _is_forbidden(gateways: Sequence[Sequence[Mode]], span: tuple[int, int], address: str) -> bool:
    """True when every gateway was in a mode that forbids an address for all of a span."""
    names = {address.lower(), f"@{address.lower().rpartition('@')[2]}"}
    return all(
        any(
            mode.name != _PRODUCTION
            and mode.from_ns <= span[0]
            and span[1] < mode.until_ns
            and not names & mode.allow
            for mode in modes
        )
        for modes in gateways
    )


def _gateway(mode: Mode) -> str:
    return mode.gateway
