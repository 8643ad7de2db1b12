"""What a message costs a PostgreSQL server: statements, commits, rows, log, syncs, processor time.

The server counts them itself (pg_stat_statements, pg_stat_wal, pg_stat_database), for some hundred
messages at once; what an idle gateway does in as much time is taken off. All but the processor time
are counts, which other programs do not disturb.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from bench.rig.gateway import PATIENCE_S, Gateway, provider
from bench.rig.postgres import PostgresServer, rows_of
from bench.rig.processor_time import ALL, ProcessorTime
from bench.rig.sink import Sink
from bench.rig.source import send

WARM_UP, MESSAGES = 200, 1000
_IDLE_S = 20.0
_SETTLE_S = 3.0  # until outcomes are recorded, and statistics are told
_CONNECTIONS = 20
_LOADED = "pg_stat_statements"
_FIGURES: Mapping[str, str] = {
    "statements": f"SELECT sum(calls) FROM {_LOADED} WHERE query !~ '^(BEGIN|COMMIT|ROLLBACK)'",
    "commits": "SELECT sum(xact_commit) FROM pg_stat_database",
    "rows inserted": "SELECT sum(n_tup_ins) FROM pg_stat_user_tables",
    "rows updated": "SELECT sum(n_tup_upd) FROM pg_stat_user_tables",
    "rows deleted": "SELECT sum(n_tup_del) FROM pg_stat_user_tables",
    "bytes of log": "SELECT wal_bytes FROM pg_stat_wal",
    "of these page images": "SELECT wal_fpi * 8192 FROM pg_stat_wal",
    "writes of log": "SELECT wal_write FROM pg_stat_wal",
    "syncs of log": "SELECT wal_sync FROM pg_stat_wal",
}
PROCESSOR = "processor time, us"


def of_messages(*, size_bytes: int, clients: int) -> dict[str, float]:
    """Return what one message costs on the average, by figure."""
    with (
        tempfile.TemporaryDirectory() as name,
        PostgresServer(None, shared_preload_libraries=_LOADED) as server,
        Sink() as sink,
    ):
        server.execute(f"CREATE EXTENSION {_LOADED}")
        upstream = {"sink": provider(sink.port, max_connections=_CONNECTIONS)}
        gateway = Gateway(Path(name), providers=upstream, queue={"url": server.url})
        with gateway:

            def pass_through(total: int, messages: int) -> None:
                send(gateway.smtp_port, messages=messages, size_bytes=size_bytes, sessions=clients)
                sink.wait_for(total, patience_s=PATIENCE_S)
                time.sleep(_SETTLE_S)

            pass_through(WARM_UP, WARM_UP)
            server.execute("CHECKPOINT")  # page images of it belong to the first messages
            idle_per_s = _idle_per_s(server)
            spent, took_s = _spent(server, lambda: pass_through(WARM_UP + MESSAGES, MESSAGES))
    return {name: max(0.0, spent[name] - idle_per_s[name] * took_s) / MESSAGES for name in spent}


def _idle_per_s(server: PostgresServer) -> dict[str, float]:
    spent, took_s = _spent(server, lambda: time.sleep(_IDLE_S))
    return {name: value / took_s for name, value in spent.items()}


def _spent(server: PostgresServer, do: Callable[[], None]) -> tuple[dict[str, float], float]:
    begun_s = time.monotonic()
    before = _read(server)
    with ProcessorTime(server.pid) as processor:
        do()
    after = _read(server)
    spent = {name: after[name] - before[name] for name in after}
    return {**spent, PROCESSOR: processor.used_s[ALL] * 1e6}, time.monotonic() - begun_s


def _read(server: PostgresServer) -> dict[str, float]:
    query = " UNION ALL ".join(
        f"SELECT {number}, ({one})" for number, one in enumerate(_FIGURES.values())
    )
    rows = rows_of(server.url, f"{query} ORDER BY 1", patience_s=PATIENCE_S)
    return {name: float(row[1]) for name, row in zip(_FIGURES, rows, strict=True)}


def to_text(columns: Mapping[str, Mapping[str, float]]) -> str:
    """Return a table."""
    names: Sequence[str] = list(next(iter(columns.values())))
    head = f"{'a message costs PostgreSQL':28}" + "".join(f"{name:>20}" for name in columns)
    rows = [
        f"{name:28}" + "".join(f"{costs[name]:>20,.2f}" for costs in columns.values())
        for name in names
    ]
    return "\n".join([head, *rows])


def main() -> int:
    """Print what messages of 4 and 50 KiB cost, by how many clients send at once."""
    columns = {
        f"{size // 1024} KiB, {clients} at once": of_messages(size_bytes=size, clients=clients)
        for size, clients in ((4096, 1), (4096, 10), (4096, 40), (51200, 10))
    }
    print(to_text(columns))
    return 0
