"""One client's connection: PROXY header, TLS, lines and content, and how long each may take.

A PROXY header comes first, where the peer is a balancer, then TLS where that is implicit; only then
its session speaks. What of aiosmtpd is replaced and why: decision 4.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Iterable
from typing import TYPE_CHECKING, cast

from aiosmtpd.smtp import SMTP

from relaygw.inbound import replies
from relaygw.inbound.content import Arrival, ContentReader
from relaygw.inbound.proxy_header import BadHeader, ProxyHeaderReader
from relaygw.inbound.session import Envelope, Session
from relaygw.inbound.throttled_clients import CONNECTIONS
from relaygw.inbound.tls import TlsLayer

if TYPE_CHECKING:
    from relaygw.inbound.listeners import ActiveListener, Client

BUFFER_BYTES = 128 * 1024
_NEVER = float("inf")
_TLS_HANDSHAKE = 0x16  # first byte of a TLS record with a ClientHello


class _WithoutHandlers:
    """aiosmtpd looks for handlers in each `dir()`; there are none, and it takes 75 µs."""

    def __dir__(self) -> Iterable[str]:
        return ()


_NO_HANDLER = _WithoutHandlers()


class Connection(_WithoutHandlers, SMTP):
    """One client's connection to a listener, down to the bytes."""

    line_length_limit = BUFFER_BYTES
    client: Client  # from connection_made on
    session: Session
    envelope: Envelope

    def __init__(self, listener: ActiveListener, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(_NO_HANDLER, hostname=listener.intake.hostname, loop=loop)
        self.listener, self._limits = listener, listener.limits
        self.is_done = False
        self._is_within_limits = True
        self._header: ProxyHeaderReader | None = None
        self._tls: TlsLayer | None = None
        self._preparing: asyncio.Future[None] | None = None  # header, handshake
        self._arrival: Arrival | None = None
        self._has_spoken = False
        self._said = bytearray()  # commands, until the session takes them
        self._searched_bytes = 0  # of these, without finding the end of a line
        self._line: asyncio.Future[bytes] | None = None  # that the session waits for
        self._is_crowded = False  # so much was said that no more is read
        self._has_begun = False  # a command whose end is still to come
        self._has_ended = False  # the client says no more
        self._is_waiting = False  # for the client
        self._deadline_s = _NEVER  # for what is waited for now, on the loop's clock
        self._session_end_s = loop.time() + self._limits.session_s

    @property
    def is_encrypted(self) -> bool:
        """True once TLS is established."""
        return self._tls is not None and self._tls.is_established

    @property
    def peer(self) -> str:
        """The client as the log names it."""
        return f"unknown[{self.client.address}]"

    @property
    def has_sent_ahead(self) -> bool:
        """True when the client sent more than was asked for."""
        return bool(self._said)

    def _create_session(self) -> Session:
        return Session(self)

    def _create_envelope(self) -> Envelope:
        return Envelope()

    def reset_envelope(self) -> None:
        """End the transaction, if there is one."""
        if self.envelope.mail_from is not None:
            self.envelope = Envelope()
            self.listener.committer.dismiss(self)

    def _reset_timeout(self, duration: float | None = None) -> None:
        """Do nothing: `check_time` is called for all sessions instead of a timer for each."""

    # --- beginning and end ---------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Count the client and start the session."""
        # a client that has gone already has no name, and so no rights
        address = (transport.get_extra_info("peername") or ("0.0.0.0",))[0]
        # a cast, because uvloop's transports are no subclasses of asyncio's
        self._wire = cast("asyncio.Transport", transport)
        self.listener.enter(self)
        self.client, self._is_within_limits = self.listener.clients.arrive(address)
        if self.listener.clients.is_balancer(address):
            self._header = ProxyHeaderReader()
            self._prepare(self._limits.proxy_header_s)
        super().connection_made(transport)
        if self._header is None and self.listener.is_implicit:
            self._begin_tls()

    async def _handle_client(self) -> None:
        try:
            await self._prepared()
            if self._greet():
                await self.session.serve()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the client left; what was answered 250 is durable, the rest was not accepted
        finally:
            self.close()

    def _greet(self) -> bool:
        if self.listener.is_stopping:
            self.say(replies.STOPPING)
            return False
        if not self._is_within_limits:
            self.say(replies.TOO_MANY_CONNECTIONS.format(client=self.client.address))
            self.listener.note(f"too many connections from {self.peer}")
            self.listener.throttled.note(self.listener.name, self.client.guesser, CONNECTIONS)
            return False
        self.say(f"220 {self.hostname} ESMTP relaygw")
        return True

    def connection_lost(self, error: Exception | None) -> None:
        """Let the handler finish: a commit under way must not be torn (unlike aiosmtpd)."""
        self.listener.count_closed(self)
        if error is not None:
            self._said.clear()
        self.eof_received()
        asyncio.StreamReaderProtocol.connection_lost(self, error)
        self.transport = None

    def eof_received(self) -> bool:
        """Keep a half-closed connection open, so that its last reply arrives."""
        self._has_ended = True
        self._hand_over_line()
        if self._preparing is not None or self._arrival is not None:
            ended = asyncio.IncompleteReadError(b"", None)
            self._end_preparing(ended)
            self._fail_arrival(ended)
        return True

    def close(self) -> None:
        """End the session; what was written is still sent."""
        self.is_done = True
        if self._tls is not None and not self._wire.is_closing():
            self._tls.close()
        self._wire.close()

    def stop_if_idle(self) -> None:
        """Say 421 and hang up unless a transaction is under way."""
        if self._is_waiting and self.envelope.mail_from is None:
            if self._preparing is None:
                self.say(replies.STOPPING)
            self.close()

    # --- header and TLS ------------------------------------------------------------------

    def _prepare(self, limit_s: float) -> None:
        if self._preparing is None:
            self._preparing = self.loop.create_future()
        self._deadline_s = self.loop.time() + limit_s

    async def _prepared(self) -> None:
        if self._preparing is not None:
            self._is_waiting = True
            await self._preparing
            self._preparing = None
            self._is_waiting = False

    def _end_preparing(self, error: Exception | None = None) -> None:
        preparing = self._preparing
        if preparing is not None and not preparing.done():
            preparing.set_exception(error) if error else preparing.set_result(None)

    def _begin_tls(self) -> None:
        certificate = self.listener.certificate
        context = certificate.context() if certificate is not None else None
        self._prepare(self._limits.handshake_s)
        if context is None:
            self._break_off("TLS is not available")
        else:
            self._tls = TlsLayer(context, send=self._send_raw)

    async def start_tls(self, context: ssl.SSLContext) -> None:
        """Turn to TLS after the reply to STARTTLS; raises ConnectionError."""
        self._prepare(self._limits.handshake_s)
        self._tls = TlsLayer(context, send=self._send_raw)
        await self._prepared()

    def _break_off(self, why: str) -> None:
        self.listener.note(f"warning: {why} from {self.peer}")
        self._end_preparing(ConnectionAbortedError(why))
        self.is_done = True
        self._wire.close()

    # --- bytes in ------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Take bytes of the wire: of the header, of TLS, or of the client."""
        if self._wire.is_closing():
            return
        if self._header is not None:
            data = self._take_header(self._header, data)
            if not data:
                return
        if self._tls is None:
            self._take(data)
        else:
            self._take_encrypted(self._tls, data)

    def _take_header(self, header: ProxyHeaderReader, data: bytes) -> bytes:
        try:
            found = header.feed(data)
        except BadHeader as error:
            self._break_off(str(error))
            return b""
        if found is None:
            return b""
        self._header, (address, rest) = None, found
        arrive = self.listener.clients.arrive_behind
        self.client, self._is_within_limits = arrive(self.client, address)
        if self.listener.is_implicit:
            self._begin_tls()
        else:
            self._end_preparing()
        return b"" if self.is_done else rest

    def _take_encrypted(self, tls: TlsLayer, data: bytes) -> None:
        was_established = tls.is_established
        try:
            plain = tls.feed(data)
        except ssl.SSLError as error:
            self._break_off(f"TLS: {error.reason or 'error'}")
            return
        if tls.is_established and not was_established:
            self._end_preparing()
        if plain:
            self._take(plain)
        if tls.is_ended:
            self.eof_received()

    def _take(self, data: bytes) -> None:
        """Count what the client said, and hang up on what cannot be SMTP."""
        if not self._has_spoken and data[0] == _TLS_HANDSHAKE and self._tls is None:
            self._break_off("TLS on a plain port")
            return
        self._has_spoken = True
        if self._arrival is not None:
            self._take_content(self._arrival, data)
            return
        if not (self._has_begun or data.endswith(b"\n")):
            # the end of a command is waited for less long than its beginning
            self._has_begun = True
            self._deadline_s = min(self._deadline_s, self.loop.time() + self._limits.command_s)
        self._said += data
        self._hand_over_line()
        if len(self._said) > 2 * BUFFER_BYTES and not self._is_crowded:
            self._is_crowded = True
            self._wire.pause_reading()

    def read_line(self) -> asyncio.Future[bytes]:
        """Return the client's next line, with its end; raises as StreamReader.readuntil does."""
        self._has_begun = False
        self._deadline_s = min(self.loop.time() + self._limits.idle_s, self._session_end_s)
        self._is_waiting = True
        line = self._line = self.loop.create_future()
        if self._said or self._has_ended:
            self._hand_over_line()
        return line

    def _hand_over_line(self) -> None:
        """Give a line to the session if it waits for one, and there is one, or never will be."""
        line = self._line
        if line is None or line.done():  # cancelled
            return
        end = self._said.find(b"\n", self._searched_bytes)
        self._searched_bytes = len(self._said) if end < 0 else end
        if end < 0 and not self._has_ended and self._searched_bytes <= BUFFER_BYTES:
            return
        self._line, self._is_waiting = None, False
        if self._searched_bytes > BUFFER_BYTES:
            line.set_exception(asyncio.LimitOverrunError("no end of line", self._searched_bytes))
        elif end < 0:
            line.set_exception(asyncio.IncompleteReadError(b"", None))
        else:
            line.set_result(bytes(self._said[: end + 1]))
            del self._said[: end + 1]
            self._searched_bytes = 0
            if self._is_crowded and len(self._said) <= BUFFER_BYTES:
                self._is_crowded = False
                self._read_on()

    async def receive(self, reader: ContentReader) -> None:
        """Ask for content and return when all has come; raises TooMuchData, IncompleteReadError."""
        if self._has_ended:
            raise asyncio.IncompleteReadError(b"", None)
        arrival = self._arrival = Arrival(reader, self.loop, self._limits)
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
            self._said += rest or b""
        elif arrival.reader.has_piece and self.transport is not None:
            # read on once the thread for large content is done with what has come
            self._wire.pause_reading()
            self.listener.committer.dismiss(self)
            done = self.listener.committer.work_piece(arrival.reader.work_up)
            done.add_done_callback(self._worked_up)

    def _worked_up(self, done: asyncio.Future[None]) -> None:
        error = done.exception()
        if error is not None and self._fail_arrival(error):
            self.is_done = True  # what follows is not commands
        self._read_on()

    def _read_on(self) -> None:
        if not self._wire.is_closing():
            self._wire.resume_reading()

    def _fail_arrival(self, error: BaseException) -> bool:
        arrival, self._arrival = self._arrival, None
        if arrival is not None:
            arrival.give_up(error)
        return arrival is not None

    # --- bytes out -----------------------------------------------------------------------

    def say(self, reply: str) -> None:
        """Send a reply, without waiting for it to leave."""
        if self._wire.is_closing():
            return
        self.listener.observer.replied(reply)
        data = reply.encode("utf-8") + b"\r\n"
        if self._tls is None:
            self._wire.write(data)
        else:
            self._tls.write(data)

    def _send_raw(self, data: bytes) -> None:
        if not self._wire.is_closing():
            self._wire.write(data)

    @property
    def has_unsent(self) -> bool:
        """True while the client does not take its replies."""
        return self.transport is not None and self._wire.get_write_buffer_size() > 0

    async def flush(self) -> None:
        """Wait until the client takes its replies."""
        self._deadline_s = self.loop.time() + self._limits.idle_s
        self._is_waiting = True
        await self._writer.drain()
        self._is_waiting = False

    # --- time ----------------------------------------------------------------------------

    def extend_session(self) -> None:
        """Let a session that sends mail go on for as long again."""
        self._session_end_s = self.loop.time() + self._limits.session_s

    def check_time(self, now_s: float) -> None:
        """End the session if the client takes longer than it may."""
        deadline_s = self._deadline_s if self._arrival is None else self._arrival.deadline_s
        if now_s < deadline_s or not self._is_waiting:
            return
        if self._preparing is not None:
            stage = "connect"
        else:
            stage = "DATA" if self._arrival is not None else "command"
            self.say(replies.TIMEOUT)
        self.listener.note(f"timeout in {stage} from {self.peer}")
        self.close()
        if self.has_unsent:
            self._wire.abort()  # it does not read either
