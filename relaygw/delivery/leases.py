"""The leases of one incarnation: claimed, kept by one heartbeat, given back.

They are trusted only while the heartbeat is fresh: `is_held` is asked right before each final dot,
so a process that slept past its lease (stopped, swapped out, suspended) sends nothing with it. When
an answer of the store was lost, leases may exist that this worker does not know of, and would keep
from everybody as long as it lives: `free_unknown` ends them.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

from relaygw.delivery.context import WorkerContext
from relaygw.errors import RelaygwError
from relaygw.mail.clock import awake_s, clock_ms
from relaygw.mail.envelope import ClaimedDelivery
from relaygw.store.queue_entry import Key

HEARTBEAT_S = 5.0
_AGAIN_S = 1.0  # after one that failed
LEASE_S = 20.0
"""An incarnation whose heartbeat is older is dead to the others."""


class LeaseLost(RelaygwError):
    """This incarnation was buried; whatever it still holds belongs to others."""


class Leases:
    """Keeps an incarnation alive in the store, and knows which deliveries it has leased.

    That is what waits in a window, is under way or chained to that, is being recorded or given
    back. A lease in the database that is not known here belongs to nobody: its claim was never
    answered.
    """

    def __init__(self, context: WorkerContext) -> None:
        self.is_draining = False
        self._context = context
        self._until_s = awake_s() + LEASE_S
        self._is_lost = False
        self._known: defaultdict[str, set[Key]] = defaultdict(set)  # by route
        self._unsure: set[str] = set()  # routes with leases that are not known, perhaps
        # a claim that overtook a give-back would take for known what is queued again by then
        self._turns: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    # --- alive

    def is_held(self) -> bool:
        """True while nobody else may have taken over."""
        return not self._is_lost and awake_s() < self._until_s

    def lose(self) -> None:
        """Note that the store knows this incarnation no more."""
        self._is_lost = True

    async def beat(self) -> None:
        """Renew until cancelled; raises LeaseLost when the incarnation was buried."""
        thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="heartbeat")
        try:
            while True:
                wait_s = await self._beat_once(thread)
                if self._is_lost:
                    raise LeaseLost(f"the leases of {self._context.incarnation} were taken over")
                await asyncio.sleep(wait_s)
        finally:
            thread.shutdown(wait=False)

    async def _beat_once(self, thread: ThreadPoolExecutor) -> float:
        """Renew, in a thread that does nothing else; return after how long to do so again."""
        sent_s = awake_s()
        with self._context.noting("heartbeat failed"):
            if await asyncio.get_running_loop().run_in_executor(thread, self._renew):
                self._until_s = sent_s + LEASE_S
            else:
                self.lose()
            return HEARTBEAT_S
        return _AGAIN_S

    def _renew(self) -> bool:
        state = "draining" if self.is_draining else "running"
        return self._context.store.instances.heartbeat(self._context.incarnation, state=state)

    # --- deliveries

    async def claim(self, route: str, limit: int) -> list[ClaimedDelivery]:
        """Lease due deliveries of a route, at most `limit`; none while the store is away."""
        async with self._turns[route]:
            before = frozenset(self._known[route])
            claimed = await self._context.ask(
                "",
                self._context.store.leases.claim,
                route,
                limit=limit,
                incarnation=self._context.incarnation,
                now_ms=clock_ms(),
            )
            if claimed is None:
                self._unsure.add(route)
                return []
            # what was known already is being recorded: that may end this new lease as well
            fresh = [one for one in claimed if key_of(one) not in before]
            if len(fresh) < len(claimed):
                self._unsure.add(route)
            self._known[route].update(map(key_of, fresh))
            return fresh

    async def give_back(self, claimed: Sequence[ClaimedDelivery]) -> None:
        """Return deliveries of one route to the queue; what fails is for `free_unknown`."""
        async with self._turns[claimed[0].route]:
            try:
                with self._context.noting("could not give back leases"):
                    await self._context.call(
                        self._context.store.leases.give_back,
                        [key_of(one) for one in claimed],
                        incarnation=self._context.incarnation,
                    )
                    return
                self._unsure.update(one.route for one in claimed)
            finally:
                self.forget(claimed)

    def forget(self, claimed: Iterable[ClaimedDelivery]) -> None:
        """Note that leases have ended, or that nobody here works on them any more."""
        for one in claimed:
            self._known[one.route].discard(key_of(one))

    def is_unsure(self, route: str) -> bool:
        """True when there may be leases of a route that nobody works on."""
        return route in self._unsure

    async def free_unknown(self, route: str) -> int:
        """End the leases on a route that are not known; return how many are queued again."""
        async with self._turns[route]:  # nothing may be claimed meanwhile
            self._unsure.discard(route)
            freed = await self._context.ask(
                "",
                self._context.store.leases.free_unknown,
                route,
                known=frozenset(self._known[route]),
                incarnation=self._context.incarnation,
            )
            if freed is None:
                self._unsure.add(route)
            return freed or 0


def key_of(claimed: ClaimedDelivery) -> Key:
    """Return how the store names a delivery."""
    return (claimed.queue_id, claimed.delivery_no)
