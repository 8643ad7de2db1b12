"""HTTP of uvicorn with a limit on how long a client may take to say what it wants.

uvicorn itself waits for ever for the first request of a connection and for the end of a head,
and a few hundred connections of one that says nothing would keep everybody else out.
"""

from __future__ import annotations

import asyncio

from uvicorn.protocols.http.h11_impl import H11Protocol

HEAD_S = 20.0
"""From the connection, or the first byte of a later request, to the end of the head."""


class PatientProtocol(H11Protocol):
    """Closes a connection whose next request does not come whole."""

    _limit: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait."""
        super().connection_made(transport)
        self._limit = self.loop.call_later(HEAD_S, self._give_up)

    def data_received(self, data: bytes) -> None:
        """Take bytes; more of a head do not buy more time."""
        super().data_received(data)
        is_waiting = self.cycle is None or self.cycle.response_complete
        if not is_waiting or self.transport.get_protocol() is not self:  # or it is a websocket
            self._stop_waiting()
        elif self._limit is None:
            self._limit = self.loop.call_later(HEAD_S, self._give_up)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget it."""
        self._stop_waiting()
        super().connection_lost(exc)

    def _stop_waiting(self) -> None:
        if self._limit is not None:
            self._limit.cancel()
            self._limit = None

    def _give_up(self) -> None:
        self._limit = None
        self.transport.close()
