"""Outages of providers, told to all workers and to whoever operates the gateway.

What one worker finds out in seconds the others take for a suspicion: they make one connection
without mail before they send any. A worker that reaches the provider ends the outage for all.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Sequence

from relaygw.delivery.gate import UNREACHABLE_LADDER_S, Gate
from relaygw.errors import StoreUnavailable
from relaygw.observe.maillog import MailLog
from relaygw.store.protocol import UNREACHABLE, Hold, Store
from relaygw.upstream.advice import certificate_remedy


class Outages:
    """The outages that one worker knows of."""

    def __init__(self, store: Store, log: MailLog) -> None:
        self._store = store
        self._log = log

    async def begin(self, gate: Gate, what: str) -> None:
        """Tell that a provider is down, once however many workers see it."""
        now_ms = time.time_ns() // 1_000_000
        hold = Hold(
            scope=UNREACHABLE,
            key=gate.provider,
            reason=what,
            remedy=certificate_remedy(what) or "it is tried again by itself",
            since_ms=now_ms,
            probe_at_ms=now_ms + int(UNREACHABLE_LADDER_S[-1] * 1000),
        )
        try:
            with gate.teaching():
                is_new = await asyncio.to_thread(self._store.put_hold, hold)
        except StoreUnavailable as error:
            self._log.note("qmgr", f"warning: outage of {gate.provider} not recorded: {error}")
            return
        gate.is_outage_known = True
        if is_new:
            then = "mail waits"
            if gate.has_alternative:
                then = "the next provider of its routes takes over"
            self._log.note("qmgr", f"warning: provider {gate.provider} is down ({what}); {then}")

    async def end(self, gate: Gate) -> None:
        """Tell that a provider is there again."""
        if not gate.is_outage_known:
            return
        gate.is_outage_known = False
        now_ms = time.time_ns() // 1_000_000
        try:
            with gate.teaching():
                was_there = await asyncio.to_thread(
                    self._store.drop_hold, UNREACHABLE, gate.provider, now_ms=now_ms
                )
        except StoreUnavailable as error:
            self._log.note("qmgr", f"warning: outage of {gate.provider} not ended: {error}")
            return
        if was_there:
            self._log.note("qmgr", f"provider {gate.provider} is back")

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
