"""Which processes of this host hang, or hung lately: a file that their supervisor keeps.

The rules of alerts run in a process that may be the one that hangs: its successor reads here what
happened. It is a file, as the queue may be what all wait for.
"""

from __future__ import annotations

import contextlib
import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from relaygw.mail.clock import clock_ms

_NAME = "hung"
_KEPT_MS = 3_600_000  # after its end; alerts tell of it for less
_MOST = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Hang:
    """One process whose event loop stood still; times are of the clock, in ms."""

    role: str
    pid: int
    since_ms: int
    ended_ms: int | None = None  # None: it hangs now
    is_back: bool = False  # it went on by itself; else another one has its place


class HangFile:
    """The file, as the one supervisor of a state directory keeps it; what fails is not told."""

    def __init__(self, state_dir: Path) -> None:
        self._path = state_dir / _NAME
        self._hangs: list[Hang] = []

    def start(self) -> None:
        """Read what a supervisor before this one left: who hung then is gone with it."""
        now_ms = clock_ms()
        before = read_hangs(self._path.parent)
        self._hangs = [hang if hang.ended_ms else replace(hang, ended_ms=now_ms) for hang in before]
        if self._hangs != before:
            self._write_hangs()

    def begin(self, role: str, pid: int, *, for_s: float) -> None:
        """Note that a process has hung for so long."""
        self._hangs.append(Hang(role=role, pid=pid, since_ms=clock_ms() - int(for_s * 1000)))
        self._write_hangs()

    def end(self, pid: int, *, is_back: bool) -> None:
        """Note that it goes on, or is gone."""
        now_ms = clock_ms()
        self._hangs = [
            replace(hang, ended_ms=now_ms, is_back=is_back)
            if hang.pid == pid and hang.ended_ms is None
            else hang
            for hang in self._hangs
        ]
        self._write_hangs()

    def _write_hangs(self) -> None:
        oldest_ms = clock_ms() - _KEPT_MS
        kept = [hang for hang in self._hangs if hang.ended_ms is None or hang.ended_ms >= oldest_ms]
        self._hangs = kept[-_MOST:]
        new = self._path.with_name(f"{_NAME}.new")
        with contextlib.suppress(OSError):  # the log has told it
            new.write_text(json.dumps([asdict(hang) for hang in self._hangs]) + "\n")
            new.replace(self._path)


def read_hangs(state_dir: Path) -> list[Hang]:
    """Return the entries of the file, the oldest first; none if there is no file."""
    try:
        return [Hang(**load) for load in json.loads((state_dir / _NAME).read_text())]
    except (OSError, ValueError, TypeError):
        return []
