"""Files of the maildrop that are left alone, why, and what was said about them.

One line for each file and reason, however often it is seen. A file set aside is looked at again
after a while, in case somebody mended it or the trouble is over.
"""

from __future__ import annotations

import time
from collections.abc import Container, Iterable

from relaygw.observe.maillog import MailLog

LOOK_AGAIN_S = 600.0
MAX_FAILURES = 3
"""Errors over one file after which it is named, and counts as set aside."""
MAX_NAMED = 1000
"""Lines in the log: whoever fills the directory with rubbish must not fill the log, too."""
MAX_ASIDE = 100_000


class SetAside:
    """Names to pass over; `in` says whether a file is one of them now."""

    def __init__(self, log: MailLog) -> None:
        self._log = log
        self._until_s: dict[str, float] = {}
        self._said: set[tuple[str, str]] = set()
        self._failures: dict[str, int] = {}
        self.reasons: dict[str, str] = {}
        """Why files lie there, by name; for those who ask what became of their mail."""
        self.changes = 0  # of `reasons`

    def __contains__(self, name: object) -> bool:
        until_s = self._until_s.get(str(name))
        return until_s is not None and time.monotonic() < until_s

    def put(self, name: str, path: str, reason: str) -> None:
        """Pass `name` over for a while and say why."""
        self._pass_over(name, LOOK_AGAIN_S)
        self._tell(name, reason)
        self.say(path, f"{reason}; left where it is")

    def fail(self, name: str, path: str, error: str) -> None:
        """Pass `name` over for a second, twice that the next time, and so on; in the end say why.

        What happens over one file may be over in a moment (a lease, a disk that stumbles), so the
        pause is short at first, and never longer than that of any file set aside.
        """
        count = self._failures[name] = self._failures.get(name, 0) + 1
        self._pass_over(name, min(2.0 ** (count - 1), LOOK_AGAIN_S))
        if count < MAX_FAILURES:
            self.say(path, f"{error}; tried again")
            return
        reason = f"failed {MAX_FAILURES} times: {error}"
        self._tell(name, reason)
        self.say(path, f"{reason}; left where it is")

    def _tell(self, name: str, reason: str) -> None:
        if self.reasons.get(name) != reason:
            self.reasons[name] = reason
            self.changes += 1

    def _pass_over(self, name: str, pause_s: float) -> None:
        self._until_s.pop(name, None)  # the newest stand last
        while len(self._until_s) >= MAX_ASIDE:
            self.forget([next(iter(self._until_s))])
        self._until_s[name] = time.monotonic() + pause_s

    def say(self, path: str, reason: str) -> None:
        """Write a line unless it was written before."""
        if (path, reason) in self._said or len(self._said) > MAX_NAMED:
            return
        self._said.add((path, reason))
        if len(self._said) > MAX_NAMED:
            self._log.note("pickup", f"warning: more than {MAX_NAMED} odd files; no more are named")
        else:
            self._log.note("pickup", f"warning: {path}: {reason}")

    def forget(self, names: Iterable[str]) -> None:
        """Forget files that are gone."""
        for name in names:
            self._until_s.pop(name, None)
            self._failures.pop(name, None)
            self.changes += self.reasons.pop(name, None) is not None

    def keep(self, there: Container[str]) -> None:
        """Forget every file but those that are `there`."""
        self.forget([name for name in self._until_s if name not in there])
