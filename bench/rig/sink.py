"""The end of the line: Postfix's smtp-sink, which throws mail away and counts it."""

from __future__ import annotations

import os
import re
import subprocess
import threading
import time
from typing import Self

from bench.rig.ports import free_port

_COUNT = re.compile(rb"mesg=(\d+)\r")
_BACKLOG = "1024"
# smtp-sink writes several counts a message; reading them all at once leaves it the processor
_PAUSE_S = 0.005


class Sink:
    """One smtp-sink on a free loopback port; its count only grows."""

    def __init__(self) -> None:
        self.port = free_port()
        self.count = 0
        self._counted_s = 0.0
        self._changed = threading.Condition()

    def __enter__(self) -> Self:
        # as root it insists on being told whom to become
        user = ["-u", "nobody"] if os.geteuid() == 0 else []
        self._process = subprocess.Popen(
            ["smtp-sink", "-c", *user, f"127.0.0.1:{self.port}", _BACKLOG],
            stdout=subprocess.PIPE,
            bufsize=0,
        )
        self._reader = threading.Thread(target=self._follow, daemon=True)
        self._reader.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self._process.kill()
        self._process.wait()
        self._reader.join()

    def _follow(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as stream:
            rest = b""
            while chunk := stream.read(1 << 16):
                now_s = time.monotonic()
                rest = (rest + chunk)[-200:]
                if counts := _COUNT.findall(rest):
                    self._note(int(counts[-1]), now_s)
                time.sleep(_PAUSE_S)

    def _note(self, count: int, now_s: float) -> None:
        with self._changed:
            if count != self.count:
                self.count, self._counted_s = count, now_s
                self._changed.notify_all()

    def wait_for(self, count: int, *, patience_s: float) -> float:
        """Wait until the sink has taken `count` messages in all; return when that was.

        The time is of `time.monotonic`, some 5 ms exact. Raises TimeoutError when nothing
        at all arrives for `patience_s`, and AssertionError when there are too many.
        """
        with self._changed:
            while self.count < count:
                if not self._changed.wait(patience_s):
                    raise TimeoutError(f"{count - self.count} messages have not reached the sink")
            assert self.count == count, f"{self.count - count} messages came twice"
            return self._counted_s
