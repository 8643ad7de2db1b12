"""The windows of lanes: claimed deliveries at hand, and what does not belong there.

What cannot be sent from a window leaves it: held alone, put off until its provider may be back,
or given back to the queue for others. When an answer of the store was lost, leases may exist that
this worker does not know of, and would keep from everybody as long as it lives: `settle` ends them.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from relaygw.delivery.courier import Courier
from relaygw.delivery.gate import sender_domain
from relaygw.delivery.holds import HoldKeeper
from relaygw.delivery.in_hand import InHand, key_of
from relaygw.delivery.lanes import Lane, clogging
from relaygw.delivery.store_calls import Spawn, in_thread
from relaygw.errors import StoreUnavailable
from relaygw.mail.envelope import ClaimedDelivery
from relaygw.mail.state import DeliveryState
from relaygw.observe.maillog import MailLog
from relaygw.policy.retry import waits_for_provider
from relaygw.store.protocol import Selection, Store

_PAGE = 500
_PUT_OFF_S = 30.0
_CLOGGED_S = 5.0


class Windows:
    """Fills and clears the windows of one worker."""

    def __init__(
        self,
        store: Store,
        log: MailLog,
        *,
        incarnation: str,
        in_hand: InHand,
        courier: Courier,
        holds: HoldKeeper,
        threads: ThreadPoolExecutor,
        spawn: Spawn,
        wake: Callable[[], None],
    ) -> None:
        self._store = store
        self._wake = wake
        self._log = log
        self._incarnation = incarnation
        self._courier = courier
        self._holds = holds
        self._threads = threads
        self._spawn = spawn
        self._in_hand = in_hand
        self._unsure: set[str] = set()  # routes with leases that are not in hand, perhaps
        # a claim that overtook a give-back would take for known what is queued again by then
        self._leasing: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def claim(self, lane: Lane) -> None:
        """Fill a window with due deliveries of its route."""
        async with self._leasing[lane.route]:
            await self._claim(lane)

    async def _claim(self, lane: Lane) -> None:
        room = lane.room
        before = self._in_hand.of(lane.route)
        lane.may_have_more = False  # a hint that arrives meanwhile sets it again
        try:
            claimed = await in_thread(
                self._threads,
                self._store.claim,
                lane.route,
                limit=room,
                incarnation=self._incarnation,
                now_ms=time.time_ns() // 1_000_000,
            )
        except StoreUnavailable as error:
            self._log.note("qmgr", f"warning: {error}")
            self._unsure.add(lane.route)
            claimed = []
        finally:
            lane.is_claiming = False
        # fewer than asked for: nothing more is due until a hint or the next poll
        lane.may_have_more = lane.may_have_more or len(claimed) == room
        # what was in hand already is being recorded: that may end this new lease as well
        fresh = [one for one in claimed if key_of(one) not in before]
        if len(fresh) < len(claimed):
            self._unsure.add(lane.route)
        self._in_hand.take(fresh)
        lane.take(fresh)
        self.sweep(lane)

    def is_unsure(self, lane: Lane) -> bool:
        """True when there may be leases of a lane that nobody works on."""
        return lane.route in self._unsure

    async def settle(self, lane: Lane) -> None:
        """End the leases of a lane that are not in hand; nothing may be claimed meanwhile."""
        async with self._leasing[lane.route]:
            await self._settle(lane)

    async def _settle(self, lane: Lane) -> None:
        self._unsure.discard(lane.route)
        freed = 0
        try:
            freed = await in_thread(
                self._threads,
                self._store.free_unknown,
                lane.route,
                known=self._in_hand.of(lane.route),
                incarnation=self._incarnation,
            )
        except StoreUnavailable as error:
            self._log.note("qmgr", f"warning: {error}")
            self._unsure.add(lane.route)
        finally:
            lane.is_claiming = False
        if freed:
            lane.may_have_more = True
            self._log.note(
                "qmgr",
                f"{freed} deliveries of route {lane.route}, leased and not in hand, "
                "are queued again",
            )

    async def hurry(self, provider: str) -> None:
        """Make due what was put off for a provider that takes mail again."""
        reason = waits_for_provider(provider)
        waiting = Selection(states=frozenset({DeliveryState.DEFERRED}), reason=reason)

        def make_due() -> int:
            number, after = 0, ""
            while page := self._store.search(waiting, limit=_PAGE, after=after):
                after = page[-1].queue_id
                keys = [
                    (entry.queue_id, part.delivery_no)
                    for entry in page
                    for part in entry.deliveries
                ]
                now_ms = time.time_ns() // 1_000_000
                number += self._store.let_go(keys, reason=reason, now_ms=now_ms)
            return number

        try:
            if await in_thread(self._threads, make_due):
                self._wake()
        except StoreUnavailable as error:
            self._log.note("qmgr", f"warning: what waits for {provider} is not hurried: {error}")

    def sweep(self, lane: Lane) -> None:
        """Take out of a window what no provider may take, or only one that is in trouble."""
        if lane.is_plain:
            return
        now_s = time.monotonic()
        kept = []
        for claimed in lane.window:
            reason = lane.obstacle(claimed)
            gate = lane.gate_for(claimed, now_s)
            if reason is not None:
                self._spawn(self._set_aside(lane, claimed, reason))
            elif gate is not None and lane.has_choice and gate.keeps_waiting(now_s):
                wait_s = _PUT_OFF_S
                if not gate.is_held:
                    wait_s = min(wait_s, max(1.0, gate.blocked_until_s - now_s + 1.0))
                self._spawn(self._courier.put_off(claimed, gate.provider, wait_s))
            else:
                kept.append(claimed)
        lane.window.clear()
        lane.window.extend(kept)
        for claimed in clogging(lane, now_s):
            lane.window.remove(claimed)
            lane.may_have_more = True
            self._spawn(self._courier.put_off(claimed, "of its sender", _CLOGGED_S))

    async def _set_aside(self, lane: Lane, claimed: ClaimedDelivery, reason: str) -> None:
        await self._courier.set_aside(claimed, reason)
        if lane.obstacle(claimed) is None:  # its hold ended while that was written
            for gate in lane.gates:
                await self._holds.release_sender(gate.provider, sender_domain(claimed.sender))

    def give_back(self, lane: Lane) -> None:
        """Return claimed deliveries to the queue: others may be able to send them."""
        claimed = list(lane.window)
        lane.window.clear()
        lane.may_have_more = True
        if claimed:
            self._spawn(self.give_back_now(claimed))

    async def give_back_now(self, claimed: Sequence[ClaimedDelivery]) -> None:
        """Return deliveries of one route to the queue; what fails is made good by `settle`."""
        async with self._leasing[claimed[0].route]:
            await self._give_back(claimed)

    async def _give_back(self, claimed: Sequence[ClaimedDelivery]) -> None:
        try:
            await in_thread(
                self._threads,
                self._store.give_back,
                [key_of(one) for one in claimed],
                incarnation=self._incarnation,
            )
        except StoreUnavailable as error:
            self._log.note("qmgr", f"warning: could not give back leases: {error}")
            self._unsure.update(one.route for one in claimed)
        finally:
            self._in_hand.let_go(claimed)
