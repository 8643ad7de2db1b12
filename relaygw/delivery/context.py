"""What the parts of a delivery worker share: settings, store and log, its threads and tasks."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import ParamSpec, TypeVar

from relaygw.delivery.waits import USUAL, Waits
from relaygw.errors import StoreUnavailable
from relaygw.observe.observer import DeliveryObserver
from relaygw.settings.model import Settings
from relaygw.store.store import Store
from relaygw.upstream.mark import KEY, Marks

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerContext:
    """Handed to each part of a worker."""

    settings: Settings
    store: Store
    observer: DeliveryObserver
    incarnation: str
    threads: ThreadPoolExecutor  # calls of the store block
    spawn: Callable[[Coroutine[None, None, None]], None]  # runs work until the worker has drained
    waits: Waits = USUAL
    marks: Marks | None = None  # None: no provider reports what becomes of mail

    def note(self, text: str) -> None:
        """Write a line of the queue manager into the mail log."""
        self.observer.log.note("qmgr", text)

    def note_safely(self, text: str) -> None:
        """Write such a line; a log that cannot be written stops no outcome."""
        with contextlib.suppress(Exception):
            self.note(text)

    def call(
        self, blocking: Callable[P, T], *args: P.args, **kwargs: P.kwargs
    ) -> asyncio.Future[T]:
        """Run a blocking call in the worker's threads; what is returned has its result."""
        call = partial(blocking, *args, **kwargs)
        return asyncio.get_running_loop().run_in_executor(self.threads, call)

    async def ask(
        self, trouble: str, blocking: Callable[P, T], *args: P.args, **kwargs: P.kwargs
    ) -> T | None:
        """Return the result of a call of the store; None, with `trouble` logged, if it is away."""
        with self.noting(trouble):
            return await self.call(blocking, *args, **kwargs)
        return None

    @contextlib.contextmanager
    def noting(self, trouble: str = "") -> Iterator[None]:
        """Note in the log when the store is away, and go on behind the `with`."""
        try:
            yield
        except StoreUnavailable as error:
            self.note(f"warning: {trouble}: {error}" if trouble else f"warning: {error}")


def marks_of(settings: Settings, store: Store) -> Marks | None:
    """Return the marker of mail, None where no provider reports of it. Raises StoreUnavailable."""
    if all(provider.events is None for provider in settings.providers.values()):
        return None
    return Marks(store.feedback.shared_key(KEY))
