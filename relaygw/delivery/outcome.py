"""What attempts come to: each end of one has an outcome, which goes to the recorder.

Whatever ends an attempt, a cancellation too, it has one: what the provider said, a doubt where a
final dot may have left, else that nothing was sent. docs/decisions/0015 draws the exits.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from dataclasses import replace
from functools import partial

from relaygw.delivery.attempt import Attempt
from relaygw.delivery.context import WorkerContext
from relaygw.delivery.leases import Leases, key_of
from relaygw.delivery.recorder import Recorder
from relaygw.errors import StoreUnavailable
from relaygw.mail.clock import clock_ms
from relaygw.mail.envelope import ClaimedDelivery, DeliveryUpdate
from relaygw.mail.hold import HoldCause, HoldCode, provider_down
from relaygw.mail.outcome import NO_RELAY, AttemptReport
from relaygw.mail.state import DeliveryState
from relaygw.observe.events import Attempted
from relaygw.policy.pacing import ladder_step
from relaygw.policy.retry import (
    Consequence,
    blocked,
    given_back,
    held_in_doubt,
    settle,
    since_recorded,
    unsent,
    with_rest,
)
from relaygw.store.instances import Lifeline
from relaygw.store.queue_entry import Key
from relaygw.upstream.classifier import Classifier

POISON_ATTEMPTS = 3
_POISON_WAIT_S = 60
_STORE_LADDER_S = (1.0, 2.0, 5.0, 15.0, 30.0)
"""Waits of a message after the store failed in its attempt, then the last again."""
_NOBODY_ASKED = AttemptReport(provider="", relay=NO_RELAY, outcomes=())


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
        self._crashes: dict[Key, int] = {}
        self._troubles: dict[Key, int] = {}  # of the store

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
        screened = attempt.screened
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
        )
        if rest is not None:
            update = with_rest(update, rest)
        if attempt.recorded:
            update = _what_is_new(attempt, update)
        if screened.blocked or screened.held:
            update = replace(
                update,
                recipients=update.recipients + blocked(screened.blocked),
                held_apart=tuple(recipient.rcpt_no for recipient in screened.held),
                held_apart_for=HoldCause(HoldCode.MODE),
            )
        return update

    def record_part(
        self, attempt: Attempt, report: AttemptReport, now_ms: int
    ) -> asyncio.Future[bool]:
        """Give the recorder what is known of an attempt that goes on; its lease stays."""
        claimed = attempt.claimed
        update = settle(claimed, report, self._retry, now_ms=now_ms, chance=0.5)
        update = replace(
            _what_is_new(attempt, update), state=DeliveryState.ACTIVE, reason=None, hold=None
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

        Never raises and never waits: it may run while a task is being cancelled. None: the
        recorder has the outcome already.
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
            update = self.settled(
                attempt,
                claimed,
                report,
                Consequence(wait_s=_STORE_LADDER_S[0]),
                now_ms,
                rest=rest if attempt.has_rest or not report.outcomes else None,
            )
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
        key = key_of(claimed)
        self._troubles[key] = times = self._troubles.get(key, 0) + 1
        wait_s = ladder_step(_STORE_LADDER_S, times - 1)
        what = f"what was not sent is tried again in {wait_s:g} s"
        self._note_safely(f"{claimed.queue_id}: warning: {error}; {what}")
        return unsent(claimed, DeliveryState.DEFERRED, now_ms + int(wait_s * 1000))

    def _poison(self, claimed: ClaimedDelivery, error: Exception, now_ms: int) -> DeliveryUpdate:
        """Keep a message that cannot be processed from the others: held after three times."""
        key = key_of(claimed)
        self._crashes[key] = times = self._crashes.get(key, 0) + 1
        is_poison = times >= POISON_ATTEMPTS
        self._note_error(claimed, error, f"time {times} of {POISON_ATTEMPTS}, then it is held")
        due_at_ms = now_ms + _POISON_WAIT_S * 1000
        if is_poison:
            poison = HoldCause(HoldCode.POISON)
            update = unsent(claimed, DeliveryState.HELD, due_at_ms, poison)
        else:
            update = unsent(claimed, DeliveryState.DEFERRED, due_at_ms)
            update = replace(update, reason=f"internal error, try {times}")
        return replace(update, provider=None, charged=True)

    def _note_error(self, claimed: ClaimedDelivery, error: Exception, what: str) -> None:
        self._note_safely(f"{claimed.queue_id}: error: {type(error).__name__}: {error} ({what})")

    def _note_safely(self, text: str) -> None:
        with contextlib.suppress(Exception):  # a log that cannot be written costs no outcome
            self._context.note(text)

    def forget_troubles(self, claimed: ClaimedDelivery) -> None:
        """Forget how often a delivery failed here: an attempt of it has an outcome."""
        if self._crashes or self._troubles:
            self._crashes.pop(key_of(claimed), None)
            self._troubles.pop(key_of(claimed), None)

    async def hold(self, claimed: ClaimedDelivery, cause: HoldCause) -> None:
        """Hold a delivery that no provider may take now; return when that is durable."""
        await self.record_held(Attempt(claimed, ""), cause)

    async def put_off(self, claimed: ClaimedDelivery, provider: str, wait_s: float) -> None:
        """Let a delivery wait that only a provider in trouble may take, so that others go on."""
        due_at_ms = clock_ms() + int(wait_s * 1000)
        update = unsent(claimed, DeliveryState.DEFERRED, due_at_ms, provider_down(provider))
        await self._recorder.record(update, None, partial(self._leases.forget, [claimed]))

    def give_back(self, claimed: ClaimedDelivery) -> None:
        """Return a delivery of which nothing was sent to the queue; the recorder writes it."""
        update = given_back(claimed, clock_ms())
        self._recorder.record(update, None, partial(self._leases.forget, [claimed]))

    async def record_held(self, attempt: Attempt, cause: HoldCause) -> None:
        """Record that an attempt ends before anybody was asked: it is held."""
        now_ms = clock_ms()
        update = unsent(attempt.claimed, DeliveryState.HELD, now_ms, cause)
        await self.record(attempt, update, _NOBODY_ASKED, now_ms)

    async def record_unsendable(self, attempt: Attempt) -> None:
        """Record that nobody may receive it now: it is held for the mode, or ends."""
        now_ms = clock_ms()
        update = unsent(attempt.claimed, DeliveryState.FINISHED, now_ms)
        if attempt.screened.held:
            mode = HoldCause(HoldCode.MODE)
            update = unsent(attempt.claimed, DeliveryState.HELD, now_ms, mode)
        update = replace(update, provider=None, recipients=blocked(attempt.screened.blocked))
        await self.record(attempt, update, _NOBODY_ASKED, now_ms)

    def record(
        self, attempt: Attempt, update: DeliveryUpdate, report: AttemptReport, now_ms: int
    ) -> asyncio.Future[bool]:
        """Give the recorder the end of an attempt; what is returned is done when that is durable.

        Nothing withdraws it from here on.
        """
        event = Attempted(attempt.claimed, update, report, now_ms)
        attempt.is_ended = True
        return self._recorder.record(update, event, partial(self.end_lease, attempt))


def _what_is_new(attempt: Attempt, update: DeliveryUpdate) -> DeliveryUpdate:
    return since_recorded(
        update,
        recipients=attempt.recorded,
        charged=attempt.is_charged,
        doubted=attempt.is_doubted,
        due_at_ms=attempt.due_at_ms,
    )
