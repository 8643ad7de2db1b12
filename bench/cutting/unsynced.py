"""`relaygw` whose SQLite does not sync commits (`synchronous=NORMAL`): a control that must lose."""

from __future__ import annotations

from typing import Any

from relaygw.cli import main
from relaygw.store import sqlite
from relaygw.store.queue_file import QueueFile

_create = sqlite.create_sqlite_engine


def _unsynced(url: str, **how: Any) -> Any:
    return _create(url, **{**how, "is_synced": False})


def _do_not_sync(_file: QueueFile) -> None:
    pass


if __name__ == "__main__":
    sqlite.create_sqlite_engine = _unsynced
    QueueFile.sync_log = _do_not_sync  # type: ignore[assignment, method-assign]
    main()
