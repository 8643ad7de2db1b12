"""Planted bugs: each must be found by some seed. Many have the shape of what was once wrong."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any

from bench.rig.seeds import Patch, patched
from bench.simulation import processes
from relaygw.delivery import agent, attempt, gate, janitor, leases, outcome, reconciler
from relaygw.delivery import recorder as recorder_module
from relaygw.delivery.waits import Waits
from relaygw.inbound import committer
from relaygw.mail.clock import clock_ms
from relaygw.policy import recipients
from relaygw.store import instances, limits, outcomes
from relaygw.store import janitor as store_janitor
from relaygw.store import leases as store_leases
from relaygw.upstream import classifier, session


@dataclass(frozen=True, slots=True)
class Bug:
    """One planted bug, and what it puts where."""

    name: str
    what: str
    patches: Callable[[], list[Patch]]
    seed: int = 0  # that has found it


def planted(name: str) -> AbstractContextManager[None]:
    """Run a block with a bug; an empty name: with none."""
    return patched(BUGS[name].patches() if name else [])


def _done(result: Any) -> Any:
    future = asyncio.get_running_loop().create_future()
    future.set_result(result)
    return future


# --- what is recorded, and when


def _parts_forgotten() -> list[Patch]:
    close = outcome.Outcomes.close

    async def keep_part(self: Any, gate: Any, attempt: Any) -> bool:
        return True

    def close_forgetting(self: Any, attempt: Any, error: Any, classifier: Any) -> Any:
        attempt.outcomes.clear()
        return close(self, attempt, error, classifier)

    return [
        (agent.DeliveryAgent, "_keep_part", keep_part),
        (outcome.Outcomes, "close", close_forgetting),
    ]


def _dot_forgotten() -> list[Patch]:
    return [(attempt.Attempt, "cut_short", lambda self, classifier: None)]


def _doubt_is_retry() -> list[Patch]:
    meaning = classifier.Classifier.meaning

    def certain(self: Any, stage: Any, reply: Any, **more: Any) -> Any:
        return meaning(self, stage, reply, recipients=more.get("recipients", 1))

    return [(classifier.Classifier, "meaning", certain)]


def _no_slot() -> list[Patch]:
    return [(outcome.Outcomes, "begin_slot", lambda self, claimed, provider: None)]


def _deaths_unwritten() -> list[Patch]:
    return [(instances, "write_interrupted", lambda *_, **__: None)]


def _answered_before_commit() -> list[Patch]:
    async def submit(self: Any, message: Any) -> Any:
        self._pending_bytes += committer._size_bytes(message)
        self._writer.add(message)
        return message.queue_id

    return [(committer.GroupCommitter, "submit", submit)]


def _outcomes_dropped() -> list[Patch]:
    return [
        (recorder_module, "_is_away", lambda error: False),
        (recorder_module.Recorder, "_write_refused", lambda self, entry, error: False),
    ]


# --- leases


def _dot_without_lease() -> list[Patch]:
    return [(session._Progress, "has_lost_lease", property(lambda self: False))]


def _long_leases() -> list[Patch]:
    return [(processes, "WAITS", Waits(lease_s=90.0))]


def _buried_by_age() -> list[Patch]:
    def stale(self: Any, after_s: float) -> list[str]:
        with self._read() as tx:
            old_ms = tx.now_ms() - after_s * 1000
            found: dict[str, int] = dict(instances._HEARTBEATS.fetch(tx))
        return [name for name, at_ms in found.items() if at_ms < old_ms]

    bury = instances.Instances.bury

    def bury_anyway(self: Any, incarnation: str, **more: Any) -> int:
        return bury(self, incarnation, **{**more, "unless_heard": False})

    return [
        (instances.Instances, "stale_incarnations", stale),
        (instances.Instances, "bury", bury_anyway),
    ]


def _buried_early() -> list[Patch]:
    return [(janitor, "LEASE_S", 4.0)]


def _known_freed() -> list[Patch]:
    free_unknown = store_leases.Leases.free_unknown

    def free(self: Any, route: str, *, known: Any, incarnation: str) -> int:
        return free_unknown(self, route, known=(), incarnation=incarnation)

    return [(store_leases.Leases, "free_unknown", free)]


def _claimed_twice() -> list[Patch]:
    async def claim(self: Any, route: str, limit: int) -> Any:
        found = await self._context.ask(
            "",
            self._stored.claim,
            route,
            limit=limit,
            incarnation=self._incarnation,
            now_ms=clock_ms(),
        )
        if found is None:
            return []
        self._known[route].update(map(leases.key_of, found))
        return found

    # an answer that was lost is looked for late: until then the mail is due, and being recorded
    late = replace(processes.WAITS, record_ladder_s=(30.0,))
    return [(leases.Leases, "claim", claim), (processes, "WAITS", late)]


# --- the wire


def _late_answer_taken() -> list[Patch]:
    return [(session.UpstreamSession, "abort", lambda self: None)]


def _stale_after_dot() -> list[Patch]:
    explain = session.UpstreamSession._explain

    def stale(self: Any, failure: Any, progress: Any) -> Any:
        found = explain(self, failure, progress)
        return replace(found, stale_session=self.uses > 1)

    return [(session.UpstreamSession, "_explain", stale)]


# --- limits, modes, routes, clocks


def _quota_kept() -> list[Patch]:
    return [(gate.Allowance, "take_back", lambda self, claimed, taken: None)]


def _no_rate() -> list[Patch]:
    def take(self: Any, limit_group: str, *, wanted: int, per_s: float) -> Any:
        return limits.Tokens(granted=wanted, starts_in_s=-10.0)

    return [(limits.Limits, "take_tokens", take)]


def _mode_ignored() -> list[Patch]:
    sort = recipients.Screen.sort

    def sort_all(self: Any, claimed: Any) -> Any:
        return sort(self, claimed)._replace(held=(), sendable=claimed.recipients)

    return [(recipients.Screen, "sort", sort_all)]


def _held_for_ever() -> list[Patch]:
    async def look(self: Any) -> None:
        pass

    return [(reconciler.Reconciler, "_look_at_the_mode", look)]


def _routes_forgotten() -> list[Patch]:
    async def rest(self: Any) -> None:
        await asyncio.get_running_loop().create_future()

    return [(reconciler.Reconciler, "run", rest)]


def _callers_clock() -> list[Patch]:
    rows = outcomes._delivery_rows

    def unmoved(tx: Any, updates: Any, now_ms: int) -> Any:
        return [(*row[:3], row[3] - tx.ahead_ms, *row[4:]) for row in rows(tx, updates, now_ms)]

    return [(outcomes, "_delivery_rows", unmoved)]


def _clock_back_freezes() -> list[Patch]:
    return [(store_janitor.Janitor, "restart_waits", lambda self, limit: 0)]


def _seconds_for_ms() -> list[Patch]:
    return [(processes, "WAITS", Waits(store_ladder_s=(100_000.0,)))]


# --- what waits for somebody


def _never_counted() -> list[Patch]:
    return [(processes, "WAITS", Waits(unknown_leases_s=1e9))]


def _clock_unseen() -> list[Patch]:
    return [(recorder_module, "_STEP_MS", 10**15)]


def _probe_unknown() -> list[Patch]:
    return [(store_leases, "probed_provider", lambda _code, _key: None)]


def _held_unreached() -> list[Patch]:
    wants_probe = gate.Gate.wants_probe

    def wants(self: Any, now_s: float) -> bool:
        return wants_probe(self, now_s) and not (self.is_held and self.is_probed_by_mail)

    return [(gate.Gate, "wants_probe", wants)]


_ALL = (
    Bug(
        "parts-forgotten",
        "the 250s of earlier parts are lost with a later one",
        _parts_forgotten,
        seed=2978,
    ),
    Bug("dot-forgotten", "a dot that a stop interrupts is no doubt", _dot_forgotten, seed=51),
    Bug(
        "dot-without-lease",
        "nobody looks at the lease before the dot",
        _dot_without_lease,
        seed=130,
    ),
    Bug("quota-kept", "what was refused uses up the quota", _quota_kept, seed=55),
    Bug("routes-forgotten", "mail of a renamed route is nobody's", _routes_forgotten, seed=17),
    Bug("held-for-ever", "mail held for a mode stays held", _held_for_ever, seed=115),
    Bug("buried-by-age", "a clock that is set buries living workers", _buried_by_age, seed=138),
    Bug(
        "clock-back-freezes",
        "a clock set back freezes deferred mail",
        _clock_back_freezes,
        seed=87,
    ),
    Bug("callers-clock", "a due time by the caller's clock", _callers_clock, seed=57),
    Bug(
        "doubt-is-retry",
        "a lost answer is tried again as if nothing was sent",
        _doubt_is_retry,
        seed=25,
    ),
    Bug("no-slot", "nothing tells what a dead worker was sending", _no_slot, seed=12),
    Bug(
        "deaths-unwritten",
        "what a dead worker was sending is not noted",
        _deaths_unwritten,
        seed=12,
    ),
    Bug("answered-early", "250 before the commit", _answered_before_commit, seed=7),
    Bug(
        "outcomes-dropped",
        "an outcome that the store does not take is dropped",
        _outcomes_dropped,
        seed=2,
    ),
    Bug(
        "long-leases", "a worker trusts its lease for longer than others do", _long_leases, seed=47
    ),
    Bug("buried-early", "others are buried between two heartbeats", _buried_early, seed=502),
    Bug("known-freed", "leases in hand are freed with those that are not", _known_freed, seed=1),
    Bug("claimed-twice", "what is being recorded is claimed again", _claimed_twice, seed=490),
    Bug("late-answer", "a connection that lost step is used again", _late_answer_taken, seed=51),
    Bug("stale-after-dot", "a dead connection is replaced after the dot", _stale_after_dot, seed=6),
    Bug("no-rate", "the rate is not shared", _no_rate, seed=36),
    Bug("mode-ignored", "staging sends to anybody", _mode_ignored, seed=2),
    Bug(
        "never-counted",
        "leases and permits that a standby has still stay with a worker that has forgotten them",
        _never_counted,
        seed=389,
    ),
    Bug(
        "clock-unseen",
        "an outcome that waits while the clock is set back is due an hour later",
        _clock_unseen,
        seed=4067,
    ),
    Bug(
        "probe-unknown",
        "mail that is to probe a hold is held by the worker that claims it",
        _probe_unknown,
        seed=4,
    ),
    Bug(
        "held-unreached",
        "a held provider that was not reached is never tried again",
        _held_unreached,
        seed=1599,
    ),
    Bug("waits-too-long", "a wait of seconds becomes one of a day", _seconds_for_ms, seed=51),
)
BUGS = {bug.name: bug for bug in _ALL}
