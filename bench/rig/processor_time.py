"""The processor time of a server's processes, also of those that end meanwhile.

    with ProcessorTime(root) as watched: ...
    watched.used_s  # by name, and ALL of them

A process that ended is known by what it had used when it was last seen; what it used after that is
in ALL, which the kernel adds up for whoever reaped it.
"""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from pathlib import Path
from typing import Self

ALL = "all"
_EVERY_S = 0.1
_TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")


class ProcessorTime:
    """Watches a process and all that it starts for the length of a with block."""

    def __init__(self, root: int) -> None:
        self.used_s: dict[str, float] = {}
        self._root = root
        self._is_over = threading.Event()
        self._looking = threading.Thread(target=self._look_often, daemon=True)
        self._seen: dict[int, tuple[str, float]] = {}

    def __enter__(self) -> Self:
        self._look()
        self._before = dict(self._seen)
        self._whole_before_s = self._whole_s()
        self._looking.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self._is_over.set()
        self._looking.join()
        self._look()
        self.used_s = {ALL: self._whole_s() - self._whole_before_s}
        for pid, (name, last_s) in self._seen.items():
            _, first_s = self._before.get(pid, (name, 0.0))
            self.used_s[name] = self.used_s.get(name, 0.0) + last_s - first_s

    def _look_often(self) -> None:
        while not self._is_over.wait(_EVERY_S):
            self._look()

    def _look(self) -> None:
        for pid in tree(self._root):
            if times_s := _times_s(pid):
                self._seen[pid] = command_of(pid), sum(times_s[:2])

    def _whole_s(self) -> float:
        return sum(sum(_times_s(pid)) for pid in tree(self._root))


def tree(pid: int) -> list[int]:
    """Return a process and all that it and they started."""
    found = [pid]
    with suppress(FileNotFoundError, ProcessLookupError):  # it has ended
        for task in Path(f"/proc/{pid}/task").iterdir():
            with suppress(FileNotFoundError, ProcessLookupError):
                for child in map(int, (task / "children").read_text().split()):
                    found += tree(child)
    return found


def command_of(pid: int) -> str:
    """Return the name of a process as the kernel knows it."""
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except (FileNotFoundError, ProcessLookupError):
        return "ended"


def processor_s(pid: int) -> float:
    """Return what a process and all that it started have used so far."""
    return sum(sum(_times_s(one)[:2]) for one in tree(pid))


def _times_s(pid: int) -> tuple[float, ...]:
    """Return user, system, and both of the children that ended; nothing of one that is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return ()
    return tuple(int(field) / _TICKS_A_SECOND for field in fields[11:15])
