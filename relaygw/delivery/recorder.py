"""Records outcomes by group commit: what ends while one batch is written is the next one.

An outcome is never dropped: while the store cannot take it, the batch is tried again. Its
delivery counts as under way until then, so that a worker that dies can have left no more
unrecorded than it has connections. Log lines go out after the commit.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from relaygw.errors import StoreUnavailable
from relaygw.mail.envelope import DeliveryUpdate
from relaygw.observe.maillog import MailLog
from relaygw.store.protocol import Store

MAX_BATCH = 200
_RETRY_LADDER_S = (0.1, 0.5, 1.0, 2.0, 5.0)

LogLine = tuple[str, str]
Entry = tuple[DeliveryUpdate, list[LogLine], asyncio.Future[None]]


class Recorder:
    """Writes the outcomes of one worker."""

    def __init__(
        self, store: Store, log: MailLog, *, incarnation: str, lost_leases: Callable[[], None]
    ) -> None:
        self._store = store
        self._log = log
        self._incarnation = incarnation
        self._lost_leases = lost_leases
        self._waiting: list[Entry] = []
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="record")
        self._writer: asyncio.Task[None] | None = None
        self._failures = 0

    async def record(self, update: DeliveryUpdate, lines: list[LogLine]) -> None:
        """Return once an outcome is durable and its lines are logged.

        Cancelling the caller does not withdraw it.
        """
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()
        self._waiting.append((update, lines, done))
        if self._writer is None:
            self._writer = loop.create_task(self._write_all())
        await done

    async def drain(self) -> None:
        """Return when everything is durable, and stop the thread."""
        if self._writer is not None:
            await self._writer
        await asyncio.to_thread(self._thread.shutdown)

    async def _write_all(self) -> None:
        loop = asyncio.get_running_loop()
        while self._waiting:
            batch = self._waiting[:MAX_BATCH]
            try:
                is_alive = await loop.run_in_executor(
                    self._thread, self._write, [update for update, _, _ in batch]
                )
            except StoreUnavailable as error:
                await self._wait_for_store(error)
                continue
            self._failures = 0
            del self._waiting[: len(batch)]
            self._log.write([line for _, lines, _ in batch for line in lines])
            if not is_alive:
                self._report_lost(batch)
            for _, _, done in batch:
                if not done.done():
                    done.set_result(None)
        self._writer = None

    def _write(self, updates: list[DeliveryUpdate]) -> bool:
        return self._store.record_batch(
            updates, incarnation=self._incarnation, now_ms=time.time_ns() // 1_000_000
        )

    async def _wait_for_store(self, error: StoreUnavailable) -> None:
        self._log.note(
            "qmgr", f"warning: {error}; {len(self._waiting)} outcomes wait to be recorded"
        )
        wait_s = _RETRY_LADDER_S[min(self._failures, len(_RETRY_LADDER_S) - 1)]
        self._failures += 1
        await asyncio.sleep(wait_s)

    def _report_lost(self, batch: list[Entry]) -> None:
        for update, _, _ in batch:
            self._log.note(
                "qmgr",
                f"{update.queue_id}: warning: the lease was lost before this outcome was "
                "recorded; the message may be sent more than once",
            )
        self._lost_leases()
