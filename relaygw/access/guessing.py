"""Failed logins by client address: after too many, nobody logs in from there for a while.

In memory, of one process; an address that has been good for long is forgotten.
"""

from __future__ import annotations

import time
from collections import OrderedDict, deque

MAX_FAILURES = 10
WITHIN_S = 600.0
LOCKED_S = 600.0
_MAX_ADDRESSES = 10_000


class Guessing:
    """Counts failures and says who is locked out."""

    def __init__(self) -> None:
        self._failures: OrderedDict[str, deque[float]] = OrderedDict()
        self._locked_until_s: OrderedDict[str, float] = OrderedDict()

    def is_locked(self, guesser: str) -> bool:
        """True while no login of `guesser` is even looked at."""
        until_s = self._locked_until_s.get(guesser)
        if until_s is None:
            return False
        if time.monotonic() < until_s:
            return True
        del self._locked_until_s[guesser]
        return False

    def count_failure(self, guesser: str) -> None:
        """Note a failure; the last of too many locks."""
        now_s = time.monotonic()
        recent = self._failures.setdefault(guesser, deque(maxlen=MAX_FAILURES))
        self._failures.move_to_end(guesser)
        recent.append(now_s)
        if len(recent) == MAX_FAILURES and now_s - recent[0] < WITHIN_S:
            self._locked_until_s[guesser] = now_s + LOCKED_S
            del self._failures[guesser]
        for table in (self._failures, self._locked_until_s):
            while len(table) > _MAX_ADDRESSES:
                table.popitem(last=False)
