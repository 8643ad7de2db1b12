"""Gets for gates what all workers share: permits for connections, tokens of rates, quota.

One request a gate at a time, in a thread; `pump` is called when something arrived.

When the answer of the store is lost, so is what it granted. Permits are counted anew then. Tokens
of a rate are a quarter of a second's worth at most. Of a quota, what one request takes ahead (1 %
of it, 50 at most, or one mail) stays unused until it is 24 hours old, as after a crash.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor

from relaygw.delivery.gate import Gate
from relaygw.delivery.holds import HoldKeeper
from relaygw.delivery.permits import Permits
from relaygw.delivery.store_calls import Spawn, in_thread
from relaygw.errors import StoreUnavailable
from relaygw.mail.envelope import ClaimedDelivery
from relaygw.observe.maillog import MailLog
from relaygw.store.protocol import Store

QUOTA_SLICE_S = 600.0
"""When mail that the rest of a quota does not cover is looked at again: quotas move in slices."""


class Supplies:
    """Requests of one worker to the store."""

    def __init__(
        self,
        store: Store,
        log: MailLog,
        *,
        incarnation: str,
        permits: Permits,
        holds: HoldKeeper,
        threads: ThreadPoolExecutor,
        spawn: Spawn,
        pump: Callable[[Gate], None],
    ) -> None:
        self._store = store
        self._log = log
        self._incarnation = incarnation
        self._holds = holds
        self._threads = threads
        self._spawn = spawn
        self._pump = pump
        self._permits = permits

    def ask_for_permits(self, gate: Gate, wanted: int) -> None:
        """Ask for permits to connect."""
        self._ask(gate, self._acquire_permits(gate, wanted))

    def ask_for_tokens(self, gate: Gate, claimed: ClaimedDelivery, waiting: int) -> None:
        """Ask for tokens of the gate's rate for a delivery, and for those behind it."""
        self._ask(gate, self._take_tokens(gate, claimed, waiting))

    def ask_for_quota(self, gate: Gate, claimed: ClaimedDelivery) -> None:
        """Ask for some of the daily quota."""
        self._ask(gate, self._take_quota(gate, claimed))

    def _ask(self, gate: Gate, request: Coroutine[None, None, bool]) -> None:
        if gate.is_asking:
            request.close()
            return
        gate.is_asking = True
        self._spawn(self._run(gate, request))

    async def _run(self, gate: Gate, request: Coroutine[None, None, bool]) -> None:
        has_more = False
        try:
            has_more = await request
        except StoreUnavailable as error:
            self._log.note("qmgr", f"warning: {error}")
        finally:
            gate.is_asking = False
        if has_more:
            self._pump(gate)

    async def _acquire_permits(self, gate: Gate, wanted: int) -> bool:
        await self._permits.acquire(gate, wanted)
        return gate.permits > gate.in_flight

    async def _take_tokens(self, gate: Gate, claimed: ClaimedDelivery, waiting: int) -> bool:
        per_s = gate.rate_per_s()
        if per_s is None:
            return True
        asked_s = time.monotonic()
        tokens = await in_thread(
            self._threads,
            self._store.take_tokens,
            gate.limit_group,
            wanted=gate.allowance.wanted_tokens(claimed, waiting),
            per_s=per_s,
        )
        gate.allowance.add_tokens(tokens, per_s=per_s, asked_s=asked_s)
        return True

    async def _take_quota(self, gate: Gate, claimed: ClaimedDelivery) -> bool:
        allowance = gate.allowance
        assert allowance.quota is not None
        taken = await in_thread(
            self._threads,
            self._store.use_quota,
            gate.limit_group,
            wanted=allowance.wanted_quota(claimed),
            quota=allowance.quota,
        )
        allowance.quota_left += taken.granted
        if allowance.quota_left <= 0 and gate.in_flight:
            return False  # what is refused of that comes back, and is asked for again at its end
        if allowance.quota_left <= 0:
            await self._holds.put_quota(gate, allowance.quota, taken.starts_in_s)
        allowance.is_short = allowance.lacks_quota(claimed)
        return True

    async def return_quota(self, gate: Gate) -> None:
        """Give back what was taken of the daily quota and not used.

        Whether that happened is unknown when it fails. It is not tried again: given back twice it
        would be more than the quota.
        """
        allowance = gate.allowance
        left, allowance.quota_left = allowance.quota_left, 0
        if left <= 0 or allowance.quota is None:
            return
        try:
            await in_thread(
                self._threads,
                self._store.use_quota,
                gate.limit_group,
                wanted=-left,
                quota=allowance.quota,
            )
        except StoreUnavailable as error:
            self._log.note("qmgr", f"warning: quota of {gate.limit_group} not given back: {error}")
