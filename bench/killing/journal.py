"""Journals: files of events that survive their writer, `NANOSECONDS WORD WORD ...` a line.

Each line is one write(2) without a buffer, so that a line is there when its event is over,
and whole. Stamps are CLOCK_MONOTONIC, which all processes of a machine share.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

Entry = tuple[int, list[str]]
"""A stamp in nanoseconds and the words after it."""


class Journal:
    """Appends events to a file."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def note(self, *words: str) -> None:
        """Write one event, stamped now."""
        line = f"{time.monotonic_ns()} {' '.join(words)}\n"
        os.write(self._descriptor, line.encode("ascii"))

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)


class Tail:
    """Reads the events that were added to a growing journal since the last look."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_RDONLY)
        self._rest = b""

    def read(self) -> list[Entry]:
        """Return the new events."""
        found: list[Entry] = []
        while chunk := os.read(self._descriptor, 1 << 20):
            *lines, self._rest = (self._rest + chunk).split(b"\n")
            found += [parse(line.decode("ascii")) for line in lines]
        return found

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)


def parse(line: str) -> Entry:
    """Return the event of a line."""
    stamp, *words = line.split()
    return int(stamp), words


def read_journal(path: Path) -> Iterator[Entry]:
    """Yield all events of a file."""
    with path.open(encoding="ascii") as lines:
        for line in lines:
            yield parse(line)
