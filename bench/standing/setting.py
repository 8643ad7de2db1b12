"""What every case gets: a directory, how big to be, and where to say what it does."""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Size:
    """How much each case does."""

    load_s: float = 30.0
    finished: int = 1_000_000
    deferred: int = 100_000
    queued: int = 100_000
    burst: int = 4_000
    rounds: int = 4
    turns: int = 24  # of each of some gateways side by side
    turn_messages: int = 500
    housekeeping_s: float = 70.0
    restarts: int = 3
    watch_s: float = 20.0
    bulk_bytes: int = 25_000_000
    bulk_connections: int = 40
    settle_s: float = 10.0
    idle_s: float = 60.0
    sends: int = 100
    throttle_s: float = 180.0
    throttle_per_s: float = 50.0  # what the provider allows
    throttle_connections: int = 5
    outage_s: float = 32.0  # ends between two probes
    return_s: float = 75.0
    revoked_s: float = 15.0
    resumed_s: float = 20.0
    idle_clients: int = 5_000
    slow_clients: int = 2_000
    crowd_s: float = 30.0  # of the good client beside idle ones
    phase_s: float = 80.0  # of a number of instances; its first 20 s do not count
    takeovers: int = 3
    slow_reply_s: float = 65.0
    slow_replies: int = 10
    database_restarts: int = 50
    database_outages: int = 4
    captured: int = 100_000
    searches: int = 20  # times each search is made


SMALL = Size(
    load_s=3.0,
    finished=20_000,
    deferred=2_000,
    queued=5_000,
    burst=400,
    rounds=1,
    turns=2,
    turn_messages=100,
    housekeeping_s=3.0,
    restarts=1,
    watch_s=3.0,
    bulk_bytes=2_500_000,
    bulk_connections=10,
    settle_s=2.0,
    idle_s=5.0,
    sends=10,
    throttle_s=20.0,
    outage_s=12.0,
    return_s=30.0,
    revoked_s=8.0,
    resumed_s=8.0,
    idle_clients=200,
    slow_clients=100,
    crowd_s=3.0,
    phase_s=30.0,
    takeovers=1,
    slow_reply_s=25.0,
    slow_replies=3,
    database_restarts=4,
    database_outages=1,
    captured=2_000,
    searches=3,
)


@dataclass(frozen=True)
class Setting:
    """Where and how big."""

    root: Path
    size: Size
    kept: Path | None = None  # where logs of cases go that keep them

    def keep(self, directory: Path, name: str) -> None:
        """Copy a case's logs and histories to where they are kept, if they are."""
        if self.kept is not None:
            target = self.kept / name
            target.mkdir(parents=True, exist_ok=True)
            for path in (*directory.rglob("*.log"), *directory.rglob("*.jsonl")):
                shutil.copy(path, target / "-".join(path.relative_to(directory).parts))

    @contextmanager
    def directory(self) -> Iterator[Path]:
        """Yield a fresh directory that is removed afterwards."""
        made = Path(tempfile.mkdtemp(prefix="alone-", dir=self.root))
        try:
            yield made
        finally:
            shutil.rmtree(made, ignore_errors=True)

    def say(self, text: str) -> None:
        """Show progress."""
        print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)
