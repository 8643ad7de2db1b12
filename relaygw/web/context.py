"""What pages and APIs work with: the store, read in threads, few at a time.

Content is opened one message at a time, because all of it is in memory then.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import anyio
import anyio.to_thread
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from relaygw.inbound.intake import Intake
from relaygw.inbound.local_mail import Resender
from relaygw.mail.clock import clock_ms
from relaygw.mail.queue_id import QueueIdSource
from relaygw.passwords import Uses
from relaygw.settings.model import Settings
from relaygw.settings.provider import Provider
from relaygw.store.store import Store
from relaygw.web.arrivals import Arrivals
from relaygw.web.indexing import Indexer
from relaygw.web.mail.html_page import MailPages
from relaygw.web.page import Problem

_QUEUE_ID = re.compile(r"[A-Z0-9]{10,20}")
_KEPT_CHARACTERS = 12 * 2**20  # of HTML of mail

Result = TypeVar("Result")


def existing(value: Result | None) -> Result:
    """Return a value that must exist; raises 404 for None."""
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
        self.arrivals = Arrivals(self.read, store, indexer, stop)
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
