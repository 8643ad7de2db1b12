"""What stands before SMTP on a connection: the PROXY header of load balancers, and TLS.

A PROXY header that is not exactly right is an error: who is believed about addresses must be clear.
"""

from __future__ import annotations

import contextlib
import re
import ssl
import time
from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

from relaygw.errors import SettingsError
from relaygw.observe.maillog import MailLog
from relaygw.settings.certificates import server_context
from relaygw.settings.listeners import ListenerTls

# --- the PROXY protocol, versions 1 and 2 (HAProxy's proxy-protocol.txt); pure ---------------

_SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
_MAX_V1_BYTES = 107
_MAX_V2_BYTES = 16 + 2048  # addresses and what the balancer may tell besides
_V1 = re.compile(rb"PROXY (?:(TCP4|TCP6) ([0-9a-fA-F.:]{2,39}) [0-9a-fA-F.:]{2,39}"
                 rb" ([0-9]{1,5}) ([0-9]{1,5})|UNKNOWN[ -~]*)")  # fmt: skip
_LOCAL, _PROXY = 0x20, 0x21
_TCP4, _TCP6, _UNSPECIFIED = 0x11, 0x21, 0x00
_ADDRESS_BYTES = {_TCP4: 12, _TCP6: 36}


class BadHeader(ValueError):
    """What came is no PROXY header; the connection must be closed."""


class ProxyHeaderReader:
    """Collects the first bytes of a connection up to the end of the header."""

    def __init__(self) -> None:
        self._held = b""

    def feed(self, data: bytes) -> tuple[str | None, bytes] | None:
        """Return the client and what follows the header, None while more must come.

        The client is None when the balancer speaks for itself. Raises BadHeader.
        """
        self._held += data
        if self._held[:1] == b"P":
            return self._version_1()
        if self._held[: len(_SIGNATURE)] == _SIGNATURE[: len(self._held)]:
            return self._version_2() if len(self._held) >= 16 else None
        raise BadHeader("no PROXY header")

    def _version_1(self) -> tuple[str | None, bytes] | None:
        line, end, rest = self._held[:_MAX_V1_BYTES].partition(b"\r\n")
        if not end:
            if len(self._held) >= _MAX_V1_BYTES or not b"PROXY ".startswith(line[:6]):
                raise BadHeader("no PROXY header")
            return None
        match = _V1.fullmatch(line)
        if match is None:
            raise BadHeader("malformed PROXY header of version 1")
        rest = self._held[len(line) + 2 :]
        if match[1] is None:
            return None, rest
        if int(match[3]) > 65535 or int(match[4]) > 65535:
            raise BadHeader("PROXY header with a port beyond 65535")
        try:
            text = match[2].decode()
            return str(IPv4Address(text) if match[1] == b"TCP4" else IPv6Address(text)), rest
        except ValueError as error:
            raise BadHeader("PROXY header with a malformed address") from error

    def _version_2(self) -> tuple[str | None, bytes] | None:
        command, family = self._held[12], self._held[13]
        size_bytes = 16 + int.from_bytes(self._held[14:16], "big")
        if command not in (_LOCAL, _PROXY) or size_bytes > _MAX_V2_BYTES:
            raise BadHeader("malformed PROXY header of version 2")
        if len(self._held) < size_bytes:
            return None
        body, rest = self._held[16:size_bytes], self._held[size_bytes:]
        if command == _LOCAL or family == _UNSPECIFIED:
            return None, rest
        if family not in _ADDRESS_BYTES or len(body) < _ADDRESS_BYTES[family]:
            raise BadHeader("PROXY header for a protocol other than TCP")
        return str(IPv4Address(body[:4]) if family == _TCP4 else IPv6Address(body[:16])), rest


# --- TLS -----------------------------------------------------------------------------------

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
            instead = "the old one is kept" if had_one else "TLS is not offered"
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
