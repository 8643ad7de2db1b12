"""The connection under a session: aiosmtpd's protocol, bytes counted, content taken, idle time.

aiosmtpd keeps the session and envelope objects, the start of the handler and (later) STARTTLS and
AUTH; see docs/decisions/0004 for what is replaced and why.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import cast

from aiosmtpd.smtp import SMTP

from relaygw.inbound import replies
from relaygw.inbound.clients import Client, ClientTable
from relaygw.inbound.data import ContentReader, TooMuchData
from relaygw.inbound.group_commit import GroupCommitter
from relaygw.inbound.intake import Intake
from relaygw.observe.maillog import MailLog
from relaygw.settings.model import Listener

BUFFER_BYTES = 128 * 1024
IDLE_TIMEOUT_S = 300.0

_TLS_HANDSHAKE = 0x16  # first byte of a TLS record with a ClientHello


@dataclass(slots=True, kw_only=True)
class Front:
    """What all sessions of one listener share."""

    listener: Listener
    name: str
    clients: ClientTable
    intake: Intake
    committer: GroupCommitter
    log: MailLog
    session_left: asyncio.Event  # set each time a session ends
    large_message_turn: asyncio.Semaphore  # to have a chunk of spooled content in memory
    sessions: set[Connection] = field(default_factory=set)
    is_stopping: bool = False


class Connection(SMTP):
    """One client's connection to a front."""

    def __init__(self, front: Front, loop: asyncio.AbstractEventLoop) -> None:
        # aiosmtpd's own constructor searches the class for handlers that are not used here,
        # 75 µs for each connection; what its remaining code needs is set below
        asyncio.StreamReaderProtocol.__init__(
            self,
            asyncio.StreamReader(limit=BUFFER_BYTES, loop=loop),
            client_connected_cb=self._cb_client_connected,
            loop=loop,
        )
        self.loop = loop
        self.hostname = front.intake.hostname
        self.session = None
        self.envelope = None
        self.transport = None
        self._handle_hooks = {}
        self._original_transport = None
        self._tls_protocol = None
        self._handler_coroutine = None
        self._front = front
        self._client: Client | None = None
        self._is_within_limits = True
        self._received_bytes = 0  # against _consumed_bytes: what the client sent ahead
        self._consumed_bytes = 0
        self._arriving: tuple[ContentReader, asyncio.Future[None]] | None = None
        self._last_activity_s = loop.time()
        self._idle_timer: asyncio.TimerHandle | None = None
        self._is_done = False
        self._is_waiting = False  # for the client

    @property
    def is_in_transaction(self) -> bool:
        """True while a transaction is under way that deserves its end."""
        raise NotImplementedError

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Count the client and start the session."""
        peer = transport.get_extra_info("peername")
        self._client, self._is_within_limits = self._front.clients.arrive(peer[0])
        self._front.sessions.add(self)
        self._idle_timer = self.loop.call_later(IDLE_TIMEOUT_S, self._check_idle)
        super().connection_made(transport)

    def connection_lost(self, error: Exception | None) -> None:
        """Let the handler finish: a commit under way must not be torn (unlike aiosmtpd)."""
        if self._idle_timer is not None:
            self._idle_timer.cancel()
        if self._client is not None:
            self._front.clients.leave(self._client)
        self._front.sessions.discard(self)
        self._front.session_left.set()
        self._give_up_content()
        asyncio.StreamReaderProtocol.connection_lost(self, error)
        self.transport = None

    def eof_received(self) -> bool | None:
        """Keep a half-closed connection open, so that its last reply arrives."""
        self._give_up_content()
        return asyncio.StreamReaderProtocol.eof_received(self)

    def data_received(self, data: bytes) -> None:
        """Count what arrives, and hang up on what cannot be SMTP."""
        if not self._received_bytes and data[0] == _TLS_HANDSHAKE and self.transport is not None:
            self._front.log.note("smtpd", f"TLS on a plain port from {self._peer}")
            self.transport.close()
            return
        self._received_bytes += len(data)
        self._last_activity_s = self.loop.time()
        if self._arriving is not None:
            self._take_content(data)
        else:
            super().data_received(data)

    async def _receive(self, reader: ContentReader) -> None:
        """Return when the end of data has come; raises TooMuchData, IncompleteReadError."""
        arrived: asyncio.Future[None] = self.loop.create_future()
        self._arriving = (reader, arrived)
        self._write(replies.START_DATA)
        self._is_waiting = True
        try:
            await arrived
        finally:
            self._is_waiting = False

    def _take_content(self, data: bytes) -> None:
        """Pass content on without waking the session for each piece."""
        assert self._arriving is not None
        reader, arrived = self._arriving
        try:
            rest = reader.feed(data)
        except TooMuchData as error:
            self._arriving = None
            arrived.set_exception(error)
            return
        if rest is None:
            if reader.has_piece and self.transport is not None:
                self._work_up(reader)
            return
        self._arriving = None
        arrived.set_result(None)
        if rest:
            super().data_received(rest)

    def _work_up(self, reader: ContentReader) -> None:
        """Read on once the thread for large content is done with what has come."""
        cast("asyncio.ReadTransport", self.transport).pause_reading()
        done = self._front.committer.work_aside(reader.work_up)
        done.add_done_callback(self._read_on)

    def _read_on(self, done: asyncio.Future[None]) -> None:
        error = done.exception()
        if error is not None and self._arriving is not None:
            _, arrived = self._arriving
            self._arriving = None
            self._is_done = True  # what follows is not commands
            arrived.set_exception(error)
        if self.transport is not None and not self.transport.is_closing():
            cast("asyncio.ReadTransport", self.transport).resume_reading()

    def _give_up_content(self) -> None:
        """Tell the session that the rest of the content will never come."""
        if self._arriving is not None:
            _, arrived = self._arriving
            self._arriving = None
            arrived.set_exception(asyncio.IncompleteReadError(b"", None))

    def _reset_timeout(self, duration: float | None = None) -> None:
        """Do nothing: one timer a session looks at the last activity instead."""

    def _check_idle(self) -> None:
        left_s = self._last_activity_s + IDLE_TIMEOUT_S - self.loop.time()
        if left_s > 0 or not self._is_waiting:
            self._idle_timer = self.loop.call_later(max(left_s, 1.0), self._check_idle)
            return
        self._write(replies.TIMEOUT)
        self._close()

    def stop_if_idle(self) -> None:
        """Say 421 and hang up unless a transaction is under way."""
        if self._is_waiting and not self.is_in_transaction:
            self._write(replies.STOPPING)
            self._close()

    @property
    def _peer(self) -> str:
        return f"unknown[{self._client.address if self._client else '?'}]"

    def _write(self, reply: str) -> None:
        if self.transport is not None and not self.transport.is_closing():
            self._writer.write(reply.encode("utf-8") + b"\r\n")

    def _close(self) -> None:
        self._is_done = True
        if self.transport is not None:
            self.transport.close()
