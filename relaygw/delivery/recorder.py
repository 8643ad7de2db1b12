"""Records outcomes by group commit: what ends while one batch is written is the next one.

An outcome is never dropped: while the store cannot take it, the batch is tried again. Its
delivery counts as under way until then, so that a worker that dies can have left no more
unrecorded than it has connections. Log lines go out after the commit. When the store works and
refuses a batch, its outcomes are written one by one, so that one with a defect stops no other.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from relaygw.errors import StoreUnavailable, Unstorable
from relaygw.mail.envelope import DeliveryUpdate
from relaygw.observe.events import Event
from relaygw.observe.maillog import MailLog
from relaygw.observe.metrics.meters import SILENT, DeliveryMeter
from relaygw.store.protocol import Recorded, Store

MAX_BATCH = 200
_RETRY_LADDER_S = (0.1, 0.5, 1.0, 2.0)

Entry = tuple[DeliveryUpdate, Sequence[Event], asyncio.Future[None]]


class Recorder:
    """Writes the outcomes of one worker."""

    def __init__(
        self,
        store: Store,
        log: MailLog,
        *,
        incarnation: str,
        lost_leases: Callable[[], None],
        meter: DeliveryMeter = SILENT,
    ) -> None:
        self._store = store
        self._log = log
        self._meter = meter
        self._incarnation = incarnation
        self._lost_leases = lost_leases
        self._waiting: list[Entry] = []
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="record")
        self._writer: asyncio.Task[None] | None = None
        self._failures = 0

    async def record(self, update: DeliveryUpdate, events: Sequence[Event]) -> None:
        """Return once an outcome is durable and its events are logged.

        Cancelling the caller does not withdraw it.
        """
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()
        self._waiting.append((update, events, done))
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
            refused: list[str] = []
            try:
                recorded = await loop.run_in_executor(
                    self._thread, self._write, [update for update, _, _ in batch], refused
                )
            except StoreUnavailable as error:
                await self._wait_for_store(error)
                continue
            self._failures = 0
            del self._waiting[: len(batch)]
            self._log.write([event for _, events, _ in batch for event in events])
            for problem in refused:
                self._log.note("qmgr", problem)
            for queue_id, _ in recorded.lost:
                self._report_lost(queue_id)
            if not recorded.is_alive:
                self._lost_leases()
            for _, _, done in batch:
                if not done.done():
                    done.set_result(None)
        self._writer = None

    def _write(self, updates: Sequence[DeliveryUpdate], refused: list[str]) -> Recorded:
        """Write outcomes, in the thread; what cannot be written is told in `refused`."""
        try:
            return self._record(updates)
        except Exception as error:
            if _is_away(error):
                raise
            if len(updates) == 1:
                refused.append(
                    f"{updates[0].queue_id}: error: its outcome cannot be recorded: "
                    f"{type(error).__name__}: {error}; the message may be sent more than once"
                )
                return Recorded(is_alive=True)
        # those that are written already stay so when the store goes away in the middle
        each = [self._write([update], refused) for update in updates]
        return Recorded(
            is_alive=all(one.is_alive for one in each),
            lost=tuple(key for one in each for key in one.lost),
        )

    def _record(self, updates: Sequence[DeliveryUpdate]) -> Recorded:
        began_s = time.monotonic()
        recorded = self._store.record_batch(
            updates, incarnation=self._incarnation, now_ms=time.time_ns() // 1_000_000
        )
        self._meter.wrote(time.monotonic() - began_s)
        return recorded

    async def _wait_for_store(self, error: StoreUnavailable) -> None:
        self._log.note(
            "qmgr", f"warning: {error}; {len(self._waiting)} outcomes wait to be recorded"
        )
        wait_s = _RETRY_LADDER_S[min(self._failures, len(_RETRY_LADDER_S) - 1)]
        self._failures += 1
        await asyncio.sleep(wait_s)

    def _report_lost(self, queue_id: str) -> None:
        self._log.note(
            "qmgr",
            f"{queue_id}: warning: the lease was lost before this outcome was recorded; "
            "the message may be sent more than once",
        )


def _is_away(error: Exception) -> bool:
    """True when the store may take later what it did not take now."""
    return isinstance(error, StoreUnavailable) and not isinstance(error, Unstorable)
