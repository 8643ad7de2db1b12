"""What figures depend on: the processor, the filesystem, and how long a sync takes here."""

from __future__ import annotations

import os
import platform
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

_SYNCS = 500
_BLOCK = b"\x5a" * 4096


@dataclass(frozen=True, slots=True)
class SyncTimes:
    """How long an fdatasync after an appended 4 KiB block takes, over 500 of them."""

    p50_ms: float
    p99_ms: float

    def __str__(self) -> str:
        return f"p50 {self.p50_ms:.2f} ms, p99 {self.p99_ms:.2f} ms"


def sync_times(directory: Path) -> SyncTimes:
    """Append 500 blocks of 4 KiB to a growing file in `directory`, syncing each."""
    taken_ms = []
    with tempfile.TemporaryFile(dir=directory, buffering=0) as file:
        for _ in range(_SYNCS):
            begun_s = time.perf_counter()
            file.write(_BLOCK)
            os.fdatasync(file.fileno())
            taken_ms.append((time.perf_counter() - begun_s) * 1000)
    taken_ms.sort()
    return SyncTimes(p50_ms=taken_ms[_SYNCS // 2], p99_ms=taken_ms[_SYNCS * 99 // 100])


def cpu_model() -> str:
    """Return the processor's name as the kernel tells it."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def filesystem(directory: Path) -> str:
    """Return the type of the filesystem that holds `directory`, such as ext4."""
    told = subprocess.run(
        ["stat", "-f", "-c", "%T", directory], capture_output=True, text=True, check=True
    )
    return told.stdout.strip()


def describe(directory: Path) -> str:
    """Return one line: processor, cores, kernel, filesystem of `directory`."""
    return (
        f"{cpu_model()}, {os.cpu_count()} cores, Linux {platform.release()}, "
        f"{filesystem(directory)}"
    )
