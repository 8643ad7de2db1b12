"""The life of a role's process: its signals, its registration and its heartbeat."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor

from relaygw.delivery.leases import HEARTBEAT_S
from relaygw.errors import StoreUnavailable
from relaygw.roles.context import RoleContext
from relaygw.store import lifelines
from relaygw.store.store import Store


def stop_event(context: RoleContext) -> asyncio.Event:
    """Return an event that TERM, INT or the supervisor's death sets; USR1 reopens the log."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()

    def orphaned() -> None:
        loop.remove_reader(context.lifeline)
        stop.set()

    loop.add_signal_handler(signal.SIGTERM, stop.set)
    loop.add_signal_handler(signal.SIGINT, lambda: None)  # the supervisor decides
    loop.add_signal_handler(signal.SIGUSR1, context.log.reopen)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGUSR1})  # one may have come already
    loop.add_reader(context.lifeline, orphaned)
    return stop


@contextlib.contextmanager
def registered(
    context: RoleContext, role: str, store: Store, *, later: bool = False
) -> Iterator[lifelines.Lifeline]:
    """Announce this process for the length of a with block.

    `later`: when the store is out of reach the `Pulse` of the role does so as soon as it is back.
    """
    lifeline = lifelines.Lifeline(context.instances_dir, context.incarnation)
    try:
        if role == "front":
            _warn_of_a_namesake(context, store)
        store.instances.register(context.instance(role))
    except StoreUnavailable as error:
        if not later:
            raise
        context.log.note("master", f"warning: {error}; the {role} goes on without it")
    try:
        yield lifeline
    finally:
        with contextlib.suppress(StoreUnavailable):
            # what has no recorded outcome is told of, as if the process had been killed
            begun = lifelines.begun_by(context.instances_dir, context.incarnation)
            store.instances.bury(context.incarnation, begun=begun)
            lifeline.release()


def _warn_of_a_namesake(context: RoleContext, store: Store) -> None:
    """Say that a gateway elsewhere has this name: what is told of one would be of both."""
    # one of this host has a file while it is registered: it may end, or begin, while we look
    before = {path.name for path in context.instances_dir.iterdir()}
    for one in store.instances.registered():
        is_of_this_host = (
            one.incarnation in before or (context.instances_dir / one.incarnation).exists()
        )
        is_namesake = one.role == "front" and one.name == context.loaded.settings.hostname
        if is_namesake and not is_of_this_host:
            context.log.note(
                "master",
                f"warning: another gateway of this queue has the hostname {one.name} (or had it "
                "until a moment ago); give each a hostname of its own",
            )
            return


class Pulse:
    """Renews the registration of a role that holds no leases."""

    def __init__(self, context: RoleContext, role: str, store: Store) -> None:
        self._context = context
        self._role = role
        self._store = store
        self._written_at_s = time.monotonic()

    @property
    def age_s(self) -> float:
        """How long ago the store last took it."""
        return time.monotonic() - self._written_at_s

    async def beat(self) -> None:
        """Renew until cancelled, in a thread that does nothing else."""
        thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="heartbeat")
        try:
            while True:
                try:
                    await asyncio.get_running_loop().run_in_executor(thread, self._write)
                    self._written_at_s = time.monotonic()
                except StoreUnavailable as error:
                    self._context.log.note("master", f"warning: heartbeat failed: {error}")
                await asyncio.sleep(HEARTBEAT_S)
        finally:
            thread.shutdown(wait=False)

    def _write(self) -> None:
        if not self._store.instances.heartbeat(self._context.incarnation):
            # buried while it was stopped: it holds nothing, so it may just come back
            self._store.instances.register(self._context.instance(self._role))


async def first_of(*waits: Coroutine[None, None, object]) -> None:
    """Return when one of several waits is over; the others are cancelled."""
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in tasks:
        task.cancel()
