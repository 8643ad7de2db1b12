"""What one process can tell of the life of others: by its own clock, which nobody sets.

How old a heartbeat is says nothing: the database's clock may have been set since. Dead is whose
heartbeat stays the same for too long while somebody looks. And only who was in touch with the
database all along can tell: after the server was away, frozen or cut off from all, no heartbeat
is new, and whoever comes back first must leave the others time to renew theirs. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping

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


class Heartbeats:
    """The heartbeats of all instances, as one process saw them."""

    def __init__(self) -> None:
        self._seen: dict[str, tuple[int, float]] = {}

    def look(self, heartbeats: Mapping[str, int], now_s: float) -> None:
        """Note what was read just now, by incarnation."""
        seen = {}
        for incarnation, at_ms in heartbeats.items():
            before_ms, since_s = self._seen.get(incarnation, (at_ms, now_s))
            seen[incarnation] = (at_ms, since_s if at_ms == before_ms else now_s)
        self._seen = seen

    def unchanged_for(self, span_s: float, now_s: float) -> list[str]:
        """Return the incarnations whose heartbeat was the same for so long."""
        return [one for one, (_, since_s) in self._seen.items() if now_s - since_s >= span_s]

    def last(self, incarnation: str) -> int | None:
        """Return the heartbeat of an incarnation that was seen last."""
        at_ms, _ = self._seen.get(incarnation, (None, 0.0))
        return at_ms
