"""The certificate of a listener, read again when its file changes.

A new certificate that cannot be used changes nothing; the log says so once.
"""

from __future__ import annotations

import contextlib
import ssl
import time
from pathlib import Path

from relaygw.errors import SettingsError
from relaygw.observe.maillog import MailLog
from relaygw.settings.certificates import server_context
from relaygw.settings.listener import ListenerTls

LOOK_AGAIN_S = 5.0


class Certificate:
    """Gives each handshake the certificate of now."""

    def __init__(self, tls: ListenerTls, *, name: str, log: MailLog) -> None:
        self._tls = tls
        self._name = name
        self._log = log
        self._context: ssl.SSLContext | None = None
        self._stamps: tuple[object, ...] = ()
        self._looked_at_s = float("-inf")

    def context(self) -> ssl.SSLContext | None:
        """Return what a handshake needs; None while there was no usable certificate yet."""
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
            instead = "the old one stays" if had_one else "TLS is not offered"
            self._log.note("smtpd", f"error: listener {self._name}: {error}; {instead}")
            return
        if had_one:
            self._log.note("smtpd", f"listener {self._name}: new certificate {self._tls.cert}")


def _stamp(path: str | None) -> object:
    with contextlib.suppress(OSError):
        if path is not None:
            status = Path(path).stat()
            return status.st_mtime_ns, status.st_ino, status.st_size
    return None
