"""A process that sends the digests that are due, killed at a write of its choice."""

from __future__ import annotations

import asyncio
import io
from pathlib import Path
from typing import Any

from relaygw.alerting.digest_sender import DigestSender
from relaygw.inbound.intake import Intake
from relaygw.inbound.local_mail import NoticeComposer
from relaygw.settings.model import Settings
from relaygw.store.store import Store, store_on
from tests.builders import instance
from tests.integration.dying_worker import DyingDatabase
from tests.logs import text_log


def settings_of(**digest: Any) -> dict[str, Any]:
    """Return settings of a gateway with a digest."""
    return {
        "mode": "production",
        "hostname": "gw.test",
        "providers": {"p": {"host": "127.0.0.1", "tls": "none"}},
        "routes": [{"name": "default", "providers": ["p"]}],
        "queue": {"min_free": "0%"},
        "digest": digest,
    }


def sender_on(
    store: Store, state_dir: Path, incarnation: str, settings: dict[str, Any]
) -> tuple[DigestSender, io.StringIO]:
    """Return what sends the digests of a queue, and its log; its instance is registered."""
    made = Settings.model_validate(settings)
    store.instances.register(instance(incarnation))
    log = io.StringIO()
    sender = DigestSender(
        settings=made,
        store=store,
        incarnation=incarnation,
        composer=NoticeComposer(Intake(made, state_dir=state_dir)),
        log=text_log(log),
        wake_workers=lambda: None,
    )
    return sender, log


def work(
    directory: Path, incarnation: str, settings: dict[str, Any], number: int, is_after: bool
) -> None:
    """Send what is due, unless the `number`th write comes before."""
    database = DyingDatabase(f"sqlite:///{directory}/queue.db")
    store = store_on(database)
    sender, _ = sender_on(store, directory, incarnation, settings)
    database.number, database.is_after, database.written = number, is_after, 0
    asyncio.run(sender.send_due())
    store.close()
