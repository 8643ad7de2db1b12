"""Housekeeping: buries the dead, purges what is over its time, keeps the database small.

Works in small steps, each a short transaction, so that the front never waits for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from relaygw.delivery.leases import LEASE_S
from relaygw.errors import StoreUnavailable
from relaygw.mail.clock import clock_ms
from relaygw.observe.maillog import MailLog
from relaygw.settings.model import Settings
from relaygw.store.instances import Begun
from relaygw.store.store import Store

CHECKPOINT_S = 2.0
CHECKPOINT_PAUSE_S = 0.1
STEP_S = 5.0
PURGE_EVERY_STEPS = 12
PURGE_LIMIT = 200
ORPHANS_EVERY_STEPS = 720
_FIRST_ORPHANS_STEP = 120  # not while a start with a long queue has enough to do
TRASH_S = 7 * 86400.0
ORPHANS_S = 3600.0
WATCHED_S = 14 * 86400.0
_SHED_PAUSE_S = 0.01
# known on its own host only
_UNSEEN = "; what it was sending may be sent more than once"
_PAUSE_S = 0.2  # between steps of a long purge


class Janitor:
    """Runs beside the worker in the delivery role."""

    def __init__(
        self,
        settings: Settings,
        store: Store,
        log: MailLog,
        *,
        incarnation: str,
        bury_dead_of_this_host: Callable[[], list[tuple[str, int, list[Begun]]]],
        wake_workers: Callable[[], None],
        has_lock_file: Callable[[str], bool] = lambda _incarnation: False,
    ) -> None:
        """`has_lock_file`: of an incarnation whose lock says whether it lives, late or not."""
        self._settings = settings
        self._store = store
        self._log = log
        self._incarnation = incarnation
        self._bury_dead_of_this_host = bury_dead_of_this_host
        self._wake_workers = wake_workers
        self._has_lock_file = has_lock_file

    async def run(self) -> None:
        """Clean up until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._every(CHECKPOINT_S, self._keep_log_short))
            group.create_task(self._every(STEP_S, self._clean_up))
            group.create_task(self._every(STEP_S, self._shed_content))

    async def _every(self, pause_s: float, step: Callable[[int], Awaitable[None]]) -> None:
        number = 0
        while True:
            try:
                await step(number)
            except StoreUnavailable as error:
                self._log.note("qmgr", f"warning: housekeeping: {error}")
            except Exception as error:  # the next step may do better; mail does not depend on it
                self._log.note("qmgr", f"error: housekeeping: {type(error).__name__}: {error}")
            number += 1
            await asyncio.sleep(pause_s)

    async def _keep_log_short(self, _number: int) -> None:
        is_growing = True
        while is_growing:
            is_growing = await asyncio.to_thread(self._store.janitor.checkpoint)
            await asyncio.sleep(CHECKPOINT_PAUSE_S)

    async def _clean_up(self, number: int) -> None:
        await asyncio.to_thread(self._tidy)
        if number % PURGE_EVERY_STEPS == 0:
            await self._purge(self._purge_step, self._trim_step)
        if number % ORPHANS_EVERY_STEPS == _FIRST_ORPHANS_STEP:
            await self._purge(self._orphans_step)
            await self._forget_watched()

    async def _forget_watched(self) -> None:
        has_more = True
        while has_more:
            before_ms = clock_ms() - int(WATCHED_S * 1000)
            has_more = await asyncio.to_thread(self._store.watch.forget_watched, before_ms)
            await asyncio.sleep(_PAUSE_S)

    async def _shed_content(self, _number: int) -> None:
        """Delete what finished large mail left; on its own, since it may take minutes."""
        keep_ms = int(self._settings.queue.keep_content * 1000)
        has_more = True
        while has_more:
            before_ms = clock_ms() - keep_ms
            has_more = await asyncio.to_thread(self._store.janitor.shed_content, before_ms)
            await asyncio.sleep(_SHED_PAUSE_S)

    def _bury(self) -> None:
        for incarnation, leases, begun in self._bury_dead_of_this_host():
            self._report(incarnation, leases)
            for queue_id, *_ in begun:
                self._log.note(
                    "qmgr",
                    f"{queue_id}: warning: was being sent when {incarnation} died; "
                    "the message may be sent more than once",
                )
        for incarnation in self._store.instances.stale_incarnations(LEASE_S):
            if incarnation != self._incarnation and not self._has_lock_file(incarnation):
                # what it was sending is known on its own host only
                leases = self._store.instances.bury(
                    incarnation, begun=None, is_lost=True, unless_heard=True
                )
                self._report(incarnation, leases, _UNSEEN)
        for incarnation in self._store.instances.ownerless():
            self._report(incarnation, self._store.instances.bury(incarnation, begun=None), _UNSEEN)

    def _report(self, incarnation: str, leases: int, hint: str = "") -> None:
        if leases:
            self._wake_workers()
            self._log.note(
                "qmgr", f"{leases} deliveries of {incarnation}, which died, are queued again{hint}"
            )

    async def _purge(self, *steps: Callable[[], int]) -> None:
        for step in steps:
            done = PURGE_LIMIT
            while done >= PURGE_LIMIT:
                done = await asyncio.to_thread(step)
                await asyncio.sleep(_PAUSE_S)

    def _tidy(self) -> None:
        self._bury()
        self._store.janitor.shrink()

    def _purge_step(self) -> int:
        return self._purge_older_than(
            deleted=TRASH_S,
            finished=self._settings.queue.retention,
            captured=self._settings.sandbox.retention,
        )

    def _orphans_step(self) -> int:
        return self._purge_older_than(orphans=ORPHANS_S)

    def _purge_older_than(self, **ages_s: float) -> int:
        now_ms = clock_ms()
        cutoffs = {name: now_ms - int(age_s * 1000) for name, age_s in ages_s.items()}
        return self._store.janitor.purge(cutoffs, limit=PURGE_LIMIT)

    def _trim_step(self) -> int:
        return self._store.janitor.trim_captured(
            keep=self._settings.sandbox.max_messages, limit=PURGE_LIMIT
        )
