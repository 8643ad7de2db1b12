"""A token endpoint to test against: a real HTTP server on a loopback port.

    with TokenEndpoint() as endpoint:
        endpoint.answers.append((400, {"error": "invalid_grant"}))  # the next request only
        ... fetch a token from endpoint.url ...
        assert endpoint.requests[0]["grant_type"] == "refresh_token"

Without prepared answers it gives `token-1`, `token-2`, … for an hour each. An answer's body is an
object (sent as JSON) or bytes; the answer HANG says nothing until the server stops. With
`certificate` "valid" or "untrusted" it speaks TLS; `ca` is then the file to trust.
"""

from __future__ import annotations

import json
import ssl
import tempfile
import threading
from collections import deque
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self
from urllib.parse import parse_qsl

import trustme

HANG = (0, b"")
ECHO = (0, b"echo")
"""A refusal that shows the client assertion."""


class TokenEndpoint:
    """A server in a thread; see the module's text."""

    def __init__(self, certificate: str | None = None) -> None:
        self.answers: deque[tuple[int, Any]] = deque()
        self.requests: list[dict[str, str]] = []
        self.given = 0
        self.is_asked = threading.Event()
        self.ca = ""
        self._certificate = certificate
        self._stopping = threading.Event()
        self._directory = tempfile.TemporaryDirectory(prefix="token-endpoint-")

    def __enter__(self) -> Self:
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        scheme = "http"
        if self._certificate is not None:
            self._protect()
            scheme = "https"
        self.url = f"{scheme}://127.0.0.1:{self._server.server_address[1]}/token"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
        self._directory.cleanup()

    def oauth(self, **more: Any) -> dict[str, Any]:
        """Return a section `oauth` that leads here."""
        return {"token_url": self.url, "client_id": "app", "client_secret": "plain:app-key", **more}

    def _protect(self) -> None:
        trusted = trustme.CA()
        path = Path(self._directory.name) / "ca.pem"
        trusted.cert_pem.write_to_path(path)
        self.ca = str(path)
        issuer = trusted if self._certificate == "valid" else trustme.CA()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        issuer.issue_cert("127.0.0.1").configure_cert(context)
        self._server.socket = context.wrap_socket(
            self._server.socket, server_side=True, do_handshake_on_connect=False
        )

    def _answer(self, form: dict[str, str], path: str) -> tuple[int, Any]:
        self.requests.append(form)
        self.is_asked.set()
        if self.answers:
            return self.answers.popleft()
        self.given += 1
        token = f"token-{self.given}"
        return 200, {"access_token": token, "token_type": "Bearer", "expires_in": 3600}

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                form = self.rfile.read(int(self.headers["Content-Length"])).decode()
                status, body = endpoint._answer(dict(parse_qsl(form)), self.path)
                if (status, body) == ECHO:
                    said = f"no {dict(parse_qsl(form))['client_assertion']}"
                    status, body = 401, {"error": "invalid_client", "error_description": said}
                if (status, body) == HANG:
                    endpoint._stopping.wait()
                    return
                octets = body if isinstance(body, bytes) else json.dumps(body).encode()
                self.send_response(status)
                if 300 <= status < 400:
                    self.send_header("Location", endpoint.url)
                self.send_header("Content-Length", str(len(octets)))
                self.end_headers()
                self.wfile.write(octets)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        return Handler
