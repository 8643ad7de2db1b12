"""A write-ahead log as a full disk or a kill leaves it: begun, and nothing of it committed."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from relaygw.store import log_check
from relaygw.store.log_check import driver


def tell_salts_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a log's salt by chance not taken for a later one, as one of 4096 would be."""
    monkeypatch.setattr(log_check, "_MOST_RESTARTS", 1 << 8)


def begin_log_in_vain(database: Path) -> None:
    """Leave an open queue as a writer does whose first pages of a new log are not committed."""
    with closing(driver.connect(database, isolation_level=None)) as writer:
        writer.execute("PRAGMA wal_checkpoint(PASSIVE)")
        writer.execute("PRAGMA cache_size = 1")  # pages go to the log before the commit
        writer.execute("BEGIN IMMEDIATE")
        writer.execute("CREATE TABLE big (text)")
        for _ in range(20):
            writer.execute("INSERT INTO big VALUES (hex(randomblob(9000)))")
        writer.execute("ROLLBACK")
