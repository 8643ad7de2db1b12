"""Content on its way in: pieces passed to the reader without waking the session for each."""

from __future__ import annotations

import asyncio

from relaygw.inbound.data import ContentReader, TooMuchData
from relaygw.inbound.patience import content_deadline_s


class Arrival:
    """The content behind one 354. `arrived` ends with the content or with what went wrong."""

    def __init__(self, reader: ContentReader, loop: asyncio.AbstractEventLoop) -> None:
        self.reader = reader
        self.arrived: asyncio.Future[None] = loop.create_future()
        self._loop = loop
        self._began_s = self._last_s = loop.time()
        self._bytes = 0

    def feed(self, data: bytes) -> bytes | None:
        """Take a piece; return what follows the content once that is complete."""
        self._bytes += len(data)
        self._last_s = self._loop.time()
        try:
            rest = self.reader.feed(data)
        except TooMuchData as error:
            self.give_up(error)
            return b""
        if rest is not None:
            self.arrived.set_result(None)
        return rest

    def give_up(self, error: BaseException) -> None:
        """End with an error, unless it has ended."""
        if not self.arrived.done():
            self.arrived.set_exception(error)

    @property
    def deadline_s(self) -> float:
        """Until when more must have come, on the loop's clock."""
        return content_deadline_s(self._began_s, self._last_s, self._bytes)
