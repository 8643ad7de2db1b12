"""Holds of providers and of their senders, outages, and standing holds.

Those of providers are set by what happens, and ended by a probe.

A refused key is probed by a connection alone, a full account by one message, a refused sender by
one message of that sender's domain (decision 11), a pause by one message of one worker (decision
10). An operator's hold has no probe time.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from relaygw.delivery.attempt import Upstream
from relaygw.delivery.context import WorkerContext
from relaygw.delivery.gate import DOWN_AFTER_FAILURES, PAUSE_LONGEST_S, Gate
from relaygw.mail.clock import clock_ms, utc_text
from relaygw.mail.envelope import ClaimedDelivery
from relaygw.mail.hold import (
    OF_CONFIGURATION,
    SAID,
    HoldCause,
    HoldCode,
    provider_down,
    sender_refused,
)
from relaygw.mail.keys import packed
from relaygw.mail.outcome import BEFORE_MAIL, RecipientOutcome, Scope, Verdict
from relaygw.mail.standing_hold import StandingHold
from relaygw.policy.recipients import Screen
from relaygw.policy.standing_holds import StandingHolds
from relaygw.store.holds import (
    PAUSED,
    PROBE_LONGEST_S,
    RETRIED,
    UNREACHABLE,
    Hold,
    HoldsInForce,
    ended_entry,
)
from relaygw.upstream.brake import BRAKED, REFUSALS_IN_A_ROW
from relaygw.upstream.failure import UpstreamError, known_remedy

PROBE_LADDER_S = (300.0,)  # before a held provider is tried again, unless its replies say better
_PAGE = 500
_ENDED_S = 10.0  # so long after its end another worker may still hold mail for a standing hold
_AHEAD_MS = 5_000  # a hold set so much later than now: by a clock that was set back since
_SUSPICION_PATIENCE_S = 2.0  # for a provider that is silent while another could take over
_QUOTA_LOOK_S = 600.0  # other workers may give back what they took ahead
_OF_THE_PROVIDER = (Scope.PROVIDER, Scope.CREDENTIAL, PAUSED)
_PAUSE_REMEDY = "set its rate or max_connections to what it allows"
_REMEDIES = {
    Scope.CREDENTIAL: "check its user name and password or key",
    Scope.PROVIDER: "check the account's quota and status",
    Scope.SENDER_DOMAIN: "verify the sender's domain at the provider",
}


class Holds:
    """The holds and outages that the gates of one worker obey."""

    def __init__(
        self, context: WorkerContext, upstreams: Mapping[str, Upstream], screen: Screen
    ) -> None:
        self._context = context
        self._upstreams = upstreams
        self._screen = screen
        self._stored = context.store.holds
        self._look_at_s: dict[str, float] = {}
        # providers and sender domains whose hold has ended, and whose mail is not released yet
        self._ended: set[tuple[str, str]] = set()
        self._standing: frozenset[str] = frozenset()  # the ids of standing holds in force
        self._reading = asyncio.Lock()  # an older reading must not replace a newer one
        self._ended_standing: dict[str, float] = {}  # until when their mail is looked for
        self.is_fresh = True  # held providers are tried at once: after a start, and when set
        self.looks_closer = False  # at what is rarely wrong, next time

    def look_anew(self) -> None:
        """Let what is held, and what is held for settings, be looked at as after a start."""
        self.is_fresh = True

    async def obey(self, holds: HoldsInForce, gates: Iterable[Gate]) -> None:
        """Let the gates and the screen know of the holds in force, those of others included."""
        in_force = holds.stops
        if holds.standing or self._standing or self._ended_standing or self.looks_closer:
            await self._obey_standing()
        if self.looks_closer:
            self.looks_closer = False
            # the clock was set back since
            self.is_fresh |= any(hold.since_ms > clock_ms() + _AHEAD_MS for hold in in_force)
            await self._note_without_hold(in_force)
        if self.is_fresh:
            self.is_fresh = False  # already: it may be set anew meanwhile
            try:
                in_force = await self._obey_anew(in_force)
            except BaseException:
                self.is_fresh = True
                raise
        for gate in gates:
            _obey_provider(gate, in_force)
            await self._obey_senders(gate, in_force)
            await self._probe_senders(gate)
        await self._release_ended()

    async def learn_standing(self, claimed: Iterable[ClaimedDelivery]) -> None:
        """Read the standing holds again if mail was claimed while others were in force.

        So a hold keeps all that is accepted once it is set. Raises StoreUnavailable.
        """
        if any(delivery.standing != self._standing for delivery in claimed):
            await self._read_standing()

    async def _read_standing(self) -> list[StandingHold]:
        """Let the screen know of the standing holds; return what is over and has to be ended."""
        async with self._reading:
            holds, now_ms = await self._context.call(self._stored.standing), clock_ms()
            in_force = [hold for hold in holds if not hold.is_over(now_ms)]
            ids = frozenset(hold.hold_id for hold in in_force)
            self._screen.standing = StandingHolds(in_force) if in_force else None
            until_s = time.monotonic() + _ENDED_S
            self._ended_standing |= dict.fromkeys(self._standing - ids, until_s)
            self._standing = ids
        return [hold for hold in holds if hold.is_over(now_ms)]

    async def _obey_standing(self) -> None:
        """Read the standing holds; end what is over, and let the mail of what has ended go."""
        for hold in await self._read_standing():
            entry = ended_entry(hold, "relaygw", clock_ms(), "its time is over")
            await self._context.call(
                self._stored.drop_hold, hold.scope.value, hold.value, entry=entry, if_over=True
            )
        ids, now_s = self._standing, time.monotonic()
        if self.looks_closer:  # who ended one may have died before its mail was let go
            held = await self._context.call(self._stored.held_causes)
            known = {cause.hold_id for cause in held if cause.hold_id is not None}
            self._ended_standing |= dict.fromkeys(known - ids, now_s)
        if self._ended_standing:
            await self._context.call(self._stored.release_standing, {*self._ended_standing})
            self._ended_standing = {
                hold_id: until_s
                for hold_id, until_s in self._ended_standing.items()
                if now_s < until_s and hold_id not in ids  # it was prolonged
            }

    async def _note_without_hold(self, in_force: Sequence[Hold]) -> None:
        """Note for whom mail waits without a hold: who could not record one may have died since."""
        held = {hold.key for hold in in_force if hold.scope == Scope.SENDER_DOMAIN}
        for cause in await self._context.call(self._stored.held_causes):
            if cause.code is HoldCode.SENDER_REFUSED:
                names = {(provider, cause.domain) for provider in cause.providers}
                self._ended |= {name for name in names if packed(*name) not in held}

    async def _obey_anew(self, in_force: Sequence[Hold]) -> list[Hold]:
        """Make probes due, and what was held for a configuration: this may be another one."""
        due = [
            hold if hold.probe_at_ms is None else await self._probe_at(hold, clock_ms())
            for hold in in_force
        ]
        for cause in await self._context.call(self._stored.held_causes):
            if cause.code in OF_CONFIGURATION:
                await self._release_all(cause)
        return due

    async def _probe_at(self, hold: Hold, at_ms: int) -> Hold:
        hold = replace(hold, probe_at_ms=at_ms)
        await self._context.call(self._stored.put_hold, hold)
        return hold

    async def _obey_senders(self, gate: Gate, in_force: Sequence[Hold]) -> None:
        held = {
            hold.sender_domain: _here_s(hold.probe_at_ms or 0)
            for hold in in_force
            if hold.scope == Scope.SENDER_DOMAIN and hold.provider == gate.provider
        }
        # somebody else ended it: what this worker set aside a moment ago must not be left
        self._ended |= {(gate.provider, domain) for domain in gate.obey_senders(held)}
        self._ended -= {(gate.provider, domain) for domain in gate.held_senders}

    async def _probe_senders(self, gate: Gate) -> None:
        """Let one delivery of a refused sender's domain try; the next one waits for its outcome.

        Any worker may claim it, and sees by it what it is for. As long as none waits, the next one
        that is held for this is let go within a second.
        """
        now_s = time.monotonic()
        for domain, probe_at_s in tuple(gate.held_senders.items()):
            if now_s < probe_at_s or not await self._release_probe(gate.provider, domain):
                continue
            for hold in await self._context.call(self._stored.in_force):
                if (hold.scope, hold.key) == (Scope.SENDER_DOMAIN, packed(gate.provider, domain)):
                    at_ms = clock_ms() + int(PROBE_LADDER_S[0] * 1000)
                    await self._probe_at(hold, at_ms)
                    gate.hold_sender(domain, _here_s(at_ms))

    async def hold_provider(self, gate: Gate, outcome: RecipientOutcome) -> None:
        """Hold the provider for what it said, and say so once in the log."""
        if gate.is_held and (gate.probe_at_s is None or time.monotonic() < gate.probe_at_s):
            return  # by an operator, or by what was refused together with this
        wait_s = gate.climb(outcome.meaning.wait_s or PROBE_LADDER_S)
        remedy = outcome.meaning.remedy or _REMEDIES.get(outcome.scope, "")
        cause, reason = SAID, outcome.words
        if outcome.meaning is BRAKED:
            cause = HoldCause(HoldCode.REFUSED_ALIKE, packed(str(REFUSALS_IN_A_ROW), reason))
            reason = cause.sentence
            remedy = f"{remedy}: relaygw provider release {gate.provider}"
        hold = _new_hold(outcome.scope, gate.provider, reason, remedy, wait_s, cause)
        gate.hold(time.monotonic() + wait_s, by_mail=outcome.stage not in BEFORE_MAIL)
        await self._put_provider(gate, hold)

    async def put_pause(self, gate: Gate, outcome: RecipientOutcome, wait_s: float) -> None:
        """Let nobody send to a provider for a time that takes nothing now, and then one message."""
        if gate.is_held and time.monotonic() >= gate.probing_until_s:
            return  # by what stops it for longer, or by what was refused together with this
        gate.pause(time.monotonic() + wait_s)
        remedy = outcome.meaning.remedy or _PAUSE_REMEDY
        hold = _new_hold(PAUSED, gate.provider, outcome.words, remedy, wait_s)
        await self._put_provider(gate, hold)

    async def choose_prober(self, gate: Gate) -> None:
        """Let this worker probe a pause, unless another one was first; it has a minute for that."""
        renew, at_ms = self._stored.renew_probe, clock_ms() + int(PAUSE_LONGEST_S * 1000)
        trouble = f"next probe of {gate.provider} not recorded"
        if await self._context.ask(trouble, renew, PAUSED, gate.provider, at_ms, if_due=True):
            gate.choose_prober(time.monotonic() + PAUSE_LONGEST_S)

    async def put_quota(self, gate: Gate, quota: int, wait_s: float) -> None:
        """Hold the provider until its daily quota has room again."""
        at = utc_text(clock_ms() + int(wait_s * 1000))
        reason = f"daily_quota of {quota} is used up; the next goes at {at}"
        remedy = "wait, or raise daily_quota"
        look_s = min(wait_s, _QUOTA_LOOK_S)
        gate.hold(time.monotonic() + look_s, by_mail=True)
        hold = _new_hold(Scope.PROVIDER, gate.provider, reason, remedy, look_s)
        await self._put_provider(gate, hold)

    async def put_sender(self, gate: Gate, domain: str, outcome: RecipientOutcome) -> None:
        """Hold mail of a sender's domain at a provider."""
        scope = Scope.SENDER_DOMAIN
        wait_s = (outcome.meaning.wait_s or PROBE_LADDER_S)[0]
        gate.hold_sender(domain, time.monotonic() + wait_s)
        remedy = outcome.meaning.remedy or _REMEDIES[scope]
        hold = _new_hold(scope, packed(gate.provider, domain), outcome.words, remedy, wait_s)
        what = f"provider {gate.provider} refuses sender domain {domain}, its mail is held"
        await self._put(gate, hold, what)

    async def _put_provider(self, gate: Gate, hold: Hold) -> None:
        what = "paused" if hold.scope == PAUSED else f"held ({hold.scope})"
        await self._put(gate, hold, f"provider {gate.provider} is {what}")

    async def _put(self, gate: Gate, hold: Hold, what: str) -> None:
        trouble = f"hold of {hold.key} not recorded"
        with gate.teaching():
            is_new = await self._context.ask(trouble, self._stored.put_hold, hold)
        if is_new:
            self._context.note(f"warning: {what}: {hold.reason}; no mail is lost; {hold.remedy}")

    async def drop(self, gate: Gate) -> None:
        """End the hold of a provider: a probe went through. An operator's stays."""
        if gate.is_held and gate.probe_at_s is None:
            return
        gate.work_again(time.monotonic())
        if await self._drop(gate, _OF_THE_PROVIDER, gate.provider):
            self._context.note(f"provider {gate.provider} works again, its hold has ended")

    async def drop_sender(self, gate: Gate, domain: str) -> None:
        """End the hold of a sender's domain: mail of it was taken; what waited is due."""
        if not gate.release_sender(domain):
            return
        if await self._drop(gate, (Scope.SENDER_DOMAIN,), packed(gate.provider, domain)):
            self._context.note(f"provider {gate.provider} accepts sender domain {domain} again")
        await self.release_sender(gate.provider, domain)

    async def _drop(
        self, gate: Gate, scopes: Sequence[str], key: str, what: str = "hold"
    ) -> bool | None:
        def drop() -> bool:
            dropped = [self._stored.drop_hold(str(scope), key) for scope in scopes]  # each of them
            return any(dropped)

        with gate.teaching():
            return await self._context.ask(f"{what} of {key} not ended", drop)

    # --- mail that waits for the end of a hold

    async def release_sender(self, provider: str, domain: str) -> None:
        """Make due what waits for a provider to take a sender's domain.

        Raises StoreUnavailable; what is not released then is at a later look at the holds.
        """
        self._ended.add((provider, domain))
        await self._release_ended()

    async def _release_ended(self) -> None:
        for provider, domain in tuple(self._ended):
            for cause in await self._refused(provider, domain):
                await self._release_all(cause)
            self._ended.discard((provider, domain))

    async def _release_probe(self, provider: str, domain: str) -> bool:
        """Make one of them due to find out whether the provider does; False: there is none."""
        probing = sender_refused(domain, [provider])
        for cause in await self._refused(provider, domain):
            release = self._stored.release_held
            released = await self._context.call(release, cause, limit=1, probing=probing)
            if released.due:
                return True
        return False

    async def _refused(self, provider: str, domain: str) -> list[HoldCause]:
        causes = await self._context.call(self._stored.held_causes)
        return [cause for cause in causes if cause.is_refused(provider, domain)]

    async def release_put_off(self, provider: str) -> int:
        """Make due what was put off for a provider that takes mail again; return how many."""
        with self._context.noting(f"mail waiting for {provider} is not retried early"):
            return await self._release_all(provider_down(provider))
        return 0

    async def _release_all(self, cause: HoldCause) -> int:
        number, release = 0, self._stored.release_held
        while (released := await self._context.call(release, cause, limit=_PAGE)).ended:
            number += released.due
        return number

    # --- outages, told to all workers and to whoever operates the gateway

    async def note_failure(self, gate: Gate, what: str, now_s: float) -> None:
        """Learn that a provider cannot be reached; tell of it once it counts as down."""
        gate.note_failure(now_s)
        if gate.has_failed(now_s) or gate.is_outage_known:
            await self.begin_outage(gate, what)

    async def begin_outage(self, gate: Gate, what: str) -> None:
        """Tell that a provider is down, once however many workers see it, and why by now."""
        remedy = known_remedy(what) or RETRIED
        hold = _new_hold(UNREACHABLE, gate.provider, what, remedy, _probe_wait_s(gate))
        trouble = f"outage of {gate.provider} not recorded"
        with gate.teaching():
            is_new = await self._context.ask(trouble, self._stored.put_hold, hold)
        if is_new is not None:
            gate.begin_outage()
        if is_new:
            takes_over = "the next provider of its routes is used"
            then = takes_over if gate.has_alternative else "mail waits"
            self._context.note(f"warning: provider {gate.provider} is down ({what}); {then}")

    async def end_outage(self, gate: Gate) -> None:
        """Tell that a provider which counted as down is there again."""
        gate.end_outage()
        is_over = await self._drop(gate, (UNREACHABLE,), gate.provider, "outage")
        if is_over and not gate.is_held:
            self._context.note(f"provider {gate.provider} is back")

    # --- probes: connections that carry no mail

    async def probe(self, gate: Gate) -> None:
        """Try whether a provider is back; `gate.is_probing` meanwhile. No mail is risked by it."""
        gate.begin_probe()
        begun_s = time.monotonic()
        patience_s = _patience_s(gate.failures) if gate.has_alternative else PROBE_LONGEST_S
        try:
            outcome = await self._try(gate, patience_s)
            is_alive = outcome is not None and outcome.reply is not None
            if gate.in_flight and is_alive and not gate.is_held:
                outcome = None  # it answers, and has its hands full
            if outcome is None:
                await self._note_success(gate)
            elif outcome.verdict is Verdict.HOLD:
                await self.hold_provider(gate, outcome)
                await self._note_connection(gate)  # what stops it now is the hold
            else:
                what = outcome.detail or str(outcome.reply)
                await self.note_failure(gate, what, begun_s)
        finally:
            gate.end_probe()

    async def _try(self, gate: Gate, patience_s: float) -> RecipientOutcome | None:
        """Return the trouble of a probe; None: connection and login worked."""
        upstream = self._upstreams[gate.provider]
        try:
            await upstream.pool.probe(patience_s)
        except UpstreamError as error:
            return RecipientOutcome(
                rcpt_no=-1,
                meaning=upstream.classifier.meaning(error.stage, error.said),
                stage=error.stage,
                reply=error.reply,
                detail=error.detail,
                dsn=error.dsn,
            )
        return None

    async def _note_connection(self, gate: Gate) -> None:
        gate.note_connection()
        if gate.is_outage_known:
            await self.end_outage(gate)

    async def _note_success(self, gate: Gate) -> None:
        await self._note_connection(gate)
        if gate.is_held and not gate.is_probed_by_mail:
            await self.drop(gate)
        gate.note_progress(time.monotonic())

    async def has_new_key(self, gate: Gate) -> bool:
        """Return whether a refused key was replaced, or cannot be read any more.

        Looks now and then, however often asked.
        """
        credentials = self._upstreams[gate.provider].pool.credentials
        now_s = time.monotonic()
        if now_s < self._look_at_s.get(gate.provider, 0.0):
            return False
        self._look_at_s[gate.provider] = now_s + credentials.look_each_s
        return await credentials.has_changed()


def _patience_s(failures: int) -> float:
    """Return how long a provider with alternatives may take to answer.

    Longer from the third failure on: where all are slow, none would ever be back.
    """
    doublings = min(max(0, failures - DOWN_AFTER_FAILURES + 1), 8)
    return min(PROBE_LONGEST_S, _SUSPICION_PATIENCE_S * 2.0**doublings)


def obey_outages(in_force: Sequence[Hold], gates: Iterable[Gate]) -> None:
    """Let gates know what other workers found out."""
    down = {hold.key for hold in in_force if hold.scope == UNREACHABLE}
    now_s = time.monotonic()
    for gate in gates:
        gate.obey_outage(now_s, is_down=gate.provider in down)


def _obey_provider(gate: Gate, in_force: Sequence[Hold]) -> None:
    mine = [h for h in in_force if h.scope in _OF_THE_PROVIDER and h.key == gate.provider]
    gate.brake.obey(is_held=any(hold.cause.code is HoldCode.REFUSED_ALIKE for hold in mine))
    if not any(hold.scope == PAUSED for hold in mine):
        gate.end_pause(time.monotonic())
    if not mine:
        gate.end_hold()
        return
    due_ms = [hold.probe_at_ms for hold in mine if hold.probe_at_ms is not None]
    gate.obey_hold(
        _here_s(max(due_ms)) if len(due_ms) == len(mine) else None,
        by_mail=all(hold.scope != Scope.CREDENTIAL for hold in mine),
        is_paused=any(hold.scope == PAUSED for hold in mine),
    )


def _new_hold(
    scope: str, key: str, reason: str, remedy: str, wait_s: float, cause: HoldCause = SAID
) -> Hold:
    now_ms = clock_ms()
    return Hold(
        scope=str(scope),
        key=key,
        reason=reason,
        remedy=remedy,
        since_ms=now_ms,
        probe_at_ms=now_ms + int(wait_s * 1000),
        cause=cause,
    )


def _probe_wait_s(gate: Gate) -> float:
    """Return in how long a provider is tried again that could not be reached."""
    return max(0.0, gate.blocked_until_s - time.monotonic())


def _here_s(at_ms: int) -> float:
    """Return a time of the epoch by this process's monotonic clock."""
    return time.monotonic() + at_ms / 1000 - time.time()
