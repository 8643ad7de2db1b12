"""Takes mail out of the maildrop: each file exactly once, in waves, without holding up SMTP.

A wave is what one look finds, up to a number and a size. Its messages go into the same group
commit as those of SMTP sessions; each row carries the drop id, so that a file whose mail was
stored by a front that died before it removed the file is only removed. Large mail waits
aside, one at a time. Whatever cannot be mail stays where it is, with one line in the log.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from relaygw.errors import AlreadyAccepted, IntakeFull, StoreFull, StoreUnavailable, Unstorable
from relaygw.inbound.drop_directory import DropDirectory, MaildropUnusable
from relaygw.inbound.drop_file import Drop
from relaygw.inbound.drop_wave import Wave, read_one, read_wave
from relaygw.inbound.group_commit import GroupCommitter
from relaygw.inbound.intake import Intake
from relaygw.inbound.local_mail import compose_local
from relaygw.inbound.set_aside import SetAside
from relaygw.mail.drop import WAKE_SOCKET
from relaygw.observe.maillog import MailLog
from relaygw.settings.model import Settings

POLL_S = 1.0
REOPEN_S = 10.0
"""How often a directory that could not be used is tried again."""
MAX_BACKOFF_S = 30.0
MAX_FAILURES = 3
"""Unexpected errors over one file after which it is left alone."""
MAX_LARGE_WAITING = 100
_LEAST_PAUSE_S = 0.005  # a flood of datagrams must not keep the front busy

T = TypeVar("T")


class Maildrop:
    """Takes mail from the maildrop of a configuration for as long as the front serves."""

    def __init__(
        self,
        settings: Settings,
        *,
        intake: Intake,
        committer: GroupCommitter,
        log: MailLog,
        large_message_turn: asyncio.Semaphore,
    ) -> None:
        self._settings = settings.maildrop
        self._limit_bytes = settings.listeners[0].max_message_size if settings.listeners else 0
        self._intake = intake
        self._committer = committer
        self._log = log
        self._large_message_turn = large_message_turn
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="maildrop")
        self._task: asyncio.Task[None] | None = None
        self._retired = asyncio.Event()
        self._wake = asyncio.Event()
        self._aside = SetAside(log)
        self._stored: set[str] = set()  # mail is in the queue, the file could not be removed yet
        self._large: deque[str] = deque()
        self._large_task: asyncio.Task[None] | None = None
        self._backoff_s = 0.0
        self._trouble = ""  # what was said last about it

    def start(self) -> None:
        """Begin; a directory that cannot be used is a line in the log, no error."""
        if self._settings.path is not None:
            self._task = asyncio.create_task(self._run(Path(self._settings.path)))

    def retire(self) -> None:
        """Take nothing new, and leave the directory to the next front."""
        self._retired.set()
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
            while not self._retired.is_set():
                try:
                    await self._serve(path)
                except MaildropUnusable as error:
                    self._complain(str(error))
                    await self._rest(REOPEN_S)
                except Exception as error:
                    self._complain(f"maildrop {path}: {type(error).__name__}: {error}")
                    await self._rest(POLL_S)
        finally:
            self._thread.shutdown(wait=False)

    async def _serve(self, path: Path) -> None:
        """Take mail until the front retires or the directory is replaced."""
        directory = await self._blocking(lambda: DropDirectory(path, self._settings.group))
        try:
            while not directory.try_lock():  # another front takes it
                await self._rest(POLL_S)
                if self._retired.is_set() or not directory.is_current():
                    return
            with self._listening(directory) as listen_again:
                while not self._retired.is_set() and directory.is_current():
                    self._wake.clear()
                    directory.drain()
                    listen_again()
                    await self._look(directory)
                    await self._pause()
            if self._large_task is not None:
                await self._large_task
        finally:
            if self._large_task is not None:
                self._large_task.cancel()
                await asyncio.wait([self._large_task])
            directory.close()

    @contextlib.contextmanager
    def _listening(self, directory: DropDirectory) -> Iterator[Callable[[], None]]:
        """Be woken by datagrams; yields what to call after each waking."""
        try:
            descriptor = directory.listen().fileno()
        except OSError as error:
            self._aside.say(
                str(directory.path / WAKE_SOCKET),
                f"no socket ({error.strerror or error}); mail is found within a second instead",
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
        """Return when there may be something to do."""
        if self._backoff_s:
            await self._rest(self._backoff_s)
            return
        await asyncio.sleep(_LEAST_PAUSE_S)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._wake.wait(), POLL_S)

    async def _rest(self, delay_s: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._retired.wait(), delay_s)

    def _blocking(self, work: Callable[[], T]) -> asyncio.Future[T]:
        return asyncio.get_running_loop().run_in_executor(self._thread, work)

    # --- waves ---------------------------------------------------------------------------

    async def _look(self, directory: DropDirectory) -> None:
        """Take what lies there."""
        listing = await self._blocking(lambda: directory.look(self._aside))
        for name, reason in listing.odd:
            self._aside.say(str(directory.path / name), reason)
        names = deque(name for name in listing.drops if name not in self._large)
        if names and not self._intake.has_space():
            self._back_off(StoreFull("the volume of the queue is nearly full"))
            return
        while names and not self._retired.is_set():
            wave = await self._blocking(
                lambda: read_wave(
                    directory.descriptor,
                    names,
                    limit_bytes=self._limit_bytes,
                    spool_directory=self._intake.state_dir,
                    stored=self._stored,
                )
            )
            if not await self._take(directory, wave):
                return
        self._recover()

    async def _take(self, directory: DropDirectory, wave: Wave) -> bool:
        """Store the mail of a wave and remove its files; False when there is trouble."""
        for name, reason in wave.unfit:
            self._aside.put(name, str(directory.path / name), reason)
        for name, broken in wave.broken:
            self._failed(directory, name, broken)
        self._put_off(directory, wave.large)
        results = await asyncio.gather(*map(self._store, wave.drops))
        done = [drop.name for drop, error in zip(wave.drops, results, strict=True) if not error]
        await self._remove(directory, [*wave.stored, *done])
        trouble = wave.trouble
        for drop, error in zip(wave.drops, results, strict=True):
            # what fails while others of its wave go in is itself the reason
            if error is None or isinstance(error, IntakeFull):
                trouble = trouble or error
            elif done or not _is_trouble(error):
                self._failed(directory, drop.name, error)
            else:
                trouble = error
        if trouble is not None:
            self._back_off(trouble)
        return trouble is None

    async def _store(self, drop: Drop) -> Exception | None:
        """Return None once the mail of `drop` is durable, else what went wrong."""
        try:
            message, chunks = compose_local(self._intake, drop)
            if drop.content.is_spooled:
                await self._committer.add_chunks(message.queue_id, chunks)
            await self._committer.submit(message)
        except AlreadyAccepted:
            self._log.note("pickup", f"{drop.name}: its mail was stored before; removed")
        except Exception as error:
            return error
        finally:
            drop.content.close()
        return None

    async def _remove(self, directory: DropDirectory, names: list[str]) -> None:
        """Remove the files of stored mail; what stays is remembered, never taken again."""
        if not names:
            return
        staying = await self._blocking(lambda: directory.remove(names))
        self._stored.difference_update(names)
        for name, reason in staying:
            self._stored.add(name)
            self._aside.say(str(directory.path / name), f"stored, but cannot be removed: {reason}")
        self._aside.forget_failures(names)

    # --- large mail ----------------------------------------------------------------------

    def _put_off(self, directory: DropDirectory, names: list[str]) -> None:
        self._large.extend(names[: MAX_LARGE_WAITING - len(self._large)])
        if self._large and (self._large_task is None or self._large_task.done()):
            self._large_task = asyncio.create_task(self._take_large(directory))

    async def _take_large(self, directory: DropDirectory) -> None:
        """Take large mail, one at a time, in the threads for large content."""
        while self._large and not self._retired.is_set():
            async with self._large_message_turn:
                wave = await self._read_large(directory, self._large[0])
                is_well = await self._take(directory, wave)
            if not is_well:
                self._large.clear()  # found again when the trouble is over
                return
            self._large.popleft()
        self._large.clear()

    async def _read_large(self, directory: DropDirectory, name: str) -> Wave:
        return await self._committer.work_aside(
            lambda: read_one(
                directory.descriptor,
                name,
                limit_bytes=self._limit_bytes,
                spool_directory=self._intake.state_dir,
            )
        )

    # --- trouble -------------------------------------------------------------------------

    def _failed(self, directory: DropDirectory, name: str, error: Exception) -> None:
        """Count an unexpected error over one file; in the end leave the file alone."""
        text = f"{type(error).__name__}: {error}"
        count = self._aside.count_failure(name)
        if count >= MAX_FAILURES:
            self._aside.put(
                name, str(directory.path / name), f"failed {count} times: {text}", for_good=True
            )
        else:
            self._log.note("pickup", f"warning: {name}: {text}; tried again")

    def _back_off(self, error: Exception) -> None:
        self._backoff_s = min(max(1.0, 2 * self._backoff_s), MAX_BACKOFF_S)
        self._complain(f"{error}; local mail stays in the maildrop and is tried again")

    def _recover(self) -> None:
        if self._trouble:
            self._log.note("pickup", "local mail is taken again")
        self._trouble, self._backoff_s = "", 0.0

    def _complain(self, text: str) -> None:
        """Say what is wrong, once until it is something else."""
        if text != self._trouble:
            self._trouble = text
            self._log.note("pickup", f"warning: {text}")


def _is_trouble(error: Exception) -> bool:
    return isinstance(error, (StoreUnavailable, OSError)) and not isinstance(error, Unstorable)
