"""Takes mail out of the maildrop: each file exactly once, in waves, without holding up SMTP.

A wave is what one look finds, up to a number and a size. Its messages go into the same group
commit as those of SMTP sessions; each row carries the drop id, so that a file whose mail was
stored by a front that died before it removed the file is only removed. Large mail waits
aside, one at a time. Whatever cannot be mail stays where it is, with one line in the log.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from relaygw.errors import AlreadyAccepted, IntakeFull, StoreFull, StoreUnavailable, Unstorable
from relaygw.inbound.drop_directory import MAX_LISTED, DropDirectory, Listing
from relaygw.inbound.drop_file import Drop, Unreadable
from relaygw.inbound.drop_wave import Wave, read_one, read_wave
from relaygw.inbound.group_commit import GroupCommitter
from relaygw.inbound.intake import Intake
from relaygw.inbound.local_mail import compose_local
from relaygw.inbound.set_aside import MAX_ASIDE, SetAside
from relaygw.mail.drop import MAX_CONTENT_BYTES
from relaygw.observe.maildrop import REASONS
from relaygw.observe.maillog import MailLog

MAX_LARGE_WAITING = 100

T = TypeVar("T")


class Pickup:
    """Takes mail from the directory that it is given.

    Content over `limit_bytes` is captured: the command took it, and nobody can be told any more.
    `troubled` is told what keeps it from taking any mail at all: the store, a full volume.
    """

    def __init__(
        self,
        *,
        intake: Intake,
        committer: GroupCommitter,
        log: MailLog,
        limit_bytes: int,
        large_message_turn: asyncio.Semaphore,
        troubled: Callable[[Exception], None],
    ) -> None:
        self._intake = intake
        self._committer = committer
        self._log = log
        self._limit_bytes = limit_bytes
        self._most_bytes = max(limit_bytes, MAX_CONTENT_BYTES)
        self._large_message_turn = large_message_turn
        self._troubled = troubled
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="maildrop")
        self._is_retired = False
        self._aside = SetAside(log)
        self._unfinished: set[str] = set()
        self._stored: set[str] = set()  # mail is in the queue, the file could not be removed yet
        self._large: deque[str] = deque()
        self._large_task: asyncio.Task[None] | None = None

    def retire(self) -> None:
        """Begin nothing new."""
        self._is_retired = True

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

    def close(self) -> None:
        """Stop the thread."""
        self._thread.shutdown(wait=False)

    def blocking(self, work: Callable[[], T]) -> asyncio.Future[T]:
        """Run what waits for the directory's disk in a thread of its own."""
        return asyncio.get_running_loop().run_in_executor(self._thread, work)

    def say(self, path: str, reason: str) -> None:
        """Write a line about a file unless it was written before."""
        self._aside.say(path, reason)

    # --- waves ---------------------------------------------------------------------------

    async def look(self, directory: DropDirectory) -> bool:
        """Take what lies there; False when there is trouble, of which `troubled` was told."""
        listing = await self.blocking(lambda: directory.look(self._aside, self._unfinished))
        self._note(directory, listing)
        try:
            return await self._take_listed(directory, listing)
        finally:
            await self._tell_reasons(directory)

    def _note(self, directory: DropDirectory, listing: Listing) -> None:
        """Name what is no mail, and forget what was known of files that are gone."""
        for name, reason in listing.odd:
            self._aside.say(str(directory.path / name), reason)
        if len(listing.drops) < MAX_LISTED:  # these are all
            there = listing.skipped.union(listing.drops)
            self._aside.keep(there)
            self._unfinished &= there

    async def _tell_reasons(self, directory: DropDirectory) -> None:
        """Keep the file of reasons up to date; without it mail is taken all the same."""
        file, changes, reasons = directory.reasons, self._aside.changes, self._aside.reasons
        if file.changes == changes:
            return
        try:
            await self.blocking(lambda: file.write(dict(reasons)))
        except OSError as error:
            self.say(str(directory.path / REASONS), f"not written: {error.strerror or error}")
        else:
            file.changes = changes

    async def _take_listed(self, directory: DropDirectory, listing: Listing) -> bool:
        names = deque(name for name in listing.drops if name not in self._large)
        self._put_off(directory, [])  # those that wait go on, whatever ended their task
        if names and not self._intake.has_space():
            self._troubled(StoreFull("the volume of the queue is nearly full"))
            return False
        while names and not self._is_retired:
            wave = await self.blocking(
                lambda: read_wave(
                    directory.descriptor,
                    names,
                    limit_bytes=self._most_bytes,
                    spool_directory=self._intake.state_dir,
                    stored=self._stored,
                )
            )
            if not await self._take(directory, wave):
                return False
        return True

    async def _take(self, directory: DropDirectory, wave: Wave) -> bool:
        """Store the mail of a wave and remove its files; False when there is trouble."""
        for name, reason in wave.unfit:
            self._aside.put(name, str(directory.path / name), reason)
        for name, broken in wave.broken:
            self._failed(directory, name, broken)
        if len(self._unfinished) < MAX_ASIDE:
            self._unfinished.update(wave.unfinished)
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
            self._troubled(trouble)
        return trouble is None

    async def _store(self, drop: Drop) -> Exception | None:
        """Return None once the mail of `drop` is durable, else what went wrong."""
        try:
            message, chunks = compose_local(self._intake, drop, limit_bytes=self._limit_bytes)
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
        staying = await self.blocking(lambda: directory.remove(names))
        self._stored.difference_update(names)
        self._aside.forget(names)
        self._unfinished.difference_update(names)
        for name, reason in staying:
            self._stored.add(name)
            text = f"its mail is in the queue, but it cannot be removed: {reason}"
            self._aside.put(name, str(directory.path / name), text)

    # --- large mail ----------------------------------------------------------------------

    def _put_off(self, directory: DropDirectory, names: list[str]) -> None:
        self._large.extend(names[: MAX_LARGE_WAITING - len(self._large)])
        if self._large and (self._large_task is None or self._large_task.done()):
            self._large_task = asyncio.create_task(self._take_large(directory))

    async def _take_large(self, directory: DropDirectory) -> None:
        """Take large mail, one at a time, in the threads for large content."""
        while self._large and not self._is_retired:
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
                limit_bytes=self._most_bytes,
                spool_directory=self._intake.state_dir,
            )
        )

    # --- trouble -------------------------------------------------------------------------

    def _failed(self, directory: DropDirectory, name: str, error: Exception) -> None:
        """Count an error over one file; it stands back for a while, longer each time."""
        is_plain = isinstance(error, (Unreadable, StoreUnavailable))
        text = str(error) if is_plain else f"{type(error).__name__}: {error}"
        self._aside.fail(name, str(directory.path / name), text)


def _is_trouble(error: Exception) -> bool:
    return isinstance(error, (StoreUnavailable, OSError)) and not isinstance(error, Unstorable)
