"""TCP connections to a host with several addresses, the slow ones raced (RFC 8305).

Addresses take turns by family; the next is tried when the one before fails, or after a quarter
of a second, whichever comes first. The first connection wins and the others are closed. Raises
OSError (TimeoutError among them) with a text for the log that names the address.
"""

from __future__ import annotations

import asyncio
import os
import socket
from itertools import chain, zip_longest
from typing import Any

_NEXT_ADDRESS_AFTER_S = 0.25
_Address = tuple[socket.AddressFamily, Any]  # family and what socket.connect takes
_Attempt = asyncio.Task[tuple[socket.socket, str]]


async def connect_socket(host: str, port: int, *, timeout_s: float) -> tuple[socket.socket, str]:
    """Return a connected, non-blocking socket and the address it is connected to.

    `timeout_s` covers the name lookup too.
    """
    try:
        async with asyncio.timeout(timeout_s):
            found = await asyncio.get_running_loop().getaddrinfo(
                host, port, type=socket.SOCK_STREAM
            )
            return await connect_first(host, interleave([(info[0], info[4]) for info in found]))
    except socket.gaierror as error:
        raise OSError(f"Host {host} not found: {error.strerror}") from error
    except UnicodeError as error:
        raise OSError(f"Host {host!r} is no host name: {error}") from error
    except TimeoutError as error:
        raise TimeoutError(f"connect to {host}:{port}: no answer within {timeout_s:g} s") from error


def interleave(addresses: list[_Address]) -> list[_Address]:
    """Return `addresses` with the families taking turns, the resolver's first family first."""
    families = dict.fromkeys(family for family, _ in addresses)
    columns = [[one for one in addresses if one[0] == family] for family in families]
    return [one for one in chain.from_iterable(zip_longest(*columns)) if one is not None]


async def connect_first(host: str, addresses: list[_Address]) -> tuple[socket.socket, str]:
    """Return the first connection to be made; raises the first address's OSError if none is."""
    attempts: list[_Attempt] = []
    pending: set[_Attempt] = set()
    winner: tuple[socket.socket, str] | None = None
    try:
        while winner is None and (pending or len(attempts) < len(addresses)):
            if len(attempts) < len(addresses):
                attempt = asyncio.create_task(_connect(host, addresses[len(attempts)]))
                attempts.append(attempt)
                pending.add(attempt)
            is_last = len(attempts) == len(addresses)
            done, pending = await asyncio.wait(
                pending,
                timeout=None if is_last else _NEXT_ADDRESS_AFTER_S,
                return_when=asyncio.FIRST_COMPLETED,
            )
            winner = next((one.result() for one in done if one.exception() is None), None)
    finally:
        _close_losers(attempts, winner)
    if winner is None:
        raise attempts[0].exception() or OSError(f"Host {host} has no address")
    return winner


def _close_losers(attempts: list[_Attempt], winner: tuple[socket.socket, str] | None) -> None:
    # no waiting here: a caller cancelled while it waits would lose the winner's socket
    for attempt in attempts:
        if not attempt.done():
            attempt.cancel()  # it closes its own socket
        elif attempt.exception() is None and attempt.result() is not winner:
            attempt.result()[0].close()


async def _connect(host: str, address: _Address) -> tuple[socket.socket, str]:
    family, target = address
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setblocking(False)
    try:
        await asyncio.get_running_loop().sock_connect(sock, target)
    except OSError as error:
        sock.close()
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise OSError(f"connect to {host}[{target[0]}]:{target[1]}: {reason}") from error
    except BaseException:
        sock.close()
        raise
    return sock, target[0]
