"""TLS on an SMTP connection: bytes of the wire in, bytes of the client out.

By memory buffers, so that TLS can begin at any byte of a connection: at once, after STARTTLS,
behind a PROXY header. Whatever was received before it began never gets in here.
"""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import Callable

_READ_BYTES = 64 * 1024


class TlsLayer:
    """The server's side of one TLS connection."""

    def __init__(self, context: ssl.SSLContext, *, send: Callable[[bytes], None]) -> None:
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._send = send
        self.is_established = False
        self.is_ended = False  # the client said that it sends no more

    def feed(self, data: bytes) -> bytes:
        """Take what came from the wire; return what the client said. Raises ssl.SSLError."""
        self._incoming.write(data)
        try:
            if not self.is_established:
                self._tls.do_handshake()
                self.is_established = True
            return self._read()
        except ssl.SSLWantReadError:
            return b""
        finally:
            self._flush()  # an alert, too

    def _read(self) -> bytes:
        parts: list[bytes] = []
        while not self.is_ended:
            try:
                part = self._tls.read(_READ_BYTES)
            except ssl.SSLWantReadError:
                break
            except ssl.SSLZeroReturnError:
                part = b""
            self.is_ended = not part
            parts.append(part)
        return b"".join(parts)

    def write(self, data: bytes) -> None:
        """Send to the client; before the handshake is done there is nobody to send to."""
        if self.is_established:
            self._tls.write(data)
            self._flush()

    def close(self) -> None:
        """Tell the client that nothing more comes."""
        if self.is_established:
            with contextlib.suppress(ssl.SSLError):
                self._tls.unwrap()  # does not wait for the client's answer
            self._flush()

    def _flush(self) -> None:
        if self._outgoing.pending:
            self._send(self._outgoing.read())
