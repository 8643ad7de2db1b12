"""Tells the history of each doubt that the queue records, before its message is deleted."""

from __future__ import annotations

import contextlib
import sqlite3
import subprocess

from bench.history import History
from bench.rig.message import id_of, named
from bench.rig.queue_fates import Queue, ask

_DOUBTS = """
    SELECT a.attempt_id, a.times, r.address FROM attempt a JOIN recipient r
    ON r.queue_id = a.queue_id AND r.delivery_no = a.delivery_no
    AND (a.rcpt_no IS NULL OR a.rcpt_no = r.rcpt_no)
    WHERE a.state IN ('in doubt', 'interrupted')
"""
_OPEN = """
    SELECT d.state, r.address FROM delivery d JOIN recipient r
    ON r.queue_id = d.queue_id AND r.delivery_no = d.delivery_no
    WHERE r.state = 'pending' AND d.state IN ('incoming', 'active', 'deferred', 'held')
"""


class DoubtWatch:
    """Looks again and again; a doubt that was told is not told again."""

    def __init__(self, queue: Queue, history: History) -> None:
        self._queue = queue
        self._history = history
        self._told: dict[tuple[int, str], int] = {}

    def look(self) -> None:
        """Tell what is new; a database that is away is asked the next time."""
        with contextlib.suppress(sqlite3.Error, subprocess.SubprocessError):
            for number, times, address in ask(self._queue, _DOUBTS):
                key = int(number), address
                for _ in range(int(times) - self._told.get(key, 0)):
                    self._history.info("queue", "doubt", message=id_of(address), **named([address]))
                self._told[key] = int(times)


def tell_fates(queue: Queue, history: History) -> int:
    """Tell what is still queued, or held; return how much that is."""
    rows = ask(queue, _OPEN)
    for state, address in rows:
        fate = "held" if state == "held" else "queued"
        history.info("queue", "fate", message=id_of(address), state=fate, **named([address]))
    return len(rows)
