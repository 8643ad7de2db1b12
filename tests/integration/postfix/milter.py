"""A milter that changes what one sender's mail is: recipients, header and body.

with Milter() as milter:
    ... smtpd_milters = inet:127.0.0.1:{milter.port} ...
"""

from __future__ import annotations

import socketserver
import struct
import threading
from typing import Self

SENDER = "milter@shop.test"
ADDED, DELETED = "added@later.test", "deleted@later.test"
BODY = b"another and much longer body\r\n" * 20
_ACTIONS = 0x01 | 0x02 | 0x04 | 0x08 | 0x10  # header, body, recipients added and deleted, changed
_UNASKED = 0x01 | 0x02 | 0x08 | 0x10 | 0x20 | 0x40 | 0x100 | 0x200  # all steps but MAIL
_NO_ANSWER = (b"D", b"A")


class _Session(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        is_ours = False
        while len(head := self.rfile.read(4)) == 4:
            packet = self.rfile.read(struct.unpack(">I", head)[0])
            command, data = packet[:1], packet[1:]
            if command == b"Q":
                return
            if command == b"O":
                self._send(b"O" + struct.pack(">III", 6, _ACTIONS, _UNASKED))
            elif command == b"E" and is_ours:
                self._send(b"h" + b"X-Milter\0was here\0")
                self._send(b"+" + f"<{ADDED}>\0".encode())
                self._send(b"-" + f"<{DELETED}>\0".encode())
                self._send(b"b" + BODY)
                self._send(b"a")
            elif command not in _NO_ANSWER:
                is_ours = SENDER.encode() in data if command == b"M" else is_ours
                self._send(b"c")

    def _send(self, packet: bytes) -> None:
        self.wfile.write(struct.pack(">I", len(packet)) + packet)


class Milter:
    """Listens on `port` for the length of a with block."""

    def __init__(self) -> None:
        self._server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), _Session)
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
