"""Connections of a run: bytes take their time, keep their order, and may never arrive."""

from __future__ import annotations

import asyncio
import socket as real_socket
from collections.abc import Callable
from contextvars import ContextVar
from types import SimpleNamespace
from typing import Any, Protocol

from bench.simulation.loop import Process, VirtualLoop

PROBING: ContextVar[bool] = ContextVar("probing", default=False)
"""True while a worker only tries whether a provider is back."""


class Far(Protocol):
    """The other side of a link: a provider's."""

    def received(self, data: bytes) -> None: ...

    def ended(self) -> None: ...


class Socket:
    """What the product takes for a socket; the loop leads it somewhere."""

    def __init__(self, *_: Any) -> None:
        self.link: Link | None = None

    def setblocking(self, _flag: bool) -> None:
        pass

    def close(self) -> None:
        if self.link is not None:
            self.link.client_closes()


def socket_module() -> Any:
    """Return what stands for the module `socket` where connections are made."""
    names = ("AF_INET", "SOCK_STREAM", "AddressFamily", "gaierror")
    return SimpleNamespace(socket=Socket, **{name: getattr(real_socket, name) for name in names})


class Link:
    """One connection between a process and a provider."""

    def __init__(
        self,
        loop: VirtualLoop,
        *,
        client: Process,
        server: Process,
        latency_s: Callable[[], float],
        number: int,
        is_open: Callable[[Link, bool], None],
    ) -> None:
        self.number = number
        self.is_probe = PROBING.get()
        self._loop = loop
        self.client, self._server = client, server
        self._latency_s = latency_s
        self._note_open = is_open
        self.far: Far | None = None
        self._protocol: Any = None
        self._arrives_s = [0.0, 0.0]  # the last of what is under way, to the provider and from it
        self.is_cut = False  # nothing arrives any more, and nobody is told
        self._is_client_closed = False
        self._is_server_closed = False
        self._pending: list[bytes] = []  # before a protocol reads
        self.wrote: Callable[[bytes], None] = lambda _: None  # told of what the client writes
        self.awaits_content = False  # the provider has said 354
        is_open(self, True)

    # --- the client's side

    def open(self, protocol: Any) -> Transport:
        """Give the client's protocol its transport."""
        self._protocol = protocol
        transport = Transport(self)
        pending, self._pending = self._pending, []
        for data in pending:
            self._loop.call_soon(self._client_receives, data)
        return transport

    def client_writes(self, data: bytes) -> None:
        if self._is_client_closed:
            return
        self.wrote(data)
        self._send(0, self._server, self._server_receives, data)

    def client_closes(self) -> None:
        if self._is_client_closed:
            return
        self._is_client_closed = True
        self._note_open(self, False)
        self._send(0, self._server, self._server_ends)
        if self._protocol is not None and not self.client.is_dead:
            self._loop.call_soon(self._protocol_ends, None, context=self.client.context.copy())

    def _client_receives(self, data: bytes) -> None:
        if self._is_client_closed:
            return
        if self._protocol is None:
            self._pending.append(data)
        else:
            self._protocol.data_received(data)

    def _client_ends(self, error: Exception | None) -> None:
        """The provider closed, or the connection was reset."""
        if self._is_client_closed:
            return
        if error is None and self._protocol is not None:
            self._protocol.eof_received()
        self._is_client_closed = True
        self._note_open(self, False)
        self._protocol_ends(error)

    def _protocol_ends(self, error: Exception | None) -> None:
        if self._protocol is not None:
            self._protocol.connection_lost(error)

    @property
    def is_closing(self) -> bool:
        return self._is_client_closed

    def use(self, protocol: Any) -> None:
        self._protocol = protocol

    @property
    def protocol(self) -> Any:
        return self._protocol

    # --- the provider's side

    def server_writes(self, data: bytes) -> None:
        if not self._is_server_closed:
            self._send(1, self.client, self._client_receives, data)

    def server_closes(self, error: Exception | None = None) -> None:
        """Close after what was written, or reset."""
        if not self._is_server_closed:
            self._is_server_closed = True
            self._send(1, self.client, self._client_ends, error)

    def _server_receives(self, data: bytes) -> None:
        if not self._is_server_closed and self.far is not None:
            self.far.received(data)

    def _server_ends(self) -> None:
        self._is_server_closed = True
        if self.far is not None:
            self.far.ended()

    # --- between them

    def reset(self) -> None:
        """Cut the connection; both sides are told."""
        self.is_cut = True
        error = ConnectionResetError(104, "Connection reset by peer")
        self._loop.at(self.client, self._latency_s(), self._client_ends, error)
        self._loop.at(self._server, self._latency_s(), self._server_ends)

    def _send(self, way: int, to: Process, arrive: Callable[..., None], *what: Any) -> None:
        at_s = max(self._arrives_s[way], self._loop.now_s + self._latency_s())
        self._arrives_s[way] = at_s
        self._loop.call_at(at_s, self._arrive, arrive, what, context=to.context.copy())

    def _arrive(self, arrive: Callable[..., None], what: Any) -> None:
        if not self.is_cut:
            arrive(*what)


class Transport(asyncio.Transport):
    """The client's end of a link."""

    def __init__(self, link: Link) -> None:
        super().__init__()
        self._link = link

    def write(self, data: Any) -> None:
        self._link.client_writes(bytes(data))

    def abort(self) -> None:
        self._link.client_closes()

    close = abort

    def is_closing(self) -> bool:
        return self._link.is_closing

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return default

    def set_protocol(self, protocol: Any) -> None:
        self._link.use(protocol)

    def get_protocol(self) -> Any:
        return self._link.protocol

    def get_write_buffer_size(self) -> int:
        return 0

    def set_write_buffer_limits(self, high: Any = None, low: Any = None) -> None:
        pass

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass
