"""A receiver of webhooks as a shop has one: checks the signature, keeps the events.

    with EventReceiver() as receiver:
        ... webhooks: [{url: receiver.url, secret: "plain:SECRET"}] ...
        receiver.wait_for(1)
        assert receiver.events[0]["kind"] == "delivered"

`answer` may be changed while it runs: a status (2xx takes the events), or a function that gets the
handler and answers as it likes. `events` are those that were taken, `posts` all posts with a right
signature as (webhook-id, events); what has none raises in `check`.
"""

from __future__ import annotations

import ssl
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from standardwebhooks import Webhook

SECRET = "whsec_" + "A" * 32
PATIENCE_S = 60.0
Answer = int | Callable[[BaseHTTPRequestHandler], None]


class EventReceiver:
    """See the module's text."""

    def __init__(self, answer: Answer = 200, *, tls: ssl.SSLContext | None = None) -> None:
        self.answer = answer
        self.headers: dict[str, str] = {}  # sent with each answer
        self.events: list[dict[str, Any]] = []
        self.posts: list[tuple[str, list[dict[str, Any]]]] = []
        self.bodies: list[dict[str, Any]] = []
        self.asked = 0
        self.problems: list[str] = []
        self.is_over = threading.Event()
        self._changed = threading.Condition()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                receiver._take(self, self.rfile.read(int(self.headers["Content-Length"])))

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._scheme = "http" if tls is None else "https"
        if tls is not None:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    @property
    def port(self) -> int:
        return self._server.server_address[1]

    @property
    def url(self) -> str:
        return f"{self._scheme}://127.0.0.1:{self.port}/events/token-of-the-url?key=hidden"

    @property
    def kinds(self) -> list[str]:
        return [one["kind"] for one in self.events]

    def wait_for(self, count: int, patience_s: float = PATIENCE_S) -> None:
        """Wait until so many events were taken, one taken twice counting twice."""
        self._wait(lambda: len(self.events) >= count, patience_s, count)

    def wait_for_asked(self, count: int, patience_s: float = PATIENCE_S) -> None:
        """Wait until so many requests came, whatever became of them."""
        self._wait(lambda: self.asked >= count, patience_s, count)

    def check(self) -> None:
        """Raise if a post had no right signature."""
        assert self.problems == []

    def _wait(self, is_so: Callable[[], bool], patience_s: float, count: int) -> None:
        with self._changed:
            if not self._changed.wait_for(is_so, patience_s):
                found = f"{len(self.events)} events, {self.asked} requests; {self.problems}"
                raise AssertionError(f"{found}; expected {count}")

    def _take(self, handler: BaseHTTPRequestHandler, body: bytes) -> None:
        answer, events = self.answer, self._verified(dict(handler.headers), body)
        with self._changed:
            self.asked += 1
            if answer in range(200, 300):
                self.events += events
            self._changed.notify_all()
        with suppress(OSError):
            if not isinstance(answer, int):
                answer(handler)
                return
            handler.send_response(answer)
            for name, value in self.headers.items():
                handler.send_header(name, value)
            handler.send_header("Content-Length", "0")
            handler.end_headers()

    def _verified(self, headers: dict[str, str], body: bytes) -> Sequence[dict[str, Any]]:
        try:
            found = Webhook(SECRET).verify(body, headers)
        except Exception as error:
            self.problems.append(repr(error))
            return ()
        self.bodies.append(found)
        given = {name.lower(): value for name, value in headers.items()}
        self.posts.append((given["webhook-id"], found["data"]["events"]))
        events: list[dict[str, Any]] = found["data"]["events"]
        return events

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self.is_over.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
