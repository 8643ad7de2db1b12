"""A provider that allows so much and answers what is more as Amazon SES documents.

Over its rate it refuses at the final dot, over its connections at the greeting.
"""

from __future__ import annotations

import time
from typing import Any

from tests.fakes.scripted_provider import Action, Script, ScriptedProvider

TOO_FAST = b"454 Throttling failure: Maximum sending rate exceeded.\r\n"
TOO_MANY = b"421 Too many concurrent SMTP connections\r\n"


class LimitedProvider(ScriptedProvider):
    """Takes `rate_per_s` messages a second, a tenth of a second's worth at once."""

    def __init__(self, *, rate_per_s: float, connections: int, **more: Any) -> None:
        super().__init__(**more)
        self.rate_per_s = rate_per_s
        self.connections_allowed = connections
        self.refused_at_s: list[float] = []
        self.accepted_at_s: list[float] = []
        self.turned_away_at_s: list[float] = []
        self._tokens = self._most = max(1.0, rate_per_s / 10)
        self._filled_at_s = time.monotonic()

    async def next_action(self, verb: str) -> Script:
        """Refuse what is too much; see ScriptedProvider."""
        now_s = time.monotonic()
        if verb == "greeting":
            is_open = sum(not one.is_closed for one in self.connections)
            if is_open > self.connections_allowed:
                self.turned_away_at_s.append(now_s)
                return (TOO_MANY, Action.DROP)
        if verb == "CONTENT" and not self._may_take(now_s):
            self.refused_at_s.append(now_s)
            return TOO_FAST
        return await super().next_action(verb)

    def _may_take(self, now_s: float) -> bool:
        grown = (now_s - self._filled_at_s) * self.rate_per_s
        self._tokens = min(self._most, self._tokens + grown)
        self._filled_at_s = now_s
        if self._tokens < 1:
            return False
        self._tokens -= 1
        self.accepted_at_s.append(now_s)
        return True
