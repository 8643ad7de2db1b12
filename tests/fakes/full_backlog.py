"""A port that neither accepts nor refuses: its backlog is full, so a connection hangs."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress

_ENOUGH = 4


@contextmanager
def full_backlog() -> Iterator[int]:
    """Give a loopback port on which connecting gets no answer."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        port: int = listener.getsockname()[1]
        waiting = [socket.socket() for _ in range(_ENOUGH)]
        try:
            for client in waiting:
                client.setblocking(False)
                with suppress(BlockingIOError):
                    client.connect(("127.0.0.1", port))
            yield port
        finally:
            for client in waiting:
                client.close()
