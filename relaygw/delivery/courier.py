"""Delivers one claimed delivery: screened, sent, judged, handed to the recorder."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace

from relaygw.delivery.attempt import (
    Screen,
    attempt_delivery,
    single_mail,
)
from relaygw.delivery.gate import Gate
from relaygw.delivery.learning import Learning, Lesson
from relaygw.delivery.leases import Leases
from relaygw.delivery.line import Line, TakeNext
from relaygw.delivery.recorder import Recorder
from relaygw.errors import StoreUnavailable
from relaygw.mail.envelope import ClaimedDelivery, DeliveryUpdate, Recipient, RecipientUpdate
from relaygw.mail.outcome import AttemptReport
from relaygw.mail.state import DeliveryState, RecipientState
from relaygw.observe.events import Event, Held, Outcome, Removed
from relaygw.observe.maillog import MailLog
from relaygw.observe.metrics.meters import SILENT, DeliveryMeter
from relaygw.policy.retry import REASON_MODE, REASON_POISON, is_over_age, ladder_s, settle
from relaygw.settings.model import Settings
from relaygw.store.attempts import MOST_ATTEMPTS, tried_since_ms
from relaygw.store.protocol import InFlight, Store
from relaygw.upstream.classify import Classifier
from relaygw.upstream.pool import Pool
from relaygw.upstream.terms import terms_of

POISON_ATTEMPTS = 3
_POISON_WAIT_S = 60


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
        self._meter = meter
        self._screen = Screen(settings)
        self._classifiers = classifiers
        self._terms = {
            name: terms_of(settings.providers[name], hostname=settings.hostname) for name in pools
        }
        self._unchained: set[str] = set()  # providers that lost step over it
        self._crashes: dict[tuple[str, int], int] = {}

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
        """Make one attempt; return when its outcome, whatever it is, is durable."""
        slot: int | None = None
        try:
            slot = self._begin_slot(claimed, gate.provider)
            await self._attempt(gate, claimed, line)
        except Exception as error:
            await self._set_poison_aside(claimed, error)
        finally:
            if slot is not None:
                self._end_slot(slot)

    def _begin_slot(self, claimed: ClaimedDelivery, provider: str) -> int | None:
        """Note what is being sent; a note that cannot be written must not cost the delivery."""
        try:
            return self._in_flight.begin(claimed.queue_id, claimed.delivery_no, provider)
        except OSError as error:
            self._log.note("qmgr", f"warning: {claimed.queue_id}: no slot: {error.strerror}")
            return None

    def _end_slot(self, slot: int) -> None:
        try:
            self._in_flight.end(slot)
        except OSError as error:
            self._log.note("qmgr", f"warning: slot {slot} not freed: {error.strerror}")

    async def _attempt(self, gate: Gate, claimed: ClaimedDelivery, line: Line) -> None:
        screened = self._screen.sort(claimed)
        if not screened.sendable:
            held = [recipient.rcpt_no for recipient in screened.held]
            await self._record_unsent(claimed, held=bool(held), blocked=screened.blocked)
            return
        provider = self._settings.providers[gate.provider]
        was_held = gate.is_held
        report = await attempt_delivery(
            claimed,
            screened.sendable,
            provider=gate.provider,
            line=line,
            max_recipients=provider.max_recipients,
            store=self._store,
            classifier=self._classifiers[gate.provider],
            check_lease=self._leases.is_held,
            may_go_on=lambda: not self._leases.is_draining,
            terms=self._terms[gate.provider],
        )
        report = gate.brake.watch(claimed, report)
        lesson = await self._lesson(gate, claimed, report, was_held=was_held)
        now_ms = time.time_ns() // 1_000_000
        claimed, tried_since_ms = await self._of_old_age(gate, claimed, now_ms)
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
        if screened.blocked or screened.held:
            update = replace(
                update,
                recipients=update.recipients + _blocked(screened.blocked),
                held_apart=tuple(recipient.rcpt_no for recipient in screened.held),
                held_apart_reason=REASON_MODE,
            )
        await self._record(claimed, update, report, now_ms)
        self._meter.settled(claimed, update, report, now_ms=now_ms)
        if update.state is DeliveryState.HELD and lesson.held_reason is not None:
            with contextlib.suppress(StoreUnavailable):  # the next look at the holds settles it
                await self._learning.settle_hold(gate, claimed)

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
        now_ms = time.time_ns() // 1_000_000
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
        report = AttemptReport(provider="", relay="none", outcomes=())
        await self._record(claimed, update, report, now_ms)

    async def put_off(self, claimed: ClaimedDelivery, provider: str, wait_s: float) -> None:
        """Let a delivery wait that only a provider in trouble may take, so that others go on."""
        now_ms = time.time_ns() // 1_000_000
        update = DeliveryUpdate(
            queue_id=claimed.queue_id,
            delivery_no=claimed.delivery_no,
            state=DeliveryState.DEFERRED,
            due_at_ms=now_ms + int(wait_s * 1000),
            provider=claimed.provider,
            reason=f"waits for provider {provider}",
            recipients=(),
            charged=False,
        )
        await self._recorder.record(update, [])

    async def _record(
        self,
        claimed: ClaimedDelivery,
        update: DeliveryUpdate,
        report: AttemptReport,
        now_ms: int,
    ) -> None:
        entries = {entry.rcpt_no: entry for entry in claimed.recipients}
        events: list[Event] = [
            Outcome(claimed, entries[change.rcpt_no], change, report, now_ms)
            for change in update.recipients
        ]
        if update.state is DeliveryState.FINISHED:
            events.append(Removed(claimed.queue_id))
        elif update.state is DeliveryState.HELD:
            events.append(Held(claimed, update.reason or ""))
        await self._recorder.record(update, events)

    async def _record_unsent(
        self, claimed: ClaimedDelivery, *, held: bool, blocked: Sequence[Recipient]
    ) -> None:
        now_ms = time.time_ns() // 1_000_000
        update = DeliveryUpdate(
            queue_id=claimed.queue_id,
            delivery_no=claimed.delivery_no,
            state=DeliveryState.HELD if held else DeliveryState.FINISHED,
            due_at_ms=now_ms,
            provider=None,
            reason=REASON_MODE if held else None,
            recipients=_blocked(blocked),
            charged=False,
        )
        report = AttemptReport(provider="", relay="none", outcomes=())
        await self._record(claimed, update, report, now_ms)

    async def _set_poison_aside(self, claimed: ClaimedDelivery, error: Exception) -> None:
        """Keep a message that cannot be processed from the others: held after three times."""
        key = (claimed.queue_id, claimed.delivery_no)
        self._crashes[key] = times = self._crashes.get(key, 0) + 1
        is_poison = times >= POISON_ATTEMPTS
        now_ms = time.time_ns() // 1_000_000
        await self._recorder.record(
            DeliveryUpdate(
                queue_id=claimed.queue_id,
                delivery_no=claimed.delivery_no,
                state=DeliveryState.HELD if is_poison else DeliveryState.DEFERRED,
                due_at_ms=now_ms + _POISON_WAIT_S * 1000,
                provider=None,
                reason=REASON_POISON if is_poison else f"internal error, try {times}",
                recipients=(),
            ),
            [],
        )
        self._log.note(
            "qmgr",
            f"{claimed.queue_id}: error: {type(error).__name__}: {error} "
            f"(time {times} of {POISON_ATTEMPTS}, then it is held)",
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
