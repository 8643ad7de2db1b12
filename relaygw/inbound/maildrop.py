"""The maildrop as a service of the front: who has it, when it is looked at, what goes wrong.

Its mail is taken each file exactly once, in batches, without holding up SMTP.

See decision 9. Whatever cannot be mail stays where it is, with one line in the log.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TypeVar

from relaygw.errors import AlreadyAccepted, IntakeFull, StoreFull, StoreUnavailable, Unstorable
from relaygw.inbound.committer import GroupCommitter
from relaygw.inbound.drop_directory import (
    MAX_ASIDE,
    MAX_LISTED,
    DropDirectory,
    Listing,
    MaildropUnusable,
    SetAside,
)
from relaygw.inbound.drop_file import Drop, DropBatch, DropReader, Unreadable
from relaygw.inbound.intake import Intake
from relaygw.inbound.local_mail import compose_local
from relaygw.inbound.local_requests import LocalRequests
from relaygw.inbound.queue_listing import LookAround, QueueListing
from relaygw.mail.drop import MAX_CONTENT_BYTES, MAX_HEADER_BYTES, WAKE_PIPE
from relaygw.observe.maildrop import REASONS
from relaygw.observe.maillog import MailLog
from relaygw.observe.readings import ProcessReadings, Reader, unwatched
from relaygw.settings.model import Settings
from relaygw.store.store import Store
from relaygw.volume import NoRoom

POLL_S = 1.0
REOPEN_S = 10.0  # how often a directory that could not be used is tried again
MAX_BACKOFF_S = 30.0
MAX_LARGE_WAITING = 100
_LEAST_PAUSE_S = 0.005  # a flood of announcements must not keep the front busy
_REST = 9.0  # nor may looks in vain, at a directory that somebody changes all the time: a tenth

T = TypeVar("T")


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
        requests: Callable[[DropDirectory], LocalRequests],
        look_around: LookAround,
        readings: ProcessReadings | None = None,
    ) -> None:
        self.readings = readings or unwatched()
        # what the first listener takes: local mail has no listener of its own
        listeners = settings.listeners
        self.limit_bytes = listeners[0].max_message_size if listeners else MAX_CONTENT_BYTES
        self.header_bytes = listeners[0].max_header_size if listeners else MAX_HEADER_BYTES
        self.intake = intake
        self.committer = committer
        self.log = log
        self.aside = SetAside(log)
        self.thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="maildrop")
        self.retired = asyncio.Event()
        self._settings = settings.maildrop
        self._store = store
        self._requests = requests
        self._look_around = look_around
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
            queue = self._store.queue
            listing = QueueListing(directory, queue, self.log, self._look_around)
            async with listing, self._requests(directory):
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
                began_s = time.monotonic()
                # an idle front wakes no thread
                if not directory.is_unchanged() and await pickup.look():
                    if self._trouble:
                        self.log.note("pickup", "local mail is accepted again")
                    self._trouble, self._backoff_s = "", 0.0
                in_vain_s = 0.0 if pickup.has_found else time.monotonic() - began_s
                await self._pause(max(_LEAST_PAUSE_S, min(_REST * in_vain_s, POLL_S)))

    @contextlib.contextmanager
    def _listening(self, directory: DropDirectory) -> Iterator[Callable[[], None]]:
        """Be woken by announcements; yields what to call after each waking."""
        try:
            descriptor = directory.listen()
        except OSError as error:
            self.aside.say(
                directory.path / WAKE_PIPE,
                f"no pipe ({error.strerror or error}); mail is found by polling every second",
            )
            yield lambda: None
            return
        loop = asyncio.get_running_loop()

        def woken() -> None:
            loop.remove_reader(descriptor)  # until the next look: they may be many
            self._wake.set()

        try:
            yield lambda: loop.add_reader(descriptor, woken)
        finally:
            loop.remove_reader(descriptor)

    async def _pause(self, least_s: float) -> None:
        if self._backoff_s:
            await self._sleep(self._backoff_s)
            return
        until_s = time.monotonic() + least_s
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(POLL_S):
                await self._wake.wait()
        if (rest_s := until_s - time.monotonic()) > 0:
            await asyncio.sleep(rest_s)

    async def _sleep(self, delay_s: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(delay_s):
                await self.retired.wait()

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


# --- its mail ------------------------------------------------------------------------------


class Pickup:
    """Takes mail from one open directory, until its service is retired; too much is captured."""

    def __init__(self, directory: DropDirectory, service: Maildrop) -> None:
        self.has_found = False  # mail, at the last look
        self._directory = directory
        self._service = service
        self._aside = service.aside
        self._reader = DropReader(
            directory.descriptor,
            limit_bytes=max(service.limit_bytes, MAX_CONTENT_BYTES),
            spool_directory=service.intake.state_dir,
            room=service.intake.room,
            readings=service.readings,
        )
        self._large: deque[str] = deque()
        self._large_task: asyncio.Task[None] | None = None

    async def finish(self) -> None:
        """Return once large mail that was begun is stored."""
        if self._large_task is not None:
            await self._large_task

    async def cut(self) -> None:
        """Stop what is still being taken: its file stays."""
        if self._large_task is not None:
            self._large_task.cancel()
            await asyncio.wait([self._large_task])
            self._large_task = None

    def _blocking(self, work: Callable[[], T]) -> asyncio.Future[T]:
        return asyncio.get_running_loop().run_in_executor(self._service.thread, work)

    # --- batches ---------------------------------------------------------------------------

    async def look(self) -> bool:
        """Take what lies there; False when there is trouble."""
        look = partial(self._directory.look, self._aside, self._aside.unfinished)
        listing = await self._blocking(look)
        self.has_found = bool(listing.drops)
        for name, reason in listing.odd:
            self._aside.say(self._directory.path / name, reason)
        if len(listing.drops) < MAX_LISTED:  # these are all
            self._aside.keep(listing.skipped.union(listing.drops))
        try:
            return await self._take_listed(listing)
        finally:
            await self._write_reasons()

    async def _write_reasons(self) -> None:
        """Keep the file of reasons up to date; without it mail is taken all the same."""
        file, changes, reasons = self._directory.reasons, self._aside.changes, self._aside.reasons
        if file.changes == changes:
            return
        try:
            await self._blocking(lambda: file.write(dict(reasons)))
        except OSError as error:
            reason = f"not written: {error.strerror or error}"
            self._aside.say(self._directory.path / REASONS, reason)
        else:
            file.changes = changes

    async def _take_listed(self, listing: Listing) -> bool:
        names = deque(name for name in listing.drops if name not in self._large)
        self._put_off([])  # those that wait go on, whatever ended their task
        while names and not self._service.retired.is_set():
            if not self._service.intake.has_space():
                self._service.back_off(StoreFull("the volume that holds the queue is nearly full"))
                return False
            read = partial(self._reader.read_batch, names, stored=self._aside.stored)
            batch = await self._blocking(read)
            if not await self._take(batch):
                return False
        return True

    async def _take(self, batch: DropBatch) -> bool:
        for name, reason in batch.unfit:
            self._aside.set_aside(self._directory.path / name, reason)
        for name, broken in batch.broken:
            self._fail(name, broken)
        if len(self._aside.unfinished) < MAX_ASIDE:
            self._aside.unfinished.update(batch.unfinished)
        self._put_off(batch.large)
        results = await asyncio.gather(*map(self._store, batch.drops))
        done = [drop.name for drop, error in zip(batch.drops, results, strict=True) if not error]
        await self._remove([*batch.stored, *done])
        trouble = batch.trouble
        for drop, error in zip(batch.drops, results, strict=True):
            # what fails while others of its batch go in is itself the reason
            if error is None or isinstance(error, IntakeFull):
                trouble = trouble or error
            elif done or not _is_trouble(error):
                self._fail(drop.name, error)
            else:
                trouble = error
        if trouble is not None:
            self._service.back_off(trouble)
        return trouble is None

    async def _store(self, drop: Drop) -> Exception | None:
        """Return None once the mail of `drop` is durable, else what went wrong."""
        intake, committer, content = self._service.intake, self._service.committer, drop.content
        readings = self._service.readings
        try:
            if content.is_spooled and intake.takes_once:
                await committer.work_aside(content.take_digest)
            limit_bytes = self._service.header_bytes
            read = partial(intake.header_of, content, limit_bytes=limit_bytes, may_be_bare=True)
            if content.has_long_header:
                aside = partial(readings.call, Reader.LARGE, drop.reading_name, read)
                header = await committer.work_aside(aside)
            with readings.reading(Reader.SESSIONS, drop.reading_name):
                message, chunks = compose_local(
                    intake,
                    drop,
                    header if content.has_long_header else read(),
                    limit_bytes=self._service.limit_bytes,
                )
            if content.is_spooled:
                await committer.add_chunks(message, chunks)
            await committer.submit(message)
        except AlreadyAccepted:
            self._service.log.note("pickup", f"{drop.name}: its mail was stored before; removed")
        except Exception as error:
            return error
        finally:
            drop.content.close()
        return None

    async def _remove(self, names: list[str]) -> None:
        """Remove the files of stored mail; what stays is remembered, never taken again."""
        if not names:
            return
        staying = await self._blocking(lambda: self._directory.remove(names))
        self._aside.forget(names)
        for name, reason in staying:
            self._aside.stored.add(name)
            text = f"its mail is in the queue, but it cannot be removed: {reason}"
            self._aside.set_aside(self._directory.path / name, text)

    def _fail(self, name: str, error: Exception) -> None:
        """Count an error over one file; it stands back for a while, longer each time."""
        is_plain = isinstance(error, (Unreadable, NoRoom, StoreUnavailable))
        text = str(error) if is_plain else f"{type(error).__name__}: {error}"
        self._aside.fail(self._directory.path / name, text)

    # --- large mail ----------------------------------------------------------------------

    def _put_off(self, names: list[str]) -> None:
        self._large.extend(names[: MAX_LARGE_WAITING - len(self._large)])
        if self._large and (self._large_task is None or self._large_task.done()):
            self._large_task = asyncio.create_task(self._take_large())

    async def _take_large(self) -> None:
        while self._large and not self._service.retired.is_set():
            read = partial(self._reader.read_large, self._large[0])
            async with self._service.committer.large_turn:
                batch = await self._service.committer.work_aside(read)
                is_well = await self._take(batch)
            if not is_well:
                break  # found again when the trouble is over
            self._large.popleft()
        self._large.clear()


def _is_trouble(error: Exception) -> bool:
    return isinstance(error, (StoreUnavailable, OSError)) and not isinstance(error, Unstorable)
