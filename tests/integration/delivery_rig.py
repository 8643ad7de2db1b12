"""A delivery worker on a real store, for tests against providers that are real servers."""

from __future__ import annotations

import asyncio
import io
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

from relaygw.delivery.waits import USUAL, Waits
from relaygw.delivery.worker import Worker
from relaygw.mail.envelope import AcceptedMessage
from relaygw.mail.state import DeliveryState
from relaygw.observe.observer import DeliveryObserver
from relaygw.settings.model import Settings
from relaygw.settings.provider import Provider
from relaygw.settings.routes import Route
from relaygw.store.holds import Hold
from relaygw.store.instances import Lifeline
from relaygw.store.queue_entry import QueueEntry
from relaygw.store.selection import Selection
from relaygw.store.store import Store, open_store
from tests.builders import instance
from tests.logs import text_log
from tests.queues import make_queue

ALL_STATES = frozenset(DeliveryState)
PATIENCE_S = 200.0
Found = TypeVar("Found")


class Rig:
    """A worker on a real store, and a look at what it did."""

    settings: Settings

    def __init__(self, store: Store, worker: Worker, log: io.StringIO) -> None:
        self.store = store
        self.worker = worker
        self.log = log
        self._stop = asyncio.Event()
        self._task = asyncio.create_task(worker.run(self._stop))

    async def stop(self) -> None:
        """Stop the worker as its process does, and return when it has ended."""
        self._stop.set()
        await self._task

    def accept(self, *messages: AcceptedMessage) -> None:
        self.store.intake.accept_batch(messages)

    def entry(self, message: AcceptedMessage) -> QueueEntry:
        selection = Selection(queue_ids=(message.queue_id,), states=ALL_STATES)
        (found,) = self.store.queue.search(selection, limit=1)
        return found

    async def wait_for(self, message: AcceptedMessage, *states: DeliveryState) -> QueueEntry:
        """Wait until the deliveries of a message are in these states."""
        entry = None

        def is_so() -> QueueEntry | None:
            nonlocal entry
            entry = self.entry(message)
            return entry if [part.state for part in entry.deliveries] == list(states) else None

        try:
            return await self._until(is_so)
        except TimeoutError:
            tail = "".join(self.log.getvalue().splitlines(keepends=True)[-30:])
            raise AssertionError(f"not {list(states)} in {PATIENCE_S} s: {entry}\n{tail}") from None

    async def wait_until(self, condition: Callable[[], bool]) -> None:
        """Wait until `condition` holds; it may ask the store."""
        await self._until(lambda: condition() or None)

    async def wait_for_look(self) -> None:
        """Wait until the worker has looked at the queue after this."""
        asked_s = time.monotonic()
        await self.wait_until(lambda: time.monotonic() - asked_s > self.worker.claimed_s())

    async def wait_for_holds(self) -> list[Hold]:
        """Wait until something is held."""
        return await self._until(lambda: self.store.holds.in_force() or None)

    async def _until(self, look: Callable[[], Found | None]) -> Found:
        """Look until something is found; return that."""
        async with asyncio.timeout(PATIENCE_S):
            while True:
                began_s = time.monotonic()
                if (found := await asyncio.to_thread(look)) is not None:
                    return found
                # looking takes an eighth of the time at most
                await asyncio.sleep(max(0.02, 7 * (time.monotonic() - began_s)))


@asynccontextmanager
async def running(
    directory: Path,
    providers: dict[str, Provider],
    *,
    routes: Sequence[Route] | None = None,
    store_class: Callable[..., Store] = open_store,
    incarnation: str = "w",
    waits: Waits = USUAL,
    **more: Any,
) -> AsyncIterator[Rig]:
    url = f"sqlite:///{directory}/queue.db"
    if not (directory / "queue.db").exists():  # a second worker finds what the first one left
        make_queue(url)
    store = store_class(url)
    store.instances.register(instance(incarnation))
    settings = Settings.model_validate(
        {
            "mode": "production",
            "hostname": "gw.test",
            "providers": providers,
            "routes": routes or [Route(name="default", providers=(next(iter(providers)),))],
            "retry": {"first": "100ms", "max": "1s", "jitter": "0%"},
            **more,
        }
    )
    output = io.StringIO()
    observer = DeliveryObserver(text_log(output))
    lifeline = Lifeline(directory, incarnation)
    worker = Worker(
        settings,
        store,
        observer,
        incarnation=incarnation,
        in_flight=lifeline,
        hints=None,
        waits=waits,
    )
    rig = Rig(store, worker, output)
    rig.settings = settings
    try:
        yield rig
    finally:
        await rig.stop()
        store.instances.bury(incarnation)
        lifeline.release()
        store.close()
