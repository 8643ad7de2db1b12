"""What is acknowledged is on disk first, on every database; what is no loss is not waited for."""

from __future__ import annotations

from relaygw.store.database import Write
from relaygw.store.store import Store

IS_SYNCED = {Write.SYNCED: True, Write.UNSYNCED: False}


def test_each_kind_of_write_is_synced_as_it_says(store: Store) -> None:
    found = {}
    # on SQLite BULK is synced by hand (tests/unit/store/test_large_content.py)
    expected = {**IS_SYNCED, Write.BULK: store.database.is_shared}
    for kind in expected:
        with store.database.write(kind) as tx:
            what = "SHOW synchronous_commit" if tx.is_postgres else "PRAGMA synchronous"
            found[kind] = tx.connection.exec_driver_sql(what).scalar() in ("on", 2)
    assert found == expected
