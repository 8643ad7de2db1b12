"""What the queue database says of each message of a load; read only, on the side.

Messages are known by their Message-ID, which `bench.rig.latency` makes of their bench id.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.rig.postgres import rows_of

Queue = Path | str
"""A file of SQLite or the URL of a PostgreSQL database."""

_PATIENCE_S = 30.0
_FATES = """
    SELECT m.message_id, m.queue_id, d.state, (
        SELECT coalesce(sum(a.times), 0) FROM attempt a WHERE a.queue_id = d.queue_id
        AND a.delivery_no = d.delivery_no AND a.state IN ('in doubt', 'interrupted')
    ), d.attempts, r.state, r.reply
    FROM message m JOIN delivery d ON d.queue_id = m.queue_id
    JOIN recipient r ON r.queue_id = d.queue_id AND r.delivery_no = d.delivery_no
"""
# word for word the condition of the partial index delivery_open
_OPEN = "SELECT doubts FROM delivery WHERE state IN ('incoming', 'active', 'deferred', 'held')"


@dataclass(frozen=True)
class Fate:
    """A message of one recipient, as the queue has it."""

    queue_id: str
    delivery: str  # incoming | active | deferred | held | finished
    doubts: int  # that were recorded, also those that are over
    attempts: int  # that were charged
    recipient: str  # pending | delivered | bounced | expired | ...
    reply: str

    @property
    def is_open(self) -> bool:
        """True while it may still be delivered."""
        return self.delivery != "finished"


def read_fates(queue: Queue) -> dict[str, Fate]:
    """Return the fate of every message by bench id."""
    return {
        bench_id_of(message_id): Fate(
            queue_id, delivery, int(doubts), int(attempts), recipient, reply or ""
        )
        for message_id, queue_id, delivery, doubts, attempts, recipient, reply in ask(queue, _FATES)
    }


def bench_id_of(message_id: str) -> str:
    """Return the bench id in a Message-ID of the load."""
    return message_id.strip("<>").partition("@")[0]


def wait_until_drained(queue: Queue, *, patience_s: float) -> bool:
    """Wait until the queue is empty but for mail in doubt; return False if it does not get so."""
    deadline_s = time.monotonic() + patience_s
    while time.monotonic() < deadline_s:
        if all(int(doubts) for (doubts,) in ask(queue, _OPEN)):
            return True
        time.sleep(0.5)
    return False


def ask(queue: Queue, query: str) -> Sequence[Sequence[Any]]:
    """Return what a query finds; of PostgreSQL everything as text, a null as an empty one."""
    if isinstance(queue, str):
        return rows_of(queue, query, patience_s=_PATIENCE_S)
    source = f"file:{queue}?mode=ro"
    with closing(sqlite3.connect(source, uri=True, timeout=_PATIENCE_S)) as connection:
        return connection.execute(query).fetchall()
