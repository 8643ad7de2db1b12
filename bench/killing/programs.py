"""The processes beside the gateway: started by module name, ready at their first line."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import Self

ROOT = Path(__file__).resolve().parents[2]
_PATIENCE_S = 60.0


class Program:
    """One `python3 -m MODULE ARGUMENTS`; entered it is ready, left it is ended."""

    def __init__(self, module: str, **options: object) -> None:
        self._command = [sys.executable, "-m", module]
        for name, value in options.items():
            self._command += [f"--{name.replace('_', '-')}", str(value)]
        self.first_line = ""

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(self._command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        self.first_line = self._process.stdout.readline().strip()
        if not self.first_line:
            raise RuntimeError(f"does not start: {' '.join(self._command)}")
        return self

    def check(self) -> None:
        """Raise RuntimeError when it has ended by itself."""
        if self._process.poll() is not None:
            raise RuntimeError(f"ended too early: {' '.join(self._command)}")

    def send_signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self._process.send_signal(number)

    def end(self) -> None:
        """Let it finish what it is doing, and wait for it."""
        self._process.terminate()
        try:
            self._process.wait(_PATIENCE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def __exit__(self, failure: object, *_exc: object) -> None:
        if failure is not None:  # interrupted: nobody waits for what it is doing
            self._process.kill()
        self.end()
        if self._process.stdout is not None:
            self._process.stdout.close()
