"""The provider that one contestant delivers to: smtp-sink, and what stands before it."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Self

from bench.rig.cases import Setup
from bench.rig.certificate import Certificate
from bench.rig.long_line import LongLine
from bench.rig.sink import Sink
from bench.rig.tls_front import TlsFront


class Upstream:
    """A sink, reached by TLS and over a long line where the setup says so, at `port`.

    `line` is None without a long line.
    """

    def __init__(self, setup: Setup, directory: Path, certificate: Certificate) -> None:
        self._setup = setup
        self._directory = directory
        self._certificate = certificate
        self._stack = ExitStack()
        self.sink = Sink()
        self.line: LongLine | None = None
        self.port = 0

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *_exc: object) -> None:
        self._stack.close()

    def _start(self) -> None:
        enter = self._stack.enter_context
        self.port = enter(self.sink).port
        if self._setup.over_tls:
            front = TlsFront(self._directory, self._certificate, plain_port=self.port)
            self.port = enter(front).port
        if round_trip_ms := self._setup.round_trip_ms:
            line = LongLine(connect_port=self.port, round_trip_ms=round_trip_ms)
            self.line = enter(line)
            self.port = self.line.port
