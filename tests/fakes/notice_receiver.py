"""A receiver of webhooks to test against: a real HTTP server in threads of its own.

    with NoticeReceiver() as receiver:
        ... alerts: [{webhook: receiver.url}] ...
        receiver.wait_for(1)
        assert receiver.bodies[0]["state"] == "open"

A GET, as of `heartbeat_url`, counts as a notice without fields.

`behaviour` may be changed while it runs: ANSWER (200), FAIL (500), HANG (reads, says nothing),
CLOSE (closes without a word), DRIP (a byte of an endless header now and then), REDIRECT.
`bodies` are those that were answered with 200; `asked` counts all requests.
"""

from __future__ import annotations

import json
import threading
import time
from contextlib import suppress
from enum import Enum, auto
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

PATIENCE_S = 60.0


class Behaviour(Enum):
    ANSWER = auto()
    FAIL = auto()
    HANG = auto()
    CLOSE = auto()
    DRIP = auto()
    REDIRECT = auto()


class NoticeReceiver:
    """See the module's text."""

    def __init__(self, behaviour: Behaviour = Behaviour.ANSWER) -> None:
        self.behaviour = behaviour
        self.bodies: list[dict[str, Any]] = []
        self.taken_at_s: list[float] = []  # time.monotonic, of each body
        self.asked = 0
        self._changed = threading.Condition()
        self._is_over = threading.Event()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                receiver._take(self, body)

            def do_GET(self) -> None:
                receiver._take(self, {})

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    @property
    def port(self) -> int:
        return self._server.server_address[1]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook/secret"

    def wait_for(self, count: int, patience_s: float = PATIENCE_S) -> None:
        """Wait until so many notices were taken."""
        with self._changed:
            if not self._changed.wait_for(lambda: len(self.bodies) >= count, patience_s):
                raise AssertionError(f"{len(self.bodies)} of {count} notices: {self.bodies}")

    def wait_for_asked(self, count: int, patience_s: float = PATIENCE_S) -> None:
        """Wait until so many requests came, whatever became of them."""
        with self._changed:
            if not self._changed.wait_for(lambda: self.asked >= count, patience_s):
                raise AssertionError(f"{self.asked} of {count} requests")

    def _take(self, handler: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
        behaviour = self.behaviour
        with self._changed:
            self.asked += 1
            self._changed.notify_all()
        match behaviour:
            case Behaviour.ANSWER:
                with self._changed:
                    self.bodies.append(body)
                    self.taken_at_s.append(time.monotonic())
                    self._changed.notify_all()
                self._answer(handler, 200)
            case Behaviour.FAIL:
                self._answer(handler, 500)
            case Behaviour.REDIRECT:
                handler.send_response(307)
                handler.send_header("Location", "/elsewhere")
                handler.send_header("Content-Length", "0")
                handler.end_headers()
            case Behaviour.HANG:
                self._is_over.wait()
            case Behaviour.DRIP:
                with suppress(OSError):
                    handler.wfile.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
                    while not self._is_over.wait(0.05):
                        handler.wfile.write(b"a")
            case Behaviour.CLOSE:
                handler.close_connection = True

    @staticmethod
    def _answer(handler: BaseHTTPRequestHandler, status: int) -> None:
        with suppress(OSError):
            handler.send_response(status)
            handler.send_header("Content-Length", "0")
            handler.end_headers()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self._is_over.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
