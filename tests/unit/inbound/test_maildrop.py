"""The maildrop while the store is in trouble: files stay, are tried again, and are said once."""

from __future__ import annotations

import asyncio
import io
import secrets
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from relaygw.errors import StoreUnavailable
from relaygw.inbound import maildrop
from relaygw.inbound.group_commit import GroupCommitter
from relaygw.inbound.intake import Intake
from relaygw.inbound.maildrop import Maildrop
from relaygw.mail.envelope import AcceptedMessage
from relaygw.mail.search import EVERYTHING
from relaygw.settings.model import Settings
from relaygw.store import migrate
from relaygw.store.protocol import Selection
from relaygw.store.sqlite import SqliteStore
from tests.logs import text_log
from tests.unit.inbound.test_drop_file import drop_bytes


class TroubledStore(SqliteStore):
    """A real store that is unavailable for the first `failures` batches."""

    failures = 0

    def accept_batch(self, messages: Sequence[AcceptedMessage]) -> None:
        if self.failures:
            self.failures -= 1
            raise StoreUnavailable("no database")
        super().accept_batch(messages)


async def until(condition: Callable[[], bool]) -> None:
    while True:
        if condition():
            return
        await asyncio.sleep(0.01)


async def test_files_stay_until_the_store_is_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(maildrop, "MAX_BACKOFF_S", 0.05)
    url = f"sqlite:///{tmp_path}/queue.db"
    migrate.upgrade(url)
    store = TroubledStore(url, keep_content=False)
    store.failures = 9
    directory = tmp_path / "maildrop"
    settings = Settings.model_validate(
        {
            "mode": "sandbox",
            "listeners": [{"bind": "127.0.0.1:25"}],
            "maildrop": {"path": str(directory)},
            "queue": {"min_free": "0%"},
        }
    )
    directory.mkdir()
    files = [directory / f"{secrets.token_hex(16)}.drop" for _ in range(3)]
    for file in files:
        file.write_bytes(drop_bytes(b"Subject: x\n\nhello\n"))
    stream = io.StringIO()
    committer = GroupCommitter(store, committed=lambda _: None)
    service = Maildrop(
        settings,
        store=store,
        intake=Intake(settings, state_dir=tmp_path),
        committer=committer,
        log=text_log(stream),
        large_message_turn=asyncio.Semaphore(1),
    )
    service.start()
    async with asyncio.timeout(90):
        await until(lambda: store.failures < 9)
        assert all(file.exists() for file in files)
        await until(lambda: not any(file.exists() for file in files))
    await service.ended(5)
    await committer.drain()
    found = store.captured_ids(EVERYTHING, limit=9)
    assert len(found) == 3
    assert store.search(Selection(), limit=9) == []
    assert stream.getvalue().count("no database; local mail stays in the maildrop") == 1
    assert stream.getvalue().count("local mail is taken again") == 1
    store.close()
