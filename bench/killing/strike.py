"""One blow: who dies, what was in flight, and when service is back.

When the delivery worker is killed, its supervisor is stopped (SIGSTOP) before and continued
after the look at the queue, so that no successor records anything first. `back_ms` of such a
kill counts from the moment the supervisor goes on.
"""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path

from bench.killing.evidence import Kill
from bench.killing.queue_view import QueueView
from bench.killing.sink_watch import PATIENCE_S, SinkWatch, wait_until
from bench.rig.gateway import Gateway


class Striker:
    """Deals blows to one gateway, one at a time."""

    def __init__(self, gateway: Gateway, watch: SinkWatch) -> None:
        self._gateway = gateway
        self._watch = watch
        self._queue = QueueView(gateway.database)
        self._blows: dict[str, Callable[[], Kill]] = {
            "front": self._front,
            "delivery": self._delivery,
            "supervisor": self._supervisor,
            "all": self._all,
            "stop": self._stop,
        }

    def strike(self, role: str) -> Kill:
        """Kill a role, or `supervisor`, `all`, or `stop` cleanly; return when service is back."""
        return self._blows[role]()

    def _front(self) -> Kill:
        pid = self._child("front")
        at_ns = time.monotonic_ns()
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not _runs(pid), "the front to die")
        self._greet()
        return Kill("front", at_ns, _since_ms(at_ns))

    def _delivery(self) -> Kill:
        pid = self._child("delivery")
        os.kill(self._gateway.pid, signal.SIGSTOP)
        try:
            at_ns = time.monotonic_ns()
            os.kill(pid, signal.SIGKILL)
            wait_until(lambda: not _runs(pid), "the worker to die")
            self._watch.wait_for_end_of(at_ns)
            open_ids, begun_ids = self._queue.open_ids(), self._queue.slots_of(pid)
            self._watch.await_successor(at_ns)
        finally:
            continued_ns = time.monotonic_ns()
            os.kill(self._gateway.pid, signal.SIGCONT)
        back_ms = (self._watch.wait_for_successor() - continued_ns) / 1e6
        return Kill("delivery", at_ns, back_ms, tuple(open_ids), tuple(begun_ids))

    def _all(self) -> Kill:
        pids = self._gateway.pids()
        worker = self._child("delivery")
        at_ns = time.monotonic_ns()
        self._gateway.kill_all()
        wait_until(lambda: not any(map(_runs, pids)), "all to die")
        self._watch.wait_for_end_of(at_ns)
        open_ids, begun_ids = self._queue.open_ids(), self._queue.slots_of(worker)
        return Kill("all", at_ns, self._start_again(), tuple(open_ids), tuple(begun_ids))

    def _supervisor(self) -> Kill:
        """Its children notice, finish what they do, and end; nothing may arrive again."""
        supervisor, *children = self._gateway.pids()
        at_ns = time.monotonic_ns()
        os.kill(supervisor, signal.SIGKILL)
        wait_until(lambda: not _runs(supervisor), "the supervisor to die")
        back_ms = self._start_again()
        wait_until(lambda: not any(map(_runs, children)), "orphans to end")
        return Kill("supervisor", at_ns, back_ms)

    def _stop(self) -> Kill:
        at_ns = time.monotonic_ns()
        self._gateway.stop()
        return Kill("stop", at_ns, self._start_again())

    def _start_again(self) -> float:
        """Start the gateway; return the milliseconds until mail flows through it."""
        begun_ns = time.monotonic_ns()
        self._watch.await_successor(begun_ns)
        self._gateway.start()
        return (self._watch.wait_for_successor() - begun_ns) / 1e6

    def _child(self, role: str) -> int:
        """Return the process of a role, waiting for a successor that is still being started."""
        found: list[int] = []

        def is_there() -> bool:
            found[:] = [pid for pid in self._gateway.pids(role) if _runs(pid)]
            found[:] = [pid for pid in found if _parent(pid) == self._gateway.pid]
            return bool(found)

        wait_until(is_there, f"a running {role}")
        return found[-1]

    def _greet(self) -> None:
        """Return when the front greets a new connection."""

        def is_greeted() -> bool:
            try:
                address = ("127.0.0.1", self._gateway.smtp_port)
                with socket.create_connection(address, timeout=PATIENCE_S) as client:
                    return client.recv(3) == b"220"
            except OSError:
                return False

        wait_until(is_greeted, "a greeting")


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


def _parent(pid: int) -> int:
    fields = _stat(pid)
    return int(fields[1]) if fields else 0
