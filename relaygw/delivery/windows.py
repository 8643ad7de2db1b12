"""The windows of lanes: claimed deliveries at hand, and what does not belong there.

What cannot be sent from a window leaves it: held alone, put off until its provider may be back,
or given back to the queue for others.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from relaygw.delivery.courier import Courier
from relaygw.delivery.gate import sender_domain
from relaygw.delivery.holds import HoldKeeper
from relaygw.delivery.lanes import Lane, clogging
from relaygw.delivery.store_calls import Spawn, in_thread
from relaygw.errors import StoreUnavailable
from relaygw.mail.envelope import ClaimedDelivery
from relaygw.observe.maillog import MailLog
from relaygw.store.protocol import Store

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
        courier: Courier,
        holds: HoldKeeper,
        threads: ThreadPoolExecutor,
        spawn: Spawn,
    ) -> None:
        self._store = store
        self._log = log
        self._incarnation = incarnation
        self._courier = courier
        self._holds = holds
        self._threads = threads
        self._spawn = spawn

    async def claim(self, lane: Lane) -> None:
        """Fill a window with due deliveries of its route."""
        room = lane.room
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
            claimed = []
        finally:
            lane.is_claiming = False
        # fewer than asked for: nothing more is due until a hint or the next poll
        lane.may_have_more = lane.may_have_more or len(claimed) == room
        lane.window.extend(claimed)
        self.sweep(lane)

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
        keys = [(claimed.queue_id, claimed.delivery_no) for claimed in lane.window]
        lane.window.clear()
        lane.may_have_more = True
        if keys:
            self._spawn(self.give_back_now(keys))

    async def give_back_now(self, keys: Sequence[tuple[str, int]]) -> None:
        """Return deliveries to the queue; when that fails they wait for the end of the lease."""
        try:
            await in_thread(
                self._threads,
                self._store.give_back,
                keys,
                incarnation=self._incarnation,
            )
        except StoreUnavailable as error:
            # they stay leased until this incarnation ends; nothing is lost
            self._log.note("qmgr", f"warning: could not give back leases: {error}")
