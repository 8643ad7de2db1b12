"""Permits, tokens of a rate and quota that gates get from the store."""

from __future__ import annotations

import time
from collections.abc import Callable, Coroutine, Iterable

from relaygw.delivery.context import WorkerContext
from relaygw.delivery.gate import Gate
from relaygw.delivery.holds import Holds
from relaygw.delivery.permits import Permits
from relaygw.mail.envelope import ClaimedDelivery

QUOTA_SLICE_S = 600.0  # for mail over the rest of a quota, which moves in slices


class Shares:
    """Requests of gates to the store, one a gate at a time; `start` is called when some arrived."""

    def __init__(
        self,
        context: WorkerContext,
        gates: Iterable[Gate],
        holds: Holds,
        start: Callable[[Gate], None],
    ) -> None:
        self._context = context
        self._limits = context.store.limits
        self._holds = holds
        self._start = start
        self.permits = Permits(context, gates)

    def ask(self, gate: Gate, request: Coroutine[None, None, bool]) -> None:
        """Make one of the requests below, unless one is under way."""
        if gate.is_asking:
            request.close()
            return
        gate.begin_asking()
        self._context.spawn(self._run(gate, request))

    async def _run(self, gate: Gate, request: Coroutine[None, None, bool]) -> None:
        has_more = False
        try:
            with self._context.noting():
                has_more = await request
        finally:
            gate.end_asking()
        if has_more:
            self._start(gate)

    async def more_permits(self, gate: Gate, wanted: int) -> bool:
        """Get permits to connect."""
        await self.permits.acquire(gate, wanted)
        return gate.permits > gate.in_flight

    async def more_tokens(self, gate: Gate, claimed: ClaimedDelivery, waiting: int) -> bool:
        """Get tokens of the gate's rate for a delivery, and for those behind it."""
        per_s = gate.rate_per_s()
        if per_s is None:
            return True
        asked_s = time.monotonic()
        wanted = gate.allowance.wanted_tokens(claimed, waiting)
        take, group = self._limits.take_tokens, gate.limit_group
        tokens = await self._context.call(take, group, wanted=wanted, per_s=per_s)
        gate.allowance.add_tokens(tokens, per_s=per_s, asked_s=asked_s)
        return True

    async def more_quota(self, gate: Gate, claimed: ClaimedDelivery) -> bool:
        """Get some of the daily quota."""
        allowance = gate.allowance
        assert allowance.quota is not None
        wanted = allowance.wanted_quota(claimed)
        if wanted <= 0:  # it came back meanwhile; what is too much is given back in one place
            return True
        taken = await self._context.call(
            self._limits.use_quota, gate.limit_group, wanted=wanted, quota=allowance.quota
        )
        allowance.quota_left += taken.granted
        if allowance.lacks_quota(claimed) and gate.in_flight:
            return False  # what is refused of that comes back, and is asked for again at its end
        if allowance.quota_left <= 0:
            await self._holds.put_quota(gate, allowance.quota, taken.starts_in_s)
        allowance.is_short = allowance.lacks_quota(claimed)
        return True

    async def return_quota(self, gate: Gate) -> None:
        """Give back unused quota; not again if that failed: twice would be more than the quota."""
        allowance = gate.allowance
        left, allowance.quota_left = allowance.quota_left, 0
        if left <= 0 or allowance.quota is None:
            return
        use, group = self._limits.use_quota, gate.limit_group
        trouble = f"quota of {group} not given back"
        await self._context.ask(trouble, use, group, wanted=-left, quota=allowance.quota)
