"""uvicorn inside an event loop of ours: a socket that is given, no signals, no access log.

Connections beyond what a listener holds, of one client or of all, get no answer. Who sees a
connection end posts again, but an answer may be the last word: one service discards for good what
is answered with 503.
"""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Any, cast

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from relaygw.clients import guesser, is_trusted, parse_client

MOST_OF_ALL = 500
MOST_OF_ONE = 50
_THIS_MACHINE = (ip_network("127.0.0.1/32"), ip_network("::1/128"))


class ConnectionLimit:
    """At most so many connections, and of one client; a proxy may have all of them."""

    def __init__(
        self,
        proxies: Iterable[IPv4Network | IPv6Network] = (),
        *,
        of_all: int = MOST_OF_ALL,
        of_one: int = MOST_OF_ONE,
        refused: Callable[[str, str], None] = lambda _client, _reason: None,
    ) -> None:
        """`refused` hears of each connection that is closed: the client, and what it is beyond."""
        self._proxies = (*proxies, *_THIS_MACHINE)
        self._of_all, self._of_one = of_all, of_one
        self._refused = refused
        self._held: Counter[str] = Counter()

    def enter(self, host: str) -> str | None:
        """Let a connection in and return its client, of IPv6 the /64; None: close it."""
        client, is_proxy = self._client(host)
        if not is_proxy and self._held[client] >= self._of_one:
            self._refused(client, "of_one")
        elif self._held.total() >= self._of_all:
            self._refused(client, "of_all")
        else:
            self._held[client] += 1
            return client
        return None

    def leave(self, who: str) -> None:
        """Forget a connection that was let in."""
        self._held[who] -= 1
        if not self._held[who]:
            del self._held[who]

    def _client(self, host: str) -> tuple[str, bool]:
        try:
            address = parse_client(host)
        except ValueError:
            return host, False
        return guesser(address), is_trusted(address, self._proxies)


HEAD_S = 20.0  # from the connection, or the first byte of a later request, to the end of the head
PUBLIC_HEAD_S = 5.0  # the same where connections are counted

READ_S = 60.0  # in which a client has to take something of an answer that waits for it


class _TimedProtocol(H11Protocol):
    """Closes a connection whose next request does not come whole in time, or whose answer stays.

    uvicorn itself waits for ever, and a few hundred silent connections would keep others out, or
    hold as many answers in memory.
    """

    _limit: asyncio.TimerHandle | None = None
    _unread: asyncio.TimerHandle | None = None

    def __init__(
        self, *, visited: Callable[[], None], head_s: float, read_s: float, **given: Any
    ) -> None:
        super().__init__(**given)
        self._visited = visited
        self._head_s, self._read_s = head_s, read_s

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the clock."""
        self._visited()
        super().connection_made(transport)
        self._limit = self.loop.call_later(self._head_s, self._give_up)

    def data_received(self, data: bytes) -> None:
        """Take bytes; more of a head do not buy more time."""
        super().data_received(data)
        is_waiting = self.cycle is None or self.cycle.response_complete
        if not is_waiting or self.transport.get_protocol() is not self:  # or it is a websocket
            self._stop_waiting()
        elif self._limit is None:
            self._limit = self.loop.call_later(self._head_s, self._give_up)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the clocks."""
        self._stop_waiting()
        self._stop_looking()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """Look from now on whether the client reads."""
        super().pause_writing()
        self._look_later()

    def resume_writing(self) -> None:
        """It has read nearly all."""
        super().resume_writing()
        self._stop_looking()

    def _look_later(self) -> None:
        left_bytes = self.transport.get_write_buffer_size()
        self._unread = self.loop.call_later(self._read_s, self._look, left_bytes)

    def _look(self, left_bytes: int) -> None:
        if self.transport.get_write_buffer_size() == left_bytes:
            self.transport.abort()
        else:
            self._look_later()

    def _stop_looking(self) -> None:
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None

    def _stop_waiting(self) -> None:
        if self._limit is not None:
            self._limit.cancel()
            self._limit = None

    def _give_up(self) -> None:
        self._limit = None
        self.transport.close()


class _CountedProtocol(_TimedProtocol):
    """Of a listener that may be public: a connection beyond the limit ends without an answer."""

    _who: str | None = None

    def __init__(self, *, limit: ConnectionLimit, **given: Any) -> None:
        super().__init__(**given)
        self._door = limit

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take it, or close it before anybody counts it."""
        peer = transport.get_extra_info("peername")
        self._who = self._door.enter(str(peer[0]) if peer else "unknown")
        if self._who is None:
            transport.abort()
        else:
            super().connection_made(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """Make room for another."""
        if self._who is not None:
            self._door.leave(self._who)
            super().connection_lost(exc)

    def _should_upgrade(self) -> bool:
        return False  # a websocket would get another protocol, which counts nothing


_DRAIN_S = 5  # how long a stop waits for answers that are under way


class _EmbeddedServer(uvicorn.Server):
    stopping: asyncio.Task[object]
    visited: Callable[[], None]

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def main_loop(self) -> None:
        """Wake once a second for the Date field, not ten times as uvicorn's own does."""
        ticks = 0
        while not await self.on_tick(ticks):
            await asyncio.wait({self.stopping}, timeout=1.0)
            ticks += 10
            if self.server_state.connections:
                self.visited()


def _websocket(**given: Any) -> asyncio.Protocol:
    """Return the protocol of a websocket; it is loaded once somebody opens one."""
    from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

    return WebSocketsSansIOProtocol(**given)


async def serve_web(
    app: ASGIApp,
    listening_socket: socket.socket,
    *,
    stop: asyncio.Event,
    limit: ConnectionLimit | None = None,
    visited: Callable[[], None] = lambda: None,
    head_s: float | None = None,
    read_s: float = READ_S,
) -> None:
    """Serve `app` until `stop` is set or the task is cancelled, then finish what is under way.

    Closes the socket. Connections beyond `limit` are closed; without one those beyond 500 at a time
    get 503. `visited` is called with each connection, and each second while there is one.
    """
    kind = _TimedProtocol if limit is None else partial(_CountedProtocol, limit=limit)
    if head_s is None:
        head_s = HEAD_S if limit is None else PUBLIC_HEAD_S
    protocol = partial(kind, visited=visited, head_s=head_s, read_s=read_s)
    config = uvicorn.Config(
        app,
        http=cast("type[asyncio.Protocol]", protocol),
        ws=cast("type[asyncio.Protocol]", _websocket),
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,  # forwarding headers are not believed
        limit_concurrency=MOST_OF_ALL if limit is None else None,
        timeout_graceful_shutdown=_DRAIN_S,
    )
    server = _EmbeddedServer(config)
    server.visited = visited
    server.stopping = asyncio.create_task(stop.wait(), name="web stop")
    serving = asyncio.create_task(server.serve(sockets=[listening_socket]), name="web")
    try:
        await asyncio.wait({serving, server.stopping}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        server.should_exit = True
        server.stopping.cancel()
        await serving
