"""An asynchronous standby that lags when its primary dies: what was answered 250 is lost.

Not everything is: what the standby had received stays. So the lag bounds the loss, and that is
what a run shows. The provider hangs meanwhile, or mail would be sent before the primary dies.

Mail whose outcome only the dead primary had stays leased to a worker that has done with it, until
that looks for such, once a minute: the queue has to get empty by itself.
"""

from __future__ import annotations

import random
import time
from dataclasses import dataclass
from pathlib import Path

from bench.checking.checker import check
from bench.checking.report import Report
from bench.fleet_faults.fates import tell_all_fates
from bench.fleet_faults.rig import HISTORY, Rig, running, steady_mail
from bench.history import OK, Event, read_history
from bench.killing.sink_watch import wait_until
from bench.rig.queue_fates import wait_until_drained
from bench.rig.standby import Pair

_SHORTEST_LAG_S, _LONGEST_LAG_S = 1.5, 5.0
_MORE = 10
_DRAIN_S = 150.0  # what the standby has still of leases and permits is looked for each minute


@dataclass(frozen=True, slots=True)
class Loss:
    """What was lost, and when (nanoseconds, CLOCK_MONOTONIC) it had been answered 250."""

    report: Report
    begun_ns: int  # of the lag: all that was answered 250 before was on the standby
    killed_ns: int
    promoted_ns: int
    acknowledged_ns: list[int]

    @property
    def lost_ns(self) -> list[int]:
        """When what is lost was acknowledged."""
        return sorted(
            one.at_ns
            for one in self.report.anomalies
            if one.kind == "lost" and one.at_ns is not None
        )

    @property
    def is_found(self) -> bool:
        """True when something is lost, and only what was answered while the standby lagged."""
        lost_ns = self.lost_ns
        return bool(lost_ns) and self.begun_ns <= lost_ns[0] and lost_ns[-1] <= self.promoted_ns

    def to_text(self) -> str:
        """Return what is lost, its bound, and the verdict."""
        lost_ns = self.lost_ns
        before = sum(at_ns < self.begun_ns for at_ns in self.acknowledged_ns)
        meanwhile = sum(
            self.begun_ns <= at_ns <= self.promoted_ns for at_ns in self.acknowledged_ns
        )
        too_soon = sum(at_ns < self.begun_ns for at_ns in lost_ns)
        lines = [
            self.report.to_text(),
            "",
            f"the standby lagged for {self._before_kill_s(self.begun_ns):.2f} s before the kill",
            f"answered 250 before the lag: {before}, of these lost: {too_soon}",
            f"answered 250 in the lag: {meanwhile}, of these lost: {len(lost_ns) - too_soon}",
        ]
        if lost_ns:
            first_s, last_s = (self._before_kill_s(at_ns) for at_ns in (lost_ns[0], lost_ns[-1]))
            lines.append(
                f"lost was answered from {first_s:.2f} s to {last_s:.2f} s before the kill"
            )
        is_found = self.is_found
        lines.append(
            "PASSED: the loss is found, and bounded" if is_found else "FAILED: no such loss"
        )
        return "\n".join(lines)

    def _before_kill_s(self, at_ns: int) -> float:
        return (self.killed_ns - at_ns) / 1e9


def lose(directory: Path, seed: int) -> Loss:
    """Carry out a run with an asynchronous standby in a directory, which keeps its files."""
    chance = random.Random(seed)
    with Pair(is_synchronous=False) as pair, running(directory, pair) as rig:
        rig.history.info("campaign", "campaign", seed=seed, kind="control")
        with steady_mail(rig):
            rig.wait_for_more(chance.randint(20, 60))
            rig.provider.freeze()
            begun_ns = _let_lag(rig)
            time.sleep(chance.uniform(_SHORTEST_LAG_S, _LONGEST_LAG_S))
            killed_ns = time.monotonic_ns()
            pair.primary.kill()
            pair.standby.promote()
            promoted_ns = time.monotonic_ns()
            rig.provider.thaw()
            rig.wait_for_more(_MORE)
        if not wait_until_drained(rig.queue, patience_s=_DRAIN_S):
            raise TimeoutError(f"after {_DRAIN_S:g} s the queue is not empty")
        tell_all_fates(rig.queue, rig.history)
    events = read_history(directory / HISTORY)
    return Loss(check(events), begun_ns, killed_ns, promoted_ns, _acknowledged(events))


def _let_lag(rig: Rig) -> int:
    """Cut the standby off; return a moment before which all that was answered is there."""
    asked_ns = 0

    def is_there() -> bool:
        nonlocal asked_ns
        asked_ns = time.monotonic_ns()
        return rig.pair.is_caught_up()

    wait_until(is_there, "a standby that has all")
    rig.pair.link.hold()
    return asked_ns


def _acknowledged(events: list[Event]) -> list[int]:
    """Return when each recipient's mail was answered 250."""
    begun = {one.message: len(one.recipients) for one in events if one.f == "send" and one.value}
    return [
        event.time
        for event in events
        if event.f == "send" and event.type == OK
        for _ in range(begun[event.message])
    ]
