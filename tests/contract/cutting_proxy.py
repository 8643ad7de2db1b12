"""A TCP proxy before PostgreSQL that cuts a connection at the worst moment: at its COMMIT.

A cut is meant for the transaction that says something: `lose_answer("SET state = 'active'")` lets
the next claim's COMMIT reach the server, waits until that is done, and closes the client's
connection instead of passing the answer on. `hold_commit` closes it before, and keeps the COMMIT
until it is let go: meanwhile the transaction is open although its client is gone.
"""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from types import TracebackType
from typing import Self

_COMMIT = b"COMMIT\0"
_BYTES = 65536
_PATIENCE_S = 90.0


class Cut:
    """One cut that is to happen."""

    def __init__(self, marker: str, *, is_held: bool) -> None:
        self.marker = marker.encode()
        self.is_held = is_held
        self.happened = threading.Event()  # the client has lost its connection
        self.may_go_on = threading.Event()
        self.is_over = threading.Event()  # the server has done what it was told

    def let_go(self) -> None:
        """Pass a COMMIT on that was held, and wait until it is done."""
        self.may_go_on.set()
        assert self.is_over.wait(_PATIENCE_S)


class CuttingProxy:
    """Passes connections on to a server on this machine; `url` leads through it."""

    def __init__(self, url: str) -> None:
        address = url.partition("@")[2].partition("/")[0]
        self._target = ("127.0.0.1", int(address.rpartition(":")[2]))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = url.replace(address, f"127.0.0.1:{self._listener.getsockname()[1]}")
        self.cut: Cut | None = None
        self.is_frozen = False
        self._links: list[_Link] = []
        self._acceptor = threading.Thread(target=self._accept)

    def lose_answer(self, marker: str) -> Cut:
        """Lose the answer to the COMMIT of the next transaction that says `marker`."""
        self.cut = Cut(marker, is_held=False)
        return self.cut

    def hold_commit(self, marker: str) -> Cut:
        """Hold the COMMIT of the next transaction that says `marker`, and cut its client off."""
        self.cut = Cut(marker, is_held=True)
        return self.cut

    def cut_all(self) -> None:
        """Close all connections; new ones are passed on."""
        for link in self._links:
            link.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self._links.append(_Link(self, client, socket.create_connection(self._target)))

    def __enter__(self) -> Self:
        self._acceptor.start()
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _: TracebackType | None,
    ) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._acceptor.join()
        self._listener.close()
        if self.cut is not None:
            self.cut.may_go_on.set()
        for link in self._links:
            link.end()


class _Link:
    """One connection through the proxy, in two threads."""

    def __init__(self, proxy: CuttingProxy, client: socket.socket, server: socket.socket) -> None:
        self._proxy = proxy
        self._client = client
        self._server = server
        self._cut: Cut | None = None
        self._threads = [
            threading.Thread(target=work) for work in (self._pass_statements, self._pass_answers)
        ]
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """Close both sides."""
        _shut(self._client)
        _shut(self._server)

    def end(self) -> None:
        """Close both sides and wait for the threads."""
        if self._cut is not None:
            self._cut.may_go_on.set()
        self.close()
        for thread in self._threads:
            thread.join()
        self._client.close()
        self._server.close()

    def _pass_statements(self) -> None:
        said = b""
        with suppress(OSError):
            while data := self._client.recv(_BYTES):
                said += data
                cut = self._proxy.cut
                if _COMMIT in data and cut is not None and cut.marker in said:
                    self._proxy.cut, self._cut = None, cut
                    if cut.is_held:
                        _shut(self._client)
                        cut.happened.set()
                        cut.may_go_on.wait(_PATIENCE_S)
                    self._server.sendall(data)
                    self._server.shutdown(socket.SHUT_WR)  # it ends when it has done that
                    return
                if _COMMIT in data:
                    said = b""
                if not self._proxy.is_frozen:
                    self._server.sendall(data)
        _shut(self._server)

    def _pass_answers(self) -> None:
        with suppress(OSError):
            while data := self._server.recv(_BYTES):
                if self._cut is None and not self._proxy.is_frozen:
                    self._client.sendall(data)
        _shut(self._client)
        if self._cut is not None:
            self._cut.is_over.set()
            self._cut.happened.set()


def _shut(each: socket.socket) -> None:
    with suppress(OSError):
        each.shutdown(socket.SHUT_RDWR)
