"""Who was told to come later, as this front counts it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from relaygw.mail.clock import clock_ms
from relaygw.mail.words import printable
from relaygw.store.visitors import MAX_THROTTLED, Throttled

RATE, CONNECTIONS, LOGINS = "rate", "connections", "logins"
"""Why clients are told to come later."""


class ThrottledClients:
    """Those of one front, since the last write."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, str, str], Throttled] = {}

    def note(self, listener: str, client: str, cause: str) -> None:
        """Count a client that came too often; of very many only the first."""
        key, now_ms = (listener, client, cause), clock_ms()
        before = self._found.get(key)
        if before is not None:
            self._found[key] = replace(before, last_seen_ms=now_ms, times=before.times + 1)
        elif len(self._found) < MAX_THROTTLED:
            times = {"first_seen_ms": now_ms, "last_seen_ms": now_ms}
            self._found[key] = Throttled(
                listener=listener, client=printable(client), cause=cause, times=1, **times
            )

    def take(self) -> list[Throttled]:
        """Return the counts since the last call."""
        taken, self._found = self._found, {}
        return list(taken.values())

    def put_back(self, found: Sequence[Throttled]) -> None:
        """Take back what could not be written."""
        for client in found:
            key = (client.listener, client.client, client.cause)
            newer = self._found.get(key)
            times = client.times + (newer.times if newer else 0)
            last_ms = newer.last_seen_ms if newer else client.last_seen_ms
            self._found[key] = replace(client, times=times, last_seen_ms=last_ms)
