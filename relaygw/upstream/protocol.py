"""The client's end of an SMTP connection once it is open: writes, flow control, replies.

Takes over a transport from aiosmtplib. One task at a time may use it. Failures are WireFailure:
ConnectionLost, ReplyTimeout, ReplyInvalid. Replies that arrived before the connection was lost
can still be read: a provider that refuses content half way closes right after saying why.
"""

from __future__ import annotations

import asyncio

from relaygw.mail.reply import SmtpReply
from relaygw.upstream import reply_parser

_PAUSE_AT_BYTES = 2 * reply_parser.MAX_REPLY_BYTES
_SLICE_BYTES = 262144


class WireFailure(Exception):
    """The connection cannot be used any further; the text says what happened."""


class ConnectionLost(WireFailure):
    """The provider closed or reset the connection."""


class ReplyTimeout(WireFailure):
    """No reply, or no progress in sending, within the limit."""


class ReplyInvalid(WireFailure):
    """The provider broke the protocol."""


class WireProtocol(asyncio.Protocol):
    """Reader and writer of one connection; `closed` is done when the transport is."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._buffer = bytearray()
        self._wakeup: asyncio.Future[None] | None = None
        self._is_write_paused = False
        self._is_read_paused = False
        self._end: str | None = None  # why nothing more will arrive
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._deadline_s: float | None = None  # of the reply that is waited for
        self._is_overdue = False
        self.closed: asyncio.Future[None] = self._loop.create_future()

    # --- called by the event loop

    def data_received(self, data: bytes) -> None:
        """Keep what arrived for the next read_reply."""
        self._buffer += data
        if len(self._buffer) > _PAUSE_AT_BYTES and not self._is_read_paused:
            self._is_read_paused = True
            self._transport.pause_reading()
        self._wake()

    def eof_received(self) -> bool:
        """Note the end; the transport closes itself."""
        self._end = self._end or "closed by the provider"
        self._wake()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """Note the end; buffered replies stay readable."""
        self._end = self._end or (str(exc) or type(exc).__name__ if exc else "closed")
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self.closed.done():
            self.closed.set_result(None)
        self._wake()

    def pause_writing(self) -> None:
        """The transport's buffer is full."""
        self._is_write_paused = True

    def resume_writing(self) -> None:
        """The transport's buffer has room again."""
        self._is_write_paused = False
        self._wake()

    # --- called by the session

    @property
    def has_unread(self) -> bool:
        """True when the provider said something that was not asked for yet."""
        return bool(self._buffer)

    @property
    def is_open(self) -> bool:
        """True while replies can still arrive."""
        return self._end is None and not self._transport.is_closing()

    def write(self, octets: bytes) -> None:
        """Hand `octets` to the transport; the loss of the connection shows at the next read."""
        if self.is_open:
            self._transport.write(octets)

    async def write_content(self, octets: bytes, *, timeout_s: float) -> None:
        """Write a large piece, waiting whenever the transport's buffer is full.

        Returns early when the provider speaks up or closes: read_reply then tells. `timeout_s`
        limits the time without any progress: a slow provider is waited for, a stuck one is not.
        """
        view = memoryview(octets)
        for start in range(0, len(view), _SLICE_BYTES):
            await asyncio.sleep(0)  # lets a refusal that came in meanwhile be seen
            if self.has_unread or not self.is_open:
                return
            self._transport.write(view[start : start + _SLICE_BYTES])
            await self._drain(timeout_s)

    async def flush(self, *, timeout_s: float) -> None:
        """Return when the transport has nothing left to write; as early as `write_content` does.

        Without TLS all is with the kernel then. With it the event loop may hold 64 KiB more, of
        which it tells nobody.
        """
        if self.is_open and self._transport.get_write_buffer_size():
            self._transport.set_write_buffer_limits(high=1, low=0)
            try:
                await self._drain(timeout_s)
            finally:
                if self.is_open:
                    self._transport.set_write_buffer_limits()

    def reply_at_hand(self) -> SmtpReply | None:
        """Return the next reply if all of it has arrived; raises ReplyInvalid."""
        return self._take_reply()

    async def read_reply(self, *, timeout_s: float) -> SmtpReply:
        """Return the next reply; raises WireFailure."""
        reply = self._take_reply()
        if reply is not None:
            return reply
        self._set_deadline(timeout_s)
        try:
            while reply is None:
                if self._end is not None:
                    raise ConnectionLost(self._end)
                if self._is_overdue:
                    raise ReplyTimeout(f"no reply within {timeout_s:g} s")
                await self._wait()
                reply = self._take_reply()
        finally:
            self._deadline_s = None
        return reply

    def abort(self) -> None:
        """Close at once; what is still to be written is dropped."""
        self._transport.abort()

    def _take_reply(self) -> SmtpReply | None:
        try:
            reply = reply_parser.take_reply(self._buffer)
        except reply_parser.ReplyInvalid as error:
            raise ReplyInvalid(str(error)) from error
        if self._is_read_paused and len(self._buffer) <= _PAUSE_AT_BYTES:
            self._is_read_paused = False
            if self.is_open:
                self._transport.resume_reading()
        return reply

    async def _drain(self, timeout_s: float) -> None:
        while self._is_write_paused and self.is_open and not self.has_unread:
            left_bytes = self._transport.get_write_buffer_size()
            try:
                async with asyncio.timeout(timeout_s):
                    await self._wait()
            except TimeoutError as error:
                if self._transport.get_write_buffer_size() >= left_bytes:
                    raise ReplyTimeout(f"nothing taken within {timeout_s:g} s") from error

    def _set_deadline(self, timeout_s: float) -> None:
        """Have `_is_overdue` set in time: one timer a connection, not one for each reply."""
        self._is_overdue = False
        self._deadline_s = deadline_s = self._loop.time() + timeout_s
        if self._timer is not None and self._timer.when() > deadline_s:
            self._timer.cancel()
            self._timer = None
        if self._timer is None:
            self._timer = self._loop.call_at(deadline_s, self._look_at_deadline)

    def _look_at_deadline(self) -> None:
        self._timer = None
        if self._deadline_s is None:
            return
        if self._loop.time() >= self._deadline_s:
            self._is_overdue = True
            self._wake()
        else:
            self._timer = self._loop.call_at(self._deadline_s, self._look_at_deadline)

    async def _wait(self) -> None:
        """Return when something happened on the connection."""
        self._wakeup = self._loop.create_future()
        try:
            await self._wakeup
        finally:
            self._wakeup = None

    def _wake(self) -> None:
        if self._wakeup is not None and not self._wakeup.done():
            self._wakeup.set_result(None)
