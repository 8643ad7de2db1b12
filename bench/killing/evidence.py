"""The files of a campaign as facts. Reads them all; judges nothing."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bench.killing.journal import Entry, read_journal
from bench.killing.queue_view import QueueView

CLIENTS, SINK, KILLS = "clients.log", "sink.log", "kills.jsonl"
GATEWAY = "gateway"
DATABASE = Path(GATEWAY, "state", "queue.db")
END_WORKERS = frozenset({"delivery", "supervisor", "all", "stop"})
"""Blows after which another delivery worker works."""


@dataclass(frozen=True, slots=True)
class Kill:
    """One blow, `stop` (a clean one, between kills) included.

    `open_ids`: what the queue did not have recorded as finished when the worker was dead and
    no successor ran yet. `begun_ids`: the slots of the dead worker's lifeline. Both are empty
    for blows that leave a worker the time to record everything.
    """

    role: str
    at_ns: int
    back_ms: float
    open_ids: tuple[str, ...] = ()
    begun_ids: tuple[str, ...] = ()

    def to_json(self) -> str:
        """Return one line that `read_kills` reads."""
        return json.dumps(asdict(self)) + "\n"


@dataclass(slots=True)
class Sent:
    """What a client knows of one message."""

    digest: str | None = None  # None: no content was begun
    acknowledged_ns: int | None = None
    is_refused: bool = False  # after the content


@dataclass(slots=True)
class Take:
    """One message that the sink read to its final dot."""

    message_id: str
    digest: str
    taken_ns: int
    opened_ns: int  # its connection
    answered_ns: int | None = None


@dataclass(slots=True)
class Evidence:
    """All facts of a campaign; takes in order of time."""

    sent: dict[str, Sent] = field(default_factory=dict)
    takes: list[Take] = field(default_factory=list)
    kills: list[Kill] = field(default_factory=list)
    queued: set[str] = field(default_factory=set)


def read_evidence(directory: Path) -> Evidence:
    """Read the logs and the queue of a campaign that has ended."""
    return Evidence(
        sent=read_sent(read_journal(directory / CLIENTS)),
        takes=read_takes(read_journal(directory / SINK)),
        kills=read_kills((directory / KILLS).read_text("ascii").splitlines()),
        queued=set(QueueView(directory / DATABASE).open_ids()),
    )


def read_sent(entries: Iterable[Entry]) -> dict[str, Sent]:
    """Read a clients' journal."""
    sent: dict[str, Sent] = {}
    for stamp_ns, (message_id, state, *more) in entries:
        message = sent.setdefault(message_id, Sent())
        if state == "content":
            message.digest = more[0]
        elif state == "acknowledged":
            message.acknowledged_ns = stamp_ns
        elif state == "refused":
            message.is_refused = message.digest is not None
    return sent


def read_takes(entries: Iterable[Entry]) -> list[Take]:
    """Read a sink's journal."""
    takes: list[Take] = []
    opened_ns: dict[str, int] = {}
    unanswered: dict[str, Take] = {}  # by connection
    for stamp_ns, (event, connection, *more) in entries:
        if event == "open":
            opened_ns[connection] = stamp_ns
        elif event == "taken":
            take = Take(more[0], more[1], stamp_ns, opened_ns[connection])
            unanswered[connection] = take
            takes.append(take)
        elif event == "answered":
            unanswered.pop(connection).answered_ns = stamp_ns
    return takes


def read_kills(lines: Iterable[str]) -> list[Kill]:
    """Read what `Kill.to_json` wrote."""
    kills = []
    for line in lines:
        fields: dict[str, Any] = json.loads(line)
        fields |= {name: tuple(fields[name]) for name in ("open_ids", "begun_ids")}
        kills.append(Kill(**fields))
    return kills
