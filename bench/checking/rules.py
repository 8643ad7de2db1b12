"""What must hold at every moment: leases, limits of providers, staging."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise

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


def find_unleased(facts: Facts) -> list[Anomaly]:
    """Return final dots of workers that held no lease then, where leases of the mail are told."""
    by_key: dict[Key, list[Lease]] = defaultdict(list)
    for lease in facts.leases:
        by_key[lease.key].append(lease)
    return [
        Anomaly("no lease", key, f"sent by {one.worker or 'a worker'} without a lease", one.dot_ns)
        for one in facts.deliveries
        if one.dot_ns is not None
        for key in one.keys
        if key in by_key
        and not any(
            one.worker in ("", lease.worker) and lease.from_ns <= one.dot_ns <= lease.lent_until_ns
            for lease in by_key[key]
        )
    ]


def find_at_once(facts: Facts) -> list[Anomaly]:
    """Return where one recipient's mail was sent to its final dot on two connections at once.

    Not so where its worker had died, or a doubt was recorded, before it was begun again. Each
    doubt that the queue only counts excuses one.
    """
    by_key: dict[Key, list[Delivery]] = defaultdict(list)
    last_ns: dict[int, int] = {}  # when each connection last had to do with mail
    for delivery in facts.deliveries:
        if delivery.dot_ns is not None:
            for key in delivery.keys:
                by_key[key].append(delivery)
        last_ns[id(delivery.connection)] = delivery.begun_ns
    found = []
    for key, deliveries in by_key.items():
        fate = facts.fates.get(key)
        counted = (fate.doubts if fate is not None else None) or 0
        for earlier, later in pairwise(sorted(deliveries, key=lambda one: one.begun_ns)):
            if earlier.ended_ns is None or later.begun_ns >= earlier.ended_ns:
                continue
            if _is_excused(facts, key, earlier, later):
                continue
            is_left = last_ns[id(earlier.connection)] <= earlier.begun_ns  # it was used no more
            if counted > 0 and is_left:
                counted -= 1
                continue
            what = "sent on two connections at once"
            found.append(Anomaly("at once", key, what, later.begun_ns))
    return found


def _is_excused(facts: Facts, key: Key, earlier: Delivery, later: Delivery) -> bool:
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
    """Return which limits were exceeded by more than 5 %, or one; notes how much was used of each.

    One mail more is let pass: a worker keeps the pace by when mails leave, a provider counts when
    they come, and no two take equally long on the way.
    """
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
    """Return how many were open at most when one was opened within a span, and when that was.

    Those that were open when a limit was lowered may be used to their ends.
    """
    steps = [
        step
        for one in facts.connections
        if one.provider == provider and not one.is_turned_away
        for step in ((one.opened_ns, 1), (one.closed_ns, -1))
    ]
    count = most = when = 0
    for at_ns, step in sorted((at_ns, step) for at_ns, step in steps if at_ns is not None):
        count += step
        if step > 0 and from_ns <= at_ns < until_ns and count > most:
            most, when = count, at_ns
    return most, when


def find_leaks(facts: Facts) -> list[Anomaly]:
    """Return what left for a recipient whom staging forbids, at its acceptance or now."""
    modes: dict[str, list[Mode]] = defaultdict(list)
    for mode in facts.modes:
        modes[mode.gateway].append(mode)
    found = []
    for delivery in facts.deliveries if modes else ():
        sent = facts.sent.get(delivery.message)
        now = delivery.begun_ns, delivery.begun_ns
        sender = _modes_of(modes, delivery.gateway or _gateway_of(modes, delivery.worker))
        for key in delivery.keys:
            is_leak = _is_forbidden(sender, now, key[1])
            if sent is not None and not is_leak and key[1] in sent.acknowledged:
                span = sent.begun.get(key[1], now[0]), sent.acknowledged[key[1]]
                is_leak = _is_forbidden(_modes_of(modes, sent.gateway), span, key[1])
            if is_leak:
                what = "left though staging does not list it"
                found.append(Anomaly("leak", key, what, delivery.begun_ns))
    return found


def is_only_production(modes: Sequence[Mode]) -> bool:
    """True when all gateways are known to have been in production all the time."""
    return bool(modes) and all(mode.name == _PRODUCTION for mode in modes)


def _gateway_of(modes: Mapping[str, Sequence[Mode]], worker: str) -> str:
    """Return the gateway that the name of a worker begins with; empty: nobody knows."""
    fitting = (one for one in modes if worker == one or worker.startswith((f"{one}-", f"{one}/")))
    return max(fitting, key=len, default="")


def _modes_of(modes: Mapping[str, Sequence[Mode]], gateway: str) -> list[Sequence[Mode]]:
    """Return the modes of a gateway, or of each that it may have been."""
    return [modes[gateway]] if gateway in modes else list(modes.values())


def _is_forbidden(gateways: Sequence[Sequence[Mode]], span: tuple[int, int], address: str) -> bool:
    """True when every gateway was in a mode that forbids an address for all of a span.

    An address that nobody tells is forbidden where all are.
    """
    names = {address.lower(), f"@{address.lower().rpartition('@')[2]}"}
    return all(
        any(
            mode.name != _PRODUCTION
            and mode.from_ns <= span[0]
            and span[1] < mode.until_ns
            and (not names & mode.allow if address else not mode.allow)
            for mode in modes
        )
        for modes in gateways
    )
