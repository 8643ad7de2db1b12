"""The processes of roles as their supervisor sees them: which hang, when the dead start again.

A role notes in shared memory that its event loop runs. Its silence is counted by the looks of the
supervisor, no look for more than two usual ones: where all were stopped together, by a freezer of
containers or a debugger of the machine, the roles get their turn before anybody is called hung.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass

from relaygw.observe.hang import HangFile
from relaygw.roles.process import Beat

HUNG_S = 45.0
"""A loop that stood still for so long hangs; half of WatchdogSec is used instead, if it is less."""
ENDED_AFTER = 3
"""One that stood still for so many times as long is ended."""
_RESTART_LADDER_S = (0.0, 0.5, 1.0, 2.0, 5.0, 10.0)
_STEADY_S = 30.0  # a child that lived this long starts the ladder anew


@dataclass(slots=True)
class Child:
    """One running role process."""

    role: str
    pid: int
    generation: int
    started_s: float
    slot: int
    """Where in the shared memory it notes that its event loop runs."""
    beat_s: float = 0.0  # what was seen there last; 0: its loop has not begun
    silent_s: float = 0.0  # for so long
    is_hung: bool = False
    is_ended: bool = False  # it hung for too long


class HangWatch:
    """Finds processes whose event loop stands still, and tells it to the log and to a file."""

    def __init__(self, *, after_s: float, tell: Callable[[str], None], file: HangFile) -> None:
        self._after_s = min(after_s, HUNG_S)
        self._tell = tell
        self._file = file
        self._beats = mmap.mmap(-1, mmap.PAGESIZE)  # shared with the roles
        self._looked_s = time.monotonic()

    @property
    def each_s(self) -> float:
        """How often to look."""
        return self._after_s / 3

    def beat_of(self, slot: int) -> Beat:
        """Return where a process notes that it runs."""
        return Beat(self._beats, slot, each_s=self._after_s / 4)

    def look(self, children: Iterable[Child], now_s: float) -> list[Child]:
        """Look at all, tell who begins to hang or goes on; return those to be ended."""
        passed_s = min(now_s - self._looked_s, 2 * self.each_s)
        self._looked_s = now_s
        overdue = []
        for child in children:
            beat_s = self.beat_of(child.slot).at_s()
            if beat_s != child.beat_s:
                child.beat_s, child.silent_s = beat_s, 0.0
                self._go_on(child)
            elif beat_s:
                child.silent_s += passed_s
                self._mind(child)
                if child.silent_s >= ENDED_AFTER * self._after_s:
                    overdue.append(child)
        return overdue

    def end_overdue(
        self, children: Collection[Child], now_s: float, *, generation: int, is_spared: bool
    ) -> bool:
        """End those that hung for too long; True: one of this generation hangs.

        `is_spared`: somebody else ends this generation.
        """
        for child in self.look(children, now_s):
            if not (is_spared and child.generation == generation) and not child.is_ended:
                child.is_ended = True
                what = f"{child.role} (pid {child.pid}) has hung for {child.silent_s:.3g} s"
                self._tell(f"error: {what}; it is killed")
                with contextlib.suppress(ProcessLookupError):
                    os.kill(child.pid, signal.SIGKILL)
        return any(child.is_hung and child.generation == generation for child in children)

    def forget(self, child: Child) -> None:
        """Note that a process is gone."""
        if child.is_hung:
            self._file.end(child.pid, is_back=False)

    def _mind(self, child: Child) -> None:
        if child.silent_s >= self._after_s and not child.is_hung:
            child.is_hung = True
            self._tell(f"error: {child.role} (pid {child.pid}) has hung for {child.silent_s:.3g} s")
            self._file.begin(child.role, child.pid, for_s=child.silent_s)

    def _go_on(self, child: Child) -> None:
        if child.is_hung:
            child.is_hung = False
            self._tell(f"{child.role} (pid {child.pid}) goes on after it hung")
            self._file.end(child.pid, is_back=True)


class Restarts:
    """When roles that ended start again: at once, and ever later while they do not last."""

    def __init__(self) -> None:
        self._failures: Counter[str] = Counter()
        self._due: list[tuple[float, Child]] = []

    @property
    def next_s(self) -> float:
        """When the next is due; infinity: none is."""
        return min((at_s for at_s, _ in self._due), default=float("inf"))

    def plan(self, ended: Child, now_s: float) -> float:
        """Plan the successor of a process; return in how many seconds it is due."""
        if now_s - ended.started_s >= _STEADY_S:
            self._failures[ended.role] = 0
        pause_s = _RESTART_LADDER_S[min(self._failures[ended.role], len(_RESTART_LADDER_S) - 1)]
        self._failures[ended.role] += 1
        self._due.append((now_s + pause_s, ended))
        return pause_s

    def is_planned(self, role: str) -> bool:
        """Return whether a process of a role is to start."""
        return any(ended.role == role for _, ended in self._due)

    def take(self, now_s: float) -> list[Child]:
        """Return whose successors are due now, and forget them."""
        due = [ended for at_s, ended in self._due if at_s <= now_s]
        self._due = [entry for entry in self._due if entry[0] > now_s]
        return due

    def clear(self) -> None:
        """Forget all that was planned."""
        self._due.clear()
