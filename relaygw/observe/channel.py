"""Lets nothing wait for the log: what its outlet cannot take now stays in memory for a while.

As long as all goes well a record goes out within the call that brings it. When there is no room,
or when it does not work, records queue up, and a thread that lives hardly longer than the queue
sends them in order. The queue is bounded: what exceeds it is counted, and the count is
logged where the records would have stood. Only a process that may have threads has that thread;
another one calls `pump` from time to time.
"""

from __future__ import annotations

import contextlib
import itertools
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from enum import Enum, auto
from typing import Protocol

MAX_WAITING_BYTES = 4 * 2**20
RETRY_S = 1.0
_BATCH = 64  # records sent in one turn: others may add to the queue between two turns
_FULL_WAIT_S = 0.5


class OutletGone(Exception):
    """Nobody will ever read here again."""


class Outlet(Protocol):
    """Where records leave the process: a file, syslog, or what stderr is. Never waits."""

    def send(self, records: Sequence[bytes]) -> int:
        """Hand over records in order; return how many bytes of them were taken, at least one.

        Raises BlockingIOError when there is no room at the moment, OutletGone when there will
        be none any more, and another OSError when it does not work; then nothing was taken.
        """

    def wait(self, timeout_s: float) -> None:
        """Return when there may be room again, or after `timeout_s` at the latest."""

    def reopen(self) -> None:
        """Begin anew under the same name; raises OSError, and then all stays as it was."""

    def close(self) -> None:
        """Let go."""


class Condition(Enum):
    """How the outlet does."""

    WELL = auto()  # all went out
    FULL = auto()  # there is no room; its reader is slow, or hangs
    BROKEN = auto()  # it does not work
    GONE = auto()  # and never will again


class Channel:
    """Takes the records of one process.

    `loss` makes the record that tells how many were lost and why. `tell` is called once for
    each time that the outlet breaks; it must not wait either.
    """

    def __init__(
        self,
        outlet: Outlet,
        *,
        loss: Callable[[int, str], bytes],
        tell: Callable[[str], None],
        max_waiting_bytes: int = MAX_WAITING_BYTES,
    ) -> None:
        self._outlet = outlet
        self._loss = loss
        self._tell = tell
        self._max_waiting_bytes = max_waiting_bytes
        self._may_thread = False
        self._begin()

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._again = threading.Event()  # look at the outlet now, whatever the time
        self._waiting: deque[bytes] = deque()
        self._waiting_bytes = 0
        self._lost = 0
        self._why = ""
        self._condition = Condition.WELL
        self._thread: threading.Thread | None = None

    def adopt(self) -> None:
        """After a fork, in the child: what waits is the parent's; from now on threads are fine."""
        self._begin()
        self._may_thread = True

    @property
    def is_waiting(self) -> bool:
        """True while something has not gone out yet."""
        return bool(self._waiting or self._lost)

    def write(self, records: Sequence[bytes]) -> None:
        """Send records, or keep them for later; never waits and never raises."""
        with self._lock:
            if self._condition is Condition.GONE:
                return
            taken = 0
            if not self.is_waiting:
                taken = self._send(records)
                if taken == sum(map(len, records)):
                    return
            self._keep(records)
            self._strike_off(taken)
            self._have_thread()

    def _send(self, records: Sequence[bytes]) -> int:
        """Return how many bytes went out, and know how the outlet does."""
        try:
            taken = self._outlet.send(records)
        except BlockingIOError:
            self._why = "its reader is too slow"
            self._condition = Condition.FULL
        except OutletGone:
            self._condition = Condition.GONE
            self._waiting.clear()
            self._lost = 0
        except OSError as error:
            self._why = error.strerror or type(error).__name__
            if self._condition is not Condition.BROKEN:
                self._tell(self._why)
            self._condition = Condition.BROKEN
        else:
            self._condition = Condition.WELL
            return taken
        return 0

    def _keep(self, records: Sequence[bytes]) -> None:
        if self._condition is Condition.GONE:
            return
        for record in records:
            if self._lost or self._waiting_bytes + len(record) > self._max_waiting_bytes:
                if not self._lost:
                    self._tell(f"{self._why}; lines are lost")
                self._lost += 1
            else:
                self._waiting.append(record)
                self._waiting_bytes += len(record)

    def pump(self) -> Condition:
        """Send what waits as far as there is room; return how the outlet does."""
        while self.is_waiting:
            with self._lock:
                self._pump_once()
                if self._condition is not Condition.WELL:
                    return self._condition
        return self._condition

    def _pump_once(self) -> None:
        if not self._waiting and self._lost:
            record = self._loss(self._lost, self._why)
            self._waiting.append(record)
            self._waiting_bytes += len(record)
            self._lost = 0
        self._strike_off(self._send(list(itertools.islice(self._waiting, _BATCH))))

    def _strike_off(self, taken: int) -> None:
        """Forget the first bytes of what waits: they have gone out."""
        self._waiting_bytes -= taken
        while taken:
            first = self._waiting.popleft()
            if taken < len(first):
                self._waiting.appendleft(first[taken:])
            taken -= min(taken, len(first))

    def _have_thread(self) -> None:
        if self._thread is not None:
            if self._condition is not Condition.BROKEN:  # that is tried each RETRY_S only
                self._again.set()
        elif self._may_thread:
            thread = threading.Thread(target=self._drain, name="log", daemon=True)
            with contextlib.suppress(RuntimeError):  # no more threads: the next record tries again
                thread.start()
                self._thread = thread

    def _drain(self) -> None:
        """Send until nothing has waited for a while; the body of the thread."""
        while True:
            condition = self.pump()
            if condition is Condition.FULL:
                self._outlet.wait(_FULL_WAIT_S)
                continue
            has_more = self._again.wait(RETRY_S)
            self._again.clear()
            with self._lock:
                if not has_more and not self.is_waiting:
                    self._thread = None
                    return

    def reopen(self) -> None:
        """Go on in a fresh file or connection of the same name: logrotate has moved the old one."""
        with self._lock:
            try:
                self._outlet.reopen()
            except OSError as error:
                self._tell(f"cannot be opened again: {error.strerror}; the old one is kept")
        self._again.set()

    def close(self, *, patience_s: float = 1.0) -> None:
        """Send what waits while its reader takes it, and let go."""
        deadline_s = time.monotonic() + patience_s
        while self.pump() is Condition.FULL and time.monotonic() < deadline_s:
            self._outlet.wait(min(0.1, patience_s))
        with self._lock:
            self._outlet.close()
