"""What one incarnation has of what all share: deliveries, permits for connections, tokens, quotas.

`is_held` is asked right before each final dot: a process that slept past its lease sends nothing
with it. More may be leased than is known, when an answer was lost, or a standby took over that did
not have an outcome. It would be kept from all: `free_unknown` ends it, at once after a call that
failed, and each minute. Permits are counted anew: one too few is one less for all, one too many a
connection above the limit. Tokens are a quarter of a second's worth; quota taken ahead (1 %, 50 at
most, or one mail) stays unused for 24 hours, as after a crash.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

from relaygw.delivery.context import WorkerContext
from relaygw.errors import RelaygwError, StoreUnavailable
from relaygw.mail.clock import awake_s, clock_ms
from relaygw.mail.envelope import ClaimedDelivery
from relaygw.store.instances import FAILING
from relaygw.store.queue_tables import Key

_AGAIN_S = 1.0  # after one that failed
_FAILURES = 3  # so many claims in vain are more than a hitch; one a second is made


class LeaseLost(RelaygwError):
    """This incarnation was buried; whatever it still holds belongs to others."""


class Looks:
    """When each of several things is to be looked at: now and then, and sooner where it failed."""

    def __init__(self, each_s: float) -> None:
        self._each_s = each_s
        self._at_s: dict[str, float] = {}

    def are_due(self, name: str) -> bool:
        """True when it is time; the first is `each_s` after it was asked for."""
        now_s = time.monotonic()
        return now_s >= self._at_s.setdefault(name, now_s + self._each_s)

    def done(self, name: str) -> None:
        """Look again in `each_s`."""
        self._at_s[name] = time.monotonic() + self._each_s

    def soon(self, name: str, in_s: float = 0.0) -> None:
        """Look again then: what a call came to is not known."""
        self._at_s[name] = time.monotonic() + in_s


class Leases:
    """Keeps an incarnation alive in the store, and knows which deliveries it has leased.

    Those in a window, under way or chained, being recorded or given back.
    """

    def __init__(self, context: WorkerContext) -> None:
        self.is_draining = False
        self._context, self._waits = context, context.waits
        self._stored, self._incarnation = context.store.leases, context.incarnation
        self.held_until_s = awake_s() + self._waits.lease_s
        self._is_lost = False
        self._failed: list[tuple[str, float]] = []  # the last claims, if in vain: why, when
        self._known: defaultdict[str, set[Key]] = defaultdict(set)  # by route
        self._looks = Looks(self._waits.unknown_leases_s)  # by route: for leases that are not known
        # a claim that overtook a give-back would take for known what is queued again by then
        self._turns: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    # --- alive

    def is_held(self) -> bool:
        """True while nobody else may have taken over."""
        return not self._is_lost and awake_s() < self.held_until_s

    def may_begin(self) -> bool:
        """True until this worker ends: what it has in hand is given back then."""
        return not self.is_draining

    def lose(self) -> None:
        """Note that the store knows this incarnation no more."""
        self._is_lost = True

    async def renew_until_cancelled(self) -> None:
        """Renew until cancelled; raises LeaseLost when the incarnation was buried."""
        thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="heartbeat")
        try:
            while True:
                wait_s = await self._beat_once(thread)
                if self._is_lost:
                    raise LeaseLost(f"the leases of {self._incarnation} were taken over")
                await asyncio.sleep(wait_s)
        finally:
            thread.shutdown(wait=False)

    async def _beat_once(self, thread: ThreadPoolExecutor) -> float:
        """Renew, in a thread that does nothing else; return after how long to do so again."""
        sent_s = awake_s()
        with self._context.noting("heartbeat failed"):
            if await asyncio.get_running_loop().run_in_executor(thread, self._renew):
                self.held_until_s = sent_s + self._waits.lease_s
            else:
                self.lose()
            return self._waits.heartbeat_s
        return _AGAIN_S

    def _renew(self) -> bool:
        running = FAILING if self.claim_trouble() else "running"
        state = "draining" if self.is_draining else running
        return self._context.store.instances.heartbeat(self._incarnation, state=state)

    # --- deliveries

    async def claim(self, route: str, limit: int) -> list[ClaimedDelivery]:
        """Lease due deliveries of a route, at most `limit`; none while the store is away."""
        async with self._turns[route]:
            before = frozenset(self._known[route])
            try:
                claimed = await self._context.call(
                    self._stored.claim,
                    route,
                    limit=limit,
                    incarnation=self._incarnation,
                    now_ms=clock_ms(),
                )
            except StoreUnavailable as error:
                self._context.note(f"warning: {error}")
                self._looks.soon(route)
                self._failed = [*self._failed[-_FAILURES:], (str(error), time.monotonic())]
                return []
            self._failed = []
            # what was known already is being recorded: that may end this new lease as well
            fresh = [delivery for delivery in claimed if key_of(delivery) not in before]
            if len(fresh) < len(claimed):  # or it is told already, and nobody works on the new one
                self._looks.soon(route, _AGAIN_S)
            self._known[route].update(map(key_of, fresh))
            return fresh

    def claim_trouble(self) -> str | None:
        """Return why nothing can be claimed, None where it can be, or need not; for any thread."""
        since_s = time.monotonic() - self._waits.lease_s
        recent = [text for text, at_s in self._failed if at_s > since_s]
        return recent[-1] if len(recent) >= _FAILURES else None

    async def give_back(self, claimed: Sequence[ClaimedDelivery]) -> None:
        """Return deliveries of one route to the queue; what fails is for `free_unknown`."""
        keys, give_back = [key_of(delivery) for delivery in claimed], self._stored.give_back
        async with self._turns[claimed[0].route]:
            try:
                with self._context.noting("could not give back leases"):
                    await self._context.call(give_back, keys, incarnation=self._incarnation)
                    return
                self._looks.soon(claimed[0].route)
            finally:
                self.forget(claimed)

    def forget(self, claimed: Iterable[ClaimedDelivery]) -> None:
        """Note that leases have ended, or that nobody here works on them any more."""
        for delivery in claimed:
            self._known[delivery.route].discard(key_of(delivery))

    def is_unsure(self, route: str) -> bool:
        """True when it is time to look for leases of a route that nobody works on."""
        return self._looks.are_due(route)

    async def free_unknown(self, route: str) -> int:
        """End the leases on a route that are not known; return how many are queued again."""
        async with self._turns[route]:  # nothing may be claimed meanwhile
            self._looks.done(route)
            known, incarnation = frozenset(self._known[route]), self._incarnation
            freed = await self._context.ask(
                "", self._stored.free_unknown, route, known=known, incarnation=incarnation
            )
            if freed is None:
                self._looks.soon(route)
            return freed or 0


def key_of(claimed: ClaimedDelivery) -> Key:
    """Return how the store names a delivery."""
    return (claimed.queue_id, claimed.delivery_no)
