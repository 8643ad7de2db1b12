"""The maildrop as a service of the front: who has it, when it is looked at, what goes wrong."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from relaygw.inbound.committer import GroupCommitter
from relaygw.inbound.drop_directory import DropDirectory, MaildropUnusable
from relaygw.inbound.intake import Intake
from relaygw.inbound.pickup import Pickup, SetAside
from relaygw.inbound.queue_listing import QueueListing
from relaygw.mail.drop import MAX_CONTENT_BYTES, WAKE_SOCKET
from relaygw.observe.maillog import MailLog
from relaygw.settings.model import Settings
from relaygw.store.store import Store

POLL_S = 1.0
REOPEN_S = 10.0  # how often a directory that could not be used is tried again
MAX_BACKOFF_S = 30.0
_LEAST_PAUSE_S = 0.005  # a flood of datagrams must not keep the front busy


class Maildrop:
    """Takes mail from the maildrop of a configuration for as long as the front serves."""

    def __init__(
        self,
        settings: Settings,
        *,
        store: Store,
        intake: Intake,
        committer: GroupCommitter,
        log: MailLog,
    ) -> None:
        # what the first listener takes: local mail has no listener of its own
        listeners = settings.listeners
        self.limit_bytes = listeners[0].max_message_size if listeners else MAX_CONTENT_BYTES
        self.intake = intake
        self.committer = committer
        self.log = log
        self.aside = SetAside(log)
        self.thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="maildrop")
        self.retired = asyncio.Event()
        self._settings = settings.maildrop
        self._store = store
        self._task: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()
        self._backoff_s = 0.0
        self._trouble = ""  # what was said last about it

    def start(self) -> None:
        """Begin; a directory that cannot be used is a line in the log, no error."""
        if self._settings.path is not None:
            self._task = asyncio.create_task(self._run(Path(self._settings.path)))

    def retire(self) -> None:
        """Take nothing new, and leave the directory to the next front."""
        self.retired.set()
        self._wake.set()

    async def ended(self, limit_s: float) -> None:
        """Return once what was begun is stored, or cut it after `limit_s`: its file stays."""
        self.retire()
        if self._task is None:
            return
        await asyncio.wait([self._task], timeout=limit_s)
        self._task.cancel()
        await asyncio.wait([self._task])

    # --- the directory -------------------------------------------------------------------

    async def _run(self, path: Path) -> None:
        try:
            while not self.retired.is_set():
                try:
                    await self._serve(path)
                except MaildropUnusable as error:
                    self._warn_once(str(error))
                    await self._sleep(REOPEN_S)
                except Exception as error:
                    self._warn_once(f"maildrop {path}: {type(error).__name__}: {error}")
                    await self._sleep(POLL_S)
        finally:
            self.thread.shutdown(wait=False)

    async def _serve(self, path: Path) -> None:
        directory = await asyncio.get_running_loop().run_in_executor(
            self.thread, DropDirectory, path, self._settings.group
        )
        pickup = Pickup(directory, self)
        try:
            while not directory.try_lock():  # another front takes it
                await self._sleep(POLL_S)
                if self.retired.is_set() or not directory.is_current():
                    return
            async with QueueListing(directory, self._store.queue, self.log):
                await self._take_mail(directory, pickup)
            await pickup.finish()
        finally:
            await pickup.cut()
            directory.close()

    async def _take_mail(self, directory: DropDirectory, pickup: Pickup) -> None:
        with self._listening(directory) as listen_again:
            while not self.retired.is_set() and directory.is_current():
                self._wake.clear()
                directory.drain()
                listen_again()
                if await pickup.look():
                    if self._trouble:
                        self.log.note("pickup", "local mail is accepted again")
                    self._trouble, self._backoff_s = "", 0.0
                await self._pause()

    @contextlib.contextmanager
    def _listening(self, directory: DropDirectory) -> Iterator[Callable[[], None]]:
        """Be woken by datagrams; yields what to call after each waking."""
        try:
            descriptor = directory.listen().fileno()
        except OSError as error:
            self.aside.say(
                directory.path / WAKE_SOCKET,
                f"no socket ({error.strerror or error}); mail is found by polling every second",
            )
            yield lambda: None
            return
        loop = asyncio.get_running_loop()

        def woken() -> None:
            loop.remove_reader(descriptor)  # until the next look: datagrams may be many
            self._wake.set()

        try:
            yield lambda: loop.add_reader(descriptor, woken)
        finally:
            loop.remove_reader(descriptor)

    async def _pause(self) -> None:
        if self._backoff_s:
            await self._sleep(self._backoff_s)
            return
        await asyncio.sleep(_LEAST_PAUSE_S)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._wake.wait(), POLL_S)

    async def _sleep(self, delay_s: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.retired.wait(), delay_s)

    # --- trouble -------------------------------------------------------------------------

    def back_off(self, error: Exception) -> None:
        """Wait before the next look: no mail at all can be taken (the store, a full volume)."""
        self._backoff_s = min(max(1.0, 2 * self._backoff_s), MAX_BACKOFF_S)
        self._warn_once(f"{error}; local mail stays in the maildrop and is retried")

    def _warn_once(self, text: str) -> None:
        """Write what is wrong, once until it is something else."""
        if text != self._trouble:
            self._trouble = text
            self.log.note("pickup", f"warning: {text}")
