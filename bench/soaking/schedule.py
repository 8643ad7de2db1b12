"""Which fault begins when: in rounds, each fault once a round, in an order of its seed. Pure.

What starts processes anew is in every third round only, and comes first there, so that processes
get old enough to be judged: a young one grows. The first third of a run has every fault: what any
of them leaves behind is there before growth is judged.
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
    slots: list[Slot] = []
    at_s = quiet_s
    number = 0
    while True:
        for faults in (renewing, others) if number % _RENEWING_EACH == 0 else (others,):
            for fault in chance.sample(faults, len(faults)):
                if at_s + length_s > run_s - quiet_s:
                    return slots
                slots.append(Slot(fault, at_s, length_s))
                at_s += length_s
        number += 1
