"""Follows the history while the campaign runs: who is connected, what arrives."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

from bench.history import FAIL, INVOKE, OK, Event, Tail

POLL_S = 0.002
PATIENCE_S = 60.0


def wait_until(is_so: Callable[[], bool], what: str) -> None:
    """Return when `is_so`; raises TimeoutError naming `what` after a minute."""
    deadline_s = time.monotonic() + PATIENCE_S
    while not is_so():
        if time.monotonic() > deadline_s:
            raise TimeoutError(f"waited {PATIENCE_S:g} s for {what}")
        time.sleep(POLL_S)


class SinkWatch:
    """What the sink has done so far."""

    def __init__(self, history: Path) -> None:
        self._tail = Tail(history)
        self._reading = threading.Lock()  # what tells of progress reads on, too
        self._opened_ns: dict[str, int] = {}
        self._open: set[str] = set()
        self._awaited_ns = 0  # connections opened later than this are a successor's
        self._successor_ns: int | None = None  # its first take
        self._seen: set[str] = set()
        self.twice: set[str] = set()  # what came more than once
        self.taken = self.sent = self.acknowledged = self.refused = 0

    def look(self) -> None:
        """Read on."""
        with self._reading:
            for event in self._tail.read():
                self._learn(event)

    def _learn(self, event: Event) -> None:
        if event.f == "connect" and event.type == INVOKE:
            self._opened_ns[event.process] = event.time
            self._open.add(event.process)
        elif event.f == "connect":
            self._open.discard(event.process)
            self.refused += event.type == FAIL
        elif event.f == "dot":
            self.taken += 1
            if event.message in self._seen:
                self.twice.add(event.message)
            self._seen.add(event.message)
            is_successor = self._opened_ns[event.process] > self._awaited_ns
            if is_successor and self._successor_ns is None:
                self._successor_ns = event.time
        elif event.f == "deliver":
            self.refused += event.type == FAIL
        elif event.f == "kill" and "provider" in event.value:
            dead = event.value["provider"]
            self._open = {one for one in self._open if one.rpartition("/")[0] != dead}
        elif event.f == "send":
            self.sent += event.type == INVOKE
            self.acknowledged += event.type == OK

    def await_successor(self, after_ns: int) -> None:
        """Count connections that are opened from a moment on as a new worker's."""
        self.look()
        self._awaited_ns, self._successor_ns = after_ns, None

    def wait_for_takes(self, count: int) -> None:
        """Return once `count` messages were taken in all."""
        wait_until(lambda: self._looked() and self.taken >= count, "messages at the sink")

    def wait_for_end_of(self, before_ns: int) -> None:
        """Return once every connection that was opened before a moment is closed.

        Then nothing that its client had sent is left in a socket's buffer.
        """
        wait_until(
            lambda: self._looked() and all(self._opened_ns[c] > before_ns for c in self._open),
            "the connections of a dead worker to close",
        )

    def wait_for_successor(self) -> int:
        """Return the time at which a new worker's first message was taken."""
        wait_until(lambda: self._looked() and self._successor_ns is not None, "a new worker")
        assert self._successor_ns is not None
        return self._successor_ns

    def _looked(self) -> bool:
        self.look()
        return True
