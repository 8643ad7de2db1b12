"""The handle of a delay proxy: a line to a port of this machine that seems far away."""

from __future__ import annotations

import subprocess
import sys
from typing import Self

from bench.rig.gateway import ROOT
from bench.rig.ports import free_port


class LongLine:
    """One `bench.rig.delay_proxy` on a free loopback port, in a process of its own."""

    def __init__(self, *, connect_port: int, round_trip_ms: float) -> None:
        self.port = free_port()
        self._numbers = (str(self.port), str(connect_port), str(round_trip_ms))

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "bench.rig.delay_proxy", *self._numbers],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        try:
            self._expect("ready")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_exc: object) -> None:
        self._process.kill()
        self._process.communicate()

    def hold(self) -> None:
        """End every connection and let new ones wait; done on return."""
        self._tell("hold")

    def silence(self) -> None:
        """Pass nothing on, and close nothing; done on return."""
        self._tell("silence")

    def release(self) -> None:
        """Let waiting connections and bytes proceed; done on return."""
        self._tell("release")

    def _tell(self, word: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{word}\n")
        self._process.stdin.flush()
        self._expect(word)

    def _expect(self, word: str) -> None:
        assert self._process.stdout is not None
        told = self._process.stdout.readline().strip()
        if told != word:
            raise RuntimeError(f"the delay proxy says {told!r}, expected {word!r}")
