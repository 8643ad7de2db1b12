"""Files of the maildrop that are left alone, and what was said about them.

One line for each file and reason, however often it is seen. A file set aside is looked at again
after a while, in case somebody mended it.
"""

from __future__ import annotations

import time
from collections import Counter

from relaygw.observe.maillog import MailLog

LOOK_AGAIN_S = 600.0
MAX_NAMED = 1000
"""Lines in the log: whoever fills the directory with rubbish must not fill the log, too."""
MAX_ASIDE = 100_000


class SetAside:
    """Names to pass over; `in` says whether a file is one of them now."""

    def __init__(self, log: MailLog) -> None:
        self._log = log
        self._until_s: dict[str, float] = {}
        self._said: set[tuple[str, str]] = set()
        self._failures: Counter[str] = Counter()

    def __contains__(self, name: object) -> bool:
        until_s = self._until_s.get(str(name))
        return until_s is not None and time.monotonic() < until_s

    def put(self, name: str, path: str, reason: str, *, for_good: bool = False) -> None:
        """Pass `name` over for a while and say why."""
        while len(self._until_s) >= MAX_ASIDE:
            del self._until_s[next(iter(self._until_s))]
        self._until_s[name] = float("inf") if for_good else time.monotonic() + LOOK_AGAIN_S
        self.say(path, f"{reason}; left where it is")

    def say(self, path: str, reason: str) -> None:
        """Write a line unless it was written before."""
        if (path, reason) in self._said or len(self._said) > MAX_NAMED:
            return
        self._said.add((path, reason))
        if len(self._said) > MAX_NAMED:
            self._log.note("pickup", f"warning: more than {MAX_NAMED} odd files; no more are named")
        else:
            self._log.note("pickup", f"warning: {path}: {reason}")

    def count_failure(self, name: str) -> int:
        """Return how often something unexpected happened over `name` by now."""
        self._failures[name] += 1
        return self._failures[name]

    def forget_failures(self, names: list[str]) -> None:
        """Forget what happened over files that are gone."""
        for name in names:
            self._failures.pop(name, None)
