"""Has bounce mails read by a process with limits: a hostile one ends that, and nobody waits.

Anybody may write a bounce mail, and some mails take those who read them minutes. The process reads
one mail after the other, each with a limit of processor time, of memory and of time by the clock. A
busy machine sets no mail aside: what took too long by the clock alone is read again later.
"""

from __future__ import annotations

import contextlib
import json
import signal
import struct
import subprocess
import sys
import threading
from pathlib import Path

from relaygw.mail.verdict import Event, Kind

MAX_BYTES = 1 << 18
"""What is read of a bounce mail; the report stands before the mail that came back."""
REQUEST = struct.Struct(">QI")
"""Before each content: when it was received, in ms, and how many bytes it has."""
OUT_OF_MEMORY = 3
"""The exit code of a process that a mail takes too much memory of."""
CHILD = Path(__file__).with_name("bounce_mail_child.py")
_MAX_ANSWER_BYTES = 16 * 2**20
PATIENCE_S = 10.0  # less than a reader has a post for


class NotRead(Exception):
    """A mail that the process did not read to its end; the text says how that ended."""


class TooExpensive(NotRead):
    """A mail that takes more processor time or memory than there is for one."""


class BounceReader:
    """The process that reads, started for the first mail; one thread at a time may use it.

    `hostname` is this gateway's: its own notices are known already.
    """

    def __init__(
        self, hostname: str, *, patience_s: float = PATIENCE_S, child: Path = CHILD
    ) -> None:
        self._hostname = hostname
        self._patience_s, self._child = patience_s, child
        self._process: subprocess.Popen[bytes] | None = None

    def read(self, content: bytes, *, received_at_ms: int) -> list[Event]:
        """Return the events in a mail, a recipient under each address that it has there; blocks.

        Raises NotRead, and OSError when the process cannot start.
        """
        process = self._process = self._process or self._start()
        assert process.stdin is not None and process.stdout is not None
        content = content[:MAX_BYTES]
        limit = threading.Timer(self._patience_s, process.kill)
        limit.start()
        answer = b""
        try:
            with contextlib.suppress(OSError):  # it has ended
                process.stdin.write(REQUEST.pack(received_at_ms, len(content)) + content)
                process.stdin.flush()
                answer = process.stdout.readline(_MAX_ANSWER_BYTES)
        finally:
            limit.cancel()
        if not answer.endswith(b"\n"):
            raise self._failure(has_too_much=bool(answer))
        return [
            Event(**{**told, "kind": Kind(told["kind"]), "address": address})
            for told, addresses in json.loads(answer)
            for address in addresses
        ]

    def close(self) -> int:
        """End the process, if one runs; the next mail starts another. Return its exit code."""
        process, self._process = self._process, None
        if process is None:
            return 0
        with contextlib.suppress(OSError), process:  # its pipes close; one may be broken
            process.kill()
        return process.returncode

    def _start(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-I", "-B", str(self._child), self._hostname],
            env={},
            cwd="/",
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )

    def _failure(self, *, has_too_much: bool) -> NotRead:
        exit_code = self.close()
        if exit_code == -signal.SIGXCPU:
            return TooExpensive("it takes too much processor time")
        if has_too_much or exit_code == OUT_OF_MEMORY:
            return TooExpensive("it takes too much memory")
        how = f"signal {-exit_code}" if exit_code < 0 else f"exit code {exit_code}"
        return NotRead(f"its reader ended with {how}")
