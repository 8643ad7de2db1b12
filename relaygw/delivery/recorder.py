"""Records outcomes by group commit: what ends while one batch is written is the next one.

An outcome is never dropped: while the store cannot take it, the batch is tried again. Its
delivery counts as under way until then, so that a worker that dies can have left no more
unrecorded than it has connections. Log lines go out after the commit. When the store works and
refuses a batch, its outcomes are written one by one, so that one with a defect stops no other; that
one is held instead, in doubt. Nothing that goes wrong with telling of an outcome stops the next.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

from relaygw.delivery.context import WorkerContext
from relaygw.errors import StoreUnavailable, Unstorable
from relaygw.mail.envelope import DeliveryUpdate
from relaygw.mail.state import DeliveryState
from relaygw.observe.events import Event
from relaygw.policy.hold_reasons import REASON_IN_DOUBT
from relaygw.store.protocol import Key, Recorded

MAX_BATCH = 200
_RETRY_LADDER_S = (0.1, 0.5, 1.0, 2.0)


@dataclass(slots=True)
class Entry:
    """An outcome that waits to be written, and who waits for that."""

    update: DeliveryUpdate
    events: Sequence[Event]
    ended: Callable[[], None] | None
    done: asyncio.Future[bool]


class Recorder:
    """Writes the outcomes of one worker."""

    def __init__(self, context: WorkerContext, lost_leases: Callable[[], None]) -> None:
        self._context = context
        self._lost_leases = lost_leases
        self._waiting: list[Entry] = []
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="record")
        self._writer: asyncio.Task[None] | None = None
        self._failures = 0

    def record(
        self,
        update: DeliveryUpdate,
        events: Sequence[Event],
        ended: Callable[[], None] | None = None,
    ) -> asyncio.Future[bool]:
        """Take an outcome; what is returned is done once it is durable and its events are logged.

        The result is False when it was not written: the lease was lost before, or the store refuses
        it. `ended` is called then, too. Nothing withdraws it: neither the caller's end nor a
        cancellation of the future.
        """
        loop = asyncio.get_running_loop()
        done: asyncio.Future[bool] = loop.create_future()
        self._waiting.append(Entry(update, events, ended, done))
        if self._writer is None:
            self._writer = loop.create_task(self._write_all())
        return done

    async def drain(self, limit_s: float | None = None) -> None:
        """Return when everything is durable, and stop the thread.

        What takes longer than `limit_s` is told and left; its lease and its trace stay.
        """
        deadline_s = None if limit_s is None else time.monotonic() + limit_s
        while self._writer is not None:
            left_s = None if deadline_s is None else deadline_s - time.monotonic()
            if left_s is not None and left_s <= 0:
                self._writer.cancel()
                for entry in self._waiting:
                    self._note_unrecorded(
                        entry.update, f"the store did not take it in {limit_s:g} s"
                    )
                break
            await asyncio.wait({self._writer}, timeout=left_s)
        self._thread.shutdown(wait=False)

    async def _write_all(self) -> None:
        try:
            while self._waiting:
                await self._write_next()
        finally:
            self._writer = None

    async def _write_next(self) -> None:
        """Write a batch and tell of it; whatever goes wrong, it is written or waits."""
        batch = self._next_batch()
        refused: dict[Key, str] = {}
        try:
            recorded = await asyncio.get_running_loop().run_in_executor(
                self._thread, self._write, [entry.update for entry in batch], refused
            )
        except Exception as error:
            await self._wait_for_store(error)
            return
        self._failures = 0
        del self._waiting[: len(batch)]
        lost = set(recorded.lost)
        try:
            self._tell(batch, recorded, lost, refused)
        except Exception as error:  # a line of the log is worth less than the outcomes behind it
            self._note(
                f"error: outcomes are recorded and not told: {type(error).__name__}: {error}"
            )
        finally:
            missed = lost.union(refused)
            for entry in batch:
                self._end(entry, is_written=_key(entry.update) not in missed)

    def _next_batch(self) -> list[Entry]:
        """Return what is written next; of a delivery one outcome at a time."""
        batch = self._waiting[:MAX_BATCH]
        seen: set[Key] = set()
        for place, entry in enumerate(batch):
            key = _key(entry.update)
            if key in seen:
                return batch[:place]
            seen.add(key)
        return batch

    def _tell(
        self, batch: Sequence[Entry], recorded: Recorded, lost: Set[Key], refused: Mapping[Key, str]
    ) -> None:
        if not recorded.is_alive:
            self._lost_leases()
        self._context.log.write([event for entry in batch for event in entry.events])
        for problem in refused.values():
            self._context.note(problem)
        if lost:
            for entry in batch:
                if _key(entry.update) in lost and entry.update.tells_of_sending:
                    self._report_lost(entry.update.queue_id)

    def _end(self, entry: Entry, *, is_written: bool) -> None:
        try:
            if entry.ended is not None:
                entry.ended()
        except Exception as error:
            self._note(f"{entry.update.queue_id}: error: {type(error).__name__}: {error}")
        if not entry.done.done():
            entry.done.set_result(is_written)

    def _note(self, text: str) -> None:
        with contextlib.suppress(Exception):  # a log that cannot be written stops no outcome
            self._context.note(text)

    def _write(self, updates: Sequence[DeliveryUpdate], refused: dict[Key, str]) -> Recorded:
        """Write outcomes, in the thread; what cannot be written is told in `refused`."""
        try:
            return self._record(updates)
        except Exception as error:
            if _is_away(error):
                raise
            if len(updates) == 1:
                return self._write_refused(updates[0], error, refused)
        # those that are written already stay so when the store goes away in the middle
        each = [self._write([update], refused) for update in updates]
        return Recorded(
            is_alive=all(one.is_alive for one in each),
            lost=tuple(key for one in each for key in one.lost),
        )

    def _write_refused(
        self, update: DeliveryUpdate, error: Exception, refused: dict[Key, str]
    ) -> Recorded:
        """Hold a delivery whose outcome a working store refuses, so that it is not sent again."""
        what = f"{update.queue_id}: error: its outcome cannot be recorded: "
        what += f"{type(error).__name__}: {error}"
        held = replace(
            update,
            state=DeliveryState.HELD,
            reason=REASON_IN_DOUBT,
            recipients=(),
            charged=True,
            doubted=True,
            held_apart=(),
            relay=None,
        )
        try:
            recorded = self._record([held])
        except Exception as second:
            if _is_away(second):
                raise
            refused[_key(update)] = f"{what}; the message may be sent more than once"
            return Recorded(is_alive=True)
        refused[_key(update)] = f"{what}; it is held, and may have been sent"
        return recorded

    def _record(self, updates: Sequence[DeliveryUpdate]) -> Recorded:
        began_s = time.monotonic()
        recorded = self._context.store.record_batch(
            updates, incarnation=self._context.incarnation, now_ms=time.time_ns() // 1_000_000
        )
        with contextlib.suppress(Exception):  # it is written, whatever is wrong with counting
            self._context.meter.wrote(time.monotonic() - began_s)
        return recorded

    async def _wait_for_store(self, error: Exception) -> None:
        kind = "" if isinstance(error, StoreUnavailable) else f"{type(error).__name__}: "
        self._note(f"warning: {kind}{error}; {len(self._waiting)} outcomes wait to be recorded")
        wait_s = _RETRY_LADDER_S[min(self._failures, len(_RETRY_LADDER_S) - 1)]
        self._failures += 1
        await asyncio.sleep(wait_s)

    def _note_unrecorded(self, update: DeliveryUpdate, why: str) -> None:
        hint = "; the message may be sent more than once" if update.tells_of_sending else ""
        self._note(f"{update.queue_id}: warning: its outcome is not recorded: {why}{hint}")

    def _report_lost(self, queue_id: str) -> None:
        self._context.note(
            f"{queue_id}: warning: the lease was lost before this outcome was recorded; "
            "the message may be sent more than once"
        )


def _key(update: DeliveryUpdate) -> Key:
    return (update.queue_id, update.delivery_no)


def _is_away(error: Exception) -> bool:
    """True when the store may take later what it did not take now."""
    return isinstance(error, StoreUnavailable) and not isinstance(error, Unstorable)
