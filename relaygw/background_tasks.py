"""Tasks that nobody waits for, until all of them are ended together."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine


class BackgroundTasks:
    """Tasks of one owner, who is told of what fails: `TYPE: TEXT`."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell = tell
        self._tasks: set[asyncio.Task[None]] = set()

    def spawn(self, work: Coroutine[None, None, None]) -> None:
        """Run `work` in the background; an error of it is told."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._end_task)

    def _end_task(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self._tell(f"{type(error).__name__}: {error}")

    async def drain(self, limit_s: float) -> None:
        """Return when all tasks have ended; what takes longer than `limit_s` is cancelled."""
        deadline_s = time.monotonic() + limit_s
        while self._tasks and (left_s := deadline_s - time.monotonic()) > 0:
            await asyncio.wait(self._tasks, timeout=left_s)
        while self._tasks:  # what is cancelled may begin something else
            for task in self._tasks:
                task.cancel()
            await asyncio.wait(self._tasks)
