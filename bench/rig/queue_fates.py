"""What the queue database says of each message of a load; read only, on the side.

Messages are known by their Message-ID, which `bench.rig.latency` makes of their bench id.
"""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

_PATIENCE_S = 30.0
_FATES = """
    SELECT m.message_id, m.queue_id, d.state, d.doubts, d.attempts, r.state, r.reply
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
    doubts: int
    attempts: int  # that were charged
    recipient: str  # pending | delivered | bounced | expired | ...
    reply: str

    @property
    def is_open(self) -> bool:
        """True while it may still be delivered."""
        return self.delivery != "finished"

    @property
    def is_bounced(self) -> bool:
        """True when it was given up."""
        return not self.is_open and self.recipient != "delivered"


def read_fates(database: Path) -> dict[str, Fate]:
    """Return the fate of every message by bench id."""
    with closing(_connect(database)) as connection:
        rows = connection.execute(_FATES).fetchall()
    return {
        message_id.strip("<>").partition("@")[0]: Fate(
            queue_id, delivery, doubts, attempts, recipient, reply or ""
        )
        for message_id, queue_id, delivery, doubts, attempts, recipient, reply in rows
    }


def wait_until_drained(database: Path, *, patience_s: float) -> bool:
    """Wait until the queue is empty but for mail in doubt; return False if it does not get so."""
    deadline_s = time.monotonic() + patience_s
    while time.monotonic() < deadline_s:
        with closing(_connect(database)) as connection:
            if all(doubts for (doubts,) in connection.execute(_OPEN)):
                return True
        time.sleep(0.5)
    return False


def _connect(database: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=_PATIENCE_S)
