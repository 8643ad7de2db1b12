"""What a history proves of each message, in Jepsen's words. Nothing else is asked.

1. What was acknowledged was delivered or is in the queue: nothing is **lost**, or given up though
   no provider refused it.
2. What was delivered was sent by a client, and is whole: nothing is **unexpected** or **damaged**.
3. What arrives once more was in doubt, which somebody recorded: a kill in the window between
   final dot and record, or a doubt. Each explains one arrival (`twice`).
4. No two workers have one recipient in their hands at once, none sends without its lease, limits
   of providers hold within 5 % or one mail, staging reaches nobody else (`rules`).
5. What a provider took is not recorded as **untrue**: bounced or expired.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable

from bench.checking.facts import Delivery, Facts, Key, Sent, read_facts
from bench.checking.report import Report
from bench.checking.rules import (
    find_at_once,
    find_leaks,
    find_over_limits,
    find_two_leases,
    find_unleased,
    is_only_production,
)
from bench.checking.twice import Extra, find_extras, may_have_ended
from bench.history import Event

_DONE = "delivered"
_KEPT = ("queued", "held", "captured")
_EXPIRED = "expired"
_UNSENT = ("bounced", _EXPIRED)
_PERMANENT = 500
_NOT_SENT = Sent()


def check(events: Iterable[Event]) -> Report:
    """Return what events in order of time prove."""
    return check_facts(read_facts(events))


def check_facts(facts: Facts) -> Report:
    """Return what facts prove."""
    arrivals: dict[Key, list[Delivery]] = defaultdict(list)
    for delivery in facts.deliveries:
        if delivery.is_taken:
            for key in delivery.keys:
                arrivals[key].append(delivery)
    report = Report(about=facts.about, kills=len(facts.kills))
    _find_foreign(facts, arrivals, report)
    _find_lost(facts, arrivals, report)
    _find_untrue(facts, arrivals, report)
    extras = find_extras(facts, arrivals)
    report.extras = extras
    _count_extras(extras, report)
    report.anomalies += find_two_leases(facts.leases)
    report.anomalies += find_unleased(facts)
    report.anomalies += find_at_once(facts)
    report.anomalies += find_over_limits(facts, report)
    report.anomalies += find_leaks(facts)
    return report


def _find_foreign(facts: Facts, arrivals: dict[Key, list[Delivery]], report: Report) -> None:
    """Find what no client sent, and what is not as its client sent it."""
    for key, deliveries in arrivals.items():
        message, recipient = key
        sent = facts.sent.get(message, _NOT_SENT)
        first_ns = deliveries[0].dot_ns
        if (begun_ns := sent.begun.get(recipient)) is None:
            report.add("unexpected", key, "taken, and no client sent it", first_ns)
            continue
        report.delivered += 1
        if recipient not in sent.acknowledged:
            report.unheard += 1
            report.refused += sent.end == "fail"
        for delivery in deliveries:
            assert delivery.dot_ns is not None
            if delivery.dot_ns < begun_ns:
                report.add("unexpected", key, "taken before a client sent it", delivery.dot_ns)
            if None not in (known := sent.digests | {delivery.digest}) and known != sent.digests:
                report.add("damaged", key, "taken with another digest", delivery.dot_ns)


def _find_lost(facts: Facts, arrivals: dict[Key, list[Delivery]], report: Report) -> None:
    report.waiting = sum(fate.state in _KEPT for fate in facts.fates.values())
    for message, sent in facts.sent.items():
        report.attempted += len(sent.begun)
        for recipient, acknowledged_ns in sent.acknowledged.items():
            key = message, recipient
            report.acknowledged += 1
            if deliveries := arrivals.get(key):
                report.recovered += _is_recovered(facts, acknowledged_ns, deliveries[0])
            else:
                _judge_missing(facts, key, acknowledged_ns, report)


def _find_untrue(facts: Facts, arrivals: dict[Key, list[Delivery]], report: Report) -> None:
    """Find what the queue has as not sent, though a provider's 250 left and nobody doubted it."""
    for key, fate in facts.fates.items():
        if fate.state not in _UNSENT or fate.doubts or facts.doubts.get(key):
            continue
        for delivery in arrivals.get(key, ()):
            if delivery.answered_ns is not None and not any(
                may_have_ended(kill, delivery) and kill.at_ns > delivery.begun_ns
                for kill in facts.kills
            ):
                what = f"a provider took it; recorded as {fate.state}"
                report.add("untrue", key, what, delivery.answered_ns)
                break


def _is_recovered(facts: Facts, acknowledged_ns: int, first: Delivery) -> bool:
    """True when somebody was killed between a 250 and the first arrival."""
    assert first.dot_ns is not None
    number = bisect_right(facts.kills, acknowledged_ns, key=lambda kill: kill.at_ns)
    return number < len(facts.kills) and facts.kills[number].at_ns < first.dot_ns


def _judge_missing(facts: Facts, key: Key, acknowledged_ns: int, report: Report) -> None:
    """Judge what was acknowledged and taken by no provider."""
    fate = facts.fates.get(key)
    if fate is None:
        report.add("lost", key, "acknowledged; neither taken nor queued", acknowledged_ns)
    elif fate.state == _DONE:
        report.add("lost", key, "acknowledged; recorded as delivered, not taken", acknowledged_ns)
    elif fate.state == "captured" and is_only_production(facts.modes) and not _is_local(key[1]):
        report.add("given up", key, "acknowledged; captured in production", acknowledged_ns)
    elif fate.state not in _KEPT:
        report.given_up += 1
        codes = facts.refused.get(key, [])
        least = 0 if fate.state == _EXPIRED else _PERMANENT  # what is refused for now expires
        if not any(code >= least for code in codes):
            what = f"acknowledged; {fate.state} though no provider refused it"
            report.add("given up", key, what, acknowledged_ns)


def _is_local(recipient: str) -> bool:
    """True for a person of the machine itself, whose mail is captured in every mode."""
    return recipient != "" and "." not in recipient.rpartition("@")[2]


def _count_extras(extras: list[Extra], report: Report) -> None:
    for extra in extras:
        report.duplicated[extra.reason or "unexplained"] += 1
        if not extra.reason:
            report.add("twice", extra.key, "taken once more, in no doubt", extra.later.dot_ns)
        elif not extra.is_recorded:
            report.add("unrecorded", extra.key, "came twice, no doubt recorded", extra.later.dot_ns)
