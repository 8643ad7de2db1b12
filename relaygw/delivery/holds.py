"""Holds of providers: set by what a provider says, by an operator; ended by a probe.

A hold stops the claims for a provider; nothing is rewritten and no mail bounces. When its
probe time comes one delivery may try, and its success ends the hold.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from dataclasses import replace

from relaygw.delivery.lanes import Gate
from relaygw.errors import StoreUnavailable
from relaygw.mail.outcome import RecipientOutcome, Scope
from relaygw.observe.maillog import MailLog
from relaygw.store.protocol import Hold, Store

PROBE_S = 300.0
"""Wait before one delivery tries a held provider again."""
_REMEDIES = {
    Scope.CREDENTIAL: "check its user name and password or key, then reload (HUP) to try at once",
    Scope.PROVIDER: "check the account's quota and standing, then reload (HUP) to try at once",
}


class HoldKeeper:
    """The holds that the gates of one worker obey."""

    def __init__(self, store: Store, log: MailLog) -> None:
        self._store = store
        self._log = log
        self._is_fresh = True  # a restart or reload tries a held provider at once

    async def obey(self, in_force: Iterable[Hold], gates: Iterable[Gate]) -> None:
        """Let the gates know of the holds in force, those of others included."""
        holds = {
            hold.key: hold for hold in in_force if hold.scope in (Scope.PROVIDER, Scope.CREDENTIAL)
        }
        for gate in gates:
            hold = holds.get(gate.provider)
            gate.is_held = hold is not None
            if hold is not None and self._is_fresh:
                hold = replace(hold, probe_at_ms=time.time_ns() // 1_000_000)
                await asyncio.to_thread(self._store.put_hold, hold)
            gate.probe_at_s = None
            if hold is not None and hold.probe_at_ms is not None:
                gate.probe_at_s = time.monotonic() + hold.probe_at_ms / 1000 - time.time()
        self._is_fresh = False

    async def put(self, gate: Gate, outcome: RecipientOutcome) -> None:
        """Hold the provider for what it said, and say so once in the log."""
        now_ms = time.time_ns() // 1_000_000
        reason = str(outcome.reply) if outcome.reply is not None else outcome.detail
        hold = Hold(
            scope=outcome.scope.value,
            key=gate.provider,
            reason=reason,
            remedy=_REMEDIES.get(outcome.scope, ""),
            since_ms=now_ms,
            probe_at_ms=now_ms + int(PROBE_S * 1000),
        )
        gate.is_held = True
        gate.probe_at_s = time.monotonic() + PROBE_S
        try:
            is_new = await asyncio.to_thread(self._store.put_hold, hold)
        except StoreUnavailable as error:
            self._log.note("qmgr", f"warning: hold of {gate.provider} not recorded: {error}")
            return
        if is_new:
            self._log.note(
                "qmgr",
                f"warning: provider {gate.provider} is held ({hold.scope}): {reason}; "
                f"no mail is lost; {hold.remedy}",
            )

    async def drop(self, gate: Gate) -> None:
        """End the hold: a probe went through."""
        gate.is_held = False
        gate.probe_at_s = None
        now_ms = time.time_ns() // 1_000_000
        try:
            for scope in (Scope.PROVIDER, Scope.CREDENTIAL):
                await asyncio.to_thread(
                    self._store.drop_hold, scope.value, gate.provider, now_ms=now_ms
                )
        except StoreUnavailable as error:
            self._log.note("qmgr", f"warning: hold of {gate.provider} not ended: {error}")
            return
        self._log.note("qmgr", f"provider {gate.provider} works again, its hold has ended")
