"""Probes: connections that carry no mail, made to see whether a provider is back.

Mail that waits for an unreachable provider is not tried on it, so nothing is deferred or charged
by a probe. A refused key is tried again as soon as it has changed.
"""

from __future__ import annotations

import time
from collections.abc import Mapping

from relaygw.delivery.gate import Gate
from relaygw.delivery.learning import Learning
from relaygw.mail.outcome import RecipientOutcome
from relaygw.upstream.classify import Classifier
from relaygw.upstream.failure import UpstreamError
from relaygw.upstream.pool import Pool

_SUSPICION_PATIENCE_S = 2.0
"""For a provider that is silent while another could take over."""
_PATIENCE_S = 60.0


class Prober:
    """The probes of one worker."""

    def __init__(
        self, learning: Learning, pools: Mapping[str, Pool], classifiers: Mapping[str, Classifier]
    ) -> None:
        self._learning = learning
        self._pools = pools
        self._classifiers = classifiers
        self._look_at_s: dict[str, float] = {}

    async def probe(self, gate: Gate) -> None:
        """Try a connection; `gate.is_probing` is True meanwhile."""
        gate.is_probing = True
        begun_s = time.monotonic()
        patience_s = _SUSPICION_PATIENCE_S if gate.has_alternative else _PATIENCE_S
        try:
            outcome = await self._try(gate, patience_s)
            is_alive = outcome is not None and outcome.reply is not None
            if gate.in_flight and is_alive and not gate.is_held:
                outcome = None  # it answers, and has its hands full
            await self._learning.from_probe(gate, outcome, begun_s=begun_s)
            if outcome is None:
                gate.progress_at_s = time.monotonic()
        finally:
            gate.is_probing = False

    async def _try(self, gate: Gate, patience_s: float) -> RecipientOutcome | None:
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
