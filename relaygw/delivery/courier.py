"""Delivers one claimed delivery: screened, sent, judged, handed to the recorder."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

from relaygw.delivery.attempt import (
    Attempt,
    Screen,
    attempt_delivery,
    fields_found,
    single_mail,
)
from relaygw.delivery.gate import Gate
from relaygw.delivery.in_hand import InHand
from relaygw.delivery.learning import Learning, Lesson
from relaygw.delivery.leases import Leases
from relaygw.delivery.line import Line, TakeNext
from relaygw.delivery.recorder import Recorder
from relaygw.errors import StoreUnavailable
from relaygw.mail.envelope import ClaimedDelivery, DeliveryUpdate, Recipient, RecipientUpdate
from relaygw.mail.outcome import NO_RELAY, AttemptReport, Verdict
from relaygw.mail.state import DeliveryState, RecipientState
from relaygw.observe.events import Event, Held, Outcome, Removed
from relaygw.observe.maillog import MailLog
from relaygw.observe.metrics.meters import SILENT, DeliveryMeter
from relaygw.policy.retry import (
    REASON_IN_DOUBT,
    REASON_MODE,
    REASON_POISON,
    is_over_age,
    ladder_s,
    settle,
    waits_for_provider,
    with_rest,
)
from relaygw.settings.model import Settings
from relaygw.store.attempts import MOST_ATTEMPTS, tried_since_ms
from relaygw.store.protocol import InFlight, Key, Store
from relaygw.upstream.classify import Classifier
from relaygw.upstream.pool import Pool
from relaygw.upstream.terms import terms_of

POISON_ATTEMPTS = 3
_POISON_WAIT_S = 60
_STORE_LADDER_S = (1.0, 2.0, 5.0, 15.0, 30.0)
"""Waits of a message after the store failed in its attempt, then the last again."""
_KEPT = frozenset({Verdict.DELIVERED, Verdict.BOUNCE, Verdict.DOUBT})
"""What must be durable before more of the same message is sent."""
_NOBODY_ASKED = AttemptReport(provider="", relay=NO_RELAY, outcomes=())


class Courier:
    """What every delivery of a worker needs, and how one is carried out."""

    def __init__(
        self,
        settings: Settings,
        store: Store,
        log: MailLog,
        *,
        leases: Leases,
        recorder: Recorder,
        learning: Learning,
        pools: Mapping[str, Pool],
        classifiers: Mapping[str, Classifier],
        in_flight: InFlight,
        in_hand: InHand,
        meter: DeliveryMeter = SILENT,
    ) -> None:
        self._settings = settings
        self._store = store
        self._log = log
        self._leases = leases
        self._recorder = recorder
        self._learning = learning
        self._pools = pools
        self._in_flight = in_flight
        self._in_hand = in_hand
        self._meter = meter
        self._screen = Screen(settings)
        self._classifiers = classifiers
        self._terms = {
            name: terms_of(settings.providers[name], hostname=settings.hostname) for name in pools
        }
        self._unchained: set[str] = set()  # providers that lost step over it
        self._crashes: dict[Key, int] = {}
        self._troubles: dict[Key, int] = {}  # of the store

    def open_line(self, gate: Gate, take_next: TakeNext) -> Line:
        """Return a line to a gate's provider; `take_next` is asked where chaining is on."""
        provider = self._settings.providers[gate.provider]
        is_chaining = provider.chain_transactions and gate.provider not in self._unchained
        return Line(
            self._pools[gate.provider],
            take_next=take_next if is_chaining else None,
            lost_step=lambda: self._stop_chaining(gate.provider),
            prepare=lambda claimed: single_mail(
                claimed,
                self._screen.sort(claimed),
                max_recipients=provider.max_recipients,
                store=self._store,
                terms=self._terms[gate.provider],
            ),
        )

    def _stop_chaining(self, provider: str) -> None:
        """Send to a provider without chaining until the next reload, and say so once."""
        if provider not in self._unchained:
            self._unchained.add(provider)
            self._log.note(
                "qmgr",
                f"warning: provider {provider} does not answer chained transactions as it should; "
                "they are not chained from now on; set its chain_transactions to false",
            )

    async def deliver(self, gate: Gate, claimed: ClaimedDelivery, line: Line) -> None:
        """Make one attempt; return when its outcome, whatever it is, is durable.

        Whatever ends it, a cancellation too, the recorder has its outcome by then: what the
        provider said, a doubt where a final dot may have left, else that nothing was sent. The
        exits are drawn in docs/decisions/0015.
        """
        attempt = Attempt(claimed, gate.provider)
        try:
            attempt.slot = self._begin_slot(claimed, gate.provider)
            await self._attempt(gate, attempt, line)
        except BaseException as error:
            recorded = self._close(attempt, error)
            if not isinstance(error, Exception):
                raise
            if recorded is not None:
                await recorded
        finally:
            gate.allowance.take_back(claimed, taken=attempt.taken)

    def _begin_slot(self, claimed: ClaimedDelivery, provider: str) -> int | None:
        """Note what is being sent; a note that cannot be written must not cost the delivery."""
        try:
            return self._in_flight.begin(claimed.queue_id, claimed.delivery_no, provider)
        except OSError as error:
            self._log.note("qmgr", f"warning: {claimed.queue_id}: no slot: {error.strerror}")
            return None

    def _let_go(self, claimed: ClaimedDelivery, slot: int | None) -> None:
        """Forget a delivery whose outcome is durable; until then a killed worker leaves a trace."""
        self._in_hand.let_go([claimed])
        if slot is not None:
            try:
                self._in_flight.end(slot)
            except OSError as error:
                self._log.note("qmgr", f"warning: slot {slot} not freed: {error.strerror}")

    async def _attempt(self, gate: Gate, attempt: Attempt, line: Line) -> None:
        claimed = attempt.claimed
        attempt.screened = screened = self._screen.sort(claimed)
        if not screened.sendable:
            await self._hand_in_unsent(attempt)
            return
        if screened.field_rule is not None:
            obstacle = await self._obstacle_in_fields(gate, attempt)
            if obstacle is not None:
                await self._hand_in_held(attempt, obstacle)
                return
        was_held = gate.is_held
        await attempt_delivery(
            attempt,
            line=line,
            max_recipients=self._settings.providers[gate.provider].max_recipients,
            store=self._store,
            classifier=self._classifiers[gate.provider],
            check_lease=self._leases.is_held,
            keep_part=partial(self._keep_part, gate),
            terms=self._terms[gate.provider],
        )
        if attempt.is_handed_in:
            return  # its lease was lost after a part
        if attempt.transaction.is_fenced:
            self._log.note(
                "qmgr",
                f"{claimed.queue_id}: warning: the lease was lost before the final dot; "
                "nothing was sent" + (" to the rest of the recipients" if attempt.told else ""),
            )
        report = self._watched(gate, attempt)
        lesson = Lesson()
        if report.outcomes:
            lesson = await self._lesson(gate, claimed, report, was_held=was_held)
        now_ms = time.time_ns() // 1_000_000
        seen, since_ms = await self._of_old_age(gate, claimed, now_ms)
        rest = _given_back(claimed, now_ms) if attempt.has_rest else None
        update = self._settled(
            attempt, seen, report, lesson, now_ms, rest=rest, tried_since_ms=since_ms
        )
        await self._hand_in(attempt, update, report, now_ms)
        self._meter.settled(claimed, update, report, now_ms=now_ms)
        if self._crashes or self._troubles:
            self._forget_troubles(claimed)
        if update.state is DeliveryState.HELD and lesson.held_reason is not None:
            with contextlib.suppress(StoreUnavailable):  # the next look at the holds settles it
                await self._learning.settle_hold(gate, claimed)

    def _settled(
        self,
        attempt: Attempt,
        claimed: ClaimedDelivery,
        report: AttemptReport,
        lesson: Lesson,
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
            self._settings.retry,
            now_ms=now_ms,
            chance=random.random(),
            throttle_wait_s=lesson.wait_s,
            retry_wait_s=lesson.retry_wait_s,
            held_reason=lesson.held_reason,
            tried_since_ms=tried_since_ms,
        )
        if rest is not None:
            update = with_rest(update, rest)
        if attempt.told:
            update = _what_is_new(attempt, update)
        if screened.blocked or screened.held:
            update = replace(
                update,
                recipients=update.recipients + _blocked(screened.blocked),
                held_apart=tuple(recipient.rcpt_no for recipient in screened.held),
                held_apart_reason=REASON_MODE,
            )
        return update

    def _watched(self, gate: Gate, attempt: Attempt) -> AttemptReport:
        """Let the brake see what is new of an attempt, before any of it is recorded."""
        report = attempt.report()
        fresh = report
        if attempt.told:
            fresh = replace(report, outcomes=report.outcomes[attempt.told :])
        watched = gate.brake.watch(attempt.claimed, fresh)
        if watched is fresh:
            return report
        attempt.outcomes[attempt.told :] = watched.outcomes
        return attempt.report()

    async def _keep_part(self, gate: Gate, attempt: Attempt) -> bool:
        """Make what is known of an attempt durable; False when the rest may not be sent now.

        What only has to be tried again is kept for the end of the attempt.
        """
        if self._leases.is_draining or not self._leases.is_held():
            return False
        report = self._watched(gate, attempt)
        verdicts = {outcome.verdict for outcome in attempt.outcomes[attempt.told :]}
        if verdicts.isdisjoint(_KEPT):
            return True
        claimed, now_ms = attempt.claimed, time.time_ns() // 1_000_000
        update = settle(claimed, report, self._settings.retry, now_ms=now_ms, chance=0.5)
        update = replace(_what_is_new(attempt, update), state=DeliveryState.ACTIVE, reason=None)
        recorded = self._recorder.record(update, _events(claimed, update, report, now_ms))
        attempt.told = len(attempt.outcomes)
        attempt.is_charged |= update.charged
        attempt.is_doubted |= update.doubted
        attempt.due_at_ms = update.due_at_ms
        is_recorded = await recorded
        with contextlib.suppress(Exception):  # counting is no reason to leave the rest unsent
            self._meter.settled(claimed, update, report, now_ms=now_ms)
        if not is_recorded:
            attempt.is_handed_in = True  # others have the rest, and this part was told of
            self._let_go(claimed, attempt.slot)
        return is_recorded and not self._leases.is_draining

    def _close(self, attempt: Attempt, error: BaseException) -> asyncio.Future[bool] | None:
        """Hand in what is known of an attempt that something else than the provider has ended.

        Never raises and never waits: it may run while a task is being cancelled. None: the
        recorder has the outcome already.
        """
        claimed, now_ms = attempt.claimed, time.time_ns() // 1_000_000
        if attempt.is_handed_in:
            if isinstance(error, Exception):
                self._note_error(claimed, error, "its outcome is kept")
            return None
        attempt.cut_short(self._classifiers[attempt.provider])
        rest = self._rest(attempt, error, now_ms)
        try:
            report = attempt.report()
            update = self._settled(
                attempt,
                claimed,
                report,
                Lesson(wait_s=_STORE_LADDER_S[0]),
                now_ms,
                rest=rest if attempt.has_rest or not report.outcomes else None,
            )
            return self._hand_in(attempt, update, report, now_ms)
        except Exception as defect:
            self._note_error(claimed, defect, "it is held, and may have been sent")
            held = replace(
                rest,
                state=DeliveryState.HELD,
                due_at_ms=max(now_ms, attempt.due_at_ms + 1),
                provider=attempt.provider,
                reason=REASON_IN_DOUBT,
                charged=True,
                doubted=True,
            )
            attempt.is_handed_in = True
            return self._recorder.record(held, [], partial(self._let_go, claimed, attempt.slot))

    def _rest(self, attempt: Attempt, error: BaseException, now_ms: int) -> DeliveryUpdate:
        """Return what becomes of recipients that an attempt did not reach because of `error`."""
        claimed = attempt.claimed
        if not isinstance(error, Exception):
            return _given_back(claimed, now_ms)
        if attempt.screened.sendable and not attempt.has_rest:
            self._note_error(claimed, error, "its outcome is kept")
            return _given_back(claimed, now_ms)
        key = (claimed.queue_id, claimed.delivery_no)
        if isinstance(error, StoreUnavailable):  # no trouble of the message: it only waits
            self._troubles[key] = times = self._troubles.get(key, 0) + 1
            wait_s = _STORE_LADDER_S[min(times, len(_STORE_LADDER_S)) - 1]
            self._note(
                f"{claimed.queue_id}: warning: {error}; what was not sent is tried again in "
                f"{wait_s:g} s"
            )
            given_back = _given_back(claimed, now_ms)
            due_at_ms = now_ms + int(wait_s * 1000)
            return replace(given_back, state=DeliveryState.DEFERRED, due_at_ms=due_at_ms)
        return self._poison(claimed, error, now_ms)

    def _poison(self, claimed: ClaimedDelivery, error: Exception, now_ms: int) -> DeliveryUpdate:
        """Keep a message that cannot be processed from the others: held after three times."""
        key = (claimed.queue_id, claimed.delivery_no)
        self._crashes[key] = times = self._crashes.get(key, 0) + 1
        is_poison = times >= POISON_ATTEMPTS
        self._note_error(claimed, error, f"time {times} of {POISON_ATTEMPTS}, then it is held")
        return DeliveryUpdate(
            queue_id=claimed.queue_id,
            delivery_no=claimed.delivery_no,
            state=DeliveryState.HELD if is_poison else DeliveryState.DEFERRED,
            due_at_ms=now_ms + _POISON_WAIT_S * 1000,
            provider=None,
            reason=REASON_POISON if is_poison else f"internal error, try {times}",
            recipients=(),
        )

    def _forget_troubles(self, claimed: ClaimedDelivery) -> None:
        key = (claimed.queue_id, claimed.delivery_no)
        self._crashes.pop(key, None)
        self._troubles.pop(key, None)

    def _note_error(self, claimed: ClaimedDelivery, error: Exception, what: str) -> None:
        self._note(f"{claimed.queue_id}: error: {type(error).__name__}: {error} ({what})")

    def _note(self, text: str) -> None:
        with contextlib.suppress(Exception):  # a log that cannot be written costs no outcome
            self._log.note("qmgr", text)

    async def _obstacle_in_fields(self, gate: Gate, attempt: Attempt) -> str | None:
        """Return why a mail's header keeps it here, None if it does not; log what stays behind."""
        claimed = attempt.claimed
        found = await fields_found(
            claimed, attempt.screened, store=self._store, terms=self._terms[gate.provider]
        )
        if found.names and claimed.attempts == 0:
            names = ", ".join(found.names)
            verb = "fields {} are" if len(found.names) > 1 else "field {} is"
            self._log.note(
                "smtp", f"{claimed.queue_id}: {verb.format(names)} not sent ({found.why})"
            )
        return found.obstacle

    async def _lesson(
        self, gate: Gate, claimed: ClaimedDelivery, report: AttemptReport, *, was_held: bool
    ) -> Lesson:
        """Learn from an attempt; whatever goes wrong with that, its outcome is recorded."""
        try:
            return await self._learning.from_report(
                gate, self._pools[gate.provider], claimed, report, was_held=was_held
            )
        except StoreUnavailable as error:
            self._log.note("qmgr", f"warning: {claimed.queue_id}: {error}")
        except Exception as error:  # a defect must not send again what the provider took
            self._log.note("qmgr", f"error: {claimed.queue_id}: {type(error).__name__}: {error}")
        return Lesson()

    async def _of_old_age(
        self, gate: Gate, claimed: ClaimedDelivery, now_ms: int
    ) -> tuple[ClaimedDelivery, int | None]:
        """Take the time its provider was held off the age of mail that seems over its time.

        With it comes since when it was tried, None for mail that is not that old.
        """
        if not is_over_age(claimed, self._settings.retry, now_ms):
            return claimed, None

        def look() -> tuple[int, int | None]:
            since_ms = claimed.accepted_at_ms
            held_ms = self._store.held_ms(gate.provider, since_ms=since_ms, now_ms=now_ms)
            attempts = self._store.attempts(claimed.queue_id)
            first_ms = tried_since_ms(attempts, claimed.delivery_no)
            if first_ms is not None and len(attempts) >= MOST_ATTEMPTS:  # the first ones are gone
                least_ms = int(ladder_s(claimed.attempts, self._settings.retry) * 1000)
                first_ms = min(first_ms, now_ms - least_ms)
            return held_ms, first_ms

        try:
            held_ms, since_ms = await asyncio.to_thread(look)
        except StoreUnavailable:
            # the attempt is made and its outcome must be kept; unknown never costs a mail
            return claimed, None
        return replace(claimed, held_ms=claimed.held_ms + held_ms), since_ms

    async def set_aside(self, claimed: ClaimedDelivery, reason: str) -> None:
        """Hold a delivery that no provider may take now; return when that is durable."""
        await self._hand_in_held(Attempt(claimed, ""), reason)

    async def _hand_in_held(self, attempt: Attempt, reason: str) -> None:
        claimed, now_ms = attempt.claimed, time.time_ns() // 1_000_000
        update = DeliveryUpdate(
            queue_id=claimed.queue_id,
            delivery_no=claimed.delivery_no,
            state=DeliveryState.HELD,
            due_at_ms=now_ms,
            provider=claimed.provider,
            reason=reason,
            recipients=(),
            charged=False,
        )
        await self._hand_in(attempt, update, _NOBODY_ASKED, now_ms)

    async def put_off(self, claimed: ClaimedDelivery, provider: str, wait_s: float) -> None:
        """Let a delivery wait that only a provider in trouble may take, so that others go on."""
        now_ms = time.time_ns() // 1_000_000
        update = DeliveryUpdate(
            queue_id=claimed.queue_id,
            delivery_no=claimed.delivery_no,
            state=DeliveryState.DEFERRED,
            due_at_ms=now_ms + int(wait_s * 1000),
            provider=claimed.provider,
            reason=waits_for_provider(provider),
            recipients=(),
            charged=False,
        )
        await self._recorder.record(update, [], partial(self._let_go, claimed, None))

    def give_back(self, claimed: ClaimedDelivery) -> None:
        """Return a delivery of which nothing was sent to the queue; the recorder writes it."""
        update = _given_back(claimed, time.time_ns() // 1_000_000)
        self._recorder.record(update, [], partial(self._let_go, claimed, None))

    def _hand_in(
        self, attempt: Attempt, update: DeliveryUpdate, report: AttemptReport, now_ms: int
    ) -> asyncio.Future[bool]:
        """Give the recorder the end of an attempt; what is returned is done when that is durable.

        Nothing withdraws it from here on.
        """
        events = _events(attempt.claimed, update, report, now_ms)
        let_go = partial(self._let_go, attempt.claimed, attempt.slot)
        attempt.is_handed_in = True
        return self._recorder.record(update, events, let_go)

    async def _hand_in_unsent(self, attempt: Attempt) -> None:
        claimed, now_ms = attempt.claimed, time.time_ns() // 1_000_000
        is_held = bool(attempt.screened.held)
        update = DeliveryUpdate(
            queue_id=claimed.queue_id,
            delivery_no=claimed.delivery_no,
            state=DeliveryState.HELD if is_held else DeliveryState.FINISHED,
            due_at_ms=now_ms,
            provider=None,
            reason=REASON_MODE if is_held else None,
            recipients=_blocked(attempt.screened.blocked),
            charged=False,
        )
        await self._hand_in(attempt, update, _NOBODY_ASKED, now_ms)


def _events(
    claimed: ClaimedDelivery, update: DeliveryUpdate, report: AttemptReport, now_ms: int
) -> list[Event]:
    entries = {entry.rcpt_no: entry for entry in claimed.recipients}
    events: list[Event] = [
        Outcome(claimed, entries[change.rcpt_no], change, report, now_ms)
        for change in update.recipients
    ]
    if update.state is DeliveryState.FINISHED:
        events.append(Removed(claimed.queue_id))
    elif update.state is DeliveryState.HELD:
        events.append(Held(claimed, update.reason or ""))
    return events


def _what_is_new(attempt: Attempt, update: DeliveryUpdate) -> DeliveryUpdate:
    """Take out of an update what was recorded of its attempt before.

    Its due time is another than theirs: by that the store tells outcomes apart.
    """
    return replace(
        update,
        recipients=update.recipients[attempt.told :],
        charged=update.charged and not attempt.is_charged,
        doubted=update.doubted and not attempt.is_doubted,
        due_at_ms=max(update.due_at_ms, attempt.due_at_ms + 1),
    )


def _given_back(claimed: ClaimedDelivery, now_ms: int) -> DeliveryUpdate:
    """Return what ends a lease as if it had not been: due at once, and nothing is charged."""
    is_untried = claimed.attempts == 0
    return DeliveryUpdate(
        queue_id=claimed.queue_id,
        delivery_no=claimed.delivery_no,
        state=DeliveryState.INCOMING if is_untried else DeliveryState.DEFERRED,
        due_at_ms=claimed.accepted_at_ms if is_untried else now_ms,
        provider=claimed.provider,
        reason=None,
        recipients=(),
        charged=False,
    )


def _blocked(recipients: Sequence[Recipient]) -> tuple[RecipientUpdate, ...]:
    return tuple(
        RecipientUpdate(
            rcpt_no=recipient.rcpt_no,
            state=RecipientState.BLOCKED,
            reply="on the block list",
            dsn="5.7.1",
            provider=None,
            charged=False,
        )
        for recipient in recipients
    )
