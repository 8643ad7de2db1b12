"""The recorder of a worker: writes outcomes, many in one transaction (decision 15)."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

from relaygw.delivery.context import WorkerContext
from relaygw.errors import StoreUnavailable, Unstorable
from relaygw.mail.clock import awake_s, clock_ms
from relaygw.mail.envelope import DeliveryUpdate
from relaygw.mail.suppression import Suppression
from relaygw.observe.events import Attempted
from relaygw.policy.pacing import ladder_step
from relaygw.policy.retry import KEYED_LADDER_S, held_in_doubt, is_doubt_spent, retried_in_doubt
from relaygw.store.batch_writer import BatchWriter
from relaygw.store.queue_tables import Key

_MAX_BATCH = 200
_STEP_MS = 1_000  # a clock that moves by less is only being corrected
_TWICE = "; the message may be sent more than once"


class _Entry(NamedTuple):
    """An outcome that waits to be written, and what is told of it then."""

    key: Key
    update: DeliveryUpdate
    event: Attempted | None
    ended: Callable[[], None] | None
    beyond_ms: int  # how far the clock was beyond that which nobody sets

    def update_now(self, beyond_ms: int) -> DeliveryUpdate:
        """Return the outcome, due as long from now as was meant if the clock was set meanwhile."""
        step_ms = beyond_ms - self.beyond_ms
        if abs(step_ms) < _STEP_MS:
            return self.update
        return replace(self.update, due_at_ms=self.update.due_at_ms + step_ms)


class Recorder:
    """Writes the outcomes of one worker, many in one transaction.

    An outcome is never dropped: while the store cannot take it, its delivery counts as under way,
    so that a worker that dies leaves no more unrecorded than it has connections. Log lines go out
    after the commit. What a working store refuses is held instead, in doubt.
    """

    def __init__(
        self,
        context: WorkerContext,
        lost_leases: Callable[[], None],
        expected: Callable[[], int] = lambda: 0,
    ) -> None:
        self._context = context
        self._lost_leases = lost_leases
        self.writer = BatchWriter[_Entry, bool](
            "record",
            size=_batch_size,
            write_all=self._record_entries,
            refused=self._write_refused,
            told=self._end,
            is_away=_is_away,
            away=self._note_waiting,
            retry_ladder_s=context.waits.record_ladder_s,
            pace_s=context.waits.record_s,
            expected=expected,
        )
        # of the batch that is being written
        self._is_alive = True
        self._lost: set[Key] = set()
        self._refused: list[str] = []
        self._suppressed: list[Suppression] = []
        self._settled: list[str] = []  # lines for the log

    def record(
        self,
        update: DeliveryUpdate,
        event: Attempted | None,
        ended: Callable[[], None] | None = None,
    ) -> asyncio.Future[bool]:
        """Take an outcome, which nothing withdraws; the future is done once it is durable and told.

        False: not written, for a lost lease or a refusal of the store; `ended` is called then, too.
        """
        key = (update.queue_id, update.delivery_no)
        return self.writer.add(_Entry(key, update, event, ended, _beyond_ms()))

    async def drain(self, limit_s: float | None = None) -> None:
        """Return when everything is durable; what takes longer is told, its lease stays."""
        for entry in await self.writer.drain(limit_s):
            hint = _TWICE if entry.update.tells_of_sending else ""
            what = f"its outcome is not recorded: the store did not take it in {limit_s:g} s{hint}"
            self._context.note_safely(f"{entry.update.queue_id}: warning: {what}")

    # in the thread

    def _record_entries(self, entries: Sequence[_Entry]) -> list[bool]:
        beyond_ms = _beyond_ms()
        self._record([entry.update_now(beyond_ms) for entry in entries])
        return [entry.key not in self._lost for entry in entries]

    def _write_refused(self, entry: _Entry, error: Exception) -> bool:
        """Hold a delivery whose outcome a working store refuses, so that it is not sent again."""
        then = _TWICE
        try:
            doubted, then = self._doubted(entry)
            self._record([replace(doubted, recipients=(), held_apart=(), relay=None)])
        except Exception as second:
            if _is_away(second):
                raise
            then = _TWICE
        what = f"its outcome cannot be recorded: {type(error).__name__}: {error}{then}"
        self._refused.append(f"{entry.update.queue_id}: error: {what}")
        return False

    def _doubted(self, entry: _Entry) -> tuple[DeliveryUpdate, str]:
        """Return the fate of mail that may have been sent, and words for it."""
        update = entry.update_now(_beyond_ms())
        claimed = entry.event.claimed if entry.event is not None else None
        provider = self._context.settings.providers.get(update.provider or "")
        has_key = provider is not None and provider.key_header is not None
        if claimed is None or not has_key or is_doubt_spent(claimed):
            return held_in_doubt(update), "; it is held, and may have been sent"
        wait_ms = int(ladder_step(KEYED_LADDER_S, claimed.doubts + 1) * 1000)
        retried = retried_in_doubt(update, max(clock_ms(), update.due_at_ms) + wait_ms)
        return retried, "; it is tried again, and its provider knows it by its key"

    def _record(self, updates: Sequence[DeliveryUpdate]) -> None:
        began_s = time.monotonic()
        recorded = self._context.store.leases.record_batch(
            updates, incarnation=self._context.incarnation, now_ms=clock_ms()
        )
        self._is_alive = self._is_alive and recorded.is_alive
        self._lost.update(recorded.lost)
        self._suppressed += recorded.suppressed
        self._settled += [
            f"{settled.queue_id}: {settled.words}; {settled.address} is not sent to again"
            for settled in recorded.settled
        ]
        with contextlib.suppress(Exception):  # it is written, whatever is wrong with counting
            self._context.observer.wrote(time.monotonic() - began_s)

    # once it is written

    def _end(self, entries: Sequence[_Entry], _: Sequence[bool]) -> None:
        try:
            self._tell(entries)
        except Exception as error:  # a line of the log is worth less than the outcomes behind it
            text = f"error: outcomes are recorded and not told: {type(error).__name__}: {error}"
            self._context.note_safely(text)
        self._is_alive = True
        self._lost.clear()
        self._refused.clear()
        self._suppressed.clear()
        self._settled.clear()
        for entry in entries:
            try:
                if entry.ended is not None:
                    entry.ended()
            except Exception as error:
                text = f"{entry.update.queue_id}: error: {type(error).__name__}: {error}"
                self._context.note_safely(text)

    def _tell(self, entries: Sequence[_Entry]) -> None:
        if not self._is_alive:
            self._lost_leases()
        self._context.observer.tell([entry.event for entry in entries if entry.event is not None])
        self._tell_of_suppressed(entries)
        for line in (*self._refused, *self._settled):
            self._context.note(line)
        what = f"warning: the lease was lost before this outcome was recorded{_TWICE}"
        for entry in entries:
            if entry.key in self._lost and entry.update.tells_of_sending:
                self._context.note(f"{entry.update.queue_id}: {what}")

    def _tell_of_suppressed(self, entries: Sequence[_Entry]) -> None:
        """Write who is suppressed from now on, and who was sent to all the same."""
        for suppression in self._suppressed:
            self._context.note(f"{suppression.queue_id}: warning: {suppression.told}")
        for entry in entries:
            if entry.update.warned and entry.key not in self._lost:
                for who in entry.update.warned:
                    what = f"{who.address} is sent to although it is {who.listed.sentence}"
                    self._context.note(f"{entry.key[0]}: warning: {what}")

    def _note_waiting(self, error: Exception, waiting: int) -> None:
        kind = "" if isinstance(error, StoreUnavailable) else f"{type(error).__name__}: "
        self._context.note_safely(f"warning: {kind}{error}; {waiting} outcomes wait to be recorded")


def _batch_size(waiting: Sequence[_Entry]) -> int:
    """Return how many are written next; of a delivery one outcome at a time."""
    seen: set[Key] = set()
    for number, entry in enumerate(waiting[:_MAX_BATCH]):
        if entry.key in seen:
            return number
        seen.add(entry.key)
    return len(seen)


def _beyond_ms() -> int:
    return clock_ms() - int(awake_s() * 1000)


def _is_away(error: Exception) -> bool:
    """True when the store may take later what it did not take now."""
    return isinstance(error, StoreUnavailable) and not isinstance(error, Unstorable)
