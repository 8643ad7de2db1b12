"""Whether somebody set the clock that the queue goes by: compared with one that nobody sets.

A clock that is set back leaves due times far ahead: what was put off before would wait until it
has caught up. Pure, but for the clock that nobody sets.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

STEP_S = 5.0
"""A clock that moves by less between two looks is only being corrected."""
UNSURE_S = 60.0
"""How long after a start or a step there may be times that are still to come."""
EACH_S = 10.0
"""How often they are looked for meanwhile."""
_SHARP_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ClockStep:
    """The clock was set: by how much, negative when back, and when that was noticed."""

    by_s: float
    noticed_s: float  # time.monotonic

    @property
    def words(self) -> str:
        """In which direction, and by how many seconds."""
        return f"set {'back' if self.by_s < 0 else 'forward'} by {abs(self.by_s):.0f} s"


class ClockWatch:
    """Looks at the clock of the queue."""

    def __init__(self) -> None:
        self.last_step: ClockStep | None = None
        self._beyond_s: float | None = None
        self._due_s = time.monotonic()
        self._unsure_until_s = self._due_s + UNSURE_S

    def look(self, clock_ms: Callable[[], int]) -> ClockStep | None:
        """Return by how much the clock was set since the last look, None if it was not."""
        asked_s = _awake_s()
        at_s = clock_ms() / 1000
        answered_s = _awake_s()
        if answered_s - asked_s > _SHARP_S:  # this process was stopped, or the answer took long
            return None
        before_s, self._beyond_s = self._beyond_s, at_s - answered_s
        if before_s is None or abs(self._beyond_s - before_s) < STEP_S:
            return None
        now_s = time.monotonic()
        self.last_step = ClockStep(by_s=self._beyond_s - before_s, noticed_s=now_s)
        self._due_s, self._unsure_until_s = now_s, now_s + UNSURE_S
        return self.last_step

    def is_unsure(self) -> bool:
        """True when it is time to look for what was written at a time still to come."""
        now_s = time.monotonic()
        if not self._due_s <= now_s < self._unsure_until_s:
            return False
        self._due_s = now_s + EACH_S
        return True


def _awake_s() -> float:
    """Return a clock that goes on while the machine is suspended, as the other does."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)
