"""Where the host of a provider is: lookups of its name, which hold up nobody else.

The system's resolver blocks, for half a minute where no server of a name answers. A pool of
threads would fill with a provider whose name hangs: that of uvloop has four. So each name has a
thread of its own while it is looked up, and all who ask for it meanwhile share its answer.
"""

from __future__ import annotations

import asyncio
import socket
from concurrent.futures import Future
from contextlib import suppress
from threading import Lock, Thread
from typing import Any

SocketAddress = tuple[socket.AddressFamily, Any]
"""A family, and what socket.connect takes."""
_Key = tuple[str, int]
_lock = Lock()
_under_way: dict[_Key, Future[list[SocketAddress]]] = {}


async def look_up(host: str, port: int) -> list[SocketAddress]:
    """Return where a host is; raises socket.gaierror or UnicodeError. Who cancels ends nothing."""
    with suppress(socket.gaierror):
        return _resolve(host, port, flags=socket.AI_NUMERICHOST)  # which asks nobody
    return await asyncio.wrap_future(_begun((host, port)))


def _begun(key: _Key) -> Future[list[SocketAddress]]:
    with _lock:
        found = _under_way.get(key)
        if found is None:
            found = _under_way[key] = Future()
            found.set_running_or_notify_cancel()  # it belongs to all: nobody cancels it
            Thread(target=_answer, args=(key, found), name="lookup", daemon=True).start()
        return found


def _answer(key: _Key, asked: Future[list[SocketAddress]]) -> None:
    addresses: list[SocketAddress] = []
    failure: Exception | None = None
    try:
        addresses = _resolve(*key)
    except Exception as error:
        failure = error
    with _lock:
        del _under_way[key]
    if failure is None:
        asked.set_result(addresses)
    else:
        asked.set_exception(failure)


def _resolve(host: str, port: int, *, flags: int = 0) -> list[SocketAddress]:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=flags)
    return [(family, address) for family, _, _, _, address in found]
