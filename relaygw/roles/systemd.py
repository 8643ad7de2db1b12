"""systemd, where it started this process: the sockets it hands over, and what it is told."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import time
from collections.abc import Mapping

from relaygw.errors import SettingsError

_FIRST_DESCRIPTOR = 3
_TURN_AWAY_S = 5.0


class ServiceManager:
    """Whoever waits for word of this process on `$NOTIFY_SOCKET`; without one all is silent."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._address = environ.get("NOTIFY_SOCKET", "")
        is_meant = environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        limit = environ.get("WATCHDOG_USEC", "") if is_meant else ""
        limit_us = int(limit) if limit.isdecimal() else 0
        self.alive_each_s = limit_us / 2_000_000 or float("inf")
        """How often `alive` has to be called."""
        self.has_watchdog = bool(self._address) and limit_us > 0
        self._told_alive_s = time.monotonic()

    def ready(self, status: str) -> None:
        """Say that it serves, after a start or a reload."""
        self._tell("READY=1", f"STATUS={status}")

    def status(self, text: str) -> None:
        """Say what it does before it serves."""
        self._tell(f"STATUS={text}")

    def reloading(self) -> None:
        """Say that a reload has begun; `ready` ends it."""
        self._tell("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self) -> None:
        """Say that it drains and will end."""
        self._tell("STOPPING=1", "STATUS=draining")

    def alive(self) -> None:
        """Keep the watchdog quiet; costs nothing when it was told a moment ago."""
        if time.monotonic() - self._told_alive_s >= self.alive_each_s / 2:
            self._told_alive_s = time.monotonic()
            self._tell("WATCHDOG=1")

    def _tell(self, *lines: str) -> None:
        if not self._address:
            return
        address = "\0" + self._address[1:] if self._address[0] == "@" else self._address
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as end:
            end.sendto("\n".join(lines).encode(), address)


def handed_sockets(environ: Mapping[str, str]) -> list[socket.socket]:
    """Return the listening sockets of relaygw.socket. Raises SettingsError for others."""
    if environ.get("LISTEN_PID") != str(os.getpid()):
        return []  # none, or those of a parent
    count = environ.get("LISTEN_FDS") or "0"
    if not count.isdecimal():
        raise SettingsError(
            f"LISTEN_FDS is {count!r}, expected a number; systemd sets it, start relaygw without it"
        )
    last = _FIRST_DESCRIPTOR + int(count)
    return [_listening(number) for number in range(_FIRST_DESCRIPTOR, last)]


def _listening(descriptor: int) -> socket.socket:
    os.set_inheritable(descriptor, False)  # it is not for the programs that we start
    try:
        handed = socket.socket(fileno=descriptor)
        listens = handed.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
        is_internet = handed.family in (socket.AF_INET, socket.AF_INET6)
        if not listens or not is_internet or handed.type != socket.SOCK_STREAM:
            raise SettingsError(
                "relaygw.socket passes something other than a listening TCP socket; it may hold "
                "only ListenStream=ADDRESS:PORT, with Accept=no"
            )
        if handed.family == socket.AF_INET6 and not handed.getsockopt(
            socket.IPPROTO_IPV6, socket.IPV6_V6ONLY
        ):
            raise SettingsError(
                f"relaygw.socket: [{handed.getsockname()[0]}]:{handed.getsockname()[1]} takes IPv4 "
                "as well; set BindIPv6Only=ipv6-only in [Socket], and a ListenStream= for each"
            )
    except OSError as error:
        raise SettingsError(
            f"LISTEN_FDS: descriptor {descriptor} is not a socket ({error.strerror})"
        ) from error
    handed.setblocking(False)
    return handed


def turn_away_clients(environ: Mapping[str, str]) -> None:
    """Answer 421 to clients that wait at relaygw.socket, and for some seconds to those that follow.

    For a start that fails for good: a connection that still waits starts the service once more, at
    once, and after five times systemd closes the socket as well. Returns at once if none waits.
    """
    with contextlib.suppress(SettingsError):
        handed = handed_sockets(environ)
        ends_s, patience_s = time.monotonic() + _TURN_AWAY_S, 0.0
        while handed and (waiting := select.select(handed, [], [], patience_s)[0]):
            for listening in waiting:
                with contextlib.suppress(OSError), listening.accept()[0] as client:
                    client.send(b"421 4.3.2 Service not available, try again later\r\n")
            patience_s = max(0.0, ends_s - time.monotonic())
