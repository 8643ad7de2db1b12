"""The wire under a session: who is there, what protects it, bytes in and out.

A connection begins with a PROXY header where its peer is a balancer, then with TLS where that is
implicit; only then the session speaks. aiosmtpd keeps the session and envelope objects and the
start of the handler; see docs/decisions/0004 for what is replaced and why.
"""

from __future__ import annotations

import asyncio
import ssl

from aiosmtpd.smtp import SMTP

from relaygw.inbound import patience
from relaygw.inbound.clients import Client
from relaygw.inbound.front import Front
from relaygw.inbound.proxy import BadHeader, ProxyHeaderReader
from relaygw.inbound.tls import TlsLayer

BUFFER_BYTES = 128 * 1024

_NEVER = float("inf")
_NOBODY = ("0.0.0.0",)


class Wire(SMTP):
    """One client's connection, down to the bytes."""

    client: Client  # from connection_made on

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
        self.front = front
        self.is_done = False
        self._is_within_limits = True
        self._header: ProxyHeaderReader | None = None
        self._tls: TlsLayer | None = None
        self._preparing: asyncio.Future[None] | None = None  # header, handshake
        self._is_waiting = False  # for the client
        self._deadline_s = _NEVER  # for what is waited for now, on the loop's clock

    @property
    def is_encrypted(self) -> bool:
        """True once TLS is established."""
        return self._tls is not None and self._tls.is_established

    @property
    def peer(self) -> str:
        """The client as the log names it."""
        return f"unknown[{self.client.address}]"

    def _take(self, data: bytes) -> None:
        """Take what the client said."""
        raise NotImplementedError

    def _hand_on(self, data: bytes) -> None:
        """Let the session read `data`."""
        super().data_received(data)

    def _client_has_ended(self) -> None:
        """Take note that the client says no more."""
        if self._preparing is not None and not self._preparing.done():
            self._preparing.set_exception(asyncio.IncompleteReadError(b"", None))

    def _reset_timeout(self, duration: float | None = None) -> None:
        """Do nothing: `patience.watch` looks at all sessions instead of a timer for each."""

    # --- beginning and end ---------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Count the client and start the session."""
        # a client that has gone already has no name, and so no rights
        address = (transport.get_extra_info("peername") or _NOBODY)[0]
        self.client, self._is_within_limits = self.front.clients.arrive(address)
        if self.front.clients.is_balancer(address):
            self._header = ProxyHeaderReader()
            self._prepare(patience.PROXY_HEADER_S)
        super().connection_made(transport)
        if self._header is None and self.front.is_implicit:
            self._begin_tls()

    def connection_lost(self, error: Exception | None) -> None:
        """Let the handler finish: a commit under way must not be torn (unlike aiosmtpd)."""
        self.front.clients.leave(self.client)
        self.front.session_left.set()
        self._client_has_ended()
        asyncio.StreamReaderProtocol.connection_lost(self, error)
        self.transport = None

    def eof_received(self) -> bool | None:
        """Keep a half-closed connection open, so that its last reply arrives."""
        self._client_has_ended()
        return asyncio.StreamReaderProtocol.eof_received(self)

    def close(self) -> None:
        """End the session; what was written is still sent."""
        self.is_done = True
        if self.transport is not None:
            if self._tls is not None and not self.transport.is_closing():
                self._tls.close()
            self.transport.close()

    # --- header and TLS ------------------------------------------------------------------

    def _prepare(self, patience_s: float) -> None:
        if self._preparing is None:
            self._preparing = self.loop.create_future()
        self._deadline_s = self.loop.time() + patience_s

    async def _prepared(self) -> None:
        """Return when the client may be spoken to."""
        if self._preparing is not None:
            self._is_waiting = True
            await self._preparing
            self._preparing = None
            self._is_waiting = False

    def _begin_tls(self) -> None:
        context = self.front.certificate.context() if self.front.certificate else None
        self._prepare(patience.HANDSHAKE_S)
        if context is None:
            self._break_off("TLS is not available")
            return
        self._tls = TlsLayer(context, send=self._send_raw)

    async def start_tls(self, context: ssl.SSLContext) -> None:
        """Turn to TLS after the reply to STARTTLS; raises ConnectionError."""
        self._prepare(patience.HANDSHAKE_S)
        self._tls = TlsLayer(context, send=self._send_raw)
        await self._prepared()

    def _break_off(self, why: str) -> None:
        """Give up a connection with which nothing can be said."""
        self.front.log.note("smtpd", f"warning: {why} from {self.peer}")
        if self._preparing is not None and not self._preparing.done():
            self._preparing.set_exception(ConnectionAbortedError(why))
        self.is_done = True
        if self.transport is not None:
            self.transport.close()

    # --- bytes in ------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Take bytes of the wire: of the header, of TLS, or of the client."""
        if self.transport is None or self.transport.is_closing():
            return
        if self._header is not None:
            data = self._take_header(data)
            if not data:
                return
        if self._tls is None:
            self._take(data)
        else:
            self._take_encrypted(data)

    def _take_header(self, data: bytes) -> bytes:
        assert self._header is not None
        try:
            found = self._header.feed(data)
        except BadHeader as error:
            self._break_off(str(error))
            return b""
        if found is None:
            return b""
        self._header = None
        header, rest = found
        self.client, self._is_within_limits = self.front.clients.arrive_behind(
            self.client, header.client
        )
        if self.front.is_implicit:
            self._begin_tls()
        else:
            self._go_on()
        return b"" if self.is_done else rest

    def _take_encrypted(self, data: bytes) -> None:
        assert self._tls is not None
        was_established = self._tls.is_established
        try:
            plain = self._tls.feed(data)
        except ssl.SSLError as error:
            self._break_off(f"TLS: {error.reason or 'error'}")
            return
        if self._tls.is_established and not was_established:
            self._go_on()
        if plain:
            self._take(plain)
        if self._tls.is_ended:
            self.eof_received()

    def _go_on(self) -> None:
        if self._preparing is not None and not self._preparing.done():
            self._preparing.set_result(None)

    # --- bytes out -----------------------------------------------------------------------

    def say(self, reply: str) -> None:
        """Send a reply, without waiting for it to leave."""
        if self.transport is None or self.transport.is_closing():
            return
        self.front.meter.replied(reply)
        data = reply.encode("utf-8") + b"\r\n"
        if self._tls is None:
            self._send_raw(data)
        else:
            self._tls.write(data)

    def _send_raw(self, data: bytes) -> None:
        if self.transport is not None and not self.transport.is_closing():
            self._writer.write(data)
