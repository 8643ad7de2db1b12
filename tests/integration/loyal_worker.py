"""A delivery worker in a process of its own that goes on until nothing is left, or it is killed."""

from __future__ import annotations

import asyncio
import io
from pathlib import Path
from typing import Any

from relaygw.delivery.worker import Worker
from relaygw.observe.observer import DeliveryObserver
from relaygw.policy import retry
from relaygw.policy.retry import doubt_waits
from relaygw.settings.model import Settings
from relaygw.settings.provider import Provider
from relaygw.settings.routes import Route
from relaygw.store.instances import Lifeline
from relaygw.store.rules import StoreRules
from relaygw.store.store import Store, open_store
from tests.builders import instance
from tests.logs import text_log


def hurry() -> None:
    """Have mail in doubt wait a moment, not minutes, in this process."""
    retry.DOUBT_LADDER_S = (0.05, 0.1)
    retry.KEYED_LADDER_S = (0.05,)


def deliver(url: str, directory: Path, incarnation: str, provider: dict[str, Any]) -> None:
    """Deliver what is in the queue."""
    hurry()
    settings = settings_of(provider, f"{incarnation}.test")  # each instance has its own
    store = open_store(url, rules=StoreRules(doubt_waits=doubt_waits(settings.providers)))
    asyncio.run(work(settings, store, directory, incarnation))


def settings_of(provider: dict[str, Any], hostname: str) -> Settings:
    """Return settings with one route, to one provider."""
    return Settings.model_validate(
        {
            "mode": "production",
            "hostname": hostname,
            "providers": {"p": Provider.model_validate(provider)},
            "routes": [Route(name="default", providers=("p",))],
        }
    )


async def work(settings: Settings, store: Store, directory: Path, incarnation: str) -> None:
    """Deliver until nothing is left, with a lifeline in this directory; close the store."""
    lifeline = Lifeline(directory, incarnation)
    store.instances.register(instance(incarnation))
    worker = Worker(
        settings,
        store,
        DeliveryObserver(text_log(io.StringIO())),
        incarnation=incarnation,
        in_flight=lifeline,
        hints=None,
    )
    stop = asyncio.Event()
    running = asyncio.create_task(worker.run(stop))
    while await asyncio.to_thread(has_work, store):
        worker.wake()
        await asyncio.sleep(0.02)
    stop.set()
    await running
    store.instances.bury(incarnation)
    lifeline.release()
    store.close()


def has_work(store: Store) -> bool:
    """True while something waits, but for what is held."""
    with store.database.read() as connection:
        left = "SELECT 1 FROM delivery WHERE state NOT IN ('finished', 'held') LIMIT 1"
        return bool(connection.connection.exec_driver_sql(left).all())
