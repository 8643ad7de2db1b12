"""What root's commands make beside a queue belongs to the gateway's user."""

from __future__ import annotations

import os
from pathlib import Path

from relaygw.store.queue_lock import lock_directory_of
from relaygw.store.store import open_store
from tests.queues import make_queue
from tests.rights import needs

USER, GROUP = 4321, 4322


@needs("root")
def test_lock_files_that_root_makes_belong_to_the_owner_of_the_queue(tmp_path: Path) -> None:
    database = tmp_path / "queue.db"
    make_queue(f"sqlite:///{database}")
    os.chown(database, USER, GROUP)
    locks = lock_directory_of(database)
    assert not locks.exists()
    open_store(f"sqlite:///{database}").close()
    made = [locks, *locks.iterdir()]
    assert {one.name for one in made} >= {"users", "progress", "lock", "gate", "turnstile"}
    assert {(one.stat().st_uid, one.stat().st_gid) for one in made} == {(USER, GROUP)}
