"""Records outcomes, many in one transaction.

An outcome is never dropped: while the store cannot take it, the batch is tried again. Its
delivery counts as under way until then, so that a worker that dies can have left no more
unrecorded than it has connections. Log lines go out after the commit. An outcome that a working
store refuses is held instead, in doubt. Nothing that goes wrong with telling of an outcome stops
the next.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from relaygw.delivery.context import WorkerContext
from relaygw.errors import StoreUnavailable, Unstorable
from relaygw.mail.clock import clock_ms
from relaygw.mail.envelope import DeliveryUpdate
from relaygw.observe.events import Attempted
from relaygw.policy.retry import held_in_doubt
from relaygw.store.batch_writer import BatchWriter
from relaygw.store.queue_entry import Key

MAX_BATCH = 200


@dataclass(frozen=True, slots=True, eq=False)
class Entry:
    """An outcome that waits to be written, and what is told of it then."""

    update: DeliveryUpdate
    event: Attempted | None
    ended: Callable[[], None] | None

    @property
    def key(self) -> Key:
        """Which delivery it is of."""
        return (self.update.queue_id, self.update.delivery_no)


class Recorder:
    """Writes the outcomes of one worker."""

    def __init__(self, context: WorkerContext, lost_leases: Callable[[], None]) -> None:
        self._context = context
        self._lost_leases = lost_leases
        self._writer = BatchWriter[Entry, bool](
            "record",
            size=_batch_size,
            write_all=self._write,
            refused=self._write_refused,
            told=self._end,
            is_away=_is_away,
            away=self._note_waiting,
        )
        # of the batch that is being written
        self._is_alive = True
        self._lost: set[Key] = set()
        self._refused: dict[Key, str] = {}

    def record(
        self,
        update: DeliveryUpdate,
        event: Attempted | None,
        ended: Callable[[], None] | None = None,
    ) -> asyncio.Future[bool]:
        """Take an outcome; what is returned is done once it is durable and its event is told.

        The result is False when it was not written: the lease was lost before, or the store refuses
        it. `ended` is called then, too. Nothing withdraws it: neither the caller's end nor a
        cancellation of the future.
        """
        return self._writer.add(Entry(update, event, ended))

    async def drain(self, limit_s: float | None = None) -> None:
        """Return when everything is durable, and stop the thread.

        What takes longer than `limit_s` is told and left; its lease and its trace stay.
        """
        for entry in await self._writer.drain(limit_s):
            hint = "; the message may be sent more than once"
            self._note(
                f"{entry.update.queue_id}: warning: its outcome is not recorded: the store did not "
                f"take it in {limit_s:g} s{hint if entry.update.tells_of_sending else ''}"
            )

    # --- in the thread

    def _write(self, entries: Sequence[Entry]) -> list[bool]:
        self._record([entry.update for entry in entries])
        return [entry.key not in self._lost for entry in entries]

    def _write_refused(self, entry: Entry, error: Exception) -> bool:
        """Hold a delivery whose outcome a working store refuses, so that it is not sent again."""
        update = entry.update
        what = f"{update.queue_id}: error: its outcome cannot be recorded: "
        what += f"{type(error).__name__}: {error}"
        held = replace(held_in_doubt(update), recipients=(), held_apart=(), relay=None)
        try:
            self._record([held])
            self._refused[entry.key] = f"{what}; it is held, and may have been sent"
        except Exception as second:
            if _is_away(second):
                raise
            self._refused[entry.key] = f"{what}; the message may be sent more than once"
        return False

    def _record(self, updates: Sequence[DeliveryUpdate]) -> None:
        began_s = time.monotonic()
        recorded = self._context.store.leases.record_batch(
            updates, incarnation=self._context.incarnation, now_ms=clock_ms()
        )
        self._is_alive = self._is_alive and recorded.is_alive
        self._lost.update(recorded.lost)
        with contextlib.suppress(Exception):  # it is written, whatever is wrong with counting
            self._context.observer.wrote(time.monotonic() - began_s)

    # --- once it is written

    def _end(self, entries: Sequence[Entry], _: Sequence[bool]) -> None:
        try:
            self._tell(entries)
        except Exception as error:  # a line of the log is worth less than the outcomes behind it
            self._note(
                f"error: outcomes are recorded and not told: {type(error).__name__}: {error}"
            )
        self._is_alive = True
        self._lost.clear()
        self._refused.clear()
        for entry in entries:
            try:
                if entry.ended is not None:
                    entry.ended()
            except Exception as error:
                self._note(f"{entry.update.queue_id}: error: {type(error).__name__}: {error}")

    def _tell(self, entries: Sequence[Entry]) -> None:
        if not self._is_alive:
            self._lost_leases()
        self._context.observer.tell([one.event for one in entries if one.event is not None])
        for problem in self._refused.values():
            self._context.note(problem)
        for entry in entries:
            if entry.key in self._lost and entry.update.tells_of_sending:
                self._context.note(
                    f"{entry.update.queue_id}: warning: the lease was lost before this outcome was "
                    "recorded; the message may be sent more than once"
                )

    def _note_waiting(self, error: Exception, waiting: int) -> None:
        kind = "" if isinstance(error, StoreUnavailable) else f"{type(error).__name__}: "
        self._note(f"warning: {kind}{error}; {waiting} outcomes wait to be recorded")

    def _note(self, text: str) -> None:
        with contextlib.suppress(Exception):  # a log that cannot be written stops no outcome
            self._context.note(text)


def _batch_size(waiting: Sequence[Entry]) -> int:
    """Return how many are written next; of a delivery one outcome at a time."""
    seen: set[Key] = set()
    for number, entry in enumerate(waiting[:MAX_BATCH]):
        if entry.key in seen:
            return number
        seen.add(entry.key)
    return min(len(waiting), MAX_BATCH)


def _is_away(error: Exception) -> bool:
    """True when the store may take later what it did not take now."""
    return isinstance(error, StoreUnavailable) and not isinstance(error, Unstorable)
