"""What pages and APIs work with: the store, read in threads, few at a time.

Content is opened one message at a time, because all of it is in memory then.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Generic, TypeVar

import anyio
import anyio.to_thread
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from relaygw.errors import StoreUnavailable
from relaygw.inbound.intake import Intake
from relaygw.inbound.local_mail import Resender
from relaygw.mail.clock import clock_ms
from relaygw.mail.envelope import QueueIdSource
from relaygw.mail.search import EVERYTHING
from relaygw.passwords import Uses
from relaygw.settings.model import Settings
from relaygw.settings.provider import Provider
from relaygw.store.store import Store
from relaygw.web.indexing import Indexer
from relaygw.web.mail.html_page import MailPages
from relaygw.web.page import Problem

_QUEUE_ID = re.compile(r"[A-Z0-9]{10,20}")
ARRIVAL_LOOK_S = 0.2
_KEPT_CHARACTERS = 12 * 2**20  # of HTML of mail

Result = TypeVar("Result")


def existing(value: Result | None) -> Result:
    """Return what was looked for; raises 404 where there is none."""
    if value is None:
        raise HTTPException(404)
    return value


def is_queue_id(text: str) -> bool:
    """True for what may be the id of a message."""
    return _QUEUE_ID.fullmatch(text) is not None


class WebContext:
    """One store, the settings of now, the HTML of mail, and the threads for all of it."""

    def __init__(
        self,
        store: Store,
        settings: Settings,
        indexer: Indexer,
        wake_workers: Callable[[], None],
        stop: asyncio.Event,
        state_dir: Path,
        uses: Uses,
        began_at_ms: int | None,
    ) -> None:
        self.store = store
        self.settings = settings
        self.mode = settings.mode.value
        self.uses = uses
        self.indexer = indexer
        self.wake_workers = wake_workers
        self.resender = Resender(Intake(settings, state_dir=state_dir))
        self.mail_pages = MailPages(limit_characters=_KEPT_CHARACTERS)
        self.queue_ids = QueueIdSource()
        self.began_at_ms = clock_ms() if began_at_ms is None else began_at_ms
        self.arrivals = Arrivals(self, stop)
        self._readers = anyio.CapacityLimiter(4)
        self._writers = anyio.CapacityLimiter(2)
        self._openers = anyio.CapacityLimiter(1)
        # of those who wait for these none may hold content, for there may be hundreds
        self.drawing = asyncio.Semaphore(2)
        self.outward = asyncio.Semaphore(2)
        self.spamd = asyncio.Semaphore(2)

    def provider(self, name: str) -> Provider:
        """Return the settings of a provider; raises Problem for a name that is none's."""
        known = self.settings.providers
        if name not in known:
            names = ", ".join(known) or "none is configured"
            raise Problem(400, f"provider {name[:40]!r} is not known", expected=names)
        return known[name]

    async def read(self, function: Callable[[], Result]) -> Result:
        """Run what only reads rows of the store."""
        return await anyio.to_thread.run_sync(function, limiter=self._readers)

    async def change(self, function: Callable[[], Result]) -> Result:
        """Run what changes mail; of many messages it may take long."""
        return await anyio.to_thread.run_sync(function, limiter=self._writers)

    async def open(self, function: Callable[[], Result]) -> Result:
        """Run what reads the content of a message."""
        return await anyio.to_thread.run_sync(function, limiter=self._openers)


class Arrivals:
    """Wakes those who wait for something to come, to go or to be read; `stop` ends all waits.

    The store is looked at five times a second, only while somebody waits, and once for all.
    """

    def __init__(self, web: WebContext, stop: asyncio.Event) -> None:
        self.stop = stop
        self.version = 0  # another one after each change
        self._web = web
        self._seen: tuple[str | int, ...] | None = None
        self._changed = asyncio.Event()
        self._waiting = 0
        self._watching: asyncio.Task[None] | None = None

    async def after(self, version: int, *, timeout_s: float) -> None:
        """Wait for a change after `version` (read before a look), for the stop, or so long."""
        self._waiting += 1
        try:
            if self._watching is None or self._watching.done():
                self._watching = asyncio.create_task(self._watch(), name="sandbox arrivals")
            if self.version == version and not self.stop.is_set():
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(timeout_s):
                        await self._changed.wait()
        finally:
            self._waiting -= 1

    async def _watch(self) -> None:
        while self._waiting and not self.stop.is_set():
            with contextlib.suppress(StoreUnavailable):  # the next look may do
                if await self._web.read(self._look):
                    self._tell()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(ARRIVAL_LOOK_S):
                    await self.stop.wait()
        self._tell()

    def _tell(self) -> None:
        self.version += 1
        self._changed.set()
        self._changed = asyncio.Event()

    def _look(self) -> bool:
        """Return whether something changed; while content is still being read it does."""
        is_all_read = self._web.indexer.catch_up()
        newest = self._web.store.sandbox.captured_entry(None)
        counts = self._web.store.sandbox.count_captured(EVERYTHING)
        before, self._seen = self._seen, (newest.entry.queue_id if newest else "", *counts)
        return self._seen != before or not is_all_read


Answer = Callable[[WebContext, Request], Response]
Endpoint = Callable[[WebContext, Request], Awaitable[Response]]


def reads(answer: Answer) -> Endpoint:
    """Return the endpoint of an answer that only reads rows of the store."""

    async def endpoint(web: WebContext, request: Request) -> Response:
        return await web.read(lambda: answer(web, request))

    return endpoint


def opens(answer: Answer) -> Endpoint:
    """Return the endpoint of an answer that reads the content of a message."""

    async def endpoint(web: WebContext, request: Request) -> Response:
        return await web.open(lambda: answer(web, request))

    return endpoint


class SharedRead(Generic[Result]):
    """Something that is read at most each `fresh_s`; all who ask meanwhile get the same."""

    def __init__(self, read: Callable[[], Awaitable[Result]], *, fresh_s: float = 0.0) -> None:
        self._read = read
        self._fresh_s = fresh_s
        self._fresh_until_s = 0.0
        self._reading: asyncio.Task[Result] | None = None

    async def get(self, *, within_s: float | None = None) -> Result:
        """Return what is read, or was a moment ago; raises TimeoutError after `within_s`."""
        is_due = time.monotonic() >= self._fresh_until_s
        if self._reading is None or (self._reading.done() and is_due):
            self._reading = asyncio.create_task(self._read_once())
        async with asyncio.timeout(within_s):
            return await asyncio.shield(self._reading)

    def forget(self) -> None:
        """Let the next who asks get what is read from now on."""
        self._reading = None

    async def _read_once(self) -> Result:
        try:
            return await self._read()
        finally:
            self._fresh_until_s = time.monotonic() + self._fresh_s
