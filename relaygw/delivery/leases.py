"""The leases of one incarnation: renewed by one heartbeat, trusted only while it is fresh.

`is_held` is asked right before each final dot is sent: a process that slept past its lease
(stopped, swapped out, suspended) sends nothing with it.
"""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor

from relaygw.delivery.store_calls import in_thread
from relaygw.errors import RelaygwError, StoreUnavailable
from relaygw.observe.maillog import MailLog
from relaygw.store.protocol import Store

HEARTBEAT_S = 5.0
_AGAIN_S = 1.0  # after one that failed
LEASE_S = 20.0
"""An incarnation whose heartbeat is older is dead to the others."""


class LeaseLost(RelaygwError):
    """This incarnation was buried; whatever it still holds belongs to others."""


class Leases:
    """Keeps an incarnation alive in the store and knows how long it may rely on that."""

    def __init__(self, store: Store, log: MailLog, *, incarnation: str) -> None:
        self.incarnation = incarnation
        self.is_draining = False
        self._store = store
        self._log = log
        self._until_s = _awake_s() + LEASE_S
        self._is_lost = False

    def is_held(self) -> bool:
        """True while nobody else may have taken over."""
        return not self._is_lost and _awake_s() < self._until_s

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
                    raise LeaseLost(f"the leases of {self.incarnation} were taken over")
                await asyncio.sleep(wait_s)
        finally:
            thread.shutdown(wait=False)

    async def _beat_once(self, thread: ThreadPoolExecutor) -> float:
        """Renew, in a thread that does nothing else; return after how long to do so again."""
        sent_s = _awake_s()
        try:
            if await in_thread(thread, self._renew):
                self._until_s = sent_s + LEASE_S
            else:
                self.lose()
        except StoreUnavailable as error:
            self._log.note("qmgr", f"warning: heartbeat failed: {error}")
            return _AGAIN_S
        return HEARTBEAT_S

    def _renew(self) -> bool:
        state = "draining" if self.is_draining else "running"
        return self._store.heartbeat(self.incarnation, state=state)


def _awake_s() -> float:
    """Return a clock that goes on while the machine is suspended, as others' clocks do."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)
