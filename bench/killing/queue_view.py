"""The gateway's queue and lifelines, read only, without a word to the gateway.

Reads relaygw's own schema (store/tables.py) and the slots of its lifelines
(store/instances.py). A message's id is the local part of its recipient.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# word for word the condition of the partial index delivery_open
_OPEN = "state IN ('incoming', 'active', 'deferred', 'held')"
_PATIENCE_S = 30.0


class QueueView:
    """What the queue database holds at this moment."""

    def __init__(self, database: Path) -> None:
        self._database = database

    def open_ids(self, *states: str) -> list[str]:
        """Return the messages that are not recorded as finished; with `states`, only in these."""
        chosen = f" AND d.state IN ({', '.join('?' * len(states))})" if states else ""
        query = (
            "SELECT DISTINCT r.address FROM delivery d JOIN recipient r "
            "ON r.queue_id = d.queue_id AND r.delivery_no = d.delivery_no "
            f"WHERE d.{_OPEN}{chosen}"
        )
        with self._connected() as connection:
            return [_id_of(address) for (address,) in connection.execute(query, states)]

    def delivery_pids(self) -> dict[int, str]:
        """Return the incarnations of registered delivery workers by process id, oldest first."""
        query = "SELECT pid, incarnation FROM instance WHERE role = 'delivery' ORDER BY "
        with self._connected() as connection:
            return dict(connection.execute(f"{query} started_at_ms").fetchall())

    def slots_of(self, pid: int) -> list[str]:
        """Return the messages in the slots of a worker's lifeline: begun and not ended."""
        incarnation = self.delivery_pids().get(pid)
        if incarnation is None:
            return []
        try:
            lines = (self._database.parent / "instances" / incarnation).read_text("ascii")
        except FileNotFoundError:
            return []
        found = []
        with self._connected() as connection:
            for queue_id in (line.split()[0] for line in lines.splitlines() if line.strip()):
                query = "SELECT address FROM recipient WHERE queue_id = ?"
                found += [_id_of(address) for (address,) in connection.execute(query, [queue_id])]
        return found

    @contextmanager
    def _connected(self) -> Iterator[sqlite3.Connection]:
        url = f"file:{self._database}?mode=ro"
        connection = sqlite3.connect(url, uri=True, timeout=_PATIENCE_S)
        try:
            yield connection
        finally:
            connection.close()


def _id_of(address: str) -> str:
    return address.partition("@")[0]
