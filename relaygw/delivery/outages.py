"""Outages of providers, and the probes that find out whether one is back.

What one worker finds out in seconds the others take for a suspicion: they make one connection
without mail before they send any. A worker that reaches the provider ends the outage for all.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence

from relaygw.delivery.context import WorkerContext
from relaygw.delivery.gate import UNREACHABLE_LADDER_S, Gate
from relaygw.delivery.holds import Holds, new_hold
from relaygw.mail.clock import clock_ms
from relaygw.mail.outcome import RecipientOutcome, Verdict
from relaygw.store.holds import UNREACHABLE, Hold
from relaygw.upstream.advice import certificate_remedy
from relaygw.upstream.classifier import Classifier
from relaygw.upstream.failure import UpstreamError
from relaygw.upstream.pool import Pool

_SUSPICION_PATIENCE_S = 2.0
"""For a provider that is silent while another could take over."""
_PATIENCE_S = 60.0


class Outages:
    """Which providers are down, told to all workers and to whoever operates the gateway."""

    def __init__(self, context: WorkerContext) -> None:
        self._context = context

    async def note_failure(self, gate: Gate, what: str, now_s: float) -> None:
        """Learn that a provider cannot be reached; tell of it once it counts as down."""
        was_down = gate.is_down(now_s)
        gate.note_failure(now_s)
        if gate.is_down(now_s) and not was_down:
            await self.begin(gate, what)

    async def begin(self, gate: Gate, what: str) -> None:
        """Tell that a provider is down, once however many workers see it."""
        remedy = certificate_remedy(what) or "it is tried again by itself"
        hold = new_hold(UNREACHABLE, gate.provider, what, remedy, UNREACHABLE_LADDER_S[-1])
        with gate.teaching():
            is_new = await self._context.ask(
                f"outage of {gate.provider} not recorded", self._context.store.holds.put_hold, hold
            )
        gate.is_outage_known = gate.is_outage_known or is_new is not None
        if is_new:
            then = "mail waits"
            if gate.has_alternative:
                then = "the next provider of its routes takes over"
            self._context.note(f"warning: provider {gate.provider} is down ({what}); {then}")

    async def end(self, gate: Gate) -> None:
        """Tell that a provider is there again."""
        if not gate.is_outage_known:
            return
        gate.is_outage_known = False
        with gate.teaching():
            was_there = await self._context.ask(
                f"outage of {gate.provider} not ended",
                self._context.store.holds.drop_hold,
                UNREACHABLE,
                gate.provider,
                now_ms=clock_ms(),
            )
        if was_there:
            self._context.note(f"provider {gate.provider} is back")

    def obey(self, in_force: Sequence[Hold], gates: Iterable[Gate]) -> None:
        """Let gates know what other workers found out."""
        down = {hold.key for hold in in_force if hold.scope == UNREACHABLE}
        now_s = time.monotonic()
        for gate in gates:
            if gate.provider in down:
                gate.suspect(now_s)
            elif gate.is_outage_known:
                gate.hasten_probe(now_s)
            gate.is_outage_known = gate.provider in down


class Prober:
    """Makes connections that carry no mail, to see whether a provider is back.

    Mail that waits for an unreachable provider is not tried on it, so nothing is deferred or
    charged by a probe. A refused key is tried again as soon as it has changed.
    """

    def __init__(
        self,
        holds: Holds,
        outages: Outages,
        pools: Mapping[str, Pool],
        classifiers: Mapping[str, Classifier],
    ) -> None:
        self._holds = holds
        self._outages = outages
        self._pools = pools
        self._classifiers = classifiers
        self._look_at_s: dict[str, float] = {}

    async def probe(self, gate: Gate) -> None:
        """Try a connection and learn from it; `gate.is_probing` is True meanwhile."""
        gate.is_probing = True
        begun_s = time.monotonic()
        patience_s = _SUSPICION_PATIENCE_S if gate.has_alternative else _PATIENCE_S
        try:
            outcome = await self._try(gate, patience_s)
            is_alive = outcome is not None and outcome.reply is not None
            if gate.in_flight and is_alive and not gate.is_held:
                outcome = None  # it answers, and has its hands full
            if outcome is None:
                await self._note_success(gate)
            elif outcome.verdict is Verdict.HOLD:
                gate.note_reached()
                await self._holds.put(gate, outcome)
            else:
                await self._outages.note_failure(
                    gate, outcome.detail or str(outcome.reply), begun_s
                )
        finally:
            gate.is_probing = False

    async def _try(self, gate: Gate, patience_s: float) -> RecipientOutcome | None:
        """Return what went wrong; None: it was made, logged in and all."""
        try:
            await self._pools[gate.provider].probe(patience_s)
        except UpstreamError as error:
            return RecipientOutcome(
                rcpt_no=-1,
                meaning=self._classifiers[gate.provider].meaning(error.stage, error.said),
                stage=error.stage,
                reply=error.reply,
                detail=error.detail,
                dsn=error.dsn,
            )
        return None

    async def _note_success(self, gate: Gate) -> None:
        gate.note_reached()
        await self._outages.end(gate)
        if gate.is_held and not gate.is_probed_by_mail:
            await self._holds.drop(gate)
        gate.progress_at_s = time.monotonic()

    async def has_new_key(self, gate: Gate) -> bool:
        """Return whether there is another key in the place of a refused one.

        Looks now and then only, however often it is asked.
        """
        credentials = self._pools[gate.provider].credentials
        now_s = time.monotonic()
        if now_s < self._look_at_s.get(gate.provider, 0.0):
            return False
        self._look_at_s[gate.provider] = now_s + credentials.look_each_s
        return await credentials.has_changed()
