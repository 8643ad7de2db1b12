"""Which fault begins when: in rounds, each fault once a round, in an order of its seed. Pure.

What starts processes anew comes in the first third of a run, in every third round, and once more at
its end: in between processes get old, so that filling up ends and a leak does not. The first third
has every fault: what any of them leaves behind is there before growth is judged.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import NamedTuple

LONGEST_SLOT_S = 60.0
SHORTEST_SLOT_S = 15.0
"""Faults of the provider that are closer together leave a queue that grows."""
QUIET_SHARE = 0.05
"""Of a run: so much at its beginning, and at its end, has no fault."""

_RENEWING_EACH = 3
_ROUNDING = 1e-6


class Slot(NamedTuple):
    """A fault and the time it has, with the calm after it."""

    fault: str
    at_s: float
    length_s: float


def plan_slots(
    renewing: Sequence[str], others: Sequence[str], *, run_s: float, seed: int
) -> list[Slot]:
    """Return what happens in a run of so many seconds."""
    chance = random.Random(seed)
    count = len(renewing) + len(others)
    quiet_s = run_s * QUIET_SHARE
    length_s = min(LONGEST_SLOT_S, max(SHORTEST_SLOT_S, (run_s / 3 - quiet_s) / count))
    first_s, last_s = quiet_s, run_s - quiet_s - len(renewing) * length_s
    faults: list[str] = []
    number = 0
    while (at_s := first_s + len(faults) * length_s) < last_s:
        if number % _RENEWING_EACH == 0 and at_s < run_s / 3:
            faults += chance.sample(renewing, len(renewing))
        faults += chance.sample(others, len(others))
        number += 1
    del faults[int((last_s - first_s) / length_s + _ROUNDING) :]
    faults += chance.sample(renewing, len(renewing))
    return [Slot(fault, first_s + n * length_s, length_s) for n, fault in enumerate(faults)]
