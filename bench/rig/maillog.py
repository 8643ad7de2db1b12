"""A server's log while it grows: how much it has delivered, and what it complains of.

Postfix and relaygw write the same grammar, so one reader serves both.
"""

from __future__ import annotations

import re
import time
from pathlib import Path

_FAULT = re.compile(r"status=(?!sent)|\b(?:fatal|panic|error|CRITICAL|ERROR): |Traceback ")


class MailLog:
    """Follows one log file from its beginning."""

    def __init__(self, path: Path) -> None:
        self.removed = 0
        self.faults: list[str] = []
        self._path = path
        self._offset = 0

    def read(self) -> None:
        """Take in the lines written since the last call."""
        if not self._path.exists():
            return
        with self._path.open("rb") as file:
            file.seek(self._offset)
            fresh = file.read()
        whole = fresh[: fresh.rfind(b"\n") + 1]
        self._offset += len(whole)
        lines = whole.decode(errors="replace").splitlines()
        self.removed += sum(line.endswith(": removed") for line in lines)
        self.faults += [line for line in lines if _FAULT.search(line)]

    def wait_until_removed(self, count: int, *, patience_s: float) -> None:
        """Wait until `count` messages in all have left the queue; raise TimeoutError if not."""
        deadline_s = time.monotonic() + patience_s
        self.read()
        while self.removed < count:
            if time.monotonic() > deadline_s:
                raise TimeoutError(f"{self.removed} of {count} messages have left the queue")
            time.sleep(0.05)
            self.read()
