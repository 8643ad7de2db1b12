"""Housekeeping in small steps, so that the front never waits: buries, purges, keeps files short."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from relaygw.delivery.waits import LEASE_S
from relaygw.errors import StoreUnavailable
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
MUCH_UNFINDABLE = 500  # searches look at up to four times as many messages themselves
_FIRST_ORPHANS_STEP = 120  # not while a start with a long queue has enough to do
TRASH_S = 7 * 86400.0
ORPHANS_S = 3600.0
WATCHED_S = 15 * 86400.0  # a day more than is shown: a weekly digest looks at two weeks
_SHED_PAUSE_S = 0.01
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
        want_web: Callable[[], None] | None = None,
    ) -> None:
        """`has_lock_file`: of an incarnation whose lock says whether it lives, late or not.

        `want_web` starts the web role where it does not run always: much mail is to be findable.
        """
        self._queue, self._sandbox = settings.queue, settings.sandbox
        self._expire_ms = settings.suppression.rules().expire_ms
        self._storms_ms = 2 * _ms(settings.storms.window)
        self._store = store
        self._log = log
        self._incarnation = incarnation
        self._bury_dead_of_this_host = bury_dead_of_this_host
        self._wake_workers = wake_workers
        self._has_lock_file = has_lock_file
        self._want_web = want_web

    async def run(self) -> None:
        """Clean up until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._every(CHECKPOINT_S, self._keep_log_short))
            group.create_task(self._every(STEP_S, self.clean_up))
            group.create_task(self._every(STEP_S, self._shed_content))

    async def _every(self, pause_s: float, step: Callable[[int], Awaitable[None]]) -> None:
        number = 0
        while True:
            try:
                await step(number)
            except StoreUnavailable as error:
                self._note(f"warning: housekeeping: {error}")
            except Exception as error:  # the next step may do better; mail does not depend on it
                self._note(f"error: housekeeping: {type(error).__name__}: {error}")
            number += 1
            await asyncio.sleep(pause_s)

    def _note(self, text: str) -> None:
        self._log.note("qmgr", text)

    async def _keep_log_short(self, _number: int) -> None:
        await _repeat(self._store.janitor.checkpoint, CHECKPOINT_PAUSE_S)

    async def _shed_content(self, _number: int) -> None:
        """Delete what finished large mail left; on its own, since it may take minutes."""
        janitor = self._store.janitor
        await _repeat(lambda: janitor.shed_content(_ms(self._queue.keep_content)), _SHED_PAUSE_S)

    async def clean_up(self, number: int) -> None:
        """Take a step; the less urgent is for every so many of them."""
        await asyncio.to_thread(self._look_around)
        if number % PURGE_EVERY_STEPS == 0:
            await _repeat(self._purge_step)
            await _repeat(self._forget_step)
            await _repeat(self._lift_step)
            await _repeat(self._trim_step)
            await _repeat(self._store.sources.forget_sources)
            await _repeat(lambda: self._store.repeats.forget_repeats(self._storms_ms))
            await _repeat(self._store.rhythms.forget_kinds)
        if number % ORPHANS_EVERY_STEPS == _FIRST_ORPHANS_STEP:
            await _repeat(lambda: self._purge(orphans=ORPHANS_S))
            await _repeat(lambda: self._store.watch.forget_watched(_ms(WATCHED_S)))
            await _repeat(lambda: self._store.reports.forget_strays() > 0)
            if self._expire_ms is not None:
                await asyncio.to_thread(self._store.suppressions.forget_refusals, self._expire_ms)

    def _look_around(self) -> None:
        """Do what is quick, in one call, since what a rest costs is waking threads."""
        self.bury_stale()
        try:
            self._store.janitor.shrink()
            self._wake_web()
        except StoreUnavailable as error:  # no reason to leave the rest
            self._note(f"warning: housekeeping: {error}")

    def _wake_web(self) -> None:
        if self._want_web is not None:
            progress = self._store.find.progress()
            if progress.waiting >= MUCH_UNFINDABLE or progress.older_than_ms is not None:
                self._want_web()

    def bury_stale(self) -> None:
        """Bury the dead of this host, and who was not heard of for as long as a lease lasts."""
        instances = self._store.instances
        for incarnation, leases, begun in self._bury_dead_of_this_host():
            self._report(incarnation, leases)
            for queue_id, *_ in begun:
                self._note(
                    f"{queue_id}: warning: was being sent when {incarnation} died; "
                    "the message may be sent more than once"
                )
        # what others were sending is known on their own hosts only
        for incarnation in instances.stale_incarnations(LEASE_S):
            if incarnation != self._incarnation and not self._has_lock_file(incarnation):
                leases = instances.bury(incarnation, begun=None, is_lost=True, unless_heard=True)
                self._report(incarnation, leases, _UNSEEN)
        for incarnation in instances.ownerless():
            self._report(incarnation, instances.bury(incarnation, begun=None), _UNSEEN)

    def _report(self, incarnation: str, leases: int, hint: str = "") -> None:
        if leases:
            self._wake_workers()
            self._note(f"{leases} deliveries of {incarnation}, which died, are queued again{hint}")

    def _purge_step(self) -> bool:
        return self._purge(
            deleted=TRASH_S, finished=self._queue.retention, captured=self._sandbox.retention
        )

    def _purge(self, **ages_s: float) -> bool:
        ages_ms = {name: _ms(age_s) for name, age_s in ages_s.items()}
        return self._store.janitor.purge(ages_ms, limit=PURGE_LIMIT) >= PURGE_LIMIT

    def _lift_step(self) -> bool:
        """Delete suppressions that have ended: no claim heeds them any more."""
        return self._store.suppressions.purge_suppressed(limit=PURGE_LIMIT) >= PURGE_LIMIT

    def _forget_step(self) -> bool:
        """Delete what providers reported of no mail; reports of mail go with it."""
        age_ms = _ms(self._queue.retention)
        return self._store.feedback.forget_feedback(age_ms, limit=PURGE_LIMIT) >= PURGE_LIMIT

    def _trim_step(self) -> bool:
        keep = self._sandbox.max_messages
        return self._store.janitor.trim_captured(keep=keep, limit=PURGE_LIMIT) >= PURGE_LIMIT


async def _repeat(step: Callable[[], bool], pause_s: float = _PAUSE_S) -> None:
    """Take a step in a thread until it says that nothing is left to do."""
    has_more = True
    while has_more:
        has_more = await asyncio.to_thread(step)
        await asyncio.sleep(pause_s)


def _ms(seconds: float) -> int:
    return int(seconds * 1000)
