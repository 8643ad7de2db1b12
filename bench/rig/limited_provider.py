"""The process of a provider with limits: started, told new terms, frozen, killed, read."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

from bench.history import FAIL, INFO, INVOKE, OK, read_history
from bench.rig.gateway import ROOT
from bench.rig.limited_terms import Terms
from bench.rig.ports import free_port

_KINDS = {
    ("connect", INVOKE): "open",
    ("connect", FAIL): "turned-away",
    ("connect", INFO): "cut",  # its password was revoked
    ("connect", OK): "closed",
    ("login", FAIL): "login-refused",
    ("dot", INFO): "taken",
    ("deliver", OK): "accepted",
    ("deliver", FAIL): "refused",
}


@dataclass(frozen=True)
class Event:
    """What happened when (CLOCK_MONOTONIC) at a provider: a line of its history by one word."""

    at_s: float
    kind: str
    connection: int
    bench_id: str = ""


class LimitedProvider:
    """A provider on a loopback port that stays its own through every restart.

    Entered, it listens; left, it is killed. `directory` gets its terms and its history, unless
    that goes to a file of its caller's.
    """

    def __init__(
        self, directory: Path, name: str, terms: Terms | None = None, *, history: Path | None = None
    ) -> None:
        self.port = free_port()
        self._terms_path = directory / f"{name}.json"
        self._name = name
        self.history_path = history or directory / f"{name}.jsonl"
        self._process: subprocess.Popen[bytes] | None = None
        self._write(terms or Terms())

    def start(self) -> None:
        """Start it and wait until it listens."""
        places = (str(self.port), self._name, str(self._terms_path), str(self.history_path))
        self._process = subprocess.Popen(
            [sys.executable, "-m", "bench.rig.limited_server", *places],
            cwd=ROOT,
            stdout=subprocess.PIPE,
        )
        assert self._process.stdout is not None
        if not self._process.stdout.readline():
            raise RuntimeError("the provider does not listen")

    def kill(self) -> float:
        """Send SIGKILL and return when."""
        at_s = self._send(signal.SIGKILL)
        assert self._process is not None and self._process.stdout is not None
        self._process.wait()
        self._process.stdout.close()
        self._process = None
        return at_s

    def freeze(self) -> float:
        """Send SIGSTOP and return when: its port still takes connections, and says nothing."""
        return self._send(signal.SIGSTOP)

    def thaw(self) -> float:
        """Send SIGCONT and return when."""
        return self._send(signal.SIGCONT)

    def change(self, terms: Terms) -> float:
        """Let it go by other terms from now on and return when."""
        self._write(terms)
        return self._send(signal.SIGHUP)

    def events(self) -> list[Event]:
        """Return all that happened so far, in order."""
        return [
            Event(
                one.time / 1e9,
                _KINDS[one.f, one.type],
                int(one.process.rpartition("/")[2]),
                one.message,
            )
            for one in read_history(self.history_path)
            if (one.f, one.type) in _KINDS
        ]

    def _write(self, terms: Terms) -> None:
        self._terms_path.write_text(json.dumps(asdict(terms)))

    def _send(self, number: signal.Signals) -> float:
        assert self._process is not None
        self._process.send_signal(number)
        return time.monotonic()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        if self._process is not None:
            self.kill()
