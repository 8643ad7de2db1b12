"""One blow: who dies, what was in flight, and when service is back.

When deliverers are killed, what starts them is stopped (SIGSTOP) before and continued after the
look at the queue, so that no successor records anything first. `back_ms` of such a kill counts
from the moment it goes on.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

from bench.history import History
from bench.killing.queue_view import QueueView
from bench.killing.sink_watch import SinkWatch, wait_until
from bench.rig.mta import Mta

_WHO = "striker"


class Striker:
    """Deals blows to one server, one at a time, and tells the history of each."""

    def __init__(self, server: Mta, watch: SinkWatch, queue: QueueView, history: History) -> None:
        self._server = server
        self._watch = watch
        self._queue = queue
        self._history = history
        self._blows: dict[str, Callable[[], float]] = {
            "front": self._front,
            "delivery": self._delivery,
            "supervisor": self._supervisor,
            "all": self._all,
            "stop": self._stop,
        }

    def strike(self, role: str) -> None:
        """Kill a role, or `supervisor`, `all`, or `stop` cleanly; return when service is back."""
        back_ms = self._blows[role]()
        self._history.ok(_WHO, "kill", back_ms=round(back_ms, 1))

    def _begin(self, role: str) -> int:
        at_ns = time.monotonic_ns()
        self._history.invoke(_WHO, "kill", role=role)
        return at_ns

    def _front(self) -> float:
        pids = self._running("front")
        at_ns = self._begin("front")
        _kill(pids)
        wait_until(self._server.greets, "a greeting")
        return _since_ms(at_ns)

    def _delivery(self) -> float:
        self._running("delivery")
        os.kill(self._server.pid, signal.SIGSTOP)
        try:
            pids = self._server.pids("delivery")  # no other is started from here on
            at_ns = self._begin("delivery")
            _kill(pids)
            self._look(at_ns, pids)
            self._watch.await_successor(at_ns)
        finally:
            continued_ns = time.monotonic_ns()
            os.kill(self._server.pid, signal.SIGCONT)
        return (self._watch.wait_for_successor() - continued_ns) / 1e6

    def _all(self) -> float:
        pids = self._server.pids()
        at_ns = self._begin("all")
        self._server.kill_all()
        wait_until(lambda: not any(map(_runs, pids)), "all to die")
        self._look(at_ns, pids)
        return self._start_again()

    def _look(self, at_ns: int, pids: list[int]) -> None:
        """Tell what the queue has not recorded now that these are dead."""
        self._watch.wait_for_end_of(at_ns)
        begun = self._queue.begun_ids(pids)
        self._history.info(_WHO, "kill", open=self._queue.open_ids(), begun=begun)

    def _supervisor(self) -> float:
        """Its children notice, finish what they do, and end; nothing may arrive again."""
        supervisor, *children = self._server.pids()
        self._begin("supervisor")
        _kill([supervisor])
        back_ms = self._start_again()
        wait_until(lambda: not any(map(_runs, children)), "orphans to end")
        return back_ms

    def _stop(self) -> float:
        self._begin("stop")
        self._server.stop()
        return self._start_again()

    def _start_again(self) -> float:
        """Start the server; return the milliseconds until mail flows through it."""
        begun_ns = time.monotonic_ns()
        self._watch.await_successor(begun_ns)
        self._server.start()
        return (self._watch.wait_for_successor() - begun_ns) / 1e6

    def _running(self, role: str) -> list[int]:
        """Return the processes of a role, waiting for successors that are still being started."""
        found: list[int] = []

        def is_there() -> bool:
            found[:] = [pid for pid in self._server.pids(role) if _runs(pid)]
            return bool(found)

        wait_until(is_there, f"a running {role}")
        return found


def _kill(pids: list[int]) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):  # it had done its work
            os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not any(map(_runs, pids)), "the killed to die")


def _since_ms(at_ns: int) -> float:
    return (time.monotonic_ns() - at_ns) / 1e6


def _stat(pid: int) -> list[str]:
    """Return the fields of /proc/PID/stat from the state on; none when it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []


def _runs(pid: int) -> bool:
    """True unless a process is gone or only waits to be reaped."""
    fields = _stat(pid)
    return bool(fields) and fields[0] not in "ZX"
