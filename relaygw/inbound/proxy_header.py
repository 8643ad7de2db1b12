"""The PROXY protocol, versions 1 and 2 (HAProxy's proxy-protocol.txt). Pure.

A header that is not exactly right is an error: who is believed about addresses must be clear.
"""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv6Address

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
