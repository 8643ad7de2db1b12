"""What attempts come to: each end of one has an outcome for the recorder (decision 15)."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from dataclasses import replace
from functools import partial

from relaygw.delivery.attempt import Attempt
from relaygw.delivery.context import WorkerContext
from relaygw.delivery.leases import Leases, key_of
from relaygw.delivery.recorder import Recorder
from relaygw.errors import StoreUnavailable
from relaygw.mail.clock import clock_ms
from relaygw.mail.envelope import ClaimedDelivery, DeliveryUpdate, Warned
from relaygw.mail.hold import HoldCause, HoldCode, provider_down
from relaygw.mail.outcome import NOBODY_ASKED, AttemptReport
from relaygw.mail.state import DeliveryState
from relaygw.observe.events import Attempted
from relaygw.policy.pacing import ladder_step
from relaygw.policy.retry import (
    Consequence,
    blocked,
    given_back,
    held_in_doubt,
    settle,
    unsent,
    warned,
    with_rest,
)
from relaygw.store.instances import Lifeline
from relaygw.store.queue_tables import Key
from relaygw.upstream.classifier import Classifier

POISON_ATTEMPTS = 3
_POISON_WAIT_S = 60
_POISON = HoldCause(HoldCode.POISON)


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
        """Return the update that an attempt leads to; `rest` is for those whom it did not reach."""
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
        if [recipient for recipient in screened.sendable if recipient.listed]:
            update = replace(update, warned=_warned_of(attempt))
        if screened.blocked or screened.held or screened.suppressed:
            dropped = blocked(screened.blocked, screened.suppressed)
            update = replace(
                update,
                recipients=update.recipients + dropped,
                held_apart=tuple(recipient.rcpt_no for recipient in screened.held),
                held_apart_for=screened.held_for,
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
            soon = Consequence(wait_s=self._context.waits.store_ladder_s[0])
            update = self.settled(attempt, claimed, report, soon, now_ms, rest=unreached)
            return self.record(attempt, update, report, now_ms)
        except Exception as defect:
            self._note_error(claimed, defect, "it is held, and may have been sent")
            held = replace(
                held_in_doubt(rest),
                due_at_ms=_another_time(now_ms, attempt),
                provider=attempt.provider,
            )
            attempt.is_ended = True
            return self._recorder.record(held, None, partial(self.end_lease, attempt))

    def _rest(self, attempt: Attempt, error: BaseException, now_ms: int) -> DeliveryUpdate:
        """Return the updates of recipients that an attempt did not reach because of `error`."""
        claimed = attempt.claimed
        if not isinstance(error, Exception):
            return given_back(claimed, now_ms)
        if attempt.screened.sendable and not attempt.has_rest:
            self._note_error(claimed, error, "its outcome is kept")
            return given_back(claimed, now_ms)
        if not isinstance(error, StoreUnavailable):
            return self._poison(claimed, error, now_ms)
        # no trouble of the message: it only waits
        ladder_s, key = self._context.waits.store_ladder_s, key_of(claimed)
        wait_s = ladder_step(ladder_s, self._troubles[key])
        self._troubles[key] += 1
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
        claimed = attempt.claimed
        # once it is released, what has waited longest goes first
        update = unsent(claimed, DeliveryState.HELD, claimed.due_at_ms, cause)
        return self.record(attempt, update, NOBODY_ASKED, clock_ms())

    def record_unsendable(self, attempt: Attempt) -> asyncio.Future[bool]:
        """Record that nobody may receive it now: it is held, or ends."""
        now_ms = clock_ms()
        update = unsent(attempt.claimed, DeliveryState.FINISHED, now_ms)
        if attempt.screened.held:
            held_for = attempt.screened.held_for
            update = unsent(attempt.claimed, DeliveryState.HELD, now_ms, held_for)
        dropped = blocked(attempt.screened.blocked, attempt.screened.suppressed)
        update = replace(update, provider=None, recipients=dropped)
        return self.record(attempt, update, NOBODY_ASKED, now_ms)

    def record(
        self, attempt: Attempt, update: DeliveryUpdate, report: AttemptReport, now_ms: int
    ) -> asyncio.Future[bool]:
        """Give the recorder the end of an attempt, which nothing withdraws from here on."""
        if update.due_at_ms == attempt.due_at_ms:
            update = replace(update, due_at_ms=_another_time(update.due_at_ms, attempt))
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
        due_at_ms=_another_time(update.due_at_ms, attempt),
    )


def _another_time(due_at_ms: int, attempt: Attempt) -> int:
    """Return a due time that the queue does not have; a clock may have been set back."""
    return due_at_ms + (due_at_ms == attempt.due_at_ms)
