"""Takes mail out of the maildrop: each file exactly once, in batches, without holding up SMTP.

See decision 9. Whatever cannot be mail stays where it is, with one line in the log.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Container, Iterable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from relaygw.errors import AlreadyAccepted, IntakeFull, StoreFull, StoreUnavailable, Unstorable
from relaygw.inbound.drop_directory import MAX_LISTED, DropDirectory, Listing
from relaygw.inbound.drop_file import Drop, DropBatch, DropReader, Unreadable
from relaygw.inbound.local_mail import compose_local
from relaygw.mail.drop import MAX_CONTENT_BYTES
from relaygw.observe.maildrop import REASONS
from relaygw.observe.maillog import MailLog

if TYPE_CHECKING:
    from relaygw.inbound.maildrop import Maildrop

MAX_LARGE_WAITING = 100
LOOK_AGAIN_S = 600.0  # a file set aside is looked at again after this: somebody may have mended it
MAX_FAILURES = 3  # errors over one file after which it is named, and counts as set aside
MAX_NAMED = 1000
"""Lines in the log: whoever fills the directory with rubbish must not fill the log, too."""
MAX_ASIDE = 100_000

T = TypeVar("T")


class SetAside:
    """Files left alone and why, one line each; `in`: passed over now. Outlives the directory."""

    def __init__(self, log: MailLog) -> None:
        self._log = log
        self._until_s: dict[str, float] = {}
        self._said: set[tuple[str, str]] = set()
        self._failures: dict[str, int] = {}
        self.unfinished: set[str] = set()
        self.stored: set[str] = set()  # mail is in the queue, the file could not be removed yet
        self.reasons: dict[str, str] = {}
        """Why files lie there, by name; for those who ask what became of their mail."""
        self.changes = 0  # of `reasons`

    def __contains__(self, name: object) -> bool:
        until_s = self._until_s.get(str(name))
        return until_s is not None and time.monotonic() < until_s

    def put(self, path: Path, reason: str, pause_s: float | None = None) -> None:
        """Pass a file over for a while and say why."""
        self._pass_over(path.name, LOOK_AGAIN_S if pause_s is None else pause_s)
        if self.reasons.get(path.name) != reason:
            self.reasons[path.name] = reason
            self.changes += 1
        self.say(path, f"{reason}; left in place")

    def fail(self, path: Path, error: str) -> None:
        """Pass a file over, each time for twice as long from a second on; in the end say why."""
        count = self._failures[path.name] = self._failures.get(path.name, 0) + 1
        pause_s = min(2.0 ** (count - 1), LOOK_AGAIN_S)
        if count >= MAX_FAILURES:
            self.put(path, f"failed {MAX_FAILURES} times: {error}", pause_s)
        else:
            self._pass_over(path.name, pause_s)
            self.say(path, f"{error}; tried again")

    def _pass_over(self, name: str, pause_s: float) -> None:
        self._until_s.pop(name, None)  # the newest stand last
        while len(self._until_s) >= MAX_ASIDE:
            self._forget(next(iter(self._until_s)))
        self._until_s[name] = time.monotonic() + pause_s

    def say(self, path: Path, reason: str) -> None:
        """Write a line about a file unless it was written before."""
        line = (str(path), reason)
        if line in self._said or len(self._said) > MAX_NAMED:
            return
        self._said.add(line)
        if len(self._said) > MAX_NAMED:
            self._log.note(
                "pickup", f"warning: more than {MAX_NAMED} such files; the others are not listed"
            )
        else:
            self._log.note("pickup", f"warning: {path}: {reason}")

    def forget(self, names: Iterable[str]) -> None:
        """Forget files that are gone, or as good as gone."""
        for name in names:
            self._forget(name)
            self.unfinished.discard(name)
            self.stored.discard(name)

    def keep(self, there: Container[str]) -> None:
        """Forget every file but those that are `there`."""
        for name in [name for name in self._until_s if name not in there]:
            self._forget(name)
        self.unfinished = {name for name in self.unfinished if name in there}

    def _forget(self, name: str) -> None:
        self._until_s.pop(name, None)
        self._failures.pop(name, None)
        self.changes += self.reasons.pop(name, None) is not None


class Pickup:
    """Takes mail from one open directory, until its service is retired; too much is captured."""

    def __init__(self, directory: DropDirectory, service: Maildrop) -> None:
        self._directory = directory
        self._service = service
        self._aside = service.aside
        self._reader = DropReader(
            directory.descriptor,
            limit_bytes=max(service.limit_bytes, MAX_CONTENT_BYTES),
            spool_directory=service.intake.state_dir,
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
        if names and not self._service.intake.has_space():
            self._service.back_off(StoreFull("the volume that holds the queue is nearly full"))
            return False
        while names and not self._service.retired.is_set():
            read = partial(self._reader.read_batch, names, stored=self._aside.stored)
            batch = await self._blocking(read)
            if not await self._take(batch):
                return False
        return True

    async def _take(self, batch: DropBatch) -> bool:
        for name, reason in batch.unfit:
            self._aside.put(self._directory.path / name, reason)
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
        try:
            if drop.content.is_spooled and self._service.intake.takes_once:
                await self._service.committer.work_aside(drop.content.take_digest)
            message, chunks = compose_local(
                self._service.intake, drop, limit_bytes=self._service.limit_bytes
            )
            if drop.content.is_spooled:
                await self._service.committer.add_chunks(message, chunks)
            await self._service.committer.submit(message)
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
            self._aside.put(self._directory.path / name, text)

    def _fail(self, name: str, error: Exception) -> None:
        """Count an error over one file; it stands back for a while, longer each time."""
        is_plain = isinstance(error, (Unreadable, StoreUnavailable))
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
