"""What the server's queue holds at this moment, read only, without a word to the server.

Of relaygw its own tables (store/queue_tables.py) and the slots of its lifelines
(store/instances.py); of any other server the files of its spool.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path

from bench.rig.gateway import Gateway
from bench.rig.message import id_of
from bench.rig.mta import Mta
from bench.rig.queue_fates import ask

# word for word the condition of the partial index delivery_open
_OPEN = "d.state IN ('incoming', 'active', 'deferred', 'held')"
_OF_RECIPIENT = "r.queue_id = d.queue_id AND r.delivery_no = d.delivery_no"
_IN_DOUBT = """
    SELECT r.address, coalesce(sum(a.times), 0) FROM recipient r LEFT JOIN attempt a
    ON a.queue_id = r.queue_id AND a.delivery_no = r.delivery_no
    AND a.state IN ('in doubt', 'interrupted') WHERE r.address IN ({}) GROUP BY r.address
"""
_ID = re.compile(rb"X-Id: ([0-9a-f-]+)")
_HEAD_BYTES = 1 << 16
_AT_ONCE = 500


class QueueView(ABC):
    """The queue of a server; a message's id is the local part of its recipient."""

    @abstractmethod
    def open_ids(self) -> list[str]:
        """Return the messages that are not recorded as finished."""

    def due_ids(self) -> list[str]:
        """Return those of them that time alone will send."""
        return self.open_ids()

    def begun_ids(self, pids: list[int]) -> list[str]:
        """Return what dead workers had begun and not ended, as far as they left word of it."""
        return []

    def doubts(self, ids: list[str]) -> dict[str, int]:
        """Return how many doubts are recorded of each message; empty where none are kept."""
        return {}


def view_of(server: Mta) -> QueueView:
    """Return the view of a server's queue."""
    return GatewayQueue(server) if isinstance(server, Gateway) else Spool(server.spool)


class GatewayQueue(QueueView):
    """The queue database of relaygw."""

    def __init__(self, gateway: Gateway) -> None:
        self._queue = gateway.queue
        self._lifelines = gateway.state_dir / "instances"

    def open_ids(self) -> list[str]:
        return self._ids(_OPEN)

    def due_ids(self) -> list[str]:
        return self._ids(f"{_OPEN} AND d.state <> 'held'")

    def begun_ids(self, pids: list[int]) -> list[str]:
        workers = ", ".join(map(str, pids))
        rows = ask(self._queue, f"SELECT incarnation FROM instance WHERE pid IN ({workers})")
        queue_ids = [one for (name,) in rows for one in _begun(self._lifelines / name)]
        if not queue_ids:
            return []
        listed = ", ".join(f"'{one}'" for one in queue_ids)
        rows = ask(self._queue, f"SELECT address FROM recipient WHERE queue_id IN ({listed})")
        return [id_of(address) for (address,) in rows]

    def doubts(self, ids: list[str]) -> dict[str, int]:
        found: dict[str, int] = {}
        for start in range(0, len(ids), _AT_ONCE):
            listed = ", ".join(f"'{one}@cust.test'" for one in ids[start : start + _AT_ONCE])
            rows = ask(self._queue, _IN_DOUBT.format(listed))
            found |= {id_of(address): int(count) for address, count in rows}
        return found

    def _ids(self, condition: str) -> list[str]:
        query = (
            "SELECT DISTINCT r.address FROM delivery d JOIN recipient r "
            f"ON {_OF_RECIPIENT} WHERE {condition}"
        )
        return [id_of(address) for (address,) in ask(self._queue, query)]


class Spool(QueueView):
    """The files below a directory that have the X-Id line of a message."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def open_ids(self) -> list[str]:
        return sorted(set(self._found()))

    def _found(self) -> Iterator[str]:
        for path in self._directory.rglob("*"):
            try:
                with path.open("rb") as file:
                    head = file.read(_HEAD_BYTES)
            except OSError:  # a directory, a socket, or gone meanwhile
                continue
            yield from (match.decode() for match in _ID.findall(head))


def _begun(lifeline: Path) -> list[str]:
    """Return the queue ids in the slots of a lifeline."""
    try:
        lines = lifeline.read_text("ascii").splitlines()
    except FileNotFoundError:
        return []
    return [line.split()[0] for line in lines if line.strip()]
