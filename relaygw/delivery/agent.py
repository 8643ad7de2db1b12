"""The delivery agent: makes the attempts of a worker, one delivery at a time on each line."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from functools import partial

from relaygw.delivery.attempt import Attempt, Line
from relaygw.delivery.context import WorkerContext
from relaygw.delivery.gate import Gate
from relaygw.delivery.learning import Learning
from relaygw.delivery.leases import Leases
from relaygw.delivery.outcome import Outcomes
from relaygw.delivery.sending_once import plan_at_once, plan_key
from relaygw.errors import StoreUnavailable
from relaygw.mail.clock import clock_ms
from relaygw.mail.envelope import ClaimedDelivery
from relaygw.mail.hold import HoldCause, HoldCode
from relaygw.mail.outcome import AttemptReport, Verdict
from relaygw.mail.state import DeliveryState
from relaygw.policy.recipient_fields import FieldRule
from relaygw.policy.retry import NO_CONSEQUENCE, Consequence, given_back, is_over_age, ladder_s
from relaygw.store.queue_entry import MOST_ATTEMPTS, tried_since_ms

_KEPT = frozenset({Verdict.DELIVERED, Verdict.BOUNCE, Verdict.DOUBT})
"""What must be durable before more of the same message is sent."""


class DeliveryAgent:
    """How an attempt of a worker is made and ends."""

    def __init__(
        self, context: WorkerContext, leases: Leases, outcomes: Outcomes, learning: Learning
    ) -> None:
        self._context = context
        self._leases = leases
        self._outcomes = outcomes
        self._learning = learning
        self._is_suppressing = context.settings.suppression.rules().is_on

    async def deliver(self, gate: Gate, claimed: ClaimedDelivery, line: Line) -> None:
        """Make one attempt; return when its outcome, whatever it is, is durable."""
        attempt = Attempt(claimed, gate.provider, due_at_ms=claimed.due_at_ms)
        try:
            attempt.slot = self._outcomes.begin_slot(claimed, gate.provider)
            await self._attempt(gate, attempt, line)
        except BaseException as error:
            recorded = self._outcomes.close(attempt, error, line.upstream.classifier)
            if not isinstance(error, Exception):
                raise
            if recorded is not None:
                await recorded
        finally:
            if gate.allowance.quota is not None:
                taken, parts = attempt.taken, attempt.taken_parts
                gate.allowance.take_back(claimed, recipients=taken, transactions=parts)

    async def _attempt(self, gate: Gate, attempt: Attempt, line: Line) -> None:
        if clock_ms() - attempt.claimed.claimed_at_ms > self._context.waits.stale_s * 1000:
            await self._look_again(attempt)
        claimed = attempt.claimed
        attempt.screened = screened = line.upstream.screen.sort(claimed)
        if not screened.sendable:
            await self._outcomes.record_unsendable(attempt)
            return
        header = line.upstream.key_header
        if header is not None:
            at_once = plan_at_once(header, claimed)
            if at_once is None:
                start = await line.upstream.content_start(claimed)
                plan = await plan_key(self._context, header, claimed, start)
                if isinstance(plan, HoldCause):
                    await self._outcomes.record_held(attempt, plan)
                    return
                at_once = plan
            attempt.keys = at_once
        if screened.field_rule is not None:
            obstacle = await self._obstacle_in_fields(claimed, screened.field_rule, line)
            if obstacle is not None:
                await self._outcomes.record_held(attempt, HoldCause(HoldCode.HEADER, obstacle))
                return
        was_held = gate.is_held
        await line.send(
            attempt,
            may_begin=self._leases.may_begin,
            check_lease=self._leases.is_held,
            is_wanted=self._is_wanted,
            keep_part=partial(self._keep_part, gate),
        )
        if attempt.is_ended:
            return  # its lease was lost after a part
        if attempt.transaction.is_fenced:
            self._note_fenced(attempt)
        await self._end_attempt(gate, attempt, was_held=was_held)

    async def _look_again(self, attempt: Attempt) -> None:
        """Learn who was suppressed, or is not any more, while a delivery waited for its turn."""
        if self._is_suppressing:
            look = self._context.store.suppressions.looked_at_again
            attempt.claimed = await self._context.call(look, attempt.claimed)

    def _note_fenced(self, attempt: Attempt) -> None:
        rest = " to the rest of the recipients" if attempt.recorded else ""
        what = f"warning: the lease was lost before the final dot; nothing was sent{rest}"
        if attempt.transaction.is_unwanted:
            what = "its provider told before the final dot that it has it; it was not sent again"
        self._context.note(f"{attempt.claimed.queue_id}: {what}")

    async def _is_wanted(self, attempt: Attempt) -> bool:
        """Look once more whether those of the present part wait; raises StoreUnavailable."""
        numbers = [number for address in attempt.part for number in attempt.by_address[address]]
        still_wait = self._context.store.doubts.still_wait
        return await self._context.call(still_wait, attempt.claimed.queue_id, numbers)

    async def _end_attempt(self, gate: Gate, attempt: Attempt, *, was_held: bool) -> None:
        claimed = attempt.claimed
        report = self._watched(gate, attempt)
        consequence = NO_CONSEQUENCE
        if report.outcomes:
            consequence = await self._learn(gate, claimed, report, was_held=was_held)
        now_ms = clock_ms()
        seen, since_ms = claimed, None
        if is_over_age(claimed, self._context.settings.retry, now_ms):
            seen, since_ms = await self._of_old_age(gate, claimed, now_ms)
        rest = given_back(claimed, now_ms) if attempt.has_rest else None
        update = self._outcomes.settled(
            attempt, seen, report, consequence, now_ms, rest=rest, tried_since_ms=since_ms
        )
        await self._outcomes.record(attempt, update, report, now_ms)
        self._outcomes.forget_troubles(claimed)
        if update.state is DeliveryState.HELD and consequence.hold is not None:
            with contextlib.suppress(StoreUnavailable):  # a later look at the holds releases it
                await self._learning.release_if_hold_ended(gate, consequence.hold)

    async def _obstacle_in_fields(
        self, claimed: ClaimedDelivery, field_rule: FieldRule, line: Line
    ) -> str | None:
        """Return why a mail's header keeps it here, None if it does not; log what stays behind."""
        found = await line.upstream.fields_found(claimed, field_rule)
        if found.names and claimed.attempts == 0:
            names = ", ".join(found.names)
            what = f"fields {names} are" if len(found.names) > 1 else f"field {names} is"
            text = f"{claimed.queue_id}: {what} not sent ({found.why})"
            self._context.observer.log.note("smtp", text)
        return found.obstacle

    async def _learn(
        self, gate: Gate, claimed: ClaimedDelivery, report: AttemptReport, *, was_held: bool
    ) -> Consequence:
        """Learn from an attempt; whatever goes wrong with that, its outcome is recorded."""
        try:
            return await self._learning.from_report(gate, claimed, report, was_held=was_held)
        except StoreUnavailable as error:
            self._context.note(f"warning: {claimed.queue_id}: {error}")
        except Exception as error:  # a defect must not send again what the provider took
            self._context.note(f"error: {claimed.queue_id}: {type(error).__name__}: {error}")
        return NO_CONSEQUENCE

    async def _of_old_age(
        self, gate: Gate, claimed: ClaimedDelivery, now_ms: int
    ) -> tuple[ClaimedDelivery, int | None]:
        """Take the time that its provider was held off the age of mail; return since when tried."""
        store, retry = self._context.store, self._context.settings.retry

        def look() -> tuple[int, int | None]:
            since_ms = claimed.accepted_at_ms
            held_ms = store.holds.stopped_ms(gate.provider, since_ms=since_ms)
            attempts = store.queue.attempts(claimed.queue_id)
            first_ms = tried_since_ms(attempts, claimed.delivery_no)
            if first_ms is not None and len(attempts) >= MOST_ATTEMPTS:  # the first ones are gone
                first_ms = min(first_ms, now_ms - int(ladder_s(claimed.attempts, retry) * 1000))
            return held_ms, first_ms

        try:
            held_ms, since_ms = await self._context.call(look)
        except StoreUnavailable:
            # the attempt is made and its outcome must be kept; unknown never costs a mail
            return claimed, None
        return replace(claimed, held_ms=claimed.held_ms + held_ms), since_ms

    def _watched(self, gate: Gate, attempt: Attempt) -> AttemptReport:
        """Let the brake see what is new of an attempt, before any of it is recorded."""
        report = fresh = attempt.report()
        if attempt.recorded:
            fresh = replace(report, outcomes=report.outcomes[attempt.recorded :])
        watched = gate.brake.watch(attempt.claimed, fresh)
        if watched is fresh:
            return report
        attempt.outcomes[attempt.recorded :] = watched.outcomes
        return attempt.report()

    async def _keep_part(self, gate: Gate, attempt: Attempt) -> bool:
        """Make what is known durable, but for retries; False when the rest may not be sent now."""
        if self._leases.is_draining or not self._leases.is_held():
            return False
        report = self._watched(gate, attempt)
        verdicts = {outcome.verdict for outcome in attempt.outcomes[attempt.recorded :]}
        if verdicts.isdisjoint(_KEPT):
            return True
        now_ms = clock_ms()
        is_recorded = await self._outcomes.record_part(attempt, report, now_ms)
        if not is_recorded:
            attempt.is_ended = True  # others have the rest, and this part was told of
            self._outcomes.end_lease(attempt)
        return is_recorded and not self._leases.is_draining
