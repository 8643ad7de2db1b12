"""Guesses at one name from many addresses: the more, the later each is looked at.

Never a lock: whoever owns the name waits a few seconds and gets in, so nobody can be kept out by
somebody who guesses. An address that guesses is locked (`relaygw.access`). In memory.
"""

from __future__ import annotations

import time
from collections import OrderedDict, deque

WITHIN_S = 600.0
FREE_FAILURES = 5
MAX_DELAY_S = 8.0
_FIRST_DELAY_S = 0.5
_COUNTED = 16
_MAX_NAMES = 10_000


class NameDelays:
    """Counts failures by name; names that are nobody's are counted alike."""

    def __init__(self) -> None:
        self._failures: OrderedDict[str, deque[float]] = OrderedDict()

    def delay_s(self, name: str) -> float:
        """Return how long the next try at a name has to wait."""
        since_s = time.monotonic() - WITHIN_S
        recent = sum(at_s > since_s for at_s in self._failures.get(name, ()))
        if recent < FREE_FAILURES:
            return 0.0
        return min(MAX_DELAY_S, _FIRST_DELAY_S * 2.0 ** (recent - FREE_FAILURES))

    def count_failure(self, name: str) -> None:
        """Note a failure."""
        self._failures.setdefault(name, deque(maxlen=_COUNTED)).append(time.monotonic())
        self._failures.move_to_end(name)
        while len(self._failures) > _MAX_NAMES:
            self._failures.popitem(last=False)
