"""Whether this process was in touch with the database all along.

Only who was can tell that another instance is dead. After the server was away, frozen or cut off
from all, every heartbeat is old, and whoever comes back first must leave the others time to renew
theirs. Pure.
"""

from __future__ import annotations

MISSED_S = 10.0
"""Heartbeats so far apart were not answered in time; they are due each five seconds."""


class Steadiness:
    """The answered heartbeats of one process; times are of a clock that goes on in suspension."""

    def __init__(self) -> None:
        self._since_s = 0.0
        self._last_s: float | None = None

    def note_beat(self, now_s: float) -> None:
        """Count a heartbeat, or the registration, that was answered just now."""
        if self._last_s is None or now_s - self._last_s > MISSED_S:
            self._since_s = now_s
        self._last_s = now_s

    def has_lasted(self, span_s: float, now_s: float) -> bool:
        """True when none was missed for so long; also for who has none and only looks on."""
        if self._last_s is None:
            return True
        return now_s - self._last_s <= MISSED_S and now_s - self._since_s >= span_s
