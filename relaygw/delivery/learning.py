"""What an attempt teaches about its provider: this worker's gate at once, others by the store."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace

from relaygw.delivery.attempt import Upstream
from relaygw.delivery.context import WorkerContext
from relaygw.delivery.gate import DOWN_AFTER_S, PAUSE_FROM_S, THROTTLED_WAIT_S, Gate
from relaygw.delivery.holds import Holds
from relaygw.delivery.lanes import Lane
from relaygw.mail.clock import clock_ms
from relaygw.mail.envelope import ClaimedDelivery
from relaygw.mail.hold import HoldCause, HoldCode, refused_domain
from relaygw.mail.outcome import (
    BEFORE_MAIL,
    AttemptReport,
    Limit,
    Meaning,
    RecipientOutcome,
    Scope,
    Stage,
    Verdict,
)
from relaygw.policy.pacing import GUARD_S
from relaygw.policy.retry import NO_CONSEQUENCE, Consequence
from relaygw.settings.section import Rate
from relaygw.store.limits import SenderNote
from relaygw.upstream.outgoing import WITHOUT_8BITMIME

PROBE_BY_ANOTHER_S = 5.0
"""How much longer than its provider a delivery waits that met the trouble: another one probes,
so that a message which is itself the cause does not keep all others waiting."""
_HOLD_WAIT_S = 300.0
_AT_ONCE_S = 1.0
SOMEBODY_ELSE_S = 1800.0
"""How long mail waits that a provider refuses for somebody who is not its sender."""
_TAKEN_OVER_S = DOWN_AFTER_S + 1.0
"""When a message that could not reach its provider is due again where another may take over."""
MOST_SENDERS = 10_000
_SENDER_AGAIN_MS = 300_000
_LOST_STEP = 503  # says nothing of the sender


class Learning:
    """Lets gates, holds and the store know what providers said."""

    def __init__(
        self,
        context: WorkerContext,
        holds: Holds,
        lanes: Sequence[Lane],
        upstreams: Mapping[str, Upstream],
    ) -> None:
        self._context = context
        self._holds = holds
        self._upstreams = upstreams
        self._senders = SenderNotes()
        self._lanes = {lane.route: lane for lane in lanes}

    async def from_report(
        self, gate: Gate, claimed: ClaimedDelivery, report: AttemptReport, *, was_held: bool
    ) -> Consequence:
        """Learn from an attempt that began while the gate `was_held` or not."""
        now_s = time.monotonic()
        self._senders.add(gate.provider, claimed.sender, report)
        own = _of_scope(report, Scope.PROVIDER, Scope.CREDENTIAL)
        if own is None:
            return await self._from_mail(gate, claimed, report, was_held=was_held)
        if own.verdict is Verdict.HOLD:
            await self._holds.hold_provider(gate, own)
            is_innocent = own.stage in BEFORE_MAIL or gate.has_alternative
            wait_s = _AT_ONCE_S if is_innocent else _HOLD_WAIT_S + PROBE_BY_ANOTHER_S
            return Consequence(wait_s=wait_s)
        if own.verdict is Verdict.THROTTLE:
            return Consequence(wait_s=await self._throttle(gate, own, now_s))
        await self._holds.note_failure(gate, own.detail or str(own.reply), now_s)
        return _taken_over(gate)

    async def _from_mail(
        self, gate: Gate, claimed: ClaimedDelivery, report: AttemptReport, *, was_held: bool
    ) -> Consequence:
        """Learn from an attempt in which the provider did its work, whatever came of it."""
        taken, is_answered, is_local = 0, True, True
        for outcome in report.outcomes:
            taken += outcome.meaning.verdict is Verdict.DELIVERED
            is_answered = is_answered and outcome.reply is not None
            is_local = is_local and outcome.stage is Stage.LOCAL
        if is_local:
            return self._from_refusal_here(gate, claimed, report)
        now_s = time.monotonic()
        if taken or is_answered:
            gate.note_success(gate.allowance.rate_cost(taken), now_s)
            if gate.is_outage_known:
                await self._holds.end_outage(gate)
        elif gate.note_silence(now_s):
            if gate.has_failed(now_s) and not gate.is_outage_known:
                await self._holds.begin_outage(gate, report.outcomes[0].detail)
            return _taken_over(gate)
        if was_held and gate.is_held and taken:
            await self._holds.drop(gate)
        refused = _of_scope(report, Scope.SENDER_DOMAIN)
        if refused is not None and refused.verdict is Verdict.HOLD:
            return await self._from_refused_sender(gate, claimed, refused)
        if taken and gate.held_senders:
            await self._end_refusals(gate, claimed)
        return NO_CONSEQUENCE

    async def _end_refusals(self, gate: Gate, claimed: ClaimedDelivery) -> None:
        for domain in (await self._with_header(gate, claimed)).sender_domains:
            await self._holds.drop_sender(gate, domain)

    async def _from_refused_sender(
        self, gate: Gate, claimed: ClaimedDelivery, refused: RecipientOutcome
    ) -> Consequence:
        lane, is_large = self._lanes[claimed.route], claimed.content is None
        claimed = await self._with_header(gate, claimed)
        said = refused.detail if refused.reply is None else refused.reply.text
        domain = refused_domain(said, claimed.sender_domains)
        if domain is None:  # Amazon's sandbox verifies recipients, too
            return Consequence(wait_s=SOMEBODY_ELSE_S)
        await self._holds.put_sender(gate, domain, refused)
        hold = lane.obstacle(replace(claimed, probes=None))
        if is_large and hold is None:  # the next claim of it has no header to know it by
            lane.avoid(gate, claimed)
        return Consequence(hold=hold, wait_s=_AT_ONCE_S)

    async def _with_header(self, gate: Gate, claimed: ClaimedDelivery) -> ClaimedDelivery:
        """Return a delivery with its header at hand. Raises ContentDamaged."""
        if claimed.content is not None:
            return claimed
        start = await self._upstreams[gate.provider].content_start(claimed)
        return replace(claimed, content=start)

    def _from_refusal_here(
        self, gate: Gate, claimed: ClaimedDelivery, report: AttemptReport
    ) -> Consequence:
        """Let what this provider cannot be given go by the next one of its route, or be held."""
        for outcome in report.outcomes:
            if outcome.verdict is Verdict.HOLD:
                why = outcome.detail.removeprefix(WITHOUT_8BITMIME)
                hold = self._lanes[claimed.route].pass_by(gate, claimed, why)
                return Consequence(hold=hold, wait_s=_AT_ONCE_S)
        return NO_CONSEQUENCE

    async def release_if_hold_ended(self, gate: Gate, cause: HoldCause) -> None:
        """Make due what was just held for its sender, if that hold ended in the meantime."""
        if cause.code is HoldCode.SENDER_REFUSED and cause.domain not in gate.held_senders:
            await self._holds.release_sender(gate.provider, cause.domain)

    async def _throttle(self, gate: Gate, outcome: RecipientOutcome, now_s: float) -> float:
        """Slow down, and let the other workers know; return the wait of the message."""
        wait_s = THROTTLED_WAIT_S
        with self._context.noting():
            if outcome.meaning.limit is Limit.CONNECTIONS:
                wait_s = await self._fewer_connections(gate, outcome, now_s)
            else:
                wait_s = await self._slower(gate, outcome.meaning, now_s)
        if wait_s >= PAUSE_FROM_S:
            await self._holds.put_pause(gate, outcome, wait_s)
        if wait_s <= THROTTLED_WAIT_S:
            return wait_s
        is_taken_over = gate.is_paused and gate.has_alternative
        return _AT_ONCE_S if is_taken_over else wait_s + PROBE_BY_ANOTHER_S

    async def _slower(self, gate: Gate, meaning: Meaning, now_s: float) -> float:
        if now_s - gate.throttled_at_s < GUARD_S:
            return gate.note_throttle(meaning, now_s)
        ceiling_per_s = gate.shown_ceiling(now_s)
        wait_s = gate.note_throttle(meaning, now_s)
        if wait_s > THROTTLED_WAIT_S:
            return wait_s
        if gate.account.ceiling_per_s is None:
            pace = Rate.readable(ceiling_per_s)
            what = f"provider {gate.provider} asks to slow down at about {pace}"
            self._context.note(f"{what}; its rate is now adapted")
        gate.note_ceiling(ceiling_per_s, clock_ms())
        gate.allowance.forget_tokens()
        lower_rate, group = self._context.store.limits.lower_rate, gate.limit_group
        with gate.teaching():
            await self._context.call(lower_rate, group, per_s=ceiling_per_s, guard_s=GUARD_S)
        return wait_s

    async def _fewer_connections(
        self, gate: Gate, outcome: RecipientOutcome, now_s: float
    ) -> float:
        # one that was refused before MAIL is gone already
        pool = self._upstreams[gate.provider].pool
        others = pool.in_use_count - (outcome.stage not in BEFORE_MAIL)
        is_first = gate.account.ceiling_connections is None
        wait_s = gate.note_too_many(outcome.meaning, now_s, others=others)
        if is_first:
            what = f"provider {gate.provider} accepts fewer connections than {others + 1}"
            self._context.note(f"{what}; their number is now adapted")
        with gate.teaching():
            await self._context.call(
                self._context.store.limits.lower_connections,
                gate.limit_group,
                own=max(1, others),
                incarnation=self._context.incarnation,
                guard_s=GUARD_S,
            )
        return wait_s

    async def write_senders(self) -> None:
        """Write what was learnt of senders since the last time; later what cannot be now."""
        notes = self._senders.take_unwritten()
        with self._context.noting():
            if notes:
                await self._context.call(self._context.store.limits.note_senders, notes)
            return
        self._senders.put_back(notes)


class SenderNotes:
    """What providers said of which senders; news is written at once, the rest in five minutes."""

    def __init__(self) -> None:
        self._last: dict[tuple[str, str], tuple[int, str | None]] = {}  # when noted, refusal
        self._unwritten: dict[tuple[str, str], SenderNote] = {}

    def add(self, provider: str, sender: str, report: AttemptReport) -> None:
        """Learn from an attempt whether the provider takes mail of this sender."""
        refusal, is_taken = _said_of_sender(report)
        if refusal is None and not is_taken:
            return
        key = (provider, sender)
        now_ms = clock_ms()
        noted_at_ms, last = self._last.get(key, (0, None))
        if now_ms - noted_at_ms < _SENDER_AGAIN_MS and last == refusal:
            return
        if key not in self._last and len(self._last) >= MOST_SENDERS:
            return
        self._last[key] = (now_ms, refusal)
        note = self._unwritten.get(key, SenderNote(provider=provider, sender=sender))
        if refusal is None:
            self._unwritten[key] = replace(note, accepted_at_ms=now_ms)
        else:
            self._unwritten[key] = replace(note, refused_at_ms=now_ms, reply=refusal)

    def take_unwritten(self) -> list[SenderNote]:
        """Return the lessons that the store does not know yet; they must be written or put back."""
        notes, self._unwritten = list(self._unwritten.values()), {}
        return notes

    def put_back(self, notes: list[SenderNote]) -> None:
        """Keep what could not be written."""
        for note in notes:
            self._unwritten.setdefault((note.provider, note.sender), note)


def _said_of_sender(report: AttemptReport) -> tuple[str | None, bool]:
    """Return the refusal of the sender, and whether somebody got the mail.

    That is what concerns its domain, or a 5xx to MAIL FROM that does not bounce the message.
    """
    is_taken = False
    for outcome in report.outcomes:
        meaning, reply = outcome.meaning, outcome.reply
        is_taken = is_taken or meaning.verdict is Verdict.DELIVERED
        if reply is None:
            continue
        is_at_mail = outcome.stage is Stage.MAIL and meaning.verdict is Verdict.RETRY
        is_refused = is_at_mail and reply.is_permanent and reply.code != _LOST_STEP
        if is_refused or meaning.scope is Scope.SENDER_DOMAIN:
            return str(reply), is_taken
    return None, is_taken


def _taken_over(gate: Gate) -> Consequence:
    return Consequence(retry_wait_s=_TAKEN_OVER_S if gate.has_alternative else None)


def _of_scope(report: AttemptReport, *scopes: Scope) -> RecipientOutcome | None:
    """Return the outcome that concerns one of `scopes`, if any; not what was decided here."""
    for outcome in report.outcomes:
        if outcome.meaning.scope in scopes and outcome.stage is not Stage.LOCAL:
            return outcome
    return None
