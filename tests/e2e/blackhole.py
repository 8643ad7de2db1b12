"""A TCP proxy that can fall silent: nothing passes, nothing is closed, no reset is sent.

So does a network that drops packets, until TCP's own timers notice; or a server whose host is
frozen, which they never do.
"""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from typing import Self

_BYTES = 65536


class Blackhole:
    """Passes connections on to a port of this machine, until it is `silent`."""

    def __init__(self, target: int) -> None:
        self._target = ("127.0.0.1", target)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._passes = threading.Event()
        self._passes.set()
        self._sockets: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept)]

    def fall_silent(self) -> None:
        """Pass nothing on from now on; new connections are taken, and that is all."""
        self._passes.clear()

    def speak_again(self) -> None:
        """Pass on what came meanwhile, and what comes."""
        self._passes.set()

    def __enter__(self) -> Self:
        self._threads[0].start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self._passes.set()
        _shut(self._listener)
        self._threads[0].join()
        for each in self._sockets:
            _shut(each)
        for thread in self._threads[1:]:
            thread.join()
        for each in (self._listener, *self._sockets):
            each.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(self._target)
                self._sockets += [client, server]
                for pair in ((client, server), (server, client)):
                    self._threads.append(threading.Thread(target=self._pass_on, args=pair))
                    self._threads[-1].start()

    def _pass_on(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while octets := source.recv(_BYTES):
                self._passes.wait()
                target.sendall(octets)
        self._passes.wait()
        _shut(target)


def _shut(each: socket.socket) -> None:
    with suppress(OSError):
        each.shutdown(socket.SHUT_RDWR)
