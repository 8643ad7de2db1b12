"""`relaygw` whose SQLite does not sync commits (`synchronous=NORMAL`): a control that must lose."""

from __future__ import annotations

from typing import Any

from relaygw.cli import main
from relaygw.store import sqlite

_create = sqlite.create_sqlite_engine


def _unsynced(url: str, **how: Any) -> Any:
    return _create(url, **{**how, "is_synced": False})


if __name__ == "__main__":
    sqlite.create_sqlite_engine = _unsynced
    main()
