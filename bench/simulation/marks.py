"""Branches of recovery that a campaign has to reach: what no seed ever took is not shown.

Nothing stands in the product for this. A mark is a line of the mail log, or a call of the product
that came to something, which a wrapper notes in this process.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import wraps
from typing import Any

from relaygw.delivery import attempt, holds, outcome, permits
from relaygw.store import doubts, instances, janitor, outcomes
from relaygw.store import holds as stored_holds
from relaygw.store import leases as stored_leases
from relaygw.upstream import pool, session

LINES = {
    "a provider is down": " is down (",
    "a provider is back": " is back",
    "a provider is held": "is held (provider)",
    "the lease was lost before the dot": "the lease was lost before the final dot",
    "an outcome came too late": "the lease was lost before this outcome was recorded",
    "a worker was taken over": "were taken over",
    "deliveries of a dead worker are free": "which died, are queued again",
    "what a dead worker was sending is named": "was being sent when",
    "of another machine nobody knows what": "what it was sending may be sent more than once",
    "leases that nobody has in hand are freed": "leased but not in memory",
    "leases could not be given back": "could not give back leases",
    "a heartbeat failed": "heartbeat failed",
    "outcomes wait for the store": "outcomes wait to be recorded",
    "the store failed before the dot": "unsent mail is tried again in",
    "the clock was set": "the clock of the queue was set",
    "mail of a route that is gone takes another": "any more, go",
    "mail in doubt of a route that is gone": "no worker sends",
    "others run other settings": "while other processes run other settings",
    "mail held for the mode goes again": "held because of the mode: now permitted",
    "a hold is not recorded": "not recorded",
    "housekeeping waits for the store": "warning: housekeeping",
}
"""Marks by what a line of the log has."""

Came = Callable[[Any, tuple[Any, ...]], bool]


def _always(_result: Any, _arguments: tuple[Any, ...]) -> bool:
    return True


def _ended(result: Any, _arguments: tuple[Any, ...]) -> bool:
    return bool(result.ended)


def _something(result: Any, _arguments: tuple[Any, ...]) -> bool:
    return bool(result)


CALLS: dict[str, tuple[Any, str, Came]] = {
    "a dot was cut short": (
        attempt.Attempt,
        "cut_short",
        lambda _, arguments: bool(arguments[0].taken_parts),
    ),
    "an attempt ended by something else": (outcome.Outcomes, "close", _something),
    "given back unsent": (outcome.Outcomes, "give_back", _always),
    "put off for another provider": (outcome.Outcomes, "put_off", _always),
    "a part is recorded": (outcome.Outcomes, "record_part", _always),
    "held for the mode": (outcome.Outcomes, "record_unsendable", _always),
    "permits are counted anew": (permits, "share_out", _always),
    "held apart": (outcomes, "_hold_apart", _always),
    "too late, and noted": (outcomes, "_write_late", lambda _, arguments: bool(arguments[1])),
    "what died with a worker is noted": (
        instances,
        "write_interrupted",
        lambda _, arguments: arguments[2] is None or bool(arguments[2]),
    ),
    "leases were freed": (instances, "_free_leases", _something),
    "a stale worker was seen": (instances.Instances, "stale_incarnations", _something),
    "waits begin anew": (janitor.Janitor, "restart_waits", _something),
    "asked again right before the dot": (doubts.Doubts, "still_wait", _always),
    "rerouted": (stored_leases.Leases, "reroute", _something),
    "let go after a mode": (stored_holds.Holds, "let_go", _ended),
    "made due when a hold ended": (stored_holds.Holds, "release_held", _ended),
    "a connection was cut without a dot": (session.UpstreamSession, "_end_without_dot", _always),
    "a session ended in the middle": (session.UpstreamSession, "_cut_short", _always),
    "a stale session was replaced": (
        session.UpstreamSession,
        "_explain",
        lambda result, _: bool(result.stale_session),
    ),
    "an answer was in doubt": (
        session.UpstreamSession,
        "_explain",
        lambda result, _: bool(result.in_doubt),
    ),
    "the next envelope was chained": (pool.Chaining, "may_follow", _something),
    "another worker with other settings ended": (holds.Holds, "look_anew", _always),
}
"""Marks by a call, and what it has to come to."""

_reached: set[str] = set()


def install() -> None:
    """Wrap the calls, in this process for good."""
    for label, (place, name, came) in CALLS.items():
        setattr(place, name, _noting(vars(place)[name], label, came))


def _noting(call: Any, label: str, came: Came) -> Any:
    @wraps(call)
    def noted(*arguments: Any, **more: Any) -> Any:
        result = call(*arguments, **more)
        if label not in _reached and came(result, arguments):
            _reached.add(label)
        return result

    return noted


def take(lines: Iterable[tuple[int, str, str]]) -> set[str]:
    """Return what a run reached, and begin anew."""
    found = set(_reached)
    _reached.clear()
    texts = "\n".join(text for _, _, text in lines)
    found.update(label for label, words in LINES.items() if words in texts)
    return found


def missing(reached: Iterable[str]) -> list[str]:
    """Return the marks that are not among those."""
    return sorted({*LINES, *CALLS} - set(reached))
