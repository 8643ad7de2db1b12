"""Senders of very large messages; a process of its own for each kind of body.

They give way to everybody else (nice 10), so that a probe beside them is not starved by its
own tester. Prints how many messages were answered 250, the seconds that the slowest took, and
an answer of another kind, if there is one.
"""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from bench.rig.gateway import ROOT

KINDS = {
    "empty lines": b"\r\n",
    "one line": b"x",  # no CRLF before the end
    "ordinary": b"y" * 76 + b"\r\n",
    "998 bytes": b"z" * 998 + b"\r\n",
    "dots": b"..dotted\r\n",
}
_SLICE_BYTES = 65536
_PATIENCE_S = 300.0


@dataclass(frozen=True)
class Told:
    """What a sender reports: how many 250, the slowest in seconds, another answer if any."""

    accepted: int
    slowest_s: float
    other: str


class BulkSender:
    """The process that sends one kind; entered, it sends."""

    def __init__(self, port: int, kind: str, size_bytes: int, *, connections: int) -> None:
        self._arguments = [str(port), kind, str(size_bytes), str(connections)]
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            ["nice", "-n", "10", sys.executable, "-m", "bench.standing.bulk", *self._arguments],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        with suppress(OSError):  # where the kernel shares by session first, and then by nice
            Path(f"/proc/{self._process.pid}/autogroup").write_text("10")
        return self

    def __exit__(self, *_exc: object) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def wait(self) -> Told:
        """Wait for its end."""
        assert self._process is not None
        accepted, slowest_s, other = self._process.communicate()[0].strip("\n").split(" ", 2)
        return Told(int(accepted), float(slowest_s), other)


def body(kind: str, size_bytes: int) -> bytes:
    """Return `size_bytes` or a little more of one kind, ready for the wire."""
    unit = KINDS[kind]
    return unit * -(-size_bytes // len(unit))


def _send(port: int, kind: str, content: bytes, number: int, answers: list[str]) -> None:
    address = ("127.0.0.1", port)
    with socket.create_connection(address, timeout=_PATIENCE_S) as client:
        replies = client.makefile("rb")
        replies.readline()
        client.sendall(b"HELO bulk.bench.test\r\n")
        replies.readline()
        for command in (
            b"MAIL FROM:<bulk@tx.bench.test>\r\n",
            f"RCPT TO:<customer-{number}@example.net>\r\n".encode(),
            b"DATA\r\n",
        ):
            client.sendall(command)
            replies.readline()
        client.sendall(f"Subject: {kind}\r\n\r\n".encode())
        view = memoryview(content)
        for at in range(0, len(view), _SLICE_BYTES):
            client.sendall(view[at : at + _SLICE_BYTES])
        client.sendall(b"\r\n.\r\n")
        answers.append(replies.readline().decode(errors="replace").strip())


def _try_to_send(port: int, kind: str, content: bytes, number: int, answers: list[str]) -> None:
    try:
        _send(port, kind, content, number, answers)
    except OSError as error:
        answers.append(f"{type(error).__name__}: {error}")


def main() -> None:
    """Send: port, kind, bytes, connections."""
    port, kind, size_bytes, connections = sys.argv[1:]
    content = body(kind, int(size_bytes))
    answers: list[str] = []
    begun_s = time.monotonic()
    threads = [
        threading.Thread(target=_try_to_send, args=(int(port), kind, content, number, answers))
        for number in range(int(connections))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    accepted = sum(answer.startswith("250") for answer in answers)
    other = next((answer for answer in answers if not answer.startswith("250")), "")
    print(accepted, f"{time.monotonic() - begun_s:.1f}", other)


if __name__ == "__main__":
    main()
