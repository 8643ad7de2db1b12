"""What is measured every few seconds: of each process, and of the database; kept as a CSV.

A line is a time (seconds since the run began), what it is of, which life of it (a process id; a
role that is started anew begins another), the measure, and the value.
"""

from __future__ import annotations

import contextlib
import csv
import sqlite3
import subprocess
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from bench.rig.gateway import Gateway, pss_bytes_of
from bench.rig.processor_time import command_of
from bench.rig.queue_fates import Queue, ask

SAMPLES = "samples.csv"
EVERY_S = 5.0
DATABASE = "database"
MAIL_TABLES = ("message", "delivery", "recipient", "attempt", "content", "chunk")
"""What goes with its message; other tables keep figures and history for days."""
_TABLES = {
    "sqlite": "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite%'",
    "postgres": "SELECT tablename FROM pg_tables WHERE schemaname = 'public'",
}
_SIZES = """
    SELECT pg_database_size(current_database()), (SELECT sum(size) FROM pg_ls_waldir())
"""
_AWAY = (sqlite3.Error, subprocess.SubprocessError)


class Sample(NamedTuple):
    """One value."""

    at_s: float
    of: str  # supervisor | front | delivery | web | database
    life: int
    measure: str
    value: float


def write_samples(path: Path, samples: Iterable[Sample]) -> None:
    """Append to a CSV; a new one gets its heading."""
    is_new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.writer(file)
        if is_new:
            writer.writerow(Sample._fields)
        writer.writerows((f"{one.at_s:.1f}", *one[1:4], f"{one.value:g}") for one in samples)


def read_samples(path: Path) -> list[Sample]:
    """Return the samples of a CSV in their order; raises ValueError."""
    with path.open(newline="") as file:
        rows = csv.reader(file)
        if next(rows, None) != list(Sample._fields):
            raise ValueError(f"{path}: no heading of samples")
        return [
            Sample(float(at_s), of, int(life), measure, float(value))
            for at_s, of, life, measure, value in rows
        ]


class Sampler:
    """Takes samples of a gateway and its database, and appends them to a file."""

    def __init__(self, gateway: Gateway, path: Path) -> None:
        self._gateway = gateway
        self._path = path
        self._roles = {name: role for role, name in gateway.roles.items()}
        self._begun_s = time.monotonic()
        self._count_rows = ""

    def take(self) -> None:
        """Take one of everything that is there; a database that is away is left out."""
        at_s = time.monotonic() - self._begun_s
        found = [*self._of_processes(at_s)]
        with contextlib.suppress(*_AWAY):
            found += self._of_database(at_s)
        write_samples(self._path, found)

    def _of_processes(self, at_s: float) -> Iterator[Sample]:
        supervisor = self._gateway.pid
        for pid in self._gateway.pids():
            role = "supervisor" if pid == supervisor else self._roles.get(command_of(pid))
            measures = measure_process(pid) if role else {}
            for name, value in measures.items():
                yield Sample(at_s, role or "", pid, name, value)

    def _of_database(self, at_s: float) -> Iterator[Sample]:
        queue = self._gateway.queue
        measures = {**_sizes(queue), **self._rows(queue)}
        for name, value in measures.items():
            yield Sample(at_s, DATABASE, 0, name, value)

    def _rows(self, queue: Queue) -> dict[str, float]:
        if not self._count_rows:
            kind = "postgres" if isinstance(queue, str) else "sqlite"
            names = [name for (name,) in ask(queue, _TABLES[kind])]
            self._count_rows = " UNION ALL ".join(
                f"SELECT '{name}', count(*) FROM \"{name}\"" for name in sorted(names)
            )
        counts = {name: float(count) for name, count in ask(queue, self._count_rows)}
        mail = sum(counts.get(name, 0.0) for name in MAIL_TABLES)
        return {"rows": mail, **{f"rows of {name}": count for name, count in counts.items()}}


def measure_process(pid: int) -> dict[str, float]:
    """Return memory, descriptors and threads of a process; nothing of one that has ended."""
    try:
        descriptors = len(list(Path(f"/proc/{pid}/fd").iterdir()))
        threads = len(list(Path(f"/proc/{pid}/task").iterdir()))
    except (FileNotFoundError, ProcessLookupError):
        return {}
    if not (pss_bytes := pss_bytes_of(pid)):
        return {}
    return {"pss_bytes": pss_bytes, "descriptors": descriptors, "threads": threads}


def _sizes(queue: Queue) -> dict[str, float]:
    if isinstance(queue, str):
        ((size_bytes, wal_bytes),) = ask(queue, _SIZES)
        return {"bytes": float(size_bytes), "wal_bytes": float(wal_bytes or 0)}
    wal = queue.with_name(f"{queue.name}-wal")
    return {
        "bytes": queue.stat().st_size,
        "wal_bytes": wal.stat().st_size if wal.exists() else 0,
    }
