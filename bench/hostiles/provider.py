"""A provider that takes mail and answers each with the next of the hostile replies."""

from __future__ import annotations

import socketserver
import threading
from collections.abc import Iterable, Iterator
from typing import Any, Self

_TAKEN = b"250 2.0.0 ok\r\n"


class _Session(socketserver.StreamRequestHandler):
    server: Replying

    def handle(self) -> None:
        self.wfile.write(b"220 p.test\r\n")
        while line := self.rfile.readline():
            verb = line[:4].upper().rstrip()
            if verb == b"EHLO":
                self.wfile.write(b"250-p.test\r\n250-8BITMIME\r\n250 SMTPUTF8\r\n")
            elif verb == b"DATA":
                self.wfile.write(b"354 go\r\n")
                while (data := self.rfile.readline()) and data != b".\r\n":
                    pass
                self.wfile.write(self.server.next_reply())
            elif verb == b"QUIT":
                self.wfile.write(b"221 bye\r\n")
                return
            else:
                self.wfile.write(_TAKEN)


class Replying(socketserver.ThreadingTCPServer):
    """Entered, listens on a free port; `replies` are given to one content after the other."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Session)
        self.port: int = self.server_address[1]
        self.given = 0
        self._replies: Iterator[bytes] = iter(())
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        threading.Thread(target=self.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *exc: Any) -> None:
        self.shutdown()
        self.server_close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of a gateway that hangs up on a reply."""

    def answer_with(self, replies: Iterable[bytes]) -> None:
        """Give these from now on; mail is taken when they are used up."""
        with self._lock:
            self._replies, self.given = iter(replies), 0

    def next_reply(self) -> bytes:
        """Return the next reply to a content."""
        with self._lock:
            reply = next(self._replies, None)
            self.given += reply is not None
        return reply or _TAKEN
