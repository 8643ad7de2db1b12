"""What attempts come to: each end of one has an outcome for the recorder (decision 15)."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import NamedTuple

from relaygw.delivery.attempt import Attempt
from relaygw.delivery.context import WorkerContext
from relaygw.delivery.leases import Leases, key_of
from relaygw.errors import StoreUnavailable, Unstorable
from relaygw.mail.clock import clock_ms
from relaygw.mail.envelope import ClaimedDelivery, DeliveryUpdate, Warned
from relaygw.mail.hold import HoldCause, HoldCode, provider_down
from relaygw.mail.outcome import NO_RELAY, AttemptReport
from relaygw.mail.state import DeliveryState
from relaygw.mail.suppression import Suppression
from relaygw.observe.events import Attempted
from relaygw.policy.pacing import ladder_step
from relaygw.policy.retry import (
    KEYED_LADDER_S,
    Consequence,
    blocked,
    given_back,
    held_in_doubt,
    is_doubt_spent,
    retried_in_doubt,
    settle,
    unsent,
    warned,
    with_rest,
)
from relaygw.store.batch_writer import BatchWriter
from relaygw.store.instances import Lifeline
from relaygw.store.queue_entry import Key
from relaygw.upstream.classifier import Classifier

POISON_ATTEMPTS = 3
_POISON_WAIT_S = 60
_STORE_LADDER_S = (1.0, 2.0, 5.0, 15.0, 30.0)  # after it failed in an attempt, the last again
_MAX_BATCH = 200
_NOBODY_ASKED = AttemptReport(provider="", relay=NO_RELAY, outcomes=())
_MODE, _POISON = HoldCause(HoldCode.MODE), HoldCause(HoldCode.POISON)
_TWICE = "; the message may be sent more than once"


class Outcomes:
    """Gives the recorder what became of the deliveries of a worker."""

    def __init__(
        self, context: WorkerContext, leases: Leases, recorder: Recorder, in_flight: Lifeline
    ) -> None:
        self._context = context
        self._retry = context.settings.retry
        self._leases = leases
        self._recorder = recorder
        self._in_flight = in_flight
        self._crashes: Counter[Key] = Counter()
        self._troubles: Counter[Key] = Counter()  # of the store

    def begin_slot(self, claimed: ClaimedDelivery, provider: str) -> int | None:
        """Note what is being sent; a note that cannot be written must not cost the delivery."""
        try:
            return self._in_flight.begin(claimed.queue_id, claimed.delivery_no, provider)
        except OSError as error:
            self._context.note(f"warning: {claimed.queue_id}: no slot: {error.strerror}")
            return None

    def end_lease(self, attempt: Attempt) -> None:
        """Forget a delivery whose outcome is durable; until then a killed worker leaves a trace."""
        self._leases.forget([attempt.claimed])
        if attempt.slot is not None:
            try:
                self._in_flight.end(attempt.slot)
            except OSError as error:
                self._context.note(f"warning: slot {attempt.slot} not freed: {error.strerror}")

    def settled(
        self,
        attempt: Attempt,
        claimed: ClaimedDelivery,
        report: AttemptReport,
        consequence: Consequence,
        now_ms: int,
        *,
        rest: DeliveryUpdate | None,
        tried_since_ms: int | None = None,
    ) -> DeliveryUpdate:
        """Return what an attempt comes to; `rest` is for those whom it did not reach."""
        if rest is not None and not report.outcomes:
            return rest
        update = settle(
            claimed,
            report,
            self._retry,
            now_ms=now_ms,
            chance=random.random(),
            consequence=consequence,
            tried_since_ms=tried_since_ms,
            key_until_ms=attempt.keys.until_ms,
        )
        if rest is not None:
            update = with_rest(update, rest)
        if attempt.recorded:
            update = _what_is_new(attempt, update)
        screened = attempt.screened
        if any(one.listed for one in screened.sendable):
            update = replace(update, warned=_warned_of(attempt))
        if screened.blocked or screened.held or screened.suppressed:
            dropped = blocked(screened.blocked, screened.suppressed)
            update = replace(
                update,
                recipients=update.recipients + dropped,
                held_apart=tuple(recipient.rcpt_no for recipient in screened.held),
                held_apart_for=_MODE,
            )
        return update

    def record_part(
        self, attempt: Attempt, report: AttemptReport, now_ms: int
    ) -> asyncio.Future[bool]:
        """Give the recorder what is known of an attempt that goes on; its lease stays."""
        claimed = attempt.claimed
        until_ms = attempt.keys.until_ms
        update = settle(
            claimed, report, self._retry, now_ms=now_ms, chance=0.5, key_until_ms=until_ms
        )
        update = replace(
            _what_is_new(attempt, update),
            state=DeliveryState.ACTIVE,
            reason=None,
            hold=None,
            warned=_warned_of(attempt),
        )
        recorded = self._recorder.record(update, Attempted(claimed, update, report, now_ms))
        attempt.recorded = len(attempt.outcomes)
        attempt.is_charged |= update.charged
        attempt.is_doubted |= update.doubted
        attempt.due_at_ms = update.due_at_ms
        return recorded

    def close(
        self, attempt: Attempt, error: BaseException, classifier: Classifier
    ) -> asyncio.Future[bool] | None:
        """Record what is known of an attempt that something else than the provider has ended.

        Never raises nor waits, as a task may be being cancelled. None: the recorder has it already.
        """
        claimed, now_ms = attempt.claimed, clock_ms()
        if attempt.is_ended:
            if isinstance(error, Exception):
                self._note_error(claimed, error, "its outcome is kept")
            return None
        attempt.cut_short(classifier)
        rest = self._rest(attempt, error, now_ms)
        try:
            report = attempt.report()
            unreached = rest if attempt.has_rest or not report.outcomes else None
            soon = Consequence(wait_s=_STORE_LADDER_S[0])
            update = self.settled(attempt, claimed, report, soon, now_ms, rest=unreached)
            return self.record(attempt, update, report, now_ms)
        except Exception as defect:
            self._note_error(claimed, defect, "it is held, and may have been sent")
            held = replace(
                held_in_doubt(rest),
                due_at_ms=max(now_ms, attempt.due_at_ms + 1),
                provider=attempt.provider,
            )
            attempt.is_ended = True
            return self._recorder.record(held, None, partial(self.end_lease, attempt))

    def _rest(self, attempt: Attempt, error: BaseException, now_ms: int) -> DeliveryUpdate:
        """Return what becomes of recipients that an attempt did not reach because of `error`."""
        claimed = attempt.claimed
        if not isinstance(error, Exception):
            return given_back(claimed, now_ms)
        if attempt.screened.sendable and not attempt.has_rest:
            self._note_error(claimed, error, "its outcome is kept")
            return given_back(claimed, now_ms)
        if not isinstance(error, StoreUnavailable):
            return self._poison(claimed, error, now_ms)
        # no trouble of the message: it only waits
        wait_s = ladder_step(_STORE_LADDER_S, self._troubles[key_of(claimed)])
        self._troubles[key_of(claimed)] += 1
        what = f"unsent mail is tried again in {wait_s:g} s"
        self._context.note_safely(f"{claimed.queue_id}: warning: {error}; {what}")
        return unsent(claimed, DeliveryState.DEFERRED, now_ms + int(wait_s * 1000))

    def _poison(self, claimed: ClaimedDelivery, error: Exception, now_ms: int) -> DeliveryUpdate:
        """Keep a message that cannot be processed from the others: held after three times."""
        self._crashes[key_of(claimed)] += 1
        times = self._crashes[key_of(claimed)]
        self._note_error(claimed, error, f"time {times} of {POISON_ATTEMPTS}, then it is held")
        update = unsent(claimed, DeliveryState.DEFERRED, now_ms + _POISON_WAIT_S * 1000)
        if times >= POISON_ATTEMPTS:
            update = unsent(claimed, DeliveryState.HELD, update.due_at_ms, _POISON)
        reason = update.reason or f"internal error, try {times}"
        return replace(update, reason=reason, provider=None, charged=True)

    def _note_error(self, claimed: ClaimedDelivery, error: Exception, what: str) -> None:
        text = f"{claimed.queue_id}: error: {type(error).__name__}: {error} ({what})"
        self._context.note_safely(text)

    def forget_troubles(self, claimed: ClaimedDelivery) -> None:
        """Forget how often a delivery failed here: an attempt of it has an outcome."""
        if self._crashes or self._troubles:
            self._crashes.pop(key_of(claimed), None)
            self._troubles.pop(key_of(claimed), None)

    def put_off(self, claimed: ClaimedDelivery, provider: str, wait_s: float) -> None:
        """Let a delivery wait that only a provider in trouble may take, so that others go on."""
        due_at_ms = clock_ms() + int(wait_s * 1000)
        update = unsent(claimed, DeliveryState.DEFERRED, due_at_ms, provider_down(provider))
        self._recorder.record(update, None, partial(self._leases.forget, [claimed]))

    def give_back(self, claimed: ClaimedDelivery) -> None:
        """Return a delivery of which nothing was sent to the queue; the recorder writes it."""
        update = given_back(claimed, clock_ms())
        self._recorder.record(update, None, partial(self._leases.forget, [claimed]))

    def record_held(self, attempt: Attempt, cause: HoldCause) -> asyncio.Future[bool]:
        """Record that an attempt ends before anybody was asked: it is held."""
        now_ms = clock_ms()
        update = unsent(attempt.claimed, DeliveryState.HELD, now_ms, cause)
        return self.record(attempt, update, _NOBODY_ASKED, now_ms)

    def record_unsendable(self, attempt: Attempt) -> asyncio.Future[bool]:
        """Record that nobody may receive it now: it is held for the mode, or ends."""
        now_ms = clock_ms()
        update = unsent(attempt.claimed, DeliveryState.FINISHED, now_ms)
        if attempt.screened.held:
            update = unsent(attempt.claimed, DeliveryState.HELD, now_ms, _MODE)
        dropped = blocked(attempt.screened.blocked, attempt.screened.suppressed)
        update = replace(update, provider=None, recipients=dropped)
        return self.record(attempt, update, _NOBODY_ASKED, now_ms)

    def record(
        self, attempt: Attempt, update: DeliveryUpdate, report: AttemptReport, now_ms: int
    ) -> asyncio.Future[bool]:
        """Give the recorder the end of an attempt, which nothing withdraws from here on."""
        event = Attempted(attempt.claimed, update, report, now_ms)
        attempt.is_ended = True
        return self._recorder.record(update, event, partial(self.end_lease, attempt))


def _warned_of(attempt: Attempt) -> tuple[Warned, ...]:
    """Return who is told of as suppressed; of a part that was recorded before they were told."""
    return () if attempt.recorded else warned(attempt.screened.sendable)


def _what_is_new(attempt: Attempt, update: DeliveryUpdate) -> DeliveryUpdate:
    """Take out what was recorded; by another due time the store tells the outcomes apart."""
    return replace(
        update,
        recipients=update.recipients[attempt.recorded :],
        charged=update.charged and not attempt.is_charged,
        doubted=update.doubted and not attempt.is_doubted,
        due_at_ms=max(update.due_at_ms, attempt.due_at_ms + 1),
    )


# --- written down ----------------------------------------------------------------------------


class _Entry(NamedTuple):
    """An outcome that waits to be written, and what is told of it then."""

    key: Key
    update: DeliveryUpdate
    event: Attempted | None
    ended: Callable[[], None] | None


class Recorder:
    """Writes the outcomes of one worker, many in one transaction.

    An outcome is never dropped: while the store cannot take it, its delivery counts as under way,
    so that a worker that dies leaves no more unrecorded than it has connections. Log lines go out
    after the commit. What a working store refuses is held instead, in doubt.
    """

    def __init__(self, context: WorkerContext, lost_leases: Callable[[], None]) -> None:
        self._context = context
        self._lost_leases = lost_leases
        self._writer = BatchWriter[_Entry, bool](
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
        entry = _Entry((update.queue_id, update.delivery_no), update, event, ended)
        return self._writer.add(entry)

    async def drain(self, limit_s: float | None = None) -> None:
        """Return when everything is durable; what takes longer is told, its lease stays."""
        for entry in await self._writer.drain(limit_s):
            hint = _TWICE if entry.update.tells_of_sending else ""
            what = f"its outcome is not recorded: the store did not take it in {limit_s:g} s{hint}"
            self._context.note_safely(f"{entry.update.queue_id}: warning: {what}")

    # in the thread

    def _write(self, entries: Sequence[_Entry]) -> list[bool]:
        self._record([entry.update for entry in entries])
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
        """Return what becomes of mail that may have been sent, and words for it."""
        update, claimed = entry.update, entry.event.claimed if entry.event is not None else None
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
            f"{one.queue_id}: {one.words}; {one.address} is not sent to again"
            for one in recorded.settled
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
        for one in self._suppressed:
            self._context.note(f"{one.queue_id}: warning: {one.told}")
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


def _is_away(error: Exception) -> bool:
    """True when the store may take later what it did not take now."""
    return isinstance(error, StoreUnavailable) and not isinstance(error, Unstorable)
