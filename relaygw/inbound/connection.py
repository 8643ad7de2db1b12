"""The connection of a session: commands and content one by one, and how long they may take."""

from __future__ import annotations

import asyncio
from typing import cast

from relaygw.inbound import patience, replies
from relaygw.inbound.arrival import Arrival
from relaygw.inbound.data import ContentReader
from relaygw.inbound.front import Front
from relaygw.inbound.wire import Wire

_TLS_HANDSHAKE = 0x16  # first byte of a TLS record with a ClientHello


class Connection(Wire):
    """One client's connection to a front."""

    def __init__(self, front: Front, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(front, loop)
        self._received_bytes = 0  # against _consumed_bytes: what the client sent ahead
        self._consumed_bytes = 0
        self._arrival: Arrival | None = None
        self._has_begun = False  # a command whose end is still to come
        self._has_ended = False  # the client says no more
        self._session_end_s = loop.time() + patience.SESSION_S

    @property
    def is_in_transaction(self) -> bool:
        """True while a transaction is under way that deserves its end."""
        raise NotImplementedError

    @property
    def has_sent_ahead(self) -> bool:
        """True when the client sent more than was asked for."""
        return self._received_bytes > self._consumed_bytes

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Count the session with those of its front, and start it."""
        self.front.sessions.add(self)
        super().connection_made(transport)

    def connection_lost(self, error: Exception | None) -> None:
        """Let the handler finish: a commit under way must not be torn (unlike aiosmtpd)."""
        self.front.sessions.discard(self)
        super().connection_lost(error)

    def _client_has_ended(self) -> None:
        """Tell the session that what it waits for will never come."""
        super()._client_has_ended()
        self._has_ended = True
        if self._arrival is not None:
            self._arrival.give_up(asyncio.IncompleteReadError(b"", None))
            self._arrival = None

    def _take(self, data: bytes) -> None:
        """Count what the client said, and hang up on what cannot be SMTP."""
        if not self._received_bytes and data[0] == _TLS_HANDSHAKE and self._tls is None:
            self._break_off("TLS on a plain port")
            return
        self._received_bytes += len(data)
        if self._arrival is not None:
            self._take_content(self._arrival, data)
            return
        if not (self._has_begun or data.endswith(b"\n")):
            # the end of a command is waited for less long than its beginning
            self._has_begun = True
            self._deadline_s = min(self._deadline_s, self.loop.time() + patience.COMMAND_S)
        self._hand_on(data)

    async def read_line(self) -> bytes:
        """Return what the client says next, with its line end.

        Raises LimitOverrunError, IncompleteReadError, ConnectionError.
        """
        self._has_begun = False
        self._deadline_s = min(self.loop.time() + patience.IDLE_S, self._session_end_s)
        self._is_waiting = True
        line: bytes = await self._reader.readuntil(b"\n")
        self._is_waiting = False
        self._consumed_bytes += len(line)
        return line

    # --- content -------------------------------------------------------------------------

    async def receive(self, reader: ContentReader) -> None:
        """Ask for content and return when all has come; raises TooMuchData, IncompleteReadError."""
        if self._has_ended:
            raise asyncio.IncompleteReadError(b"", None)
        arrival = self._arrival = Arrival(reader, self.loop)
        self.say(replies.START_DATA)
        self._is_waiting = True
        try:
            await arrival.arrived
        finally:
            self._is_waiting = False

    def _take_content(self, arrival: Arrival, data: bytes) -> None:
        rest = arrival.feed(data)
        if arrival.arrived.done():
            self._arrival = None
            if rest:
                self._hand_on(rest)
        elif arrival.reader.has_piece and self.transport is not None:
            # read on once the thread for large content is done with what has come
            cast("asyncio.ReadTransport", self.transport).pause_reading()
            done = self.front.committer.work_aside(arrival.reader.work_up)
            done.add_done_callback(self._read_on)

    def _read_on(self, done: asyncio.Future[None]) -> None:
        error = done.exception()
        if error is not None and self._arrival is not None:
            self._arrival.give_up(error)
            self._arrival = None
            self.is_done = True  # what follows is not commands
        if self.transport is not None and not self.transport.is_closing():
            cast("asyncio.ReadTransport", self.transport).resume_reading()

    def has_read(self, size_bytes: int) -> None:
        """Count content as asked for."""
        self._consumed_bytes += size_bytes

    async def flush(self) -> None:
        """Wait while the client does not take its replies."""
        transport = cast("asyncio.WriteTransport | None", self.transport)
        if transport is not None and transport.get_write_buffer_size():
            self._deadline_s = self.loop.time() + patience.IDLE_S
            self._is_waiting = True
            await self._writer.drain()
            self._is_waiting = False

    # --- time ----------------------------------------------------------------------------

    def message_was_taken(self) -> None:
        """Let a session that sends mail go on for as long again."""
        self._session_end_s = self.loop.time() + patience.SESSION_S

    def check_time(self, now_s: float) -> None:
        """End the session if the client takes longer than it may."""
        deadline_s = self._deadline_s if self._arrival is None else self._arrival.deadline_s
        if now_s < deadline_s or not self._is_waiting:
            return
        stage = "DATA" if self._arrival is not None else "command"
        if self._preparing is not None:
            stage = "connect"
        else:
            self.say(replies.TIMEOUT)
        self.front.log.note("smtpd", f"timeout in {stage} from {self.peer}")
        self.close()
        transport = cast("asyncio.WriteTransport | None", self.transport)
        if transport is not None and transport.get_write_buffer_size():
            transport.abort()  # it does not read either

    def stop_if_idle(self) -> None:
        """Say 421 and hang up unless a transaction is under way."""
        if self._is_waiting and not self.is_in_transaction:
            if self._preparing is None:
                self.say(replies.STOPPING)
            self.close()
