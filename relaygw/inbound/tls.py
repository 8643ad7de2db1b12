"""TLS on a connection that is there, and the certificate, which may change."""

from __future__ import annotations

import contextlib
import ssl
import time
from collections.abc import Callable
from pathlib import Path

from relaygw.errors import SettingsError
from relaygw.observe.maillog import MailLog
from relaygw.settings.certificates import server_context
from relaygw.settings.listeners import ListenerTls

LOOK_AGAIN_S = 5.0
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
        said = b""
        try:
            if not self.is_established:
                self._tls.do_handshake()
                self.is_established = True
            while part := self._tls.read(_READ_BYTES):
                said += part
            self.is_ended = True
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            self.is_ended = True
        finally:
            self._flush()  # an alert, too
        return said

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


class Certificate:
    """Gives each handshake the certificate of now; one that cannot be used changes nothing."""

    def __init__(self, tls: ListenerTls, *, name: str, log: MailLog) -> None:
        self._tls = tls
        self._name = name
        self._log = log
        self._context: ssl.SSLContext | None = None
        self._stamps: tuple[object, ...] = ()
        self._looked_at_s = float("-inf")

    def context(self) -> ssl.SSLContext | None:
        """Return the context of a handshake; None while there was no usable certificate yet."""
        now_s = time.monotonic()
        if now_s - self._looked_at_s >= LOOK_AGAIN_S:
            self._looked_at_s = now_s
            self._read_if_changed()
        return self._context

    def _read_if_changed(self) -> None:
        stamps = tuple(map(_stamp, dict.fromkeys((self._tls.cert, self._tls.key))))
        if stamps == self._stamps:
            return
        had_one, self._stamps = self._context is not None, stamps
        try:
            self._context = server_context(self._tls)
        except SettingsError as error:
            instead = "the old one is kept" if had_one else "TLS is not offered"
            self._log.note("smtpd", f"error: listener {self._name}: {error}; {instead}")
            return
        if had_one:
            self._log.note("smtpd", f"listener {self._name}: new certificate {self._tls.cert}")


def _stamp(path: str | None) -> object:
    with contextlib.suppress(OSError):
        if path is not None:
            status = Path(path).stat()
            # another owner or mode may make it one that can be read
            return status.st_ctime_ns, status.st_mtime_ns, status.st_ino, status.st_size
    return None
