"""A coroutine in a thread with an event loop of its own."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Coroutine

_STOP_S = 4.0


class WatchThread:
    """A coroutine for the length of a with block, in a thread with an event loop of its own."""

    def __init__(
        self, make: Callable[[], Coroutine[None, None, None]], *, name: str = "alerts"
    ) -> None:
        self._make = make
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._task: asyncio.Task[None] | None = None
        self._is_stopping = False

    def __enter__(self) -> WatchThread:
        self._thread.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        """Stop it, and wait for a moment; what hangs then ends with the process."""
        self.stop()
        self._thread.join(_STOP_S)

    def stop(self) -> None:
        """Cancel the coroutine; returns at once."""
        self._is_stopping = True
        if self._task is not None:
            with contextlib.suppress(RuntimeError):  # it has ended
                self._task.get_loop().call_soon_threadsafe(self._task.cancel)

    def _run(self) -> None:
        with contextlib.suppress(asyncio.CancelledError):
            asyncio.run(self._main())

    async def _main(self) -> None:
        self._task = asyncio.create_task(self._make())
        if self._is_stopping:
            self._task.cancel()
        await self._task
