"""uvicorn inside an event loop of ours: a socket that is given, no signals, no access log.

The role that calls decides on signals and on the socket. Forwarding headers are not believed
and the application has no lifespan events.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
from starlette.types import ASGIApp

from relaygw.web.patience import PatientProtocol

_DRAIN_S = 5  # how long a stop waits for answers that are under way
_MAX_CONNECTIONS = 500


class _EmbeddedServer(uvicorn.Server):
    stopping: asyncio.Task[object]

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def main_loop(self) -> None:
        """Wake once a second for the Date field, not ten times as uvicorn's own does."""
        ticks = 0
        while not await self.on_tick(ticks):
            await asyncio.wait({self.stopping}, timeout=1.0)
            ticks += 10


async def serve_web(app: ASGIApp, listening_socket: socket.socket, *, stop: asyncio.Event) -> None:
    """Serve `app` until `stop` is set, then finish what is under way and return.

    Closes the socket. Connections beyond 500 at a time get 503. Cancelling stops in the
    same way before the cancellation goes on.
    """
    server = _EmbeddedServer(
        uvicorn.Config(
            app,
            http=PatientProtocol,
            ws="websockets-sansio",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            limit_concurrency=_MAX_CONNECTIONS,
            timeout_graceful_shutdown=_DRAIN_S,
        )
    )
    server.stopping = asyncio.create_task(stop.wait(), name="web stop")
    serving = asyncio.create_task(server.serve(sockets=[listening_socket]), name="web")
    try:
        await asyncio.wait({serving, server.stopping}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        server.should_exit = True
        server.stopping.cancel()
        await serving
