"""What was sent more than once, and what explains it.

An arrival after another is explained by a kill when the one before came before that kill, the
queue had it not recorded when its worker was dead (RFC 1047), and it came again afterwards; or by
a doubt that was recorded before it was sent again. Each explains one arrival. Doubts that the
queue only counts (`fate`) explain so many as no kill and no recorded doubt does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from bench.checking.facts import Delivery, Facts, Key, Kill

_NO_WORKERS = frozenset({"front", "provider"})  # roles whose end leaves all workers alive


@dataclass(slots=True)
class Extra:
    """One arrival after another; `reason` is empty when nothing explains it."""

    key: Key
    earlier: Delivery
    later: Delivery
    reason: str = ""  # kill | doubt
    kill: Kill | None = None
    is_recorded: bool = True  # in the queue, as far as that was asked


def find_extras(facts: Facts, arrivals: Mapping[Key, Sequence[Delivery]]) -> list[Extra]:
    """Return all second and further arrivals."""
    found = []
    for key, deliveries in arrivals.items():
        if len(deliveries) > 1:
            found += _explain(facts, key, deliveries)
    return found


def _explain(facts: Facts, key: Key, deliveries: Sequence[Delivery]) -> list[Extra]:
    kills = [kill for kill in facts.kills if kill.open is None or key[0] in kill.open]
    doubts = list(facts.doubts.get(key, ()))
    fate = facts.fates.get(key)
    counted = fate.doubts if fate is not None else None
    extras = []
    ordered = sorted(deliveries, key=_dot_ns)
    for earlier, later in pairwise(ordered):
        extra = Extra(key, earlier, later)
        extras.append(extra)
        if (kill := _kill_between(facts, key, kills, earlier, later)) is not None:
            kills.remove(kill)
            extra.reason, extra.kill = "kill", kill
        elif (doubt_ns := _doubt_between(doubts, earlier, later)) is not None:
            doubts.remove(doubt_ns)
            extra.reason = "doubt"
        elif counted:
            extra.reason = "doubt"
        if counted is not None and extra.reason:
            extra.is_recorded = counted > 0 or extra.key in facts.doubts
            counted = max(0, counted - 1)
    return extras


def _kill_between(
    facts: Facts, key: Key, kills: Sequence[Kill], earlier: Delivery, later: Delivery
) -> Kill | None:
    for kill in kills:
        is_between = earlier.connection.opened_ns < kill.at_ns < later.begun_ns
        if (
            is_between
            and earlier.connection is not later.connection
            and may_have_ended(kill, earlier)
            and (kill.open is not None or _unrecorded(facts, key, kill, earlier))
        ):
            return kill
    return None


def may_have_ended(kill: Kill, delivery: Delivery) -> bool:
    """True unless a kill was known to be that of another worker, or of none."""
    if kill.role in _NO_WORKERS:
        return False
    if kill.open is None:
        return bool(kill.worker) and kill.worker == delivery.worker
    return not (kill.worker and delivery.worker) or kill.worker == delivery.worker


def _unrecorded(facts: Facts, key: Key, kill: Kill, earlier: Delivery) -> bool:
    """True when no record of a delivery came before its worker's end."""
    records = facts.records.get(key, ())
    return not any(_dot_ns(earlier) <= at_ns < kill.at_ns for at_ns in records)


def _doubt_between(doubts: Sequence[int], earlier: Delivery, later: Delivery) -> int | None:
    return next((ns for ns in doubts if earlier.begun_ns <= ns <= later.begun_ns), None)


def _dot_ns(delivery: Delivery) -> int:
    assert delivery.dot_ns is not None
    return delivery.dot_ns
