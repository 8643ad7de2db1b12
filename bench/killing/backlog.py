"""How much the clients may send: the load follows the gateway, so that its queue stays bounded."""

from __future__ import annotations

import asyncio
from pathlib import Path

from bench.history import Tail

_POLL_S = 0.003


class Backlog:
    """What was acknowledged and not yet taken by the sink."""

    def __init__(self, history: Path, *, limit: int) -> None:
        self._tail = Tail(history, from_its_end=True)
        self._limit = limit
        self._taken: set[str] = set()
        self._waiting: set[str] = set()
        self._has_room = asyncio.Event()

    def acknowledged(self, message_id: str) -> None:
        """Count a message."""
        if message_id not in self._taken:
            self._waiting.add(message_id)
            self._update()

    async def room(self) -> None:
        """Return when another message may be sent."""
        await self._has_room.wait()

    async def follow(self) -> None:
        """Read the history until cancelled."""
        while True:
            for event in self._tail.read():
                if event.f == "dot":
                    self._taken.add(event.message)
                    self._waiting.discard(event.message)
            self._update()
            await asyncio.sleep(_POLL_S)

    def _update(self) -> None:
        if len(self._waiting) < self._limit:
            self._has_room.set()
        else:
            self._has_room.clear()
